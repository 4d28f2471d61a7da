//! `kcache`: an LLM engine with two caches side by side, and a terminal dashboard that shows what each costs.
//!
//! The rooms, from the inside out:
//!
//! | module | what it is for |
//! |---|---|
//! | [`kernels`] | the arithmetic that has to be fast, each routine beside its portable twin; the only home of `unsafe` |
//! | [`cache`] | where keys and values live: policies, pages, the device and host tiers, and the ledger of every byte |
//! | [`attention`] | exact attention for prefill, full or top-N attention for decoding, and the plain references |
//! | [`model`] | a GGUF file as a model: shape, weights, tokenizer, chat template, forward pass, and where files come from |
//! | [`engine`] | sessions, lanes and the step: requests go in as ops, everything that happens comes out as events |
//! | [`quality`] | what a policy costs in quality: perplexity, KL divergence and agreement against full attention |
//! | [`mod@bench`] | how fast a policy is: prefill and decoding by stage, policies in turns |
//! | [`plan`] | what would fit on a device and how fast it would be, by arithmetic |
//! | [`text`] | the bytes of a file as text, whatever encoding they are in |
//! | [`files`] | files read up to a size and written whole or not at all |
//! | [`progress`] | how far a long piece of work is, told to whoever watches |
//! | [`telemetry`] | series and percentiles, and the samplers of GPU (NVML) and host (sysinfo) |
//! | [`config`] | `config.toml`, environment and flags as one checked structure |
//! | [`demo`] | the sessions about documents that the program brings along |
//! | [`tui`] | the dashboard: state, update, view, widgets, key map and themes |
//! | [`cli`] | the command line, one file per command |
//!
//! `engine` and everything above it in this table knows nothing of terminals, of `tokio` or of `clap`.

// `println!` and its kin panic where nobody reads any more. What is printed goes through `cli::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod document;
pub mod plan;
pub mod tui;

pub use kcache_inference::{attention, cache, engine, files, kernels, model, progress, quality, telemetry, text};
