//! The model file of a command: found, or downloaded with progress on stderr. Ctrl-C stops the download.

use std::{
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, interrupt, output::note};
use crate::{
    config::Config,
    model::source::{self, FetchProgress, KnownModel, Stage},
};

/// The file to run: the configured one, else the default model, fetched where it is missing.
pub fn model_file(config: &Config) -> Result<PathBuf, Failure> {
    match &config.model.path {
        Some(path) if path.is_file() => Ok(path.clone()),
        Some(path) => Err(Failure::misuse(format!("there is no model file {}", path.display()))),
        None => match source::find_default() {
            Some(path) => Ok(path),
            None => fetch(&source::DEFAULT, &source::data_dir().context("cannot fetch the default model")?, false),
        },
    }
}

/// The file of a known model in `dir`, fetched where it is missing. With `verify` one that is there already is read
/// through and compared with its checksum.
pub fn fetch(known: &KnownModel, dir: &Path, verify: bool) -> Result<PathBuf, Failure> {
    let cancel = interrupt::watch().context("cannot watch for Ctrl-C")?;
    let mut display = Display::new(known);
    let mut show = |progress| display.show(progress);
    let result = match source::find(known, dir) {
        Some(path) if verify => source::verify(&path, known, &mut show, &cancel).map(|()| path),
        Some(path) => Ok(path),
        None => source::fetch(known, dir, &mut show, &cancel),
    };
    display.end();
    match &result {
        Ok(path) => tracing::info!(path = %path.display(), "model file ready"),
        Err(error) => tracing::error!(%error, "no model file"),
    }
    Ok(result.context(known.name)?)
}

/// A bar where stderr is a terminal, a line per stage and fifth elsewhere.
struct Display {
    name: &'static str,
    bar: Option<ProgressBar>,
    said: Option<(Stage, u64)>,
}

impl Display {
    fn new(known: &KnownModel) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(known.bytes).with_style(style.progress_chars("=> "))
        });
        Self { name: known.name, bar, said: None }
    }

    fn show(&mut self, FetchProgress { stage, done, total }: FetchProgress) {
        let doing = match stage {
            Stage::Waiting => "waiting for another kcache that fetches",
            Stage::Downloading => "downloading",
            Stage::Unpacking => "unpacking",
            Stage::Verifying => "checking",
        };
        let fifth = done.min(total) * 5 / total.max(1);
        let news = self.said != Some((stage, fifth));
        match &self.bar {
            Some(bar) => {
                if self.said.is_none_or(|(said, _)| said != stage) {
                    bar.set_message(format!("{doing} {}", self.name));
                    bar.reset();
                    // The clock moves while a stage has nothing to count yet.
                    bar.enable_steady_tick(Duration::from_millis(250));
                }
                bar.set_length(total);
                bar.set_position(done);
            }
            None if news => note(&format!("{doing} {}: {} %", self.name, fifth * 20)),
            None => {}
        }
        self.said = Some((stage, fifth));
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
