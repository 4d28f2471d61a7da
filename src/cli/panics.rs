//! How a panic is shown. Errors that are foreseen have their own line; a panic is a mistake in the program itself.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, Write},
    panic, thread,
};

use super::escape;

/// Has every panic shown on stderr with its thread and place, and with a backtrace where `RUST_BACKTRACE` asks for one.
///
/// A panic that nobody can read must not cause a second one, for that would be an abort. So a failed write is ignored.
pub fn install_hook() {
    panic::set_hook(Box::new(|info| {
        let report = report(thread::current().name(), info, &Backtrace::capture());
        let _ = io::stderr().write_all(report.as_bytes());
    }));
}

fn report(thread: Option<&str>, info: &dyn Display, backtrace: &Backtrace) -> String {
    let mut text = format!("kcache: internal error: thread {} {info}\n", thread.unwrap_or("unnamed"));
    if backtrace.status() == BacktraceStatus::Captured {
        text += &format!("{backtrace}\n");
    } else {
        text += "kcache: this is a mistake in kcache; RUST_BACKTRACE=1 shows how it got there\n";
    }
    escape::lines(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_with_its_thread_and_place_and_does_nothing_to_a_terminal() {
        let info = "panicked at src/a.rs:1:2:\nbad name \x1b[2J";
        let text = report(Some("engine"), &info, &Backtrace::disabled());
        let (first, rest) = text.split_once('\n').unwrap();
        assert_eq!(first, "kcache: internal error: thread engine panicked at src/a.rs:1:2:");
        assert!(rest.starts_with("bad name \\u{1b}[2J\n") && rest.contains("RUST_BACKTRACE=1"), "{text}");

        let traced = report(None, &info, &Backtrace::force_capture());
        assert!(traced.contains("thread unnamed") && traced.lines().count() > 5, "{traced}");
    }
}
