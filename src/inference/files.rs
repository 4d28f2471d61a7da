//! Files: read up to a size, written whole or not at all, and paths as text that loses no byte.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    path::Path,
};

use serde::Serializer;

/// The bytes of a file of at most `most` MiB. A device such as `/dev/zero` has no end, so the size that the system
/// tells is not enough.
///
/// # Errors
///
/// What the system says, or that it is larger.
pub fn read(path: &Path, most_mib: u64) -> io::Result<Vec<u8>> {
    take(File::open(path)?, most_mib)
}

/// The same as text.
///
/// # Errors
///
/// What the system says, or that it is larger, or no text in UTF-8.
pub fn read_text(path: &Path, most_mib: u64) -> io::Result<String> {
    text(read(path, most_mib)?)
}

/// The bytes of a stream, standard input for one, likewise.
///
/// # Errors
///
/// What the system says, or that it is larger.
pub fn take(stream: impl Read, most_mib: u64) -> io::Result<Vec<u8>> {
    let most = most_mib << 20;
    let mut bytes = Vec::new();
    stream.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {most_mib} MiB")));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not text in UTF-8"))
}

/// Writes a file whole or not at all. It keeps the rights of the one that it replaces.
///
/// # Errors
///
/// What the system says; what was there is there still.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one: what it points to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(format!(".{}.", std::process::id()));
    name.push(path.file_name().unwrap_or_default());
    let aside = folder.join(name);
    let written = File::create(&aside).and_then(|mut file| {
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
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

/// A path as text that tells every byte: what is no UTF-8 stands as `\xff`.
pub fn shown(path: &Path) -> String {
    let mut out = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// Text as a TOML string on one line, in which nothing is left that a terminal would carry out.
pub fn toml_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Has serde write a path so: by itself it refuses what is no UTF-8.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(path))
}

/// The same for a path that may be missing.
pub fn serialize_some<S: Serializer>(path: &Option<impl AsRef<Path>>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serialize(path.as_ref(), serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused() {
        let error = read_text(Path::new("/dev/zero"), 1).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 1 MiB");
        assert_eq!(read(Path::new("/dev/null"), 1).unwrap(), b"");
        assert_eq!(take(&[7; 1 << 20][..], 1).unwrap().len(), 1 << 20);
        assert!(text(vec![0xff]).unwrap_err().to_string().contains("UTF-8"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_rights_stay_what_they_are() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.toml"), folder.path().join("link.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();
        write_whole(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_whole(Path::new("/proc/none/x"), "").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn every_byte_of_a_path_is_told() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"m\xff\xfe \xc3\xa9.gguf"));
        assert_eq!(shown(path), r"m\xff\xfe é.gguf");
    }
}
