//! The engine: sessions and lanes over one set of weights.
//!
//! Requests go in as [`Request`]s, everything that happens comes out as [`Event`]s. One OS thread owns the tiers and the
//! lanes; a step is schedule → forward pass → choice of tokens → events, see `schedule.rs` and `step.rs`.

pub mod api;
mod handle;
mod lane;
mod session;
mod worker;

pub use crate::attention::DISTANCE_BUCKETS;
pub use api::event::*;
pub use api::event_queue::{Events, Publisher, TELEMETRY_BOUND, stream};
pub use api::request::{Document, GenerationOptions, Priority, Request, Sampling};
pub use handle::{Engine, EngineError, EngineOptions, LaneOptions};
pub use session::inspect::{COVERAGE_EVERY, READ_POSITIONS};
pub use session::prefilled::Prefilled;
pub use session::sampler::Sampler;
pub use session::stop::{StopError, StopSequences};
#[cfg(debug_assertions)]
pub use worker::fault::FAULT_VARIABLE;
pub use worker::workspace_bytes;
