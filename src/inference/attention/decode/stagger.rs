//! Keeps some threads reading keys while others compute.
//!
//! One thread alone uses most of the memory bandwidth. Threads that read keys at the same time also choose rows at the
//! same time, and then memory is idle; they stay in step by themselves. So a thread that has read a sequence to its end
//! while enough others compute puts its second pass off once and reads on. From then on it is out of step with them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Decides which second passes follow their first at once.
pub(super) struct Stagger {
    /// Threads in second passes that are enough to go on with reading.
    enough: usize,
    /// Threads in a second pass.
    computing: AtomicUsize,
    /// How often one may still be put off.
    delays: AtomicUsize,
    threads: usize,
}

impl Stagger {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self {
            enough: threads.div_ceil(2),
            computing: AtomicUsize::new(0),
            delays: AtomicUsize::new(threads / 2),
            threads,
        }
    }

    /// Runs the second pass of a sequence whose first one is over, or says that it has to be done later: where there is
    /// hardly anything left to read meanwhile, all threads will share it. `left` are the splits of all sequences that
    /// are not done, those included that other threads have begun.
    pub fn second_pass(&self, left: usize, pass: impl FnOnce()) -> bool {
        let one_less = |delays: usize| delays.checked_sub(1);
        let late = left < self.threads
            || self.computing.load(Ordering::Relaxed) >= self.enough
                && self.delays.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok();
        if late {
            return false;
        }
        self.computing.fetch_add(1, Ordering::Relaxed);
        pass();
        self.computing.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_put_off_once_while_others_compute() {
        let stagger = Stagger::new(2);
        assert!(stagger.second_pass(2, || {
            assert!(!stagger.second_pass(2, || unreachable!("one thread computes, the other reads on")));
            assert!(stagger.second_pass(2, || {}), "once only");
        }));
        assert!(stagger.second_pass(2, || {}));
    }

    #[test]
    fn what_comes_last_is_left_for_all() {
        let stagger = Stagger::new(3);
        assert!(!stagger.second_pass(2, || unreachable!("what is left is being read")));
        assert!(stagger.second_pass(3, || {}));
    }
}
