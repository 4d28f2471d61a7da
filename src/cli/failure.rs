//! How a command fails: the message and the exit code.

use std::{io::Write, process::ExitCode};

use anyhow::Error;

use super::escape;
use crate::config::{ConfigError, KeepError};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for makes no sense, in one line; exit code 2.
    Misuse(String),
    /// The configuration makes no sense; exit code 2. A line for each mistake.
    Config(ConfigError),
    /// It made sense and did not work; exit code 1.
    Failed(Error),
}

impl Failure {
    /// What was asked for makes no sense.
    pub fn misuse(message: impl ToString) -> Self {
        Self::Misuse(message.to_string())
    }

    /// It made sense and did not work.
    pub fn failed(message: impl ToString) -> Self {
        Self::Failed(Error::msg(message.to_string()))
    }

    /// Says what went wrong and gives the exit code.
    ///
    /// Whatever is in the words, each message is one line: a line break in a file's name makes no second one.
    pub fn report(self, to: &mut dyn Write) -> ExitCode {
        let (messages, code) = match self {
            Self::Misuse(text) => (vec![text], 2),
            Self::Config(error) => (error.mistakes.iter().map(ToString::to_string).collect(), 2),
            Self::Failed(error) => (vec![chain(&error)], 1),
        };
        // Nobody is left to tell where even stderr is closed.
        let _ = messages.iter().try_for_each(|message| writeln!(to, "kcache: {}", escape::line(message)));
        ExitCode::from(code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Config(error) => Self::Config(error),
            KeepError::Unknown(line) => Self::Misuse(line),
            KeepError::File { .. } => Self::failed(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An error and its causes in one line. A cause whose words its error repeats is left out.
fn chain(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = cause.lines().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mistake, Origin};
    use anyhow::Context;

    #[test]
    fn causes_are_told_once_in_one_line() {
        let disk = || Err::<(), _>(std::io::Error::other("disk\nfull"));
        let report = disk().context("cannot write").context("no model").unwrap_err();
        assert_eq!(chain(&report), "no model: cannot write: disk full");
        let report = disk().context("cannot write: disk full").unwrap_err();
        assert_eq!(chain(&report), "cannot write: disk full");
    }

    fn said(failure: Failure) -> String {
        let mut said = Vec::new();
        failure.report(&mut said);
        String::from_utf8(said).unwrap()
    }

    #[test]
    fn every_mistake_in_a_configuration_has_a_line() {
        let mistake = |message: &str| Mistake { origin: Origin::Flag("--threads"), message: message.to_owned() };
        let error = ConfigError { mistakes: vec![mistake("x"), mistake("y\nkcache: all is well")] };
        assert_eq!(said(error.into()), "kcache: --threads: x\nkcache: --threads: y\\nkcache: all is well\n");
    }

    #[test]
    fn a_message_cannot_forge_a_second_one_or_be_carried_out() {
        let text = "no file a\nkcache: all is well\x1b[2J\u{9b}1m";
        let shown = "no file a\\nkcache: all is well\\u{1b}[2J\\u{9b}1m";
        assert_eq!(said(Failure::misuse(text)), format!("kcache: {shown}\n"));
        assert_eq!(said(Failure::failed(text)), format!("kcache: {}\n", shown.replace("\\n", " ")));
    }
}
