//! What the command line says over every other layer.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{folders, keys::Key};

/// What the command line says over every other layer.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The configuration file to read instead of the user's (`--config`); it must exist.
    pub file: Option<PathBuf>,
    pub(super) settings: Vec<(&'static str, &'static str, OsString)>,
}

impl Overrides {
    /// No setting yet, and the configuration file to read instead of the user's, if any.
    pub fn with_file(file: Option<PathBuf>) -> Self {
        Self { file, settings: Vec::new() }
    }

    /// Has `flag` set the key at `path`, where the flag was given.
    pub fn set(&mut self, flag: &'static str, path: &'static str, value: Option<impl ToString>) -> &mut Self {
        debug_assert!(Key::find(path).is_some(), "{path} is no key");
        self.settings.extend(value.map(|value| (flag, path, value.to_string().into())));
        self
    }

    /// The same for a key that is a path, which need not be text.
    pub fn set_path(&mut self, flag: &'static str, path: &'static str, value: Option<&Path>) -> &mut Self {
        self.settings.extend(value.map(|value| (flag, path, value.as_os_str().to_owned())));
        self
    }

    /// The file that holds the user's settings, whether it exists or not: the one that these flags name, else that of
    /// `KCACHE_CONFIG`, else the user's own. `None` where there is no home folder.
    pub fn user_file(&self) -> Option<PathBuf> {
        let variable = || env::var_os("KCACHE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.file.clone().or_else(variable).or_else(folders::config_file)
    }
}
