//! Buffers that a task uses while it runs: one set per thread, kept between calls.

use std::sync::{Mutex, PoisonError, TryLockError};

/// One `T` per thread of a pool.
#[derive(Debug, Default)]
pub(super) struct Locals<T>(Vec<Mutex<T>>);

impl<T: Default> Locals<T> {
    /// Makes sure that `threads` tasks can run at once.
    pub(super) fn grow(&mut self, threads: usize) {
        self.0.resize_with(self.0.len().max(threads), Mutex::default);
    }

    /// The sum of what `of` says of each, while no task runs.
    pub(super) fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        // A task that panicked leaves buffers that are as large as they are.
        self.0.iter().map(|local| of(&local.lock().unwrap_or_else(PoisonError::into_inner))).sum()
    }

    /// Runs `task` with a `T` that no other task uses meanwhile.
    ///
    /// # Panics
    /// When more tasks run at once than [`Locals::grow`] was told.
    pub(super) fn with<R>(&self, task: impl FnOnce(&mut T) -> R) -> R {
        for local in &self.0 {
            match local.try_lock() {
                Ok(mut local) => return task(&mut local),
                // A task that panicked leaves nothing behind that the next one would read.
                Err(TryLockError::Poisoned(local)) => return task(&mut local.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        unreachable!("more tasks at once than threads")
    }
}
