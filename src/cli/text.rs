//! Text files that commands read.

use std::{io, path::Path};

use super::{Failure, output::note};
use crate::{files, model::Tokenizer, text};

/// The largest text to measure on, in MiB: what is larger is no text that somebody means.
const LARGEST_FILE_MIB: u64 = 256;
/// The largest message on standard input, in MiB: far more than any context holds.
const LARGEST_MESSAGE_MIB: u64 = 4;

/// A file as text. Says so where it is not in UTF-8.
pub fn read(path: &Path) -> Result<String, Failure> {
    let name = path.display().to_string();
    let complain = |why: String| Failure::misuse(format!("{name}: {why}"));
    let cannot = |error: io::Error| complain(format!("cannot be read: {error}"));
    let bytes = files::read(path, LARGEST_FILE_MIB).map_err(cannot)?;
    if bytes.is_empty() {
        return Err(complain("the file is empty, a text is needed".into()));
    }
    decoded(&bytes, &name)
}

/// What is on standard input.
pub fn standard_input() -> Result<String, Failure> {
    let name = "standard input";
    let bytes = files::take(io::stdin(), LARGEST_MESSAGE_MIB);
    let bytes = bytes.map_err(|error| Failure::misuse(format!("{name}: cannot be read: {error}")))?;
    decoded(&bytes, name)
}

fn decoded(bytes: &[u8], name: &str) -> Result<String, Failure> {
    let read = text::decode(bytes).map_err(|error| Failure::misuse(format!("{name}: {error}")))?;
    if let Some(notice) = read.notice(name) {
        note(&notice);
    }
    Ok(read.text)
}

/// The tokens of a text, after the token that the model expects before every text, where it does.
pub fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.bos().into_iter().chain(tokenizer.encode(text)).collect()
}
