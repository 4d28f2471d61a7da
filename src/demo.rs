//! The demo that the program brings along: sessions about documents, each with questions whose answers stand there.
//!
//! Written down in `assets/demo/`. The dashboard asks one question after the other; without a screen each session asks
//! its first.

use std::collections::VecDeque;

use serde::Deserialize;
use thiserror::Error;

use crate::engine::Document;

const SCRIPTS: &str = include_str!("../assets/demo/demo.toml");
const DOCUMENTS: [(&str, &str); 3] = [
    ("support.md", include_str!("../assets/demo/support.md")),
    ("handbook.md", include_str!("../assets/demo/handbook.md")),
    ("meetings.md", include_str!("../assets/demo/meetings.md")),
];

/// One session of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The session's name.
    pub name: String,
    /// What it is about.
    pub document: Document,
    /// What is asked, in order.
    pub questions: VecDeque<String>,
}

/// Why the demo cannot be read.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The list of sessions is not what it should be.
    #[error("demo.toml: {0}")]
    Scripts(#[from] toml::de::Error),
    /// A session is about a document that is not there.
    #[error("demo.toml: there is no document `{0}`")]
    Document(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scripts {
    session: Vec<Written>,
}

/// A session as it is written down: its document by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    document: String,
    questions: VecDeque<String>,
}

/// The sessions that the program brings along, in their order.
///
/// # Errors
///
/// When the list cannot be read or names a document that is not there; a test sees to it that it can.
pub fn scripts() -> Result<Vec<Script>, DemoError> {
    let scripts: Scripts = toml::from_str(SCRIPTS)?;
    let script = |Written { name, document, questions }| match DOCUMENTS.iter().find(|(known, _)| *known == document) {
        Some((_, text)) => {
            let document = Document { name: document, text: (*text).to_owned() };
            Ok(Script { name, document, questions })
        }
        None => Err(DemoError::Document(document)),
    };
    scripts.session.into_iter().map(script).collect()
}

/// The text of all documents, one after the other.
pub fn text() -> String {
    DOCUMENTS.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_demo_has_questions_about_documents_of_every_length() {
        let scripts = scripts().unwrap();
        let mut lengths: Vec<usize> = scripts.iter().map(|script| script.document.text.len()).collect();
        lengths.sort_unstable();
        // About four bytes to a token: 500, 2,000 and 5,000 of them.
        assert!(lengths.len() >= 3 && lengths[0] < 4_000 && lengths[lengths.len() - 1] > 18_000, "{lengths:?}");
        assert!(scripts.iter().all(|script| !script.questions.is_empty() && !script.name.is_empty()));
    }
}
