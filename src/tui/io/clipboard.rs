//! The clipboard of the terminal that somebody sits at, also over ssh: OSC 52, an escape sequence that holds the text.

use std::{
    env,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crossterm::{Command as _, clipboard::CopyToClipboard};

/// How long tmux may take to say what it does with the sequence.
const TMUX_WITHIN: Duration = Duration::from_millis(300);

/// How the sequence gets to the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As it is. tmux with `set-clipboard on` takes it and hands it on.
    Plain,
    /// Wrapped, so that tmux hands it on unread: otherwise it would drop it.
    Wrapped,
}

impl Way {
    pub fn from_here() -> Self {
        let inside = env::var_os("TMUX").is_some_and(|socket| !socket.is_empty());
        match inside.then(set_clipboard).flatten() {
            Some(option) if option != "on" => Self::Wrapped,
            _ => Self::Plain,
        }
    }

    /// Why nothing may arrive, as the end of a notice.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Plain => "; a terminal may refuse it",
            Self::Wrapped => "; tmux may need `set-clipboard on`",
        }
    }
}

/// What tmux does with the sequence: `on`, `external` or `off`. `None` where it does not say.
fn set_clipboard() -> Option<String> {
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || {
        let mut tmux = Command::new("tmux");
        tmux.args(["show-options", "-sv", "set-clipboard"]).stdin(Stdio::null()).stderr(Stdio::null());
        // Nobody waits any longer where it took too long.
        let _ = sender.send(tmux.output());
    });
    let output = answer.recv_timeout(TMUX_WITHIN).ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

/// The sequence that hands `text` to the clipboard.
pub fn sequence(text: &str, way: Way) -> String {
    let mut sequence = String::new();
    // Writing to a string does not fail.
    let _ = CopyToClipboard::to_clipboard_from(text).write_ansi(&mut sequence);
    match way {
        Way::Plain => sequence,
        Way::Wrapped => format!("\x1bPtmux;{}\x1b\\", sequence.replace('\x1b', "\x1b\x1b")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_in_the_sequence_and_tmux_is_told_to_hand_it_on() {
        assert_eq!(sequence("Grüße", Way::Plain), "\x1b]52;c;R3LDvMOfZQ==\x1b\\");
        assert_eq!(sequence("a", Way::Wrapped), "\x1bPtmux;\x1b\x1b]52;c;YQ==\x1b\x1b\\\x1b\\");
    }
}
