//! The help: every action with its keys, from the live key map, and the words on the screen with what they mean,
//! filtered by what was typed.

use super::{action::Action, keymap::Keymap, words::WORDS};

/// One entry of the help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Under which heading it stands.
    pub group: String,
    /// The keys of an action, or a word.
    pub name: String,
    /// What is done, or what the word means.
    pub text: &'static str,
    /// The action, where it is one.
    pub action: Option<Action>,
}

/// The heading of the words.
pub const WORDS_GROUP: &str = "Words";

/// The entries in whose keys, name, heading or sentence every word of `query` occurs.
pub fn entries(keymap: &Keymap, query: &str) -> Vec<Entry> {
    let wanted: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    let action = |&action: &Action| {
        let name = keymap.keys(action).iter().map(ToString::to_string).collect::<Vec<_>>().join("  ");
        Entry { group: action.group().to_string(), name, text: action.help(), action: Some(action) }
    };
    let word = |&(name, text): &(&str, &'static str)| Entry {
        group: WORDS_GROUP.to_owned(),
        name: name.to_owned(),
        text,
        action: None,
    };
    let matches = |entry: &Entry| {
        let action = entry.action.map_or("", Action::name);
        let text = format!("{} {action} {} {}", entry.name, entry.text, entry.group).to_lowercase();
        wanted.iter().all(|word| text.contains(word))
    };
    Action::ALL.iter().map(action).chain(WORDS.iter().map(word)).filter(matches).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn help_knows_every_action_and_finds_by_words() {
        let keymap = Keymap::default();
        assert_eq!(entries(&keymap, "").len(), Action::ALL.len() + WORDS.len());
        let found: Vec<_> = entries(&keymap, "none renorm mean cycles").into_iter().map(|entry| entry.action).collect();
        assert_eq!(found, [Some(Action::TailCycle)]);
        assert!(entries(&keymap, "no such thing").is_empty());
    }

    #[test]
    fn help_explains_the_words_on_the_screen() {
        let keymap = Keymap::default();
        for word in [
            "kept mass",
            "tail",
            "dense",
            "lane",
            "ledger",
            "KV equivalent",
            "probe",
            "guard",
            "TTFT",
            "ITL",
            "top-N",
            "rows",
            "policy",
            "profile",
            "KL",
            "step",
            "prefill",
            "page",
            "sink",
            "preempted",
            "simulated",
            "nats",
        ] {
            let found = entries(&keymap, word);
            let explained = found.iter().any(|entry| entry.action.is_none() && entry.name.contains(word));
            assert!(explained, "{word}: {found:?}");
        }
    }

    #[test]
    fn help_shows_the_users_keys() {
        let user = BTreeMap::from([("freeze".to_owned(), vec!["f7".to_owned()])]);
        let keymap = Keymap::new(&user).unwrap();
        assert_eq!(entries(&keymap, "f7")[0].action, Some(Action::Freeze));
    }
}
