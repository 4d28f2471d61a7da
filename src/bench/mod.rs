//! How fast each policy is: prefill and decoding, by stage, with the bytes of both tiers.
//!
//! The measurement runs on the forward pass and the caches themselves, without the engine's thread. Policies alternate, so
//! that other work on the machine affects all alike: by chunk while prompts are computed, by round while they decode. Each
//! round starts from the same prompts. Nothing is replayed or skipped: prompts are prefilled for real, and each step is fed
//! the likeliest token of the one before.
//!
//! - [`capacity()`] measures on the engine how many sequences a budget holds, and how fast they are together.
//! - [`memory()`] fills caches and compares what they take with what they should take.
//! - [`soak()`] has sessions come and go, and tells what is left of them.
//! - [`machine()`] measures the memory and the arithmetic units of this machine, which bound all of that.
//! - [`attention_rates()`] does it for attention as a whole, because its parts overlap.
//! - [`Workload`] lets sessions arrive over time, for the dashboard and the JSON lines.

mod arrivals;
mod attention_rates;
mod capacity;
mod machine;
mod measure;
mod memory;
mod prompt;
mod run;
mod soak;
mod split_mix;
mod statistics;
mod workload;
mod workload_spec;

pub use arrivals::Arrivals;
pub use attention_rates::{AttentionRates, attention_rates};
pub use capacity::{CapacityError, CapacityOptions, CapacityRun, capacity};
pub use machine::{MachineError, MachineOptions, MachineRates, Rate, machine};
pub use measure::{BenchError, BenchOptions, bench};
pub use memory::{MemoryError, MemoryOptions, MemoryRun, memory};
pub use run::Run;
pub use soak::{Soak, SoakError, soak};
pub use split_mix::SplitMix64;
pub use statistics::Spread;
pub use workload::{Ending, Workload, WorkloadCounts, is_workload};
pub use workload_spec::{WorkloadError, WorkloadSpec};
