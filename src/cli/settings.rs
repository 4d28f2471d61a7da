//! The configuration as commands use it. Key bindings are checked here too, because only the dashboard knows its actions.

use std::{collections::BTreeMap, env};

use super::output::note;
use crate::{
    config::{Config, ConfigError, Layers, Mistake, Origin, Overrides},
    tui::input::keymap::{Keymap, KeymapError},
};

/// Everything that flags, environment and file say, and the configuration that this makes.
pub fn load(overrides: &Overrides) -> Result<(Layers, Config), ConfigError> {
    let layers = Layers::gather(overrides, env::vars_os())?;
    layers.warnings().iter().for_each(|warning| note(warning));
    let config = checked(&layers)?;
    Ok((layers, config))
}

/// The configuration that the layers make.
pub fn checked(layers: &Layers) -> Result<Config, ConfigError> {
    let config = layers.config()?;
    let mut mistakes: Vec<_> = config
        .keys
        .iter()
        .filter_map(|(action, keys)| {
            let alone = BTreeMap::from([(action.clone(), keys.clone())]);
            Some(mistake(layers, [action.as_str(), ""], &Keymap::new(&alone).err()?))
        })
        .collect();
    // Bindings that are right each by itself can still want the same key.
    if mistakes.is_empty()
        && let Err(error) = Keymap::new(&config.keys)
    {
        let named = match error {
            KeymapError::Conflict { first, second, .. } => [first, second],
            _ => ["", ""],
        };
        mistakes.push(mistake(layers, named, &error));
    }
    if mistakes.is_empty() { Ok(config) } else { Err(ConfigError { mistakes }) }
}

/// What is wrong with a binding, where one of the named actions was bound.
fn mistake(layers: &Layers, actions: [&str; 2], error: &KeymapError) -> Mistake {
    let origin = actions.iter().rev().find_map(|action| layers.binding(action)).cloned();
    Mistake { origin: origin.unwrap_or(Origin::Default), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn bindings_are_checked_with_their_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let mistakes = |text: &str| {
            fs::write(&file, text).unwrap();
            let result = checked(&Layers::from_file(&file).unwrap());
            let said = result.err().map(|error| error.to_string()).unwrap_or_default();
            said.replace(&format!("{}:", file.display()), "")
        };
        assert_eq!(mistakes("[keys]\nquit = [\"f9\"]\n"), "");
        assert!(mistakes("[keys]\nfly-away = [\"f9\"]\n").starts_with("2: [keys] "));
        assert!(mistakes("[keys]\n\nquit = [\"hyper-q\"]\n").contains("3: [keys] quit: `hyper-q` is not a key"));
        assert!(mistakes("[keys]\nquit = [\"f9\"]\nhelp = [\"f9\"]\n").contains("`f9` is bound to both"));
    }
}
