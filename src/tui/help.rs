//! The help: every action with its keys, from the live key map, filtered by what was typed.

use super::{action::Action, keymap::Keymap};

/// One line of the help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is done.
    pub action: Action,
    /// With which keys.
    pub keys: String,
}

/// The entries in whose keys, name or sentence every word of `query` occurs.
pub fn entries(keymap: &Keymap, query: &str) -> Vec<Entry> {
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    let entry = |&action: &Action| {
        let keys = keymap.keys(action).iter().map(ToString::to_string).collect::<Vec<_>>().join("  ");
        Entry { action, keys }
    };
    let matches = |entry: &Entry| {
        let text = format!("{} {} {} {}", entry.keys, entry.action.name(), entry.action.help(), entry.action.group());
        let text = text.to_lowercase();
        words.iter().all(|word| text.contains(word))
    };
    Action::ALL.iter().map(entry).filter(matches).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn help_knows_every_action_and_finds_by_words() {
        let keymap = Keymap::default();
        assert_eq!(entries(&keymap, "").len(), Action::ALL.len());
        let found: Vec<_> = entries(&keymap, "tail cycles").into_iter().map(|entry| entry.action).collect();
        assert_eq!(found, [Action::TailCycle]);
        assert!(entries(&keymap, "no such thing").is_empty());
    }

    #[test]
    fn help_shows_the_users_keys() {
        let user = BTreeMap::from([("freeze".to_owned(), vec!["f7".to_owned()])]);
        let keymap = Keymap::new(&user).unwrap();
        assert_eq!(entries(&keymap, "f7")[0].action, Action::Freeze);
    }
}
