//! What documents name is there: source files, settings, keys and commands of the dashboard.

use super::{configuration::settings, documents, read, root};

/// What stands between backticks outside of fences and inside of one line.
fn code(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

#[test]
fn files_that_documents_name_are_there() {
    let mut checked = 0;
    for (path, text) in documents() {
        for name in code(&text).into_iter().filter(|name| !name.contains(' ') && !name.starts_with(['/', '-'])) {
            // `attention/decode.rs`, `engine/lane/`, `src/tui/layout.rs`: below the root, or from a room on.
            if name.trim_end_matches('/').contains('/') && [".rs", ".toml", "/"].iter().any(|end| name.ends_with(end)) {
                let there = ["", "src", "src/inference"].iter().any(|folder| root().join(folder).join(name).exists());
                assert!(there, "{path} names `{name}`, which is not there");
                checked += 1;
            }
        }
    }
    assert!(checked >= 30, "only {checked} names of files were found: the search for them is broken");
}

#[test]
fn settings_that_documents_name_exist() {
    let known: Vec<String> = settings(&read("config.toml")).into_iter().map(|(path, _)| path).collect();
    let sections: Vec<&str> =
        known.iter().filter_map(|path| path.rsplit_once('.')).map(|(section, _)| section).collect();
    let mut checked = 0;
    for (path, text) in documents() {
        for span in code(&text) {
            let name = span.split(" = ").next().unwrap_or_default().replace('*', "kcache");
            let is_setting = name.rsplit_once('.').is_some_and(|(section, _)| sections.contains(&section));
            // `bench.rs` and the like are files.
            if is_setting && !name.ends_with(".rs") {
                assert!(known.contains(&name), "{path} names the setting `{name}`, which config.toml has not");
                checked += 1;
            }
        }
    }
    assert!(checked >= 20, "only {checked} names of settings were found: the search for them is broken");
}

#[test]
fn keys_that_documents_name_are_bound() {
    let bindings = read("src/tui/input/action.rs");
    let mut checked = 0;
    for path in ["README.md", "docs/dashboard.md"] {
        let text = read(path);
        let table = text
            .lines()
            .skip_while(|line| !line.starts_with("| key |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        for row in table {
            // The last column says what a key does; those before it are keys.
            let columns: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            for key in columns[..columns.len() - 1].iter().flat_map(|column| code(column)) {
                let bound = key == "alt" || bindings.contains(&format!("\"{key}\""));
                assert!(bound, "{path} names the key `{key}`, which is bound to nothing");
                checked += 1;
            }
        }
    }
    assert!(checked >= 50, "only {checked} keys were found: the search for them is broken");
}

#[test]
fn commands_of_the_message_box_that_documents_name_exist() {
    let known = read("src/tui/input/slash.rs");
    let mut checked = 0;
    for (path, text) in documents() {
        for name in code(&text).into_iter().filter_map(|span| span.strip_prefix('/')) {
            let name: String =
                name.chars().take_while(|&char| char.is_ascii_lowercase() || char == '-' || char == '/').collect();
            if !name.is_empty() && !name.contains('/') {
                assert!(known.contains(&format!("\"/{name}\"")), "{path} names `/{name}`, which is no command");
                checked += 1;
            }
        }
    }
    assert!(checked >= 15, "only {checked} commands were found: the search for them is broken");
}
