//! The log. It goes to a file of bounded size, and never to the terminal.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    panic,
    path::{Path, PathBuf},
};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, folders};

/// A log file is turned over at this size, and one old one is kept: twice this on disk at most.
const LIMIT: u64 = 4 << 20;

/// Keeps the log's writer going; dropping it writes what is still waiting.
#[must_use = "dropping it ends the log"]
pub struct Log {
    _worker: WorkerGuard,
}

impl Log {
    /// Starts the log of this process. Lines are written by a thread of their own, so no one waits for the disk.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or a log has been started already.
    pub fn start(config: &LogConfig) -> io::Result<Self> {
        let path = config.file.clone().or_else(folders::log_file);
        let path = path.ok_or_else(|| io::Error::other("there is no home folder to keep a log in"))?;
        let (writer, worker) = NonBlocking::new(Turning::open(path, LIMIT)?);
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::try_new(&config.filter).map_err(io::Error::other)?)
            .with_writer(writer)
            .with_ansi(false)
            // A log that fails is not told on stderr, where nobody may be left to read.
            .log_internal_errors(false)
            .try_init()
            .map_err(io::Error::other)?;
        log_panics();
        tracing::info!(version = env!("BUILD_VERSION"), pid = std::process::id(), "started");
        Ok(Self { _worker: worker })
    }
}

/// Has every panic logged, on whatever thread, before the hook that was there shows it.
fn log_panics() {
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        tracing::error!(thread = thread.name(), "{panic}");
        shown(panic);
    }));
}

/// A file that, grown to its limit, becomes `FILE.1` in place of an older one and starts anew.
struct Turning {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl Turning {
    fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, limit })
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Turning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + bytes.len() as u64 > self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            self.file = append(&self.path)?;
            // Another process may have turned the file over just now and written to the new one.
            self.written = self.file.metadata()?.len();
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_within_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/kcache.log");
        let mut log = Turning::open(path.clone(), 100).unwrap();
        for line in 0..50 {
            writeln!(log, "line {line:>20}").unwrap();
        }
        drop(log);
        let (now, old) =
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(path.with_extension("log.1")).unwrap());
        assert!(now.len() <= 100 && old.len() <= 100);
        assert!(now.ends_with("49\n"), "{now}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);

        let mut log = Turning::open(path.clone(), 100).unwrap();
        writeln!(log, "again").unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("49\nagain"));
    }
}
