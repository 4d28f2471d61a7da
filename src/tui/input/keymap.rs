//! The live key map: which key does what, and where. Made from the defaults of [`Action`] and the user's `[keys]`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use thiserror::Error;

use super::action::{Action, Scope, UnknownAction};

/// One key with its modifiers, as it is written in the configuration: `ctrl-n`, `alt-up`, `f2`, `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    code: KeyCode,
    modifiers: KeyModifiers,
}

/// Why `[keys]` was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeymapError {
    /// A name that is no action.
    #[error("[keys] {0}")]
    Action(#[from] UnknownAction),
    /// A key that cannot be read.
    #[error("[keys] {action}: `{key}` is not a key; write `ctrl-n`, `alt-up`, `f2` or a single character")]
    Key { action: &'static str, key: String },
    /// One key for two actions that both listen.
    #[error("[keys] `{key}` is bound to both {first} and {second}; give one of them another key")]
    Conflict { key: String, first: &'static str, second: &'static str },
}

impl Key {
    /// From a key event; shift is part of the character where the key types one.
    pub fn from_event(event: &KeyEvent) -> Self {
        let mut modifiers = event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        let mut code = event.code;
        match code {
            KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) => {
                modifiers -= KeyModifiers::SHIFT;
                code = KeyCode::Char(c.to_ascii_lowercase());
            }
            KeyCode::Char(_) | KeyCode::BackTab => modifiers -= KeyModifiers::SHIFT,
            KeyCode::Tab if modifiers.contains(KeyModifiers::SHIFT) => {
                modifiers -= KeyModifiers::SHIFT;
                code = KeyCode::BackTab;
            }
            _ => {}
        }
        Self { code, modifiers }
    }

    /// As a terminal would report it.
    pub fn event(self) -> (KeyCode, KeyModifiers) {
        (self.code, self.modifiers)
    }

    /// Whether it types a character, and so belongs to the composer while that is focused.
    pub fn types(&self) -> bool {
        matches!(self.code, KeyCode::Char(_)) && !self.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
    }
}

const NAMED: [(&str, KeyCode); 15] = [
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("backtab", KeyCode::BackTab),
    ("space", KeyCode::Char(' ')),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
];

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut modifiers = KeyModifiers::NONE;
        let mut rest = text;
        // `-` itself is a key: a prefix counts only when something follows it.
        while let Some((prefix, after)) = rest.split_once('-').filter(|(_, after)| !after.is_empty()) {
            modifiers |= match prefix {
                "ctrl" => KeyModifiers::CONTROL,
                "alt" => KeyModifiers::ALT,
                "shift" => KeyModifiers::SHIFT,
                _ => return Err(()),
            };
            rest = after;
        }
        let named = NAMED.iter().find(|(name, _)| *name == rest.to_ascii_lowercase()).map(|&(_, code)| code);
        let function = || {
            let number = rest.strip_prefix(['f', 'F'])?.parse().ok().filter(|n| (1..=24).contains(n))?;
            Some(KeyCode::F(number))
        };
        let character = || {
            let mut chars = rest.chars();
            chars.next().filter(|c| !c.is_control() && chars.next().is_none()).map(KeyCode::Char)
        };
        let code = named.or_else(function).or_else(character).ok_or(())?;
        Ok(Self::from_event(&KeyEvent::new(code, modifiers)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, name) in
            [(KeyModifiers::CONTROL, "ctrl-"), (KeyModifiers::ALT, "alt-"), (KeyModifiers::SHIFT, "shift-")]
        {
            if self.modifiers.contains(flag) {
                f.write_str(name)?;
            }
        }
        match self.code {
            KeyCode::F(n) => write!(f, "f{n}"),
            code => match NAMED.iter().find(|(_, named)| *named == code) {
                Some((name, _)) => f.write_str(name),
                None => match code {
                    KeyCode::Char(c) => write!(f, "{c}"),
                    other => write!(f, "{other:?}"),
                },
            },
        }
    }
}

#[derive(Debug, Clone)]
pub struct Keymap {
    table: HashMap<(Scope, Key), Action>,
    keys: BTreeMap<Action, Vec<Key>>,
}

impl Default for Keymap {
    fn default() -> Self {
        // The defaults are checked by a test, so nothing of the user's can fail here.
        Self::new(&BTreeMap::new()).unwrap_or_else(|_| Self { table: HashMap::new(), keys: BTreeMap::new() })
    }
}

impl Keymap {
    /// The defaults with the user's bindings in their place: an action named in `user` has those keys and no others.
    /// A key that the user gives to one action is taken away from another that has it only by default.
    ///
    /// # Errors
    ///
    /// An unknown action, an unreadable key, or one key for two actions that listen at the same place.
    pub fn new(user: &BTreeMap<String, Vec<String>>) -> Result<Self, KeymapError> {
        let mut chosen: BTreeMap<Action, Vec<Key>> = BTreeMap::new();
        for (name, keys) in user {
            let action: Action = name.parse()?;
            let keys = keys
                .iter()
                .map(|key| key.parse().map_err(|()| KeymapError::Key { action: action.name(), key: key.clone() }))
                .collect::<Result<_, _>>()?;
            chosen.insert(action, keys);
        }
        let taken: Vec<(Action, Key)> =
            chosen.iter().flat_map(|(&action, keys)| keys.iter().map(move |&key| (action, key))).collect();
        for &action in Action::ALL {
            chosen.entry(action).or_insert_with(|| {
                let keys = action.default_keys().iter().filter_map(|key| key.parse().ok());
                keys.filter(|key| !taken.iter().any(|&(other, by)| by == *key && clash(action, other, by))).collect()
            });
        }
        let mut map = Self { table: HashMap::new(), keys: chosen };
        let all: Vec<(Action, Key)> =
            map.keys.iter().flat_map(|(&action, keys)| keys.iter().map(move |&key| (action, key))).collect();
        for (at, &(action, key)) in all.iter().enumerate() {
            if let Some(&(other, _)) =
                all[..at].iter().find(|&&(other, by)| by == key && other != action && clash(action, other, key))
            {
                return Err(KeymapError::Conflict { key: key.to_string(), first: other.name(), second: action.name() });
            }
            map.table.insert((action.scope(), key), action);
        }
        Ok(map)
    }

    /// What `key` does while `scope` is focused; `None` in the composer for what is to be typed.
    pub fn action(&self, scope: Scope, key: Key) -> Option<Action> {
        if let Some(&action) = self.table.get(&(scope, key)) {
            return Some(action);
        }
        if scope == Scope::Composer && key.types() {
            return None;
        }
        self.table.get(&(Scope::Always, key)).copied()
    }

    /// The keys of an action, the preferred one first.
    pub fn keys(&self, action: Action) -> &[Key] {
        self.keys.get(&action).map_or(&[], Vec::as_slice)
    }

    /// The key to name for an action while `scope` is focused: the first that works there.
    pub fn hint(&self, scope: Scope, action: Action) -> Option<Key> {
        self.keys(action).iter().copied().find(|&key| self.action(scope, key) == Some(action))
    }
}

/// Whether two actions would hear the same key. Keys that type go to the composer and not to `Always` there.
fn clash(a: Action, b: Action, key: Key) -> bool {
    match (a.scope(), b.scope()) {
        (a, b) if a == b => true,
        (Scope::Composer, Scope::Always) | (Scope::Always, Scope::Composer) => !key.types(),
        (Scope::Always, _) | (_, Scope::Always) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(entries: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        entries
            .iter()
            .map(|(name, keys)| ((*name).to_owned(), keys.iter().map(|key| (*key).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn defaults_have_no_conflict_and_lose_no_key() {
        let map = Keymap::new(&BTreeMap::new()).expect("the defaults fit together");
        for &action in Action::ALL {
            assert_eq!(map.keys(action).len(), action.default_keys().len(), "{action}");
        }
    }

    #[test]
    fn keys_are_written_as_they_are_read() {
        for text in ["ctrl-n", "alt-up", "f2", "?", "-", "alt--", "shift-left", "D", "space", "ctrl-alt-x", "alt-D"] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        for text in ["", "hyper-x", "ctrl-", "xyz", "f99", "\n"] {
            assert!(text.parse::<Key>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn letters_belong_to_the_input_while_it_is_focused() {
        let map = Keymap::default();
        let t = "t".parse().unwrap();
        assert_eq!(map.action(Scope::Composer, t), None);
        assert_eq!(map.action(Scope::Charts, t), Some(Action::TailCycle));
        assert_eq!(map.action(Scope::Composer, "alt-t".parse().unwrap()), Some(Action::TailCycle));
        assert_eq!(map.hint(Scope::Composer, Action::TailCycle).unwrap().to_string(), "alt-t");
        assert_eq!(map.hint(Scope::Charts, Action::TailCycle).unwrap().to_string(), "t");
    }

    #[test]
    fn the_user_takes_keys_away_from_defaults_but_not_from_himself() {
        let map = Keymap::new(&user(&[("dump", &["t"])])).unwrap();
        assert_eq!(map.action(Scope::Charts, "t".parse().unwrap()), Some(Action::Dump));
        assert_eq!(map.action(Scope::Charts, "f12".parse().unwrap()), None);
        assert_eq!(map.keys(Action::TailCycle).len(), 1);

        let error = Keymap::new(&user(&[("dump", &["t"]), ("quit", &["t"])])).unwrap_err().to_string();
        assert!(error.contains("`t`") && error.contains("dump") && error.contains("quit"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn mistakes_are_named_in_one_line() {
        for (entries, word) in [(user(&[("fly", &["x"])]), "fly"), (user(&[("quit", &["hyper-q"])]), "hyper-q")] {
            let error = Keymap::new(&entries).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        }
    }
}
