//! What `update` asks the outside world to do.

use std::path::PathBuf;

use crate::engine::{Request, SessionId};

/// One thing to do outside the state.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Hand an op to the engine.
    Engine(Request),
    /// Read a text file and answer with [`super::message::Message::FileRead`].
    ReadFile {
        path: PathBuf,
        purpose: FilePurpose,
    },
    /// Hand a text to the terminal's clipboard and answer with [`super::message::Message::Copied`].
    Copy {
        /// The text, no longer than a terminal takes.
        text: String,
        /// What to say when it is done.
        notice: String,
    },
    /// Write the session on show as Markdown and answer with [`super::message::Message::Exported`].
    Export {
        /// Where to; `None` is a name of its own in the folder for pictures.
        path: Option<PathBuf>,
    },
    /// Give the terminal to the user's editor for this text and answer with [`super::message::Message::Edited`].
    Edit {
        /// The session that the message is written in.
        session: Option<SessionId>,
        /// What is written so far.
        text: String,
    },
    /// Write a picture of the screen and answer with [`super::message::Message::PictureWritten`].
    WritePicture,
    /// Keep settings in the user's configuration, each a key's path and its value, and answer with
    /// [`super::message::Message::SettingsKept`].
    KeepSettings(Vec<(String, String)>),
    /// Give the terminal back and stop, until somebody lets the program go on.
    Suspend,
    Quit,
}

/// What a file is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePurpose {
    /// The session whose next message it goes with; `None` opens a session named after it.
    pub session: Option<SessionId>,
    /// A question to send at once.
    pub question: Option<String>,
}
