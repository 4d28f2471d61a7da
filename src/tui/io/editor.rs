//! The user's own editor for the message: it has the terminal while it runs, and the file that it edits is the user's alone.

use std::{
    env, fs,
    future::pending,
    io::Write,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tempfile::NamedTempFile;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::engine::SessionId;

/// The longest message that is taken back, in bytes: far more than any context holds.
const LONGEST: u64 = 1 << 20;
/// How long an editor may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_millis(400);
/// What a shell exits with where there is no such program.
const NOT_FOUND: i32 = 127;

/// A message that is ready to be edited.
#[derive(Debug)]
pub struct Draft {
    /// The session that it is written in.
    session: Option<SessionId>,
    file: NamedTempFile,
    editor: String,
}

#[derive(Debug)]
pub struct Editor {
    draft: Draft,
    child: Child,
}

impl Draft {
    /// Writes the message to a file for the editor that `$VISUAL` or else `$EDITOR` names.
    pub fn new(session: Option<SessionId>, text: &str) -> Result<Self, String> {
        let named = |name| env::var(name).ok().filter(|editor| !editor.trim().is_empty());
        let editor = named("VISUAL").or_else(|| named("EDITOR")).ok_or("set VISUAL or EDITOR to an editor")?;
        // Only its owner can read it, and it goes when this is dropped.
        let file = tempfile::Builder::new().prefix("kcache-message-").suffix(".md").tempfile();
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.flush()?;
            Ok(file)
        });
        let file = written.map_err(|error| format!("no file for the editor: {error}"))?;
        Ok(Self { session, file, editor })
    }

    /// The session that it is written in.
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Starts the editor, on a terminal that is nobody else's by now.
    pub fn open(self) -> Result<Editor, String> {
        let mut shell = Command::new("sh");
        // The shell takes the variable apart, as it may hold flags and quotes, and becomes the editor, so that a signal
        // reaches that. Before a variable that is set for the editor it cannot.
        let first = self.editor.split_whitespace().next().unwrap_or_default();
        let exec = if first.contains('=') { "" } else { "exec " };
        shell.arg("-c").arg(format!("{exec}{} \"$1\"", self.editor)).arg("sh").arg(self.file.path());
        shell.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit()).kill_on_drop(true);
        match shell.spawn() {
            Ok(child) => Ok(Editor { draft: self, child }),
            Err(error) => Err(format!("the editor did not start: {error}")),
        }
    }
}

impl Editor {
    /// The session that the message is written in.
    pub fn session(&self) -> Option<SessionId> {
        self.draft.session
    }

    /// Waits for the editor that runs, if one does: what it left, or why it is not taken.
    pub async fn ended(running: &mut Option<Self>) -> Result<String, String> {
        match running {
            Some(editor) => {
                let status = editor.child.wait().await.map_err(|error| format!("the editor is lost: {error}"))?;
                editor.draft.read(status)
            }
            None => pending().await,
        }
    }

    /// Tells the editor to end, so that it gives the terminal back as it was; one that does not is ended.
    pub async fn end(mut self) {
        if let Some(id) = self.child.id() {
            // Where there is no such program the editor is ended without having been asked.
            let _ = Command::new("kill").arg(id.to_string()).stderr(Stdio::null()).status().await;
        }
        let _ = timeout(END_WITHIN, self.child.wait()).await;
    }
}

impl Draft {
    /// What the editor left in the file. It may have put another file in its place, so it is opened anew.
    fn read(&self, status: ExitStatus) -> Result<String, String> {
        let editor = &self.editor;
        match status.code() {
            Some(0) => {}
            Some(NOT_FOUND) => return Err(format!("there is no editor `{editor}`")),
            Some(code) => return Err(format!("the editor `{editor}` ended with {code}")),
            None => return Err(format!("the editor `{editor}` was ended by a signal")),
        }
        let failed = |error: std::io::Error| format!("what the editor left cannot be read: {error}");
        let bytes = fs::metadata(self.file.path()).map_err(failed)?.len();
        if bytes > LONGEST {
            return Err(format!("what the editor left has {} KiB; a message may have {}", bytes >> 10, LONGEST >> 10));
        }
        let text = String::from_utf8(fs::read(self.file.path()).map_err(failed)?)
            .map_err(|_| "what the editor left is not text in UTF-8".to_owned())?;
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        // Editors end the last line; nobody means that as an empty one.
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }
}
