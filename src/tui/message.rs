//! What `update` hears of: keys, events of the engine, time, and the answers to its commands.

use std::path::PathBuf;

use crossterm::event::{KeyEvent, MouseEvent};

use crate::engine::{Event, SessionId};

use super::{command::FilePurpose, io::saved::SavedSession};
use crate::document::Opened;

#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Key(KeyEvent),
    Paste(String),
    /// The mouse did something; comes only where the configuration captures it.
    Mouse(MouseEvent),
    /// The terminal has this many columns and rows.
    Resized(u16, u16),
    /// The engine or a sampler reported something.
    Engine(Event),
    /// The engine can no longer be heard, and has not said why.
    EngineGone,
    /// Milliseconds since the dashboard started.
    Tick(f64),
    /// A file was read, or not; the error is one line.
    FileRead {
        purpose: FilePurpose,
        /// The document, and what is to be said about it.
        result: Result<Opened, String>,
    },
    /// The sessions of an earlier run were read, or not; the error is one line.
    SessionsRead(Result<Vec<SavedSession>, String>),
    /// The sessions of this run were saved, or not; the error is one line.
    SessionsSaved(Result<(), String>),
    /// An answer was handed to the terminal's clipboard, with what to say about it; or not, and why in one line.
    Copied(Result<String, String>),
    /// A session was written as Markdown, or not; the error is one line.
    Exported(Result<PathBuf, String>),
    /// A message comes back from the editor, or not; the error is one line.
    Edited {
        /// The session that it is written in; `None` where there was none.
        session: Option<SessionId>,
        result: Result<String, String>,
    },
    /// A picture was written, or not; the error is one line.
    PictureWritten(Result<PathBuf, String>),
    /// Settings were kept, or not; both say in one line what was written where, or why not.
    SettingsKept(Result<String, String>),
    Drawn {
        /// Milliseconds it took, the writing included.
        ms: f64,
        /// Bytes written to the terminal.
        bytes: u64,
    },
    /// A signal asks to leave.
    Terminated,
}
