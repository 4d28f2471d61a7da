//! Where the user's files live, after the XDG Base Directory specification.

use std::path::PathBuf;

use etcetera::base_strategy::{BaseStrategy, Xdg};

/// The name of our folder in each of the user's folders.
const OURS: &str = "kcache";

/// The user's configuration file, `$XDG_CONFIG_HOME/kcache/config.toml`. `None` where there is no home folder.
pub fn config_file() -> Option<PathBuf> {
    Some(Xdg::new().ok()?.config_dir().join(OURS).join("config.toml"))
}

/// The folder for pictures of the screen, `$XDG_DATA_HOME/kcache/pictures`. `None` where there is no home folder.
pub fn pictures() -> Option<PathBuf> {
    Some(Xdg::new().ok()?.data_dir().join(OURS).join("pictures"))
}

/// The file in which sessions wait for the next run, `$XDG_STATE_HOME/kcache/sessions.json`. `None` where there is no
/// home folder.
pub fn sessions() -> Option<PathBuf> {
    Some(Xdg::new().ok()?.state_dir()?.join(OURS).join("sessions.json"))
}

/// The log file where none is configured, `$XDG_STATE_HOME/kcache/kcache.log`. `None` where there is no home folder.
pub fn log_file() -> Option<PathBuf> {
    Some(Xdg::new().ok()?.state_dir()?.join(OURS).join("kcache.log"))
}
