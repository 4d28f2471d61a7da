//! `--record FILE`: the events of a run as JSON lines, with a screen and without.

use std::{
    fs::File,
    io::{self, LineWriter, Write},
    path::{Path, PathBuf},
};

use super::Failure;
use crate::engine::Event;

/// A file of events, one a line; whole lines, however the program ends.
pub struct Recording {
    path: PathBuf,
    /// `None` once it could not be written.
    file: Option<LineWriter<File>>,
}

impl Recording {
    /// Makes the file, or empties the one that is there.
    ///
    /// # Errors
    ///
    /// A path where nothing can be written.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let complain = |error| Failure::misuse(format!("--record {}: {error}", path.display()));
        let file = File::create(path).map_err(complain)?;
        Ok(Self { path: path.to_owned(), file: Some(LineWriter::new(file)) })
    }

    /// Writes an event. The run is worth more than its recording: where that cannot be written any longer it ends, and
    /// why is told once, here. What was written before is whole lines.
    pub fn event(&mut self, event: &Event) -> Option<String> {
        let written = self.file.as_mut().map(|file| write(file, event));
        let Some(Err(error)) = written else { return None };
        self.file = None;
        let why = format!("the recording {} ends early: {error}", self.path.display());
        tracing::error!("{why}");
        Some(why)
    }
}

fn write(file: &mut impl Write, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_string(event)?;
    line.push('\n');
    file.write_all(line.as_bytes())
}
