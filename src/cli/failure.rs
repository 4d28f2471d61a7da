//! How a command ends badly, and what is said then.

use std::{io::Write, process::ExitCode};

use color_eyre::eyre::{Report, eyre};

use crate::config::ConfigError;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for makes no sense; exit code 2. One line each.
    Misuse(String),
    /// It made sense and did not work; exit code 1.
    Failed(Report),
}

impl Failure {
    /// What was asked for makes no sense.
    pub fn misuse(message: impl ToString) -> Self {
        Self::Misuse(message.to_string())
    }

    /// It made sense and did not work.
    pub fn failed(message: impl ToString) -> Self {
        Self::Failed(eyre!(message.to_string()))
    }

    /// Says what went wrong and gives the exit code. Where it went wrong is of use for a panic alone, which shows it.
    pub fn report(self, to: &mut dyn Write) -> ExitCode {
        let (text, code) = match self {
            Self::Misuse(text) => (text, 2),
            Self::Failed(report) => (chain(&report), 1),
        };
        // Nobody is left to tell where even stderr is closed.
        let _ = text.lines().try_for_each(|line| writeln!(to, "kcache: {line}"));
        ExitCode::from(code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::misuse(error)
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::Failed(report)
    }
}

/// An error and its causes in one line. A cause whose words its error repeats is left out.
fn chain(report: &Report) -> String {
    let mut line = String::new();
    for cause in report.chain().map(ToString::to_string) {
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
    use color_eyre::eyre::WrapErr;

    #[test]
    fn causes_are_told_once_in_one_line() {
        let disk = || Err::<(), _>(std::io::Error::other("disk\nfull"));
        let report = disk().wrap_err("cannot write").wrap_err("no model").unwrap_err();
        assert_eq!(chain(&report), "no model: cannot write: disk full");
        let report = disk().wrap_err("cannot write: disk full").unwrap_err();
        assert_eq!(chain(&report), "cannot write: disk full");
    }

    #[test]
    fn every_line_of_a_misuse_names_the_program() {
        let mut said = Vec::new();
        Failure::misuse("a:1: x\na:2: y").report(&mut said);
        assert_eq!(String::from_utf8(said).unwrap(), "kcache: a:1: x\nkcache: a:2: y\n");
    }
}
