//! Faults on purpose, in debug builds only: tests see with them what the program does when the engine breaks.

use std::{env, thread, time::Duration};

/// The environment variable that asks for a fault after the engine thread's first decode step: `engine-panic` is a
/// panic, `engine-stuck` work that never ends.
pub const FAULT_VARIABLE: &str = "KCACHE_FAULT";

/// Breaks where the environment asks for it. Called after every step that decoded.
pub(crate) fn after_decode_step() {
    match env::var_os(FAULT_VARIABLE) {
        Some(fault) if fault == "engine-panic" => panic!("{FAULT_VARIABLE}=engine-panic asked for this panic"),
        Some(fault) if fault == "engine-stuck" => loop {
            thread::sleep(Duration::from_secs(60));
        },
        _ => {}
    }
}
