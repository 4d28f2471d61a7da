//! What each file of the three crates uses of the others, read from its text.
//!
//! The crates are looked at as one: a module of `src/inference` is a room like one of the program, because the program
//! hands them on under the same names, and the crate in `src/kernels` is the room `kernels`.

use std::{collections::BTreeMap, fs, path::Path};

/// A file and what it uses.
pub struct File {
    /// Its path below `src/`.
    pub path: String,
    /// Its module; the first part is the room.
    module: Vec<String>,
    /// What it uses of the others, as paths that begin with a room; re-exports are followed.
    pub uses: Vec<Vec<String>>,
}

/// All files of the three crates.
pub struct Sources {
    pub files: Vec<File>,
    /// Files by their module.
    modules: BTreeMap<Vec<String>, usize>,
}

impl File {
    /// The room that it is in: the first part of its module.
    pub fn room(&self) -> String {
        self.module
            .first()
            .cloned()
            .unwrap_or_else(|| Path::new(&self.path).file_stem().unwrap().to_string_lossy().into_owned())
    }
}

impl Sources {
    pub fn read(source: &Path) -> Self {
        let mut texts = Vec::new();
        collect(source, source, &mut texts);
        texts.sort();
        let all: Vec<(String, Vec<String>, String)> =
            texts.into_iter().map(|(path, text)| (path.clone(), module_of(&path), without_tests(&text))).collect();
        let all: Vec<_> = all
            .into_iter()
            .filter(|(_, module, _)| !module.iter().any(|part| part == "tests" || part == "fixture"))
            .collect();
        let modules: BTreeMap<Vec<String>, usize> = all
            .iter()
            .enumerate()
            .filter(|(_, (path, ..))| path != "main.rs")
            .map(|(at, (_, module, _))| (module.clone(), at))
            .collect();
        // What a module hands on under a name of its own: `pub use child::Name;`.
        let mut exports: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
        let mut globs: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        for (_, module, text) in &all {
            for (path, alias, public) in paths(text, module, &modules) {
                match path.last() {
                    Some(last) if last == "*" && public => {
                        globs.push((module.clone(), path[..path.len() - 1].to_vec()))
                    }
                    Some(last) if public => {
                        let mut name = module.clone();
                        name.push(alias.unwrap_or_else(|| last.clone()));
                        // What the program hands on of the rooms has the room's own name.
                        if name != path {
                            exports.insert(name, path);
                        }
                    }
                    _ => {}
                }
            }
        }
        let files = all
            .iter()
            .map(|(path, module, text)| {
                let mut uses: Vec<Vec<String>> = paths(text, module, &modules)
                    .into_iter()
                    .filter(|(_, _, public)| !public)
                    .map(|(path, ..)| follow(path, &exports, &globs, &all))
                    .collect();
                uses.sort();
                uses.dedup();
                File { path: path.clone(), module: module.clone(), uses }
            })
            .collect();
        Self { files, modules }
    }

    /// The file that a path leads into.
    pub fn file_of(&self, path: &[String]) -> Option<usize> {
        (1..=path.len()).rev().find_map(|len| self.modules.get(&path[..len]).copied())
    }
}

/// The module of a file below `src/`.
fn module_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    if parts.first().is_some_and(|first| first == "inference") {
        parts.remove(0);
    }
    parts
}

fn collect(root: &Path, folder: &Path, texts: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            texts.push((name, fs::read_to_string(&path).expect("a source file")));
        }
    }
}

/// The text without comments, and without what only tests see.
fn without_tests(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() == "#[cfg(test)]" {
            let indent = line.len() - line.trim_start().len();
            let Some(head) = lines.next() else { break };
            if head.trim_end().ends_with('{') {
                let end = format!("{}}}", " ".repeat(indent));
                for line in lines.by_ref() {
                    if line == end {
                        break;
                    }
                }
            }
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Paths into the crates that a text names: from the room on, with the name they get, and whether they are handed on.
fn paths(
    text: &str,
    module: &[String],
    modules: &BTreeMap<Vec<String>, usize>,
) -> Vec<(Vec<String>, Option<String>, bool)> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut code = String::new();
    while let Some(at) = rest.find("use ") {
        let begins = rest[..at].rsplit('\n').next().unwrap_or_default();
        let public = begins.trim_start().starts_with("pub");
        code.push_str(&rest[..at]);
        rest = &rest[at + 4..];
        if begins.trim().is_empty() || public {
            let (tree, after) = rest.split_once(';').unwrap_or((rest, ""));
            let tokens = tokens(tree);
            let mut leaves = Vec::new();
            leaves_of(&tokens, &mut 0, &[], &mut leaves);
            found.extend(
                leaves.into_iter().filter_map(|(path, alias)| Some((absolute(path, module, modules)?, alias, public))),
            );
            rest = after;
        }
    }
    code.push_str(rest);
    for start in ["crate::", "super::", "kcache::", "kcache_inference::", "kcache_kernels::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|char: char| char.is_alphanumeric() || char == ':' || char == '_') {
                continue;
            }
            let path: String =
                code[at..].chars().take_while(|&char| char.is_alphanumeric() || char == '_' || char == ':').collect();
            let parts = path.trim_end_matches(':').split("::").map(str::to_owned).collect();
            found.extend(absolute(parts, module, modules).map(|path| (path, None, false)));
        }
    }
    found
}

fn tokens(tree: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    for char in tree.chars() {
        if char.is_alphanumeric() || char == '_' || char == '*' {
            word.push(char);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if "{},".contains(char) {
            tokens.push(char.to_string());
        }
    }
    tokens.extend((!word.is_empty()).then_some(word));
    tokens
}

/// The leaves of a tree of imports, each with the name that it gets.
fn leaves_of(tokens: &[String], at: &mut usize, prefix: &[String], leaves: &mut Vec<(Vec<String>, Option<String>)>) {
    let mut path = prefix.to_vec();
    let mut alias = None;
    let mut done = false;
    while *at < tokens.len() {
        let token = &tokens[*at];
        *at += 1;
        match token.as_str() {
            "{" => {
                while tokens.get(*at).is_some_and(|token| token != "}") {
                    leaves_of(tokens, at, &path, leaves);
                    if tokens.get(*at).is_some_and(|token| token == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                done = true;
            }
            "," | "}" => {
                *at -= 1;
                break;
            }
            "as" => {
                alias = tokens.get(*at).cloned();
                *at += 1;
            }
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
    }
    if !done && path.len() > prefix.len() || !done && path == prefix && !path.is_empty() {
        leaves.push((path, alias));
    }
}

/// A path that begins with its room; `None` for one that leads out of the three crates.
fn absolute(path: Vec<String>, module: &[String], modules: &BTreeMap<Vec<String>, usize>) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" if module.first().is_some_and(|room| room == "kernels") => return Some(in_kernels(&path)),
        "crate" | "kcache" | "kcache_inference" => return Some(path[1..].to_vec()),
        "kcache_kernels" => return Some(in_kernels(&path)),
        "super" | "self" => module.to_vec(),
        first => {
            let mut child = module.to_vec();
            child.push(first.to_owned());
            return modules.contains_key(&child).then(|| [module.to_vec(), path].concat());
        }
    };
    let ups = path.iter().take_while(|part| *part == "super" || *part == "self").count();
    for _ in path[..ups].iter().filter(|part| *part == "super") {
        base.pop();
    }
    base.extend_from_slice(&path[ups..]);
    Some(base)
}

/// A path from the root of the crate in `src/kernels`.
fn in_kernels(path: &[String]) -> Vec<String> {
    ["kernels".to_owned()].into_iter().chain(path[1..].iter().cloned()).collect()
}

/// Where a path leads once re-exports are followed.
fn follow(
    mut path: Vec<String>,
    exports: &BTreeMap<Vec<String>, Vec<String>>,
    globs: &[(Vec<String>, Vec<String>)],
    all: &[(String, Vec<String>, String)],
) -> Vec<String> {
    for _ in 0..8 {
        let found = (1..=path.len()).find_map(|len| exports.get(&path[..len]).map(|to| [to, &path[len..]].concat()));
        let glob = || {
            let (name, holder) = path.split_last()?;
            let declares = |module: &Vec<String>| {
                let text = &all.iter().find(|(_, each, _)| each == module)?.2;
                let kinds = ["struct", "enum", "fn", "const", "type", "trait", "static"];
                let there = kinds.iter().any(|kind| {
                    text.match_indices(&format!("{kind} {name}")).any(|(at, found)| {
                        !text[at + found.len()..].starts_with(|char: char| char.is_alphanumeric() || char == '_')
                    })
                });
                there.then(|| [module.clone(), vec![name.clone()]].concat())
            };
            globs.iter().filter(|(from, _)| from == holder).find_map(|(_, to)| declares(to))
        };
        match found.filter(|to| *to != path).or_else(glob) {
            Some(to) => path = to,
            None => break,
        }
    }
    path
}
