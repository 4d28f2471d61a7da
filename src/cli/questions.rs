//! What a run without a screen asks: the questions of `--say`, about the files of `--file`, or those of the demo.

use std::path::PathBuf;

use super::{Failure, output};
use crate::{
    demo,
    document::{self, Opened},
    engine::{Document, Priority},
};

/// A session and its first message.
pub struct Question {
    pub name: String,
    pub document: Option<Document>,
    pub text: String,
    pub priority: Priority,
}

/// What is to be asked, in order.
pub fn questions(says: Vec<String>, files: &[PathBuf], demo: bool) -> Result<Vec<Question>, Failure> {
    if says.is_empty() && files.is_empty() {
        let scripts = if demo { demo::scripts().map_err(Failure::failed)? } else { Vec::new() };
        let ask = |mut script: demo::Script| {
            let text = script.questions.pop_front()?;
            let document = Some(script.document);
            Some(Question { name: script.name, document, text, priority: Priority::Background })
        };
        return Ok(scripts.into_iter().filter_map(ask).collect());
    }
    if says.iter().any(|text| text.trim().is_empty()) {
        return Err(Failure::misuse("--say needs something to say"));
    }
    let mut questions = Vec::new();
    let mut says = says.into_iter();
    for file in files {
        let Opened { document, notice } = document::read(file).map_err(Failure::misuse)?;
        notice.iter().for_each(|notice| output::note(notice));
        let text = says.next().unwrap_or_else(|| document::SUMMARISE.to_owned());
        questions.push(Question {
            name: document.name.clone(),
            document: Some(document),
            text,
            priority: Priority::Typed,
        });
    }
    questions.extend(says.map(|text| {
        let name = text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        Question { name, document: None, text, priority: Priority::Typed }
    }));
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn questions_go_to_the_files_in_order_and_the_demo_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a.md", "b.md"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| fs::write(file, "text").unwrap());
        let list = |says: &[&str], files: &[PathBuf], demo| -> Vec<(String, String, bool)> {
            let asked = questions(says.iter().map(|say| (*say).to_owned()).collect(), files, demo).unwrap();
            asked.into_iter().map(|ask| (ask.name, ask.text, ask.document.is_some())).collect()
        };
        let told = |name: &str, text: &str, document| (name.to_owned(), text.to_owned(), document);
        assert_eq!(
            list(&["who?", "what is a top N?"], &files[..1], true),
            [told("a.md", "who?", true), told("what is a", "what is a top N?", false)]
        );
        assert_eq!(list(&[], &files, true)[1], told("b.md", document::SUMMARISE, true));
        assert!(list(&[], &[], true).iter().all(|(_, _, document)| *document));
        assert_eq!(list(&[], &[], false), []);
        assert!(questions(vec![" ".into()], &[], true).is_err());
        assert!(questions(Vec::new(), &[folder.path().join("missing")], true).is_err());
    }
}
