//! What the dashboard is given, and how it ends.

use std::{io, path::PathBuf, sync::Arc};

use thiserror::Error;

use crate::{
    bench::WorkloadSpec,
    config::Config,
    tui::{input::keymap::KeymapError, state::demo::DemoError},
};

/// How the dashboard is to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub config: Config,
    /// Whether to open the demo sessions.
    pub demo: bool,
    /// Documents to open a session about at once.
    pub documents: Vec<PathBuf>,
    /// Tokens of a text to make the prompts of a load of.
    pub text: Arc<[u32]>,
    /// A load to begin with.
    pub load: Option<WorkloadSpec>,
    /// Where sessions wait for the next run; `None` keeps none.
    pub sessions: Option<PathBuf>,
    /// The configuration file to keep settings in; `None` where there is no place for one.
    pub settings: Option<PathBuf>,
    /// The folder for pictures of the screen; created when the first is written.
    pub pictures: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit status for the process: 0, 1 when the engine had failed, 128 + n after signal n.
    pub code: u8,
    /// Why the engine ended, where it ended by itself.
    pub engine_error: Option<String>,
    /// What other threads said when they panicked.
    pub panics: Vec<String>,
    /// Why the sessions could not be saved, where they should have been.
    pub unsaved: Option<String>,
}

/// Why there is no dashboard.
#[derive(Debug, Error)]
pub enum RunError {
    /// `[keys]` cannot be used.
    #[error(transparent)]
    Keymap(#[from] KeymapError),
    /// The demo that the program brings along cannot be read.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The terminal does not do what it is told.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}
