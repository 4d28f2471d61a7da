//! Inference: a model, its caches, attention over them, the engine that serves sessions, and how good it all is.
//!
//! | module | what it is for |
//! |---|---|
//! | [`cache`] | where keys and values live: policies, pages, memory pools, and the ledger of every byte |
//! | [`attention`] | exact attention for prefill, full or top-N attention for decoding, and the plain references |
//! | [`model`] | a GGUF file as a model: shape, weights, tokenizer, chat template, forward pass, and where files come from |
//! | [`quality`] | what a policy costs in quality, and the guard of a session |
//! | [`engine`] | sessions, lanes and the step: requests go in, everything that happens comes out as events |
//! | [`telemetry`] | series and percentiles, and the samplers of GPU (NVML) and host (sysinfo) |
//! | [`progress`] | how far a long piece of work is, told to whoever watches |
//! | [`text`] | text files in whatever encoding they have |
//!
//! Nothing here knows of terminals, of `tokio` or of `clap`.

// `println!` and its kin panic where nobody reads any more, and a library has nothing to print.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod attention;
pub mod cache;
pub mod engine;
pub mod files;
pub mod model;
pub mod progress;
pub mod quality;
pub mod telemetry;
pub mod text;

pub use kcache_kernels as kernels;
