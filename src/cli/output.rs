//! What a command prints. Everything on its way to stdout or stderr passes here or [`Failure::report`], and control
//! characters from a model's file, a text or an error never reach a terminal: see [`escape`].
//!
//! A reader that has gone is no failure: `kcache … | head -1` ends well, and a progress line that nobody can see is left
//! out.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

use super::{Failure, escape};

/// Prints text. A reader that has gone (`kcache … | head -1`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    write(&escape::lines(text)).map(|_| ())
}

/// Prints text that is already as it has to be, such as a line of JSON; false where nobody reads any more.
fn write(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout")?,
        Ok(()) => Ok(true),
    }
}

/// Prints a part of an answer as it comes; false where nobody reads any more.
pub fn print_part(text: &str) -> Result<bool, Failure> {
    write(&escape::lines(text))
}

/// Says something on stderr in one line, in the manner of errors.
pub fn note(text: &str) {
    // Nobody is left to tell where even stderr is closed.
    let _ = writeln!(io::stderr(), "kcache: {}", escape::line(text));
}

/// Says several lines of our own on stderr, such as a table.
pub fn notes(text: &str) {
    text.lines().for_each(note);
}

/// Writes to stderr what moves the cursor of a terminal there: a line of progress that comes and goes.
pub fn progress(text: &str) {
    let _ = write!(io::stderr(), "{text}");
}

/// Prints one JSON document.
pub fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).context("cannot write JSON")?;
    write(&escape::json(&(text + "\n"))).map(|_| ())
}

/// Prints one JSON document in a line, which goes out whole; false where nobody reads any more.
pub fn print_json_line(document: &impl Serialize) -> Result<bool, Failure> {
    let mut line = serde_json::to_string(document).context("cannot write JSON")?;
    line.push('\n');
    write(&escape::json(&line))
}
