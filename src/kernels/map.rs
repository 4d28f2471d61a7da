//! A file mapped into memory, read-only: weights are used where the system put them, without a second copy.

use std::{
    fs::File,
    io,
    ops::{Deref, Range},
    path::Path,
};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

/// The bytes of a file, mapped read-only. Page-aligned, so that offsets in the file keep their alignment in memory.
#[derive(Debug)]
pub struct FileMap(Mmap);

impl FileMap {
    /// Maps the whole of the file at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an ordinary file"));
        }
        // SAFETY: the map is private to this value, read-only and never handed out as mutable. What remains is that
        // another process may change the file beneath it: a model file is put in place by one rename and never written
        // again by this program, and one that is shortened by somebody else ends the process with SIGBUS rather than
        // with wrong results. No reference into the map outlives it: `Deref` borrows from `self`.
        unsafe { Mmap::map(&file) }.map(Self)
    }

    /// Says that `range` will not be read again soon: its pages need not stay in memory. Reading them stays possible.
    /// Where the system ignores it, only more memory is in use.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        // SAFETY: the map is of a file and read-only, so the pages that go come back with the same bytes.
        let _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
