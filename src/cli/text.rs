//! Text files as commands take them.

use std::{fs, path::Path};

use super::Failure;
use crate::model::Tokenizer;

/// A file as text.
pub fn read(path: &Path) -> Result<String, Failure> {
    let complain = |why: String| Failure::misuse(format!("{}: {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| complain(format!("cannot be read: {error}")))?;
    if bytes.is_empty() {
        return Err(complain("the file is empty, a text is needed".into()));
    }
    if bytes.contains(&0) {
        return Err(complain("the file is binary, a text in UTF-8 is needed".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        complain(format!("byte {} is not UTF-8, a text in UTF-8 is needed", at + 1))
    })
}

/// The tokens of a text, after the token that the model expects before every text, where it does.
pub fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.bos().into_iter().chain(tokenizer.encode(text)).collect()
}
