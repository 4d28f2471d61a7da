//! How an engine runs: threads, chunks, lanes with their policies and budgets.

use crate::{cache::Policy, engine::Lane, quality::GuardOptions};

/// How an engine runs.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Threads that compute, the engine thread among them; at least 1.
    pub threads: usize,
    /// Prompt tokens computed in one step; at least 1.
    pub prefill_chunk: usize,
    /// The lanes, in the order in which they take turns; each at most once.
    pub lanes: Vec<LaneOptions>,
    /// Answers that may wait in a lane before messages are refused; at least 1.
    pub queue: usize,
    /// Whether sequences that begin with the same tokens hold the same pages.
    pub share_prefixes: bool,
    /// How answers of lanes that choose rows are probed and guarded.
    pub guard: GuardOptions,
}

impl Default for EngineOptions {
    /// One thread, no lane yet, and no guard.
    fn default() -> Self {
        Self {
            threads: 1,
            prefill_chunk: 128,
            lanes: Vec::new(),
            queue: 256,
            share_prefixes: true,
            guard: GuardOptions::OFF,
        }
    }
}

/// What a lane starts with.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneOptions {
    /// Its name.
    pub lane: Lane,
    /// What it stores, and how it reads that.
    pub policy: Policy,
    /// Bytes of K, V, tail and workspace it may hold on the device; `None` for no limit.
    pub device_budget: Option<u64>,
    /// Bytes it may hold in host memory, V and what was swapped out; `None` for no limit.
    pub host_budget: Option<u64>,
}
