//! Who computes while others read.
//!
//! One thread alone takes most of what memory gives. Threads that read keys together and then choose rows together leave
//! memory idle half of the time, and they stay in step: who is ahead reads alone for a while, but computes alone later,
//! too. So a thread that has read a sequence to its end while enough others compute puts its second pass off and reads
//! on, once. After that it is out of step with them, and stays so.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Which second passes follow their first at once.
pub(super) struct Turns {
    /// Threads in second passes that are enough to go on with reading.
    enough: usize,
    /// Threads in a second pass.
    computing: AtomicUsize,
    /// How often one may still be put off.
    delays: AtomicUsize,
    threads: usize,
}

impl Turns {
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
    /// hardly anything left to read meanwhile, all threads will share it. `left` are the pieces of all sequences that are
    /// not done, those included that other threads have begun.
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
        let turns = Turns::new(2);
        assert!(turns.second_pass(2, || {
            assert!(!turns.second_pass(2, || unreachable!("one thread computes, the other reads on")));
            assert!(turns.second_pass(2, || {}), "once only");
        }));
        assert!(turns.second_pass(2, || {}));
    }

    #[test]
    fn what_comes_last_is_left_for_all() {
        let turns = Turns::new(3);
        assert!(!turns.second_pass(2, || unreachable!("what is left is being read")));
        assert!(turns.second_pass(3, || {}));
    }
}
