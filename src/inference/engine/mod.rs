//! The engine: sessions and lanes over one set of weights.
//!
//! Requests go in as [`Request`]s, everything that happens comes out as [`Event`]s. One OS thread owns the
//! device, the lanes and the sessions. A step is: schedule, forward pass, choice of tokens, events.
//!
//! | room | what it is for |
//! |---|---|
//! | `handle` | starts and stops the thread |
//! | `worker` | handles requests, and does what concerns a whole session: it has every lane take its turn |
//! | `lane` | one policy with its cache and its sequences: who runs, who is preempted, what a step does |
//! | `session` | a conversation, its sequence in a lane, and the running answer |
//! | [`api`] | requests, options and events |
//!
//! A room uses those below it and none above it. The machine that computes is known by the trait
//! [`Device`](crate::model::Device) alone.

pub mod api;
mod handle;
mod lane;
mod session;
mod worker;

pub use crate::attention::DISTANCE_BUCKETS;
pub use api::event::*;
pub use api::event_queue::{Events, Publisher, TELEMETRY_BOUND, stream};
pub use api::options::{EngineOptions, LaneOptions};
pub use api::request::{Document, GenerationOptions, Priority, Request, Sampling};
pub use handle::{Engine, EngineError};
pub use lane::machine::workspace_bytes;
pub use session::inspect::{COVERAGE_EVERY, READ_POSITIONS};
pub use session::prefilled::Prefilled;
pub use session::sampler::Sampler;
pub use session::stop::{StopError, StopSequences};
#[cfg(debug_assertions)]
pub use worker::fault::FAULT_VARIABLE;
