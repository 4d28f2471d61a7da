//! What a command prints.

use std::io::{self, ErrorKind, Write};

use color_eyre::eyre::WrapErr;
use serde::Serialize;

use super::Failure;

/// Prints text. A reader that has gone (`kcache … | head -1`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).wrap_err("cannot write to stdout")?,
        _ => Ok(()),
    }
}

/// Says something on stderr, in the manner of errors.
pub fn note(text: &str) {
    // Nobody is left to tell where even stderr is closed.
    let _ = text.lines().try_for_each(|line| writeln!(io::stderr(), "kcache: {line}"));
}

/// Prints one JSON document.
pub fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).wrap_err("cannot write JSON")?;
    print(&(text + "\n"))
}
