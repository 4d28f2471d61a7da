//! SHA-256 of bytes while they are copied, so that a file need not be read a second time.

use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use sha2::{Digest, Sha256};

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passed {
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// Copies everything from `from` to `to` and hashes it. `seen` is told how many bytes are through. A copy that is
/// cancelled ends with [`io::ErrorKind::Interrupted`].
pub(super) fn copy_hashed(
    from: &mut dyn Read,
    to: &mut dyn Write,
    seen: &mut dyn FnMut(u64),
    cancel: &AtomicBool,
) -> io::Result<Passed> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..len]);
        to.write_all(&buffer[..len])?;
        bytes += len as u64;
        seen(bytes);
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Passed { bytes, sha256 })
}
