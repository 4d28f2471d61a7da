//! What a command prints on stdout.

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

/// Prints one JSON document.
pub fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).wrap_err("cannot write JSON")?;
    print(&(text + "\n"))
}
