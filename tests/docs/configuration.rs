//! `docs/configuration.md` lists the settings that `config.toml` has, with their variables and defaults.

use std::fmt::Write;

use super::{compare, read};

/// A setting of `config.toml`: its path, and its value there. One that is commented out has no default.
pub fn settings(text: &str) -> Vec<(String, Option<String>)> {
    let mut section = String::new();
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let (line, is_default) = match line.strip_prefix("# ") {
            Some(line) => (line, false),
            None => (line, true),
        };
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let is_key = !key.is_empty() && key.chars().all(|char| char.is_ascii_lowercase() || char == '_');
        if is_key && !section.is_empty() && section != "keys" {
            found.push((format!("{section}.{key}"), is_default.then(|| value.to_owned())));
        }
    }
    found
}

#[test]
fn the_list_of_settings_is_up_to_date() {
    let mut out = String::from("| key | variable | default |\n|---|---|---|\n");
    for (path, value) in settings(&read("config.toml")) {
        let variable = path.to_uppercase().replace('.', "_");
        let value = value.map_or("left out".to_owned(), |value| format!("`{value}`"));
        writeln!(out, "| `{path}` | `KCACHE_{variable}` | {value} |").unwrap();
    }
    compare("docs/configuration.md", &out);
}

#[test]
fn settings_are_found_with_and_without_a_default() {
    let text = "# A comment = no key\n[engine]\n# threads = 2\nqueue = 256\n[keys]\n# quit = [\"ctrl-q\"]\n";
    let found = settings(text);
    assert_eq!(found, [("engine.threads".into(), None), ("engine.queue".into(), Some("256".into()))]);
}
