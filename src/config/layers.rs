//! Flags, environment and file as layers of single settings. Each setting is checked alone and remembers its place.
//!
//! A setting is a path and a TOML value as text. A later layer replaces the setting of an earlier one, and what is left is
//! one small document over the default. So every layer passes the same checks, and `config print` can say where each value
//! came from.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{
    Config, ConfigError, Mistake, Origin, Overrides, folders,
    keys::{Form, KEYS, Key, PREFIX, SPECIAL_VARIABLES},
    mistake::{edits, nearest},
};
use crate::{cache::Policy, files};

/// The largest configuration file that is read, in MiB.
pub(super) const LARGEST_MIB: u64 = 1;

/// One value that somebody set.
#[derive(Debug, Clone, PartialEq)]
struct Setting {
    /// The value as TOML writes it.
    toml: String,
    /// A path that is no text, and so cannot be written in TOML.
    raw: Option<PathBuf>,
    origin: Origin,
}

/// Every value that somebody set, the topmost layer's where several did.
#[derive(Debug, Default)]
pub struct Layers {
    /// By path, each part quoted where TOML needs it.
    settings: BTreeMap<String, Setting>,
    file: Option<PathBuf>,
    warnings: Vec<String>,
    mistakes: Vec<Mistake>,
}

impl Layers {
    /// Reads all layers: the file (`overrides.file`, `KCACHE_CONFIG`, or the user's where there is one), the
    /// environment, the flags.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in any layer, also where a higher one would have hidden it.
    pub fn gather(
        overrides: &Overrides,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let environment = ours(environment);
        let special = |name: &str| environment.iter().find(|(ours, _)| ours == name).map(|(_, value)| value);
        let mut layers = Self::default();

        let named = overrides.file.clone().or_else(|| special("KCACHE_CONFIG").map(PathBuf::from));
        if let Some(file) = named.clone().or_else(folders::config_file) {
            match files::read_text(&file, LARGEST_MIB) {
                Ok(text) => layers.read(&file, &text),
                Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
                Err(error) => layers.mistake(Origin::File(file, None), format!("cannot be read: {error}")),
            }
        }
        if let Some(filter) = special("KCACHE_LOG") {
            let key = Key::find("log.filter").expect("log.filter is a key");
            layers.set(key, filter, Origin::Environment("KCACHE_LOG".into()));
        }
        let mut foreign = Vec::new();
        for (name, value) in &environment {
            if SPECIAL_VARIABLES.iter().any(|(special, _)| special == name) {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            match KEYS.iter().find(|key| key.variable() == *name) {
                Some(key) => layers.set(key, value, origin),
                // Others set such variables too: Kubernetes does for a service that is called kcache.
                None => match meant(name) {
                    Some(near) => layers.warnings.push(format!("{name}: unknown variable; did you mean {near}?")),
                    None => foreign.push(name.as_str()),
                },
            }
        }
        if !foreign.is_empty() {
            let plural = if foreign.len() == 1 { "" } else { "s" };
            layers.warnings.push(format!(
                "{}: unknown variable{plural}, left aside; `kcache config print` shows every key, and KCACHE_ with a \
                 key's path sets it",
                foreign.join(", ")
            ));
        }
        for (flag, path, value) in &overrides.settings {
            let key = Key::find(path).expect("Overrides::set takes keys only");
            layers.set(key, value, Origin::Flag(flag));
        }
        layers.checked()
    }

    /// Reads one file alone, over the default.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in it.
    pub fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        match files::read_text(file, LARGEST_MIB) {
            Ok(text) => layers.read(file, &text),
            Err(error) => layers.mistake(Origin::File(file.into(), None), format!("cannot be read: {error}")),
        }
        layers.checked()
    }

    /// Reads the text of a file alone, over the default: what it holds, or is to hold.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in it.
    pub fn from_text(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        layers.read(file, text);
        layers.checked()
    }

    /// The configuration that the layers make.
    ///
    /// # Errors
    ///
    /// None that [`Self::gather`] would not have named.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let document: String =
            self.settings.iter().map(|(path, setting)| format!("{path} = {}\n", setting.toml)).collect();
        let mut config: Config = toml::from_str(&document).map_err(|error| ConfigError {
            mistakes: vec![Mistake { origin: Origin::Default, message: error.message().to_owned() }],
        })?;
        let raw = |path| self.settings.get(path).and_then(|setting| setting.raw.clone());
        config.model.path = raw("model.path").or(config.model.path);
        config.log.file = raw("log.file").or(config.log.file);
        Ok(config)
    }

    /// What is odd and no mistake, in a line each: variables that are called as ours are and mean nothing here.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The configuration file that was read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The value of the key at `path` as TOML writes it, and where it came from; `None` where nobody set it.
    pub fn setting(&self, path: &str) -> Option<(&str, &Origin)> {
        self.settings.get(path).map(|setting| (setting.toml.as_str(), &setting.origin))
    }

    /// Paths below `[keys]` that somebody set.
    pub fn bindings(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().map(String::as_str).filter(|path| path.starts_with("keys."))
    }

    /// Where the keys of a dashboard's action were set, if anywhere.
    pub fn binding(&self, action: &str) -> Option<&Origin> {
        self.setting(&format!("keys.{}", files::toml_string(action))).map(|(_, origin)| origin)
    }

    fn checked(self) -> Result<Self, ConfigError> {
        if self.mistakes.is_empty() { Ok(self) } else { Err(ConfigError { mistakes: self.mistakes }) }
    }

    fn mistake(&mut self, origin: Origin, message: String) {
        self.mistakes.push(Mistake { origin, message });
    }

    fn read(&mut self, file: &Path, text: &str) {
        self.file = Some(file.to_owned());
        let (table, errors) = DeTable::parse_recoverable(text);
        let at = |offset: usize| {
            let line = 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
            Origin::File(file.to_owned(), Some(line))
        };
        if errors.is_empty() {
            self.walk(table.get_ref(), &mut Vec::new(), text, file, &at);
            // The table is sorted by name; people read by line.
            self.mistakes.sort_by_key(|mistake| match mistake.origin {
                Origin::File(_, line) => line,
                _ => None,
            });
        }
        // What follows a broken line is guesswork, so the first is the one to name.
        if let Some(error) = errors.first() {
            self.mistake(at(error.span().map_or(0, |span| span.start)), error.message().to_owned());
        }
    }

    fn walk(
        &mut self,
        table: &DeTable<'_>,
        path: &mut Vec<String>,
        text: &str,
        file: &Path,
        at: &impl Fn(usize) -> Origin,
    ) {
        for (name, value) in table {
            path.push(name.get_ref().to_string());
            let joined = path.join(".");
            let origin = at(name.span().start);
            let toml = text.get(value.span()).unwrap_or_default();
            match value.get_ref() {
                DeValue::Table(inner) if is_section(&joined) => self.walk(inner, path, text, file, at),
                _ if is_section(&joined) => {
                    self.mistake(origin, format!("`{joined}` is a section, written `[{joined}]`"));
                }
                _ if path.len() == 2 && path[0] == "keys" => self.bind(&path[1], toml, origin),
                value => match Key::find(&joined) {
                    Some(key @ Key { form: Form::Path, .. }) if value.is_str() => {
                        let written = expand_home(value.as_str().unwrap_or_default());
                        let beside = file.parent().unwrap_or(Path::new("")).join(&written);
                        // An empty path is a mistake to be named, not the folder of the file.
                        let path = if written.is_empty() { PathBuf::new() } else { beside };
                        self.put(key, files::toml_string(&path.to_string_lossy()), origin);
                    }
                    Some(key) if key.is_policy() && value.is_str() => {
                        let folder = file.parent().unwrap_or(Path::new(""));
                        let policy = profile_beside(value.as_str().unwrap_or_default(), folder);
                        self.put(key, files::toml_string(&policy), origin);
                    }
                    Some(key) => self.put(key, toml.to_owned(), origin),
                    None => self.mistake(origin, unknown_key(&joined)),
                },
            }
            path.pop();
        }
    }

    /// Sets a key from text without quotes, as the environment and flags have it.
    fn set(&mut self, key: &Key, value: &OsStr, origin: Origin) {
        match (key.form, value.to_str()) {
            (Form::Path, None) => {
                let raw = PathBuf::from(value);
                let setting = Setting { toml: files::toml_string(&files::shown(&raw)), raw: Some(raw), origin };
                self.settings.insert(key.path.to_owned(), setting);
            }
            (_, Some(text)) => self.put(key, as_toml(key, text), origin),
            (_, None) => self.put(key, files::toml_string(&files::shown(Path::new(value))), origin),
        }
    }

    fn put(&mut self, key: &Key, toml: String, origin: Origin) {
        match toml::from_str::<Config>(&format!("{} = {toml}", key.path)) {
            Ok(config) if (key.check)(&config) => {
                self.settings.insert(key.path.to_owned(), Setting { toml, raw: None, origin });
            }
            _ => {
                let text = toml.parse::<toml::Value>().ok().and_then(|value| value.as_str().map(str::to_owned));
                let message = match text.as_deref().map(str::parse::<Policy>) {
                    // A policy's own message says which of its keys is wrong.
                    Some(Err(error)) if key.path.ends_with(".policy") => format!("{}: {error}", key.path),
                    _ => format!("{} is {}, not `{}`", key.path, key.allowed, text.as_deref().unwrap_or(&toml)),
                };
                self.mistake(origin, message);
            }
        }
    }

    fn bind(&mut self, action: &str, toml: &str, origin: Origin) {
        let path = format!("keys.{}", files::toml_string(action));
        if toml::from_str::<Config>(&format!("{path} = {toml}")).is_ok() {
            self.settings.insert(path, Setting { toml: toml.to_owned(), raw: None, origin });
        } else {
            let message = format!("keys.{action} is a list of keys, such as `[\"ctrl-q\", \"f10\"]`, not `{toml}`");
            self.mistake(origin, message);
        }
    }
}

/// The variables of ours that are set to something, by name, so that mistakes come in a settled order.
fn ours(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(String, OsString)> {
    let mut ours: Vec<_> = environment
        .into_iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    ours.sort();
    ours
}

fn is_section(path: &str) -> bool {
    path == "keys" || KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

pub(super) fn unknown_key(path: &str) -> String {
    if let Some(near) = nearest(path, KEYS.iter().map(|key| key.path)) {
        return format!("unknown key `{path}`; did you mean `{near}`?");
    }
    match path.rsplit_once('.') {
        Some((section, _)) => {
            let names: Vec<_> = KEYS
                .iter()
                .filter_map(|key| key.path.strip_prefix(section)?.strip_prefix('.')?.split('.').next())
                .collect();
            format!("unknown key `{path}`; [{section}] has {}", names.join(", "))
        }
        None => format!("unknown key `{path}`; there are model, engine, lanes, guard, sampling, screen, log and keys"),
    }
}

/// The variable of ours that somebody meant by `name`, where it looks like a slip of the pen: two letters off at most, or
/// the end of one's name.
fn meant(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let known = || variables.iter().map(String::as_str).chain(SPECIAL_VARIABLES.iter().map(|(name, _)| *name));
    // What they all begin with makes short names look alike.
    let rests = known().filter_map(|variable| variable.strip_prefix(PREFIX));
    let near = rests
        .map(|variable| (edits(rest, variable), variable))
        .filter(|&(edits, variable)| edits <= 2 && edits < variable.len().min(rest.len()))
        .min()
        .map(|(_, variable)| format!("{PREFIX}{variable}"));
    near.or_else(|| known().find(|variable| variable.ends_with(&format!("_{rest}"))).map(str::to_owned))
}

/// Text without quotes, as the environment and flags have it, as TOML.
pub(super) fn as_toml(key: &Key, value: &str) -> String {
    match key.form {
        Form::Text => files::toml_string(value),
        Form::Path => files::toml_string(&expand_home(value)),
        // What is no TOML value is shown as the text that it is when the check refuses it.
        Form::Plain => {
            value.parse::<toml::Value>().map_or_else(|_| files::toml_string(value), |value| value.to_string())
        }
    }
}

/// A policy whose profile, where it names a file by a relative path, is the one in `folder`. The rest of its spelling
/// stays.
pub(super) fn profile_beside(policy: &str, folder: &Path) -> String {
    let Some((kind, keys)) = policy.split_once(':') else { return policy.to_owned() };
    let beside = |part: &str| match part.split_once('=') {
        Some((key, name)) if key.trim() == "profile" && !matches!(name.trim(), "" | "default") => {
            let path = folder.join(expand_home(name.trim()));
            format!("{key}={}", path.to_string_lossy())
        }
        _ => part.to_owned(),
    };
    format!("{kind}:{}", keys.split(',').map(beside).collect::<Vec<_>>().join(","))
}

/// `~/x` in the home folder, everything else as it is.
pub(super) fn expand_home(path: &str) -> String {
    match (path.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest).to_string_lossy().into_owned(),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
