//! The file in which sessions wait for the next run. It is written aside and renamed, so it is whole or as it was. What
//! this run did not read is never written over: it is kept aside under another name.
//!
//! It is written whenever an answer has ended, so that a process that is killed loses no more than the answer under way.
//! Of several that run at once only one does so, the one that holds the lock; the others write to a file of their own
//! beside it until they end, or each would move the other's sessions aside at every answer.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::saved::{self, SavedSession};

/// The file, and what it held when it was read.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Its text; `None` where there was no file.
    read: Option<String>,
    /// Whether it may be written: a file that can neither be read nor moved stays where it is.
    writable: bool,
    /// What says that no other run writes the file at every answer; held until this one ends.
    lock: Option<File>,
}

impl Store {
    /// Reads the file. What is in it, or one line about why it is not used; a damaged file is kept aside.
    pub fn open(path: PathBuf) -> (Self, Result<Vec<SavedSession>, String>) {
        let store = |path, read, writable| Self { path, read, writable, lock: None };
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return (store(path, None, true), Ok(Vec::new())),
            Err(error) => {
                let line = format!("{}: {error}; no session is opened, and none will be saved", path.display());
                return (store(path, None, false), Err(line));
            }
        };
        let text = String::from_utf8(text).map_err(|_| "is damaged (it is not text)".to_owned());
        match text.and_then(|text| saved::read(&text).map(|sessions| (text, sessions))) {
            Ok((text, sessions)) => (store(path, Some(text), true), Ok(sessions)),
            Err(wrong) => match keep_aside(&path) {
                Ok(aside) => {
                    let line = format!("{} {wrong}; it is kept as {}", path.display(), aside.display());
                    (store(path, None, true), Err(line))
                }
                Err(error) => {
                    let line =
                        format!("{} {wrong} and cannot be moved ({error}); no session will be saved", path.display());
                    (store(path, None, false), Err(line))
                }
            },
        }
    }

    /// Writes what was said so far, amid the run.
    ///
    /// # Errors
    ///
    /// One line: why it could not be written. What was there is there still.
    pub fn save(&mut self, sessions: &[SavedSession]) -> Result<(), String> {
        if self.writable && !self.is_first() {
            return write(&self.own(), &saved::write(sessions)).map_err(|error| failed(&self.own(), &error));
        }
        self.write(sessions)
    }

    /// Writes the file for the next run, at the end of this one.
    ///
    /// # Errors
    ///
    /// As for [`Self::save`].
    pub fn finish(&mut self, sessions: &[SavedSession]) -> Result<(), String> {
        self.write(sessions)?;
        // Where there was none, nothing has to go.
        let _ = fs::remove_file(self.own());
        Ok(())
    }

    fn write(&mut self, sessions: &[SavedSession]) -> Result<(), String> {
        if !self.writable || (sessions.is_empty() && self.read.is_none()) {
            return Ok(());
        }
        let text = saved::write(sessions);
        let now = match fs::read(&self.path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&self.path, &error)),
        };
        // Another run has saved its own meanwhile.
        if now.is_some() && now.as_deref() != self.read.as_deref().map(str::as_bytes) {
            let aside = keep_aside(&self.path).map_err(|error| failed(&self.path, &error))?;
            tracing::warn!("another run's sessions are kept as {}", aside.display());
        }
        write(&self.path, &text).map_err(|error| failed(&self.path, &error))?;
        self.read = Some(text);
        Ok(())
    }

    /// Whether this run is the one that writes the file at every answer.
    fn is_first(&mut self) -> bool {
        if self.lock.is_some() {
            return true;
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let lock = fs::create_dir_all(folder).and_then(|()| File::create(self.path.with_extension("lock")));
        // Where files cannot be locked there is no telling, and one run is the rule.
        let Ok(lock) = lock else { return true };
        let first = !matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
        self.lock = first.then_some(lock);
        first
    }

    /// Where this run's sessions are while another one holds the lock.
    fn own(&self) -> PathBuf {
        self.path.with_extension(format!("{}.json", std::process::id()))
    }
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("the sessions are not saved: {}: {error}", path.display())
}

/// Gives a file another name beside its own.
fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let aside = path.with_extension(format!("{}.json", since.map_or(0, |since| since.as_millis())));
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes a file whole or not at all, readable by its owner alone: it holds what people said.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let aside = path.with_extension(format!("{}.part", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&aside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&aside, path));
    if renamed.is_err() {
        // What could not be made need not be there.
        let _ = fs::remove_file(&aside);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().display().to_string()).collect();
        names.sort();
        names
    }

    fn one() -> Vec<SavedSession> {
        let text = r#"{"version":1,"sessions":[{"name":"a","shown":true,"turns":[]}]}"#;
        saved::read(text).unwrap()
    }

    #[test]
    fn what_is_saved_is_read_and_no_other_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/sessions.json");
        let (mut store, sessions) = Store::open(path.clone());
        assert_eq!(sessions, Ok(Vec::new()));
        store.finish(&one()).unwrap();
        let (mut store, sessions) = Store::open(path.clone());
        assert_eq!(sessions, Ok(one()));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
        // All of them closed: nothing is left to be opened.
        store.finish(&[]).unwrap();
        assert_eq!(Store::open(path.clone()).1, Ok(Vec::new()));
        assert_eq!(names(path.parent().unwrap()), ["sessions.json"]);
    }

    #[test]
    fn nothing_said_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path().join("sessions.json")).0.finish(&[]).unwrap();
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_in_a_line_and_kept() {
        let texts: [&[u8]; 4] = [b"{\"version\":1,\"sess", b"", b"\xff\xfe", b"{\"version\":3,\"future\":true}"];
        for text in texts {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("sessions.json");
            fs::write(&path, text).unwrap();
            let (mut store, sessions) = Store::open(path.clone());
            let line = sessions.unwrap_err();
            assert!(line.contains("it is kept as") && !line.contains('\n'), "{line}");
            store.finish(&one()).unwrap();
            let names = names(folder.path());
            assert_eq!(names.len(), 2, "{names:?}");
            assert_eq!(fs::read(folder.path().join(&names[0])).unwrap(), text);
            assert_eq!(Store::open(path).1, Ok(one()));
        }
    }

    #[test]
    fn what_another_run_saved_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.json");
        let (mut first, _) = Store::open(path.clone());
        let (mut second, _) = Store::open(path.clone());
        first.finish(&one()).unwrap();
        let theirs = fs::read(&path).unwrap();
        second.finish(&[one(), one()].concat()).unwrap();
        let names = names(folder.path());
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read(folder.path().join(&names[0])).unwrap(), theirs);
    }

    #[test]
    fn what_is_saved_amid_a_run_is_there_at_once_and_goes_on_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.json");
        let (mut store, _) = Store::open(path.clone());
        store.save(&one()).unwrap();
        assert_eq!(Store::open(path.clone()).1, Ok(one()));
        let two = [one(), one()].concat();
        store.save(&two).unwrap();
        store.finish(&two).unwrap();
        assert_eq!(Store::open(path.clone()).1, Ok(two));
        assert_eq!(names(folder.path()), ["sessions.json", "sessions.lock"]);
    }

    #[test]
    fn two_runs_at_once_do_not_move_each_others_sessions_at_every_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.json");
        let (mut first, _) = Store::open(path.clone());
        let (mut second, _) = Store::open(path.clone());
        let two = [one(), one()].concat();
        for _ in 0..5 {
            first.save(&one()).unwrap();
            second.save(&two).unwrap();
        }
        let own = second.own();
        assert_eq!(names(folder.path()).len(), 3, "{:?}", names(folder.path()));
        assert_eq!(saved::read(&fs::read_to_string(&own).unwrap()), Ok(two.clone()));
        assert_eq!(Store::open(path.clone()).1, Ok(one()));
        // The second ends: the first's are kept aside, its own file goes.
        second.finish(&two).unwrap();
        assert!(!own.exists());
        assert_eq!(Store::open(path.clone()).1, Ok(two));
        first.finish(&one()).unwrap();
        assert_eq!(Store::open(path.clone()).1, Ok(one()));
    }
}
