//! `kcache`: an LLM engine with two caches side by side, and a terminal dashboard that shows what each costs.
//!
//! The rooms, from the top down. A room uses rooms below it only.
//!
//! | module | what it is for |
//! |---|---|
//! | [`cli`] | the command line, one file per command |
//! | [`tui`] | the dashboard: state, update, view, widgets, key map and themes |
//! | [`plan`] | what would fit on a device and how fast it would be, by arithmetic |
//! | [`mod@bench`] | how fast a policy is: prefill and decoding by stage, policies alternating |
//! | [`config`] | `config.toml`, environment and flags as one checked structure |
//! | [`demo`] | the sessions about documents that the program brings along |
//! | [`document`] | reading the file that a message is about |
//! | [`engine`] | sessions, lanes and the step: requests go in, and everything that happens comes out as events |
//! | [`quality`] | what a policy costs in quality: perplexity, KL divergence and agreement against full attention |
//! | [`model`] | a GGUF file as a model: shape, weights, tokenizer, chat template, forward pass, and where files come from |
//! | [`attention`] | exact attention for prefill, full or top-N attention for decoding, and the plain references |
//! | [`cache`] | where keys and values live: policies, pages, the device and host tiers, and the ledger of every byte |
//! | [`kernels`] | the arithmetic that has to be fast, each routine beside its portable twin; the only home of `unsafe` |
//! | [`telemetry`] | series and percentiles, and the samplers of GPU (NVML) and host (sysinfo) |
//! | [`progress`] | how far a long piece of work is, told to whoever watches |
//! | [`files`] | files read up to a size and written whole or not at all |
//! | [`text`] | the bytes of a file as text, whatever encoding they are in |
//!
//! From `engine` down the rooms are crates of their own, which know nothing of terminals, of `tokio` or of `clap`.

// The program's own modules are public for its tests and examples. Their comments say what a name cannot, and nothing else.
#![allow(missing_docs)]
// `println!` and the like panic where nobody reads any more. So whatever is printed goes through `cli::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod document;
pub mod plan;
pub mod tui;

pub use kcache_inference::{attention, cache, engine, files, kernels, model, progress, quality, telemetry, text};
