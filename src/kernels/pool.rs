//! The one thread pool: regions of independent tasks, taken from counters by the caller and the workers.
//!
//! Every thread has a run of neighbouring tasks and takes tasks from the others only when its own are done. So each
//! thread goes through memory in one stream. If two threads took neighbouring tasks in turn, the prefetcher of each
//! would fetch the other's memory as well and waste bandwidth.
//!
//! A step is a chain of many short regions with little between them. So workers spin for some tens of microseconds
//! after a region, where the next one usually finds them, and then park, so that an idle pool costs nothing. The caller
//! never waits for a worker to come, only for tasks that a worker has begun: on a busy machine the caller does most of
//! a region alone.

use std::{
    any::Any,
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// How long a worker looks for the next region, and a caller for the end of the last tasks, before it parks.
const SPIN: Duration = Duration::from_micros(40);

// The gate is one word: the region's number, whether it takes workers, whether the pool ends, and who is inside.
const ACTIVE: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const EPOCH: u64 = 1 << 32;

/// A pool of threads that run regions of tasks.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the one caller whose region is open.
    region: Mutex<()>,
}

/// A cache line to itself, so that spinning on one word does not slow the other.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    gate: Line<AtomicU64>,
    /// The next task of each thread's run; the caller's is the first.
    next: Box<[Line<AtomicUsize>]>,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    parked: Box<[AtomicBool]>,
}

/// What the open region does.
struct Job {
    tasks: usize,
    task: &'static (dyn Fn(usize) + Sync),
    caller: Option<Thread>,
}

// SAFETY: `job` is the only part that is not Sync by itself. It is written only while the gate is closed and nobody
// is inside, and read only from inside (see `Pool::run` and `Shared::enter`).
unsafe impl Sync for Shared {}

impl Pool {
    /// A pool of `threads` threads (at least 1), the caller of [`Pool::run`] counted as one of them.
    pub fn new(threads: usize) -> Self {
        let workers = threads.saturating_sub(1).min(ACTIVE as usize - 1);
        let shared = Arc::new(Shared {
            gate: Line(AtomicU64::new(0)),
            next: (0..=workers).map(|_| Line(AtomicUsize::new(0))).collect(),
            job: UnsafeCell::new(Job { tasks: 0, task: &|_| {}, caller: None }),
            panic: Mutex::new(None),
            parked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        });
        let workers = (0..workers)
            .filter_map(|index| {
                let shared = Arc::clone(&shared);
                // A system that gives no more threads leaves the pool with those it has.
                thread::Builder::new().name(format!("kernel-{index}")).spawn(move || shared.work(index)).ok()
            })
            .collect();
        Self { shared, workers, region: Mutex::new(()) }
    }

    /// The threads that compute, the caller counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(tasks - 1)`, each once, in any order and on any thread, and returns when all are done.
    ///
    /// One task, one thread, a region inside a region and a second caller at the same time run on the calling thread.
    ///
    /// # Panics
    /// A panic in a task ends the region early and is carried on in the caller.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let region = match self.region.try_lock() {
            Ok(region) if tasks > 1 && !self.workers.is_empty() => region,
            Err(TryLockError::Poisoned(region)) if tasks > 1 && !self.workers.is_empty() => region.into_inner(),
            _ => return (0..tasks).for_each(task),
        };
        // SAFETY: the lifetime is only dropped for storage. The reference is used by threads that are inside the
        // gate, and this function does not return before the gate is closed and the last of them has left.
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        let job = Job { tasks, task, caller: Some(thread::current()) };
        // SAFETY: the last region was closed and left by everybody, and `region` keeps other callers away.
        unsafe { *self.shared.job.get() = job };
        for (run, next) in self.shared.next.iter().enumerate() {
            next.0.store(self.shared.run_start(run, tasks), Ordering::Relaxed);
        }
        let gate = self.shared.gate.0.load(Ordering::Relaxed);
        self.shared.gate.0.store((gate & !(EPOCH - 1)).wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&self.shared.parked).take(tasks - 1) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        self.shared.drain(0, tasks, task);
        self.shared.gate.0.fetch_and(!OPEN, Ordering::AcqRel);
        self.shared.wait_until_left();
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(region);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.gate.0.fetch_or(STOP, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its tasks, so there is nothing to learn from its result.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The first task of a thread's run.
    fn run_start(&self, run: usize, tasks: usize) -> usize {
        run * tasks / self.next.len()
    }

    /// Takes tasks until there are none left, those of run `own` first. After a panic nobody takes another one.
    fn drain(&self, own: usize, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let runs = self.next.len();
            for run in (own..runs).chain(0..own) {
                let (next, end) = (&self.next[run].0, self.run_start(run + 1, tasks));
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= end {
                        break;
                    }
                    task(index);
                }
            }
        }));
        if let Err(payload) = result {
            self.next.iter().for_each(|next| next.0.store(tasks, Ordering::Relaxed));
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }

    /// What a worker does until the pool ends.
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            let gate = self.wait_for_region(index, seen);
            if gate & STOP != 0 {
                return;
            }
            seen = gate / EPOCH;
            if !self.enter(seen) {
                continue;
            }
            // SAFETY: inside the gate the job is not written to (`Pool::run` waits until all have left).
            let job = unsafe { &*self.job.get() };
            self.drain(index + 1, job.tasks, job.task);
            let caller = job.caller.clone();
            let before = self.gate.0.fetch_sub(1, Ordering::AcqRel);
            if before & OPEN == 0 && before & ACTIVE == 1 {
                // The caller may be parked already, waiting for these last tasks.
                caller.inspect(Thread::unpark);
            }
        }
    }

    /// Steps into region `epoch` if it still takes workers.
    fn enter(&self, epoch: u64) -> bool {
        let mut gate = self.gate.0.load(Ordering::Relaxed);
        while gate & OPEN != 0 && gate / EPOCH == epoch {
            match self.gate.0.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => gate = now,
            }
        }
        false
    }

    /// Waits for a region that this worker has not seen, or for the end of the pool; returns the gate.
    fn wait_for_region(&self, index: usize, seen: u64) -> u64 {
        let ready = |gate: u64| gate & STOP != 0 || (gate & OPEN != 0 && gate / EPOCH != seen);
        loop {
            let started = Instant::now();
            while started.elapsed() < SPIN {
                for _ in 0..16 {
                    let gate = self.gate.0.load(Ordering::Acquire);
                    if ready(gate) {
                        return gate;
                    }
                    std::hint::spin_loop();
                }
            }
            // It says that it parks, then looks once more; the caller opens first, then looks at `parked`. So one of
            // the two sees the other.
            self.parked[index].store(true, Ordering::SeqCst);
            let gate = self.gate.0.load(Ordering::SeqCst);
            if !ready(gate) {
                thread::park();
            }
            self.parked[index].store(false, Ordering::SeqCst);
        }
    }

    /// Waits until the closed region is empty.
    fn wait_until_left(&self) {
        let inside = || self.gate.0.load(Ordering::Acquire) & ACTIVE != 0;
        let mut started = None;
        while inside() {
            for _ in 0..16 {
                if !inside() {
                    return;
                }
                std::hint::spin_loop();
            }
            if started.get_or_insert_with(Instant::now).elapsed() > SPIN {
                thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|index| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn many_regions_lose_nothing() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for round in 0..20_000 {
            pool.run(2 + round % 3, &|index| {
                sum.fetch_add(index + 1, Ordering::Relaxed);
            });
            if round % 5_000 == 0 {
                // Long enough for every worker to park.
                thread::sleep(Duration::from_millis(1));
            }
        }
        let expected: usize = (0..20_000).map(|round| (1..=2 + round % 3).sum::<usize>()).sum();
        assert_eq!(sum.into_inner(), expected);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        for bad in [0, 1, 50, 99] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(100, &|index| assert_ne!(index, bad, "task {index} fails"));
            }));
            let text = *caught.unwrap_err().downcast::<String>().unwrap();
            assert!(text.contains(&format!("task {bad} fails")), "{text}");
            let done = AtomicUsize::new(0);
            pool.run(100, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 100);
        }
    }

    #[test]
    fn a_region_inside_a_region_and_a_second_caller_run_where_they_are() {
        let pool = Pool::new(2);
        let done = AtomicUsize::new(0);
        let count = |_| {
            done.fetch_add(1, Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(4, &|_| pool.run(3, &count));
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 2 * 100 * 4 * 3);
    }

    #[test]
    fn a_dropped_pool_ends_its_workers() {
        let alive = {
            let pool = Pool::new(4);
            pool.run(8, &|_| {});
            Arc::downgrade(&pool.shared)
        };
        assert!(alive.upgrade().is_none());
    }
}
