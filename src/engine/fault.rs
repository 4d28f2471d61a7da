//! Faults on purpose, in debug builds only: tests see with them what the program does when the engine breaks.

use std::env;

/// The environment variable that asks for a fault. It has one: `engine-panic`, a panic of the engine thread after its
/// first decode step.
pub const FAULT_VARIABLE: &str = "KCACHE_FAULT";

/// Panics where the environment asks for it. Called after every step that decoded.
pub(super) fn after_decode_step() {
    if env::var_os(FAULT_VARIABLE).is_some_and(|fault| fault == "engine-panic") {
        panic!("{FAULT_VARIABLE}=engine-panic asked for this panic");
    }
}
