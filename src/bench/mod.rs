//! How fast each policy is: prefill and decoding, by stage, with the bytes of both tiers.
//!
//! The measurement runs on the forward pass and the caches themselves, without the engine's thread. Policies are
//! compared in turns, so that whatever else the machine does hits all alike: prompts are computed chunk by chunk in
//! turn, decoding goes round by round in turn, and every round starts from the same prompts. Nothing is replayed or
//! skipped: prompts are prefilled for real, and each step is fed the likeliest token of the one before.
//!
//! How many sequences a budget holds, and what many at once are worth, is measured on the engine: see `capacity.rs`.
//!
//! [`memory()`] fills caches and compares what they take with what they should.
//!
//! [`Load`] has sessions come by and by, for whoever wants to watch.
//!
//! [`machine()`] measures what bounds all of that: what memory and the arithmetic units of this machine can do.
//! [`attention_rates()`] does it for attention, whose parts overlap, as a whole.

mod arrivals;
mod attention_rates;
mod capacity;
mod machine;
mod measure;
mod memory;
mod prompt;
mod run;
mod soak;
mod statistics;
mod workload;
mod workload_spec;

pub use arrivals::Arrivals;
pub use attention_rates::{AttentionRates, attention_rates};
pub use capacity::{CapacityError, CapacityOptions, CapacityRun, capacity};
pub use machine::{MachineError, MachineOptions, MachineRates, Rate, machine};
pub use measure::{BenchError, BenchOptions, bench};
pub use memory::{MemoryError, MemoryOptions, MemoryRun, memory};
pub use prompt::SplitMix64;
pub use run::Run;
pub use soak::{Soak, SoakError, soak};
pub use statistics::Spread;
pub use workload::{Ending, Load, LoadCounts, is_load};
pub use workload_spec::{LoadError, WorkloadSpec};
