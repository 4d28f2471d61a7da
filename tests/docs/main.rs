//! The documents say what the program does: commands parse, references are the flags, settings and events that there
//! are. `UPDATE_DOCS=1 cargo test --test docs` (also `just docs`) writes the generated parts again.

mod commands;
mod configuration;
mod events;
mod names;
mod reference;

use std::{env, fs, path::PathBuf};

/// Where a generated part begins and ends in a document.
const BEGIN: &str = "<!-- generated: begin -->";
const END: &str = "<!-- generated: end -->";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document of the project, with its path.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned).to_vec();
    let mut folders = vec!["docs".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of documents") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            match entry.file_type().expect("a type").is_dir() {
                true => folders.push(path),
                false if path.ends_with(".md") => paths.push(path),
                false => {}
            }
        }
    }
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Compares the generated part of a document with what it should be, or writes it where that was asked for.
fn compare(path: &str, generated: &str) {
    let text = read(path);
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{path} has no `{BEGIN}`"));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{path} has no `{END}`"));
    let wanted = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", generated.trim());
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(path), wanted).unwrap_or_else(|error| panic!("{path}: {error}"));
    } else if text != wanted {
        let line = text.lines().zip(wanted.lines()).take_while(|(is, should)| is == should).count();
        panic!(
            "{path} is out of date from line {} on: `{}` should be `{}`; run `just docs`",
            line + 1,
            text.lines().nth(line).unwrap_or_default(),
            wanted.lines().nth(line).unwrap_or_default(),
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (path, text) in documents() {
        let folder = root().join(&path).parent().expect("a folder").to_path_buf();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !target.contains("://") {
                assert!(folder.join(file).exists(), "{path} links to {target}, which is not there");
            }
        }
    }
}
