//! Text files as commands take them.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Failure, output::note};
use crate::{model::Tokenizer, text};

/// The largest text to measure on, in bytes: what is larger is no text that somebody means.
const LARGEST_FILE: u64 = 256 << 20;
/// The largest message on standard input: far more than any context holds.
const LARGEST_MESSAGE: u64 = 4 << 20;

/// A file as text. Says so where it is not in UTF-8.
pub fn read(path: &Path) -> Result<String, Failure> {
    let name = path.display().to_string();
    let complain = |why: String| Failure::misuse(format!("{name}: {why}"));
    let cannot = |error: io::Error| complain(format!("cannot be read: {error}"));
    let bytes = File::open(path).and_then(|file| bounded(file, LARGEST_FILE)).map_err(cannot)?;
    if bytes.is_empty() {
        return Err(complain("the file is empty, a text is needed".into()));
    }
    decoded(&bytes, &name)
}

/// What is on standard input.
pub fn standard_input() -> Result<String, Failure> {
    let name = "standard input";
    let bytes = bounded(io::stdin(), LARGEST_MESSAGE);
    let bytes = bytes.map_err(|error| Failure::misuse(format!("{name}: cannot be read: {error}")))?;
    decoded(&bytes, name)
}

/// Everything there is to read, unless it is more than `most` bytes.
fn bounded(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {} MiB", most >> 20)));
    }
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_not_read_for_ever() {
        assert_eq!(bounded(&b"abc"[..], 3).unwrap(), b"abc");
        assert_eq!(bounded(io::repeat(b'a'), 1 << 20).unwrap_err().to_string(), "it has more than 1 MiB");
    }
}
