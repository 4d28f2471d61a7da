//! Whether the system allows this process the files and threads that a run needs. This is checked before anything starts,
//! because libraries panic when they get none, and one line of ours says more.

use std::{fs::File, io, sync::mpsc, thread};

use super::Failure;

/// Files that a run holds open at once, with some to spare: the log, the model, the terminal, what signals and keys come
/// through, NVML and what the samplers read.
const FILES: usize = 32;
/// Threads beside those that compute, which a run can do with fewer of: engine, samplers, events, signals, keys, log.
const THREADS: usize = 8;

/// Fails in one line where there are too few.
pub fn check() -> Result<(), Failure> {
    if let Some(there) = fewer_files(FILES) {
        return Err(Failure::failed(format!(
            "only {there} more files can be opened here, and kcache needs {FILES}: raise the limit, `ulimit -n 1024`"
        )));
    }
    if let Some(there) = fewer_threads(THREADS) {
        return Err(Failure::failed(format!(
            "only {there} more threads can be started here, and kcache needs {THREADS}: raise the limit, `ulimit -u 4096`"
        )));
    }
    Ok(())
}

/// How many files can be opened, where it is fewer than `wanted`.
fn fewer_files(wanted: usize) -> Option<usize> {
    /// Too many in this process (EMFILE), in the whole system (ENFILE).
    const TOO_MANY: [i32; 2] = [24, 23];
    let mut held = Vec::with_capacity(wanted);
    while held.len() < wanted {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) if error.raw_os_error().is_some_and(|code| TOO_MANY.contains(&code)) => return Some(held.len()),
            // Whatever else it is, it says nothing about limits.
            Err(_) => return None,
        }
    }
    None
}

/// How many threads can be started, where it is fewer than `wanted`.
fn fewer_threads(wanted: usize) -> Option<usize> {
    let mut held = Vec::with_capacity(wanted);
    for there in 0..wanted {
        // Each waits until its sender is dropped with `held`.
        let (hold, held_up) = mpsc::channel::<()>();
        let started: io::Result<_> = thread::Builder::new().name("limit".into()).spawn(move || held_up.recv().is_err());
        match started {
            Ok(_) => held.push(hold),
            Err(_) => return Some(there),
        }
    }
    None
}
