//! Writing settings into the user's file. Comments and everything else in it stay as they were.
//!
//! The new file is checked like any other before it replaces the old one, and it replaces it whole or not at all.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::{
    Config, ConfigError, Layers,
    keys::{Form, Key},
    layers::{LARGEST_MIB, as_toml, expand_home, profile_beside, unknown_key},
};
use crate::files;

/// A setting as it stands in a file now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub path: String,
    /// The value as TOML writes it.
    pub toml: String,
}

/// Why settings were not kept. The file is as it was.
#[derive(Debug, Error)]
pub enum KeepError {
    /// A path that is no key. One line.
    #[error("{0}")]
    Unknown(String),
    /// The file would not be a configuration. One line for each mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file cannot be read or written.
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
}

/// Keeps settings in `file`, which is made where it is missing: key by path, and value as a flag has it, without quotes. A
/// relative path means here, so it is written as an absolute one. `check` looks at what would be in the file.
///
/// # Errors
///
/// An unknown key, a value that is not allowed, mistakes that were in the file before, or a file that cannot be written.
pub fn keep(
    file: &Path,
    settings: &[(String, String)],
    check: impl FnOnce(&Layers) -> Result<(), ConfigError>,
) -> Result<Vec<Kept>, KeepError> {
    let failed = |source| KeepError::File { file: file.to_owned(), source };
    let text = match files::read_text(file, LARGEST_MIB) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    // Mistakes that are there already are named with their lines, as they stand.
    Layers::from_text(file, &text)?;
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        failed(io::Error::new(io::ErrorKind::InvalidData, error.message().to_owned()))
    })?;
    let mut kept = Vec::new();
    for (path, value) in settings {
        let toml = settled(path, value)?;
        let parsed = toml.parse().map_err(|_| KeepError::Unknown(format!("{path}: `{value}` is no value")))?;
        if !put(&mut document, path, parsed) {
            return Err(KeepError::Unknown(format!("{path}: its section is written as something else in the file")));
        }
        kept.push(Kept { path: path.clone(), toml });
    }
    let text = document.to_string();
    check(&Layers::from_text(file, &text)?)?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    files::write_whole(file, &text).map_err(failed)?;
    Ok(kept)
}

/// The same for those settings alone whose values differ from what the file says, or from the default where it says
/// nothing.
///
/// # Errors
///
/// As [`keep`].
pub fn keep_changed(file: &Path, settings: &[(String, String)]) -> Result<Vec<Kept>, KeepError> {
    let layers = if file.exists() { Layers::from_file(file)? } else { Layers::default() };
    let means = |path: &str, toml: &str| toml::from_str::<Config>(&format!("{path} = {toml}")).ok();
    let mut changed = Vec::new();
    for (path, value) in settings {
        let now = layers.setting(path).map_or_else(|| Some(Config::default()), |(toml, _)| means(path, toml));
        if means(path, &settled(path, value)?) != now {
            changed.push((path.clone(), value.clone()));
        }
    }
    if changed.is_empty() { Ok(Vec::new()) } else { keep(file, &changed, |_| Ok(())) }
}

/// A value as the file is to have it: it means the same wherever the file lies.
fn settled(path: &str, value: &str) -> Result<String, KeepError> {
    if path.strip_prefix("keys.").is_some_and(|action| !action.is_empty()) {
        // One key may be written without the list that it is.
        let list = value.parse::<toml::Value>().ok().filter(toml::Value::is_array);
        return Ok(list.map_or_else(|| format!("[{}]", files::toml_string(value)), |list| list.to_string()));
    }
    let key = Key::find(path).ok_or_else(|| KeepError::Unknown(unknown_key(path)))?;
    let here = || env::current_dir().unwrap_or_default();
    Ok(match key.form {
        Form::Path if !value.is_empty() => files::toml_string(&here().join(expand_home(value)).to_string_lossy()),
        _ if key.is_policy() => files::toml_string(&profile_beside(value, &here())),
        _ => as_toml(key, value),
    })
}

/// Puts a value into a document; the comments around an old one stay. False where its section is no section.
fn put(document: &mut DocumentMut, path: &str, value: Value) -> bool {
    // An action's name has no dot.
    let (sections, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        let item = table.entry(section).or_insert_with(|| {
            let mut made = Table::new();
            made.set_implicit(true);
            Item::Table(made)
        });
        let Some(inner) = item.as_table_like_mut() else { return false };
        table = inner;
    }
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            let around = old.decor().clone();
            *old = value;
            *old.decor_mut() = around;
        }
        None => drop(table.insert(name, Item::Value(value))),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULT_TOML;

    fn set(text: &str, settings: &[(&str, &str)]) -> (String, Result<Vec<Kept>, String>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, text).unwrap();
        let settings: Vec<_> = settings.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect();
        let kept = keep(&file, &settings, |_| Ok(())).map_err(|error| error.to_string());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        (fs::read_to_string(&file).unwrap(), kept.map_err(|error| error.replace(&file.display().to_string(), "c.toml")))
    }

    #[test]
    fn comments_and_everything_else_survive() {
        let before = "# mine\n[screen] # look\nfps = 20   # smooth\n\n# chats\n[sampling]\nseed=1\n";
        let (after, kept) = set(before, &[("screen.fps", "7"), ("sampling.top_k", "40"), ("lanes.kv.budget", "1GiB")]);
        assert_eq!(
            after,
            "# mine\n[screen] # look\nfps = 7   # smooth\n\n# chats\n[sampling]\nseed=1\ntop_k = 40\n\n[lanes.kv]\n\
             budget = \"1GiB\"\n"
        );
        assert_eq!(kept.unwrap()[2], Kept { path: "lanes.kv.budget".into(), toml: "\"1GiB\"".into() });
        // Every line of the default but the one that was set.
        let (after, _) = set(DEFAULT_TOML, &[("lanes.kcache.policy", "kcache:n=64")]);
        let other = |text: &str| text.lines().filter(|line| !line.starts_with("policy = \"kcache")).count();
        assert_eq!(other(&after), other(DEFAULT_TOML));
        assert!(after.contains("\npolicy = \"kcache:n=64\"\nbudget = \"512MiB\"\n"), "{after}");
        assert_eq!(after.lines().count(), DEFAULT_TOML.lines().count());
    }

    #[test]
    fn every_way_to_write_a_section_is_understood() {
        for (before, after) in [
            ("", "[lanes.kv]\nbudget = \"none\"\n"),
            ("lanes.kv = { budget = \"1GiB\" } # a\n", "lanes.kv = { budget = \"none\" } # a\n"),
            ("lanes.kv.budget = \"1GiB\"\n", "lanes.kv.budget = \"none\"\n"),
            ("[lanes]\nkv.budget = \"1GiB\"\n", "[lanes]\nkv.budget = \"none\"\n"),
        ] {
            assert_eq!(set(before, &[("lanes.kv.budget", "none")]).0, after);
        }
        let (text, _) = set("", &[("keys.quit", "f10"), ("keys.help", "[\"f1\", \"?\"]")]);
        assert_eq!(text, "[keys]\nquit = [\"f10\"]\nhelp = [\"f1\", \"?\"]\n");
    }

    #[test]
    fn paths_are_written_so_that_they_mean_the_same() {
        let here = env::current_dir().unwrap();
        let (text, _) = set("", &[("model.path", "m.gguf"), ("lanes.kcache.policy", "kcache:n=9,profile=p.toml")]);
        for path in ["m.gguf", "p.toml"] {
            assert!(text.contains(&here.join(path).display().to_string()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_written() {
        for (text, path, value, expected) in [
            ("", "screen.fpss", "7", "unknown key `screen.fpss`; did you mean `screen.fps`?"),
            ("", "screen.fps", "fast", "c.toml:2: screen.fps is a whole number from 1 to 120, not `fast`"),
            ("", "lanes.kcache.policy", "kcache:n=0", "c.toml:2: lanes.kcache.policy: policy `kcache:n=0`: n is a"),
            ("x = 1\n", "screen.fps", "7", "c.toml:1: unknown key `x`"),
            ("[screen\n", "screen.fps", "7", "c.toml:1: "),
        ] {
            let (after, kept) = set(text, &[(path, value)]);
            let error = kept.unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert_eq!(after, text);
        }
        let refuse = |_: &Layers| Err(ConfigError { mistakes: Vec::new() });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/c.toml");
        let fps = [("screen.fps".to_owned(), "7".to_owned())];
        assert!(keep(&file, &fps, refuse).is_err() && !file.exists());
        assert!(keep(&file, &fps, |_| Ok(())).is_ok() && file.exists());
    }

    #[test]
    fn only_what_differs_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let changed = |policy: &str, budget: &str| -> Vec<String> {
            let settings = [("lanes.kcache.policy", policy), ("lanes.kv.budget", budget)];
            let settings = settings.map(|(path, value)| (path.to_owned(), value.to_owned()));
            keep_changed(&file, &settings).unwrap().into_iter().map(|kept| kept.path).collect()
        };
        assert_eq!(changed("kcache", "512MiB"), [""; 0]);
        assert!(!file.exists());
        assert_eq!(changed("kcache:n=64", "512MiB"), ["lanes.kcache.policy"]);
        assert_eq!(changed("kcache:n=64,tail=mean", "none"), ["lanes.kv.budget"]);
        assert_eq!(changed("kcache", "none"), ["lanes.kcache.policy"]);
    }
}
