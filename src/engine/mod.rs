//! The engine: sessions and lanes over one set of weights.
//!
//! Requests go in as [`Op`]s, everything that happens comes out as [`Event`]s.

mod event;
mod op;

pub use event::*;
pub use op::{Document, Op, Priority, Sampling, Turn};
