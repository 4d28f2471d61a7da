//! Buffers that a task uses while it runs: one set for each thread, kept between calls.
//!
//! A thread gets the set that it had last, and each set has cache lines of its own. So in the long run no thread waits
//! for a line that another one has written; a task of decoding is so short that it would notice.

use std::{
    cell::Cell,
    sync::{Mutex, PoisonError, TryLockError},
};

/// One `T` per thread of a pool.
#[derive(Debug, Default)]
pub(super) struct PerThread<T>(Vec<Line<T>>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(Mutex<T>);

thread_local! {
    /// Where this thread found a free set last.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

impl<T: Default> PerThread<T> {
    /// Makes sure that `threads` tasks can run at once.
    pub(super) fn grow(&mut self, threads: usize) {
        self.0.resize_with(self.0.len().max(threads), Line::default);
    }

    /// All of them, while no task runs.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut T> {
        // Every task overwrites what it reads, so buffers of a task that panicked can be used again.
        self.0.iter_mut().map(|local| local.0.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// The sum of `of` over all of them, while no task runs.
    pub(super) fn sum(&self, of: impl Fn(&T) -> u64) -> u64 {
        // The size is right also after a task that panicked.
        self.0.iter().map(|local| of(&local.0.lock().unwrap_or_else(PoisonError::into_inner))).sum()
    }

    /// Runs `task` with a `T` that no other task uses meanwhile.
    ///
    /// # Panics
    /// When more tasks run at once than [`PerThread::grow`] was told.
    pub(super) fn with<R>(&self, task: impl FnOnce(&mut T) -> R) -> R {
        let first = LAST.get().min(self.0.len());
        let (before, after) = self.0.split_at(first);
        for (at, local) in (first..).zip(after).chain(before.iter().enumerate()) {
            let mut local = match local.0.try_lock() {
                Ok(local) => local,
                Err(TryLockError::Poisoned(local)) => local.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            LAST.set(at);
            return task(&mut local);
        }
        unreachable!("more tasks at once than threads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_at_once_have_sets_of_their_own() {
        let mut locals = PerThread::<u64>::default();
        locals.grow(2);
        locals.with(|first| {
            *first += 1;
            locals.with(|second| *second += 10);
        });
        let mut sets: Vec<u64> = locals.each().map(|set| *set).collect();
        sets.sort_unstable();
        assert_eq!((sets, locals.sum(|&set| set)), (vec![1, 10], 11));
        // This thread had the second of two last; here there is one.
        let mut one = PerThread::<u64>::default();
        one.grow(1);
        one.with(|set| *set += 1);
        assert_eq!(one.sum(|&set| set), 1);
    }
}
