//! Files that the user asks for: an exported session, a picture of the screen, settings in the configuration.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{config::keep_changed, document::at_home};

/// Writes an exported session to `path`, or under `name` where that is a folder or not given; never over a file that is
/// there. The error is one line.
pub fn write_session(path: Option<&Path>, folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = path.map_or_else(|| folder.to_owned(), at_home);
    let path = if path == folder || path.is_dir() { path.join(name) } else { path };
    match write_new(&path, text) {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(format!("{} is there already: name another file", path.display()))
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Writes a new file, which is whole or not there.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.part", std::process::id()));
    let aside = PathBuf::from(aside);
    let written = File::create_new(&aside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    // A link, unlike a name that is changed, never takes the place of a file that came meanwhile. Where the folder knows no
    // links, the look above has to do.
    let named = written.and_then(|()| match fs::hard_link(&aside, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => fs::rename(&aside, path),
        linked => linked,
    });
    // Gone where its name was changed.
    let _ = fs::remove_file(&aside);
    named
}

/// Writes a picture under a name of its own; the error is one line.
pub fn write_picture(folder: &Path, svg: &str) -> Result<PathBuf, String> {
    let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let path = folder.join(format!("kcache-{millis}.svg"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, svg))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Keeps settings in the user's file; what was written where, or why not, in one line.
pub fn keep_settings(file: Option<&Path>, settings: &[(String, String)]) -> Result<String, String> {
    let file = file.ok_or("nothing is kept: there is no home folder; name a file with --config")?;
    let kept = keep_changed(file, settings).map_err(|error| {
        let error = error.to_string();
        format!("nothing is kept: {}", error.lines().next().unwrap_or_default())
    })?;
    if kept.is_empty() {
        return Ok(format!("nothing to keep: {} and the defaults say so already", file.display()));
    }
    let kept: Vec<_> = kept.iter().map(|kept| format!("{} = {}", kept.path, kept.toml)).collect();
    Ok(format!("kept in {}: {}", file.display(), kept.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_written_and_one_that_is_there_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("pictures");
        let path = write_session(None, &pictures, "a.md", "text").unwrap();
        assert_eq!((path.clone(), fs::read_to_string(&path).unwrap()), (pictures.join("a.md"), "text".into()));
        let error = write_session(Some(&path), &pictures, "b.md", "other").unwrap_err();
        assert!(error.contains("is there already") && !error.contains('\n'), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        assert_eq!(write_session(Some(folder.path()), &pictures, "c.md", "c"), Ok(folder.path().join("c.md")));
        assert!(write_session(Some(&path.join("below")), &pictures, "d.md", "d").is_err());
        let left = fs::read_dir(&pictures).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside it");
    }
}
