//! `kcache config init | print | validate | set | path`.

use std::{
    env,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;

use super::{
    Failure,
    output::{note, print, print_json},
    settings::{checked, load},
};
use crate::{
    cache::{Knobs, ModelId, ProfileError, Spread},
    config::{
        Config, ConfigError, DEFAULT_TOML, Kept, Layers, Mistake, Origin, Overrides, keep,
        keys::{KEYS, Key},
    },
    files,
    model::{Gguf, ModelShape, source},
};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Writes the commented default to the user's file
    Init {
        /// Replaces a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Shows every value that is in force and where it came from
    Print {
        /// Shows the commented default instead
        #[arg(long)]
        default: bool,
    },
    /// Names every mistake in a file with its line; without FILE in everything that is in force
    Validate {
        /// The file to check
        file: Option<PathBuf>,
    },
    /// Keeps a setting in the user's file; comments and everything else in it stay
    #[command(after_help = "\
        kcache config set lanes.kcache.policy kcache:n=64,tail=mean\n\
        kcache config set screen.theme light\n\
        kcache config set keys.quit '[\"ctrl-q\", \"f10\"]'")]
    Set {
        /// The key's path, as `kcache config print` shows it: screen.fps
        key: String,
        /// The value, without quotes; a path is written so that it means the same from everywhere
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Shows where the user's file is
    Path,
}

pub fn run(command: &ConfigCommand, overrides: &Overrides, json: bool) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Init { force } => init(&file(overrides)?, *force)?,
        ConfigCommand::Print { default: true } => print(DEFAULT_TOML)?,
        ConfigCommand::Print { default: false } => {
            let (layers, config) = load(overrides)?;
            if json { print_json(&as_json(&layers, &config))? } else { print(&as_toml(&layers, &config))? }
        }
        ConfigCommand::Validate { file } => validate(file.as_deref(), overrides)?,
        ConfigCommand::Set { key, value } => set(&file(overrides)?, key, value, json)?,
        ConfigCommand::Path => print(&format!("{}\n", file(overrides)?.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The file that is read where it exists.
fn file(overrides: &Overrides) -> Result<PathBuf, Failure> {
    overrides
        .user_file()
        .ok_or_else(|| Failure::failed("there is no home folder to keep a configuration in; name a file with --config"))
}

fn set(file: &Path, key: &str, value: &str, json: bool) -> Result<(), Failure> {
    let check = |layers: &Layers| profile(layers, &checked(layers)?).map(|_| ());
    let kept = keep(file, &[(key.to_owned(), value.to_owned())], check)?;
    let Some(Kept { path, toml }) = kept.into_iter().next() else { return Ok(()) };
    if let Some(variable) = overruled(&path) {
        note(&format!("{variable} is set, and goes before the file"));
    }
    if json {
        return print_json(&json!({ "file": files::shown(file), "key": path, "value": toml }));
    }
    print(&format!("{}: {path} = {toml}\n", file.display()))
}

/// The environment variable that sets the key as well, where one does.
fn overruled(path: &str) -> Option<String> {
    let variable = Key::find(path)?.variable();
    env::var_os(&variable).filter(|value| !value.is_empty()).map(|_| variable)
}

/// What is to be said of the profile that the policy under test names, where it names one: it is read, and compared with
/// the model where that is here.
fn profile(layers: &Layers, config: &Config) -> Result<Option<String>, ConfigError> {
    let Some(Knobs { spread: Spread::Profile(profile), .. }) = config.lanes.kcache.policy.knobs() else {
        return Ok(None);
    };
    let mistake = |error: ProfileError| {
        let origin = layers.setting("lanes.kcache.policy").map_or(Origin::Default, |(_, origin)| origin.clone());
        ConfigError { mistakes: vec![Mistake { origin, message: format!("lanes.kcache.policy: {error}") }] }
    };
    let made_for = profile.model().map_err(mistake)?;
    let file = config.model.path.clone().or_else(source::find_default);
    let model = file.and_then(|file| {
        let gguf = Gguf::open(&file).ok()?;
        let shape = ModelShape::from_gguf(&gguf).ok()?;
        Some(ModelId { fingerprint: gguf.fingerprint(), layers: shape.layers, heads: shape.heads })
    });
    match model {
        Some(model) => profile.load(&model).map_err(mistake).map(|()| None),
        None => Ok(Some(format!("its profile is for {made_for}; no model is here to compare it with"))),
    }
}

fn init(file: &Path, force: bool) -> Result<(), Failure> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let opened = if force { File::create(file) } else { File::create_new(file) };
    match opened.and_then(|mut file| file.write_all(DEFAULT_TOML.as_bytes())) {
        Ok(()) => print(&format!("{}\n", file.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Failure::failed(format!("{} is there already; --force replaces it", file.display())))
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", file.display()))?,
    }
}

fn validate(file: Option<&Path>, overrides: &Overrides) -> Result<(), Failure> {
    let (layers, config) = match file {
        Some(file) => {
            let layers = Layers::from_file(file)?;
            let config = checked(&layers)?;
            (layers, config)
        }
        None => load(overrides)?,
    };
    let profile = profile(&layers, &config)?.map(|said| format!("; {said}")).unwrap_or_default();
    match layers.file() {
        Some(file) => print(&format!("{}: fine{profile}\n", file.display())),
        None => print(&format!("no file: the defaults hold, and the environment is fine{profile}\n")),
    }
}

fn as_json(layers: &Layers, config: &Config) -> serde_json::Value {
    let origins: serde_json::Map<_, _> = KEYS
        .iter()
        .map(|key| {
            let origin = layers.setting(key.path).map_or("default".to_owned(), |(_, origin)| origin.to_string());
            (key.path.to_owned(), origin.into())
        })
        .collect();
    json!({ "file": layers.file().map(files::shown), "config": config, "origins": origins })
}

/// A file that means the same, each line with its origin.
fn as_toml(layers: &Layers, config: &Config) -> String {
    let defaults = toml::Table::try_from(config).unwrap_or_default();
    let mut text = String::new();
    let mut section = "";
    for key in &KEYS {
        let (key_section, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if section != key_section {
            let gap = if text.is_empty() { "" } else { "\n" };
            text += &format!("{gap}[{key_section}]\n");
            section = key_section;
        }
        let (line, origin) = match layers.setting(key.path) {
            Some((toml, origin)) => (format!("{name} = {toml}"), origin.to_string()),
            None => match look_up(&defaults, key.path) {
                Some(value) => (format!("{name} = {value}"), "default".to_owned()),
                None => (format!("# {name} is left out"), "default".to_owned()),
            },
        };
        text += &format!("{line:<56} # {origin}\n");
    }
    text += "\n[keys]\n";
    for path in layers.bindings() {
        if let Some((toml, origin)) = layers.setting(path) {
            text += &format!("{:<56} # {origin}\n", format!("{} = {toml}", &path["keys.".len()..]));
        }
    }
    text
}

fn look_up<'a>(table: &'a toml::Table, path: &str) -> Option<&'a toml::Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { look_up(value.as_table()?, rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_means_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let text =
            "[screen]\nfps = 7\n[keys]\n\"quit now\" = [\"ctrl-q\",\n \"f10\"]\n[sampling]\nrepeat_penalty = 1.1\n";
        fs::write(&file, text).unwrap();
        let layers = Layers::from_file(&file).unwrap();
        let config = layers.config().unwrap();
        let printed = as_toml(&layers, &config);
        assert_eq!(toml::from_str::<Config>(&printed).unwrap(), config);
        let line = printed.lines().find(|line| line.starts_with("fps")).unwrap();
        assert_eq!(line.split('#').map(str::trim).collect::<Vec<_>>(), ["fps = 7", &format!("{}:2", file.display())]);
        assert!(printed.contains("# threads is left out"), "{printed}");
    }
}
