//! The engine: sessions and lanes over one set of weights.
//!
//! Requests go in as [`Op`]s, everything that happens comes out as [`Event`]s. One OS thread owns the tiers and the
//! lanes; a step is schedule → forward pass → choice of tokens → events, see `schedule.rs` and `step.rs`.

mod compare;
mod event;
#[cfg(debug_assertions)]
mod fault;
mod guard;
mod handle;
mod inspect;
mod knobs;
mod lane;
mod op;
mod prefilled;
mod reclaim;
mod sampler;
mod schedule;
mod sequence;
mod session;
mod step;
mod stop;
mod stream;
mod system;
mod turn;
mod worker;

pub use crate::attention::DISTANCE_BUCKETS;
pub use event::*;
#[cfg(debug_assertions)]
pub use fault::FAULT_VARIABLE;
pub use handle::{Engine, EngineError, EngineOptions, LaneOptions};
pub use inspect::{COVERAGE_EVERY, READ_POSITIONS};
pub use op::{Document, Op, Priority, Sampling, Turn};
pub use prefilled::Prefilled;
pub use sampler::Sampler;
pub use stop::{StopError, StopSequences};
pub use stream::{Events, Publisher, TELEMETRY_BOUND, stream};
pub use worker::workspace_bytes;
