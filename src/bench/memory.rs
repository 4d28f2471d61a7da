//! What sequences really take. Caches are filled row by row, and three figures are compared: the pages by formula, the
//! ledger, and the growth of the process as the system sees it.
//!
//! Nothing is computed; the rows are made up. But they are written as a forward pass writes them, so each byte of each page
//! is touched, and a page that is only reserved counts as well.
//!
//! A process measures one policy only. The allocator may keep memory that was given back, and a second policy would seem
//! smaller by it.

use std::ops::ControlFlow;

use serde::Serialize;
use thiserror::Error;

use super::split_mix::SplitMix64;
use crate::{
    cache::{CacheShape, LaneCache, OutOfBudget, PAGE_TOKENS, Policy, SequenceCache, Unbalanced},
    kernels::Pool,
    progress::Progress,
    telemetry::HostSampler,
};

#[derive(Debug, Clone, PartialEq)]
pub struct MemoryOptions {
    /// The policy, and its spelling to report.
    pub policy: (String, Policy),
    pub sessions: usize,
    /// Tokens of each sequence.
    pub ctx: usize,
}

/// Why nothing can be said.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// A tier without a cap had no room: a bug.
    #[error(transparent)]
    OutOfBudget(#[from] OutOfBudget),
    /// The books do not agree with the pages: a bug.
    #[error(transparent)]
    Unbalanced(#[from] Unbalanced),
    #[error("stopped")]
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryRun {
    /// The policy, as it was spelled.
    pub policy: String,
    pub sessions: usize,
    /// Tokens of each.
    pub ctx: usize,
    /// Bytes that they need by the formula of [`MemoryOptions::needed`].
    pub needed_bytes: u64,
    /// Bytes that the ledger has for them on the device.
    pub device_bytes: u64,
    pub host_bytes: u64,
    /// `(device + host) / needed`.
    pub ledger_ratio: f64,
    /// Bytes of resident memory by which the process grew; `None` where the system does not tell.
    pub rss_growth_bytes: Option<u64>,
    /// That growth over what is needed.
    pub rss_ratio: Option<f64>,
    /// Bytes of resident memory that were not given back when the sequences were closed.
    pub rss_left_bytes: Option<u64>,
}

impl MemoryOptions {
    /// Bytes that the sequences need: for every layer and every begun 64 tokens, 64 rows of K and of V for each
    /// KV head, in either tier; and under `kcache` the running sums of V and the reuse buffers.
    pub fn needed(&self, shape: CacheShape) -> u64 {
        let (_, policy) = &self.policy;
        let row: u64 = policy.formats().iter().map(|format| format.row_bytes(shape.head_dim)).sum();
        let rows = shape.layers * shape.kv_heads * self.ctx.next_multiple_of(PAGE_TOKENS);
        let besides = policy.knobs().map_or(0, |knobs| shape.sum_bytes() + shape.buffer_bytes(knobs.buffer));
        self.sessions as u64 * (rows as u64 * row + besides)
    }
}

/// Fills the caches. `progress` is called after every few sequences and may break it
/// off.
pub fn memory(
    shape: CacheShape,
    pool: &Pool,
    options: &MemoryOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<MemoryRun, MemoryError> {
    let mut random = SplitMix64(0);
    // As long as two rows of all heads: each token's rows begin elsewhere in it.
    let values: Vec<f32> = (0..2 * shape.kv_heads * shape.head_dim).map(|_| random.unit() as f32 - 0.5).collect();
    let mut host = HostSampler::new();
    let mut rss = || host.as_mut().and_then(|host| host.sample().process_rss_bytes);
    let (spelling, policy) = &options.policy;
    let mut lane = LaneCache::new(shape, *policy, None, None);
    let mut sequences: Vec<SequenceCache> = Vec::with_capacity(options.sessions);
    let before = rss();
    while sequences.len() < options.sessions {
        let first = sequences.len();
        for _ in 0..pool.threads().min(options.sessions - first) {
            let mut sequence = lane.open()?;
            lane.grow(&mut sequence, options.ctx)?;
            (0..shape.layers).for_each(|layer| sequence.take_pages(layer, options.ctx));
            sequences.push(sequence);
        }
        pool.run_chunks(&mut sequences[first..], 1, |_, sequence| fill(&mut sequence[0], options.ctx, &values));
        let (done, total) = (sequences.len(), options.sessions);
        if progress(Progress { what: format!("{spelling}: sequences"), done, total }).is_break() {
            return Err(MemoryError::Cancelled);
        }
    }
    let filled = rss();
    lane.check(sequences.iter())?;
    let (device, host) = (lane.device().used(), lane.host().used());
    sequences.into_iter().for_each(|sequence| lane.close(sequence));
    let needed = options.needed(shape);
    let growth = |after: Option<u64>| after.zip(before).map(|(after, before)| after.saturating_sub(before));
    let grown = growth(filled);
    Ok(MemoryRun {
        policy: spelling.clone(),
        sessions: options.sessions,
        ctx: options.ctx,
        needed_bytes: needed,
        device_bytes: device,
        host_bytes: host,
        ledger_ratio: (device + host) as f64 / needed as f64,
        rss_growth_bytes: grown,
        rss_ratio: grown.map(|grown| grown as f64 / needed as f64),
        rss_left_bytes: growth(rss()),
    })
}

/// Writes `tokens` rows of K and V into every layer.
fn fill(sequence: &mut SequenceCache, tokens: usize, values: &[f32]) {
    let width = values.len() / 2;
    for layer in 0..sequence.shape().layers {
        for position in 0..tokens {
            let (k, v) = (position % width, (position + width / 2) % width);
            sequence.write(layer, position, &values[k..][..width], &values[v..][..width]);
        }
    }
    sequence.advance(tokens);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: CacheShape = CacheShape { layers: 3, kv_heads: 2, head_dim: 64 };

    fn options(policy: &str) -> MemoryOptions {
        MemoryOptions { policy: (policy.to_owned(), policy.parse().unwrap()), sessions: 5, ctx: 130 }
    }

    #[test]
    fn the_ledger_is_the_formula() {
        // 3 pages of 64 rows for 130 tokens, in 3 layers of 2 heads.
        let rows = 5 * 3 * 64 * 3 * 2;
        let sums = 5 * 3 * 2 * 64 * 4;
        let buffers = 5 * SHAPE.buffer_bytes(16);
        for (policy, needed, host) in [
            ("kv", rows * 256, 0),
            ("kv-q8", rows * 136, 0),
            ("kcache:n=8,dense=1", rows * 256 + sums, rows / 3 * 2 * 128),
            ("kcache:n=8,k=q8,dense=0,buffer=16", rows * (128 + 68) + sums + buffers, rows * 128),
        ] {
            let mut told = Vec::new();
            let run = memory(SHAPE, &Pool::new(2), &options(policy), &mut |progress: Progress| {
                told.push((progress.done, progress.total));
                ControlFlow::Continue(())
            });
            let run = run.unwrap();
            assert_eq!(told, [(2, 5), (4, 5), (5, 5)]);
            assert_eq!((run.needed_bytes, run.device_bytes + run.host_bytes), (needed, needed), "{run:?}");
            assert_eq!((run.host_bytes, run.ledger_ratio), (host, 1.0), "{run:?}");
        }
    }

    #[test]
    fn it_stops_when_told() {
        let stopped = memory(SHAPE, &Pool::new(1), &options("kv"), &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(MemoryError::Cancelled)));
    }
}
