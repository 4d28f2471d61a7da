//! Reading a file that a message is about.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{engine::Document, text};

/// What is asked about a document where nobody says.
pub const SUMMARISE: &str = "Summarise this document in three sentences.";

/// The largest file that is read, in bytes: far more than any context holds.
const LARGEST: u64 = 4 << 20;

/// A document that was read, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub document: Document,
    /// The encoding it was read as, where that is not UTF-8.
    pub notice: Option<String>,
}

/// Reads a text file. The error is one line that names the file and says what to do.
///
/// # Errors
///
/// When there is no such file, it is no regular file, empty, larger than 4 MiB or no text.
pub fn read(path: &Path) -> Result<Opened, String> {
    let path = at_home(path);
    let shown = path.display();
    let meta = fs::metadata(&path).map_err(|error| format!("{shown}: {error}"))?;
    if meta.is_dir() {
        return Err(format!("{shown} is a folder; name a text file in it"));
    }
    // A pipe or a device could be read for ever.
    if !meta.is_file() {
        return Err(format!("{shown} is not an ordinary file"));
    }
    if meta.len() > LARGEST {
        return Err(format!("{shown} has {} MiB; a document may have 4", meta.len() >> 20));
    }
    let bytes = fs::read(&path).map_err(|error| format!("{shown}: {error}"))?;
    let read = text::decode(&bytes).map_err(|error| format!("{shown}: {error}"))?;
    if read.text.trim().is_empty() {
        return Err(format!("{shown} is empty"));
    }
    let name = path.file_name().map_or_else(|| shown.to_string(), |name| name.to_string_lossy().into_owned());
    let notice = read.notice(&name);
    Ok(Opened { document: Document { name, text: read.text.replace("\r\n", "\n") }, notice })
}

/// `~/…` in the user's home folder.
pub(crate) fn at_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_everything_else_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let text = |opened: Opened| (opened.document.name, opened.document.text, opened.notice);
        let good = read(&file("notes.md", "\u{feff}a\r\nb".as_bytes())).unwrap();
        assert_eq!(text(good), ("notes.md".into(), "a\nb".into(), None));
        let (japanese, _, _) = encoding_rs::SHIFT_JIS.encode("吾輩は猫である。\r\n名前はまだ無い。");
        let (name, text, notice) = text(read(&file("neko.txt", &japanese)).unwrap());
        assert_eq!((name.as_str(), text.as_str()), ("neko.txt", "吾輩は猫である。\n名前はまだ無い。"));
        assert_eq!(notice.as_deref(), Some("neko.txt is not in UTF-8; it is read as Shift_JIS"));
        for (path, word) in [
            (folder.path().join("missing.md"), "missing.md"),
            (folder.path().to_owned(), "folder"),
            (file("empty.md", b" \n"), "empty"),
            (file("picture.png", &[0x89, 0xff, 0x00]), "UTF-8"),
            (PathBuf::from("/dev/null"), "ordinary"),
        ] {
            let error = read(&path).unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        }
    }
}
