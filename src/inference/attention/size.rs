//! The most bytes that attention's buffers can take: a lane reserves them before a step.

use super::{
    DecodeScratch, HeadShape, PrefillScratch,
    kv_split::{Layout, SPLIT_TOKENS, max_splits},
    prefill::tile_rows,
};
use crate::cache::{Format, PAGE_TOKENS};

/// A buffer that grows by and by may have room for twice what is in it: see [`Vec`].
const GROWN: u64 = 2;
/// Bytes of small things in a thread's buffers.
const SMALL: usize = 16 << 10;
/// Bytes for every position in a thread's buffers for decoding: candidates and their places, what heads that choose
/// together share, weights, slots of a reuse buffer, and an order by weight.
const POSITION: usize = 32;

impl DecodeScratch {
    /// What [`DecodeScratch::bytes`] comes to at most for `rows` rows of up to `longest` positions, of buffers that
    /// were reserved for them.
    pub fn bytes_for(shape: &HeadShape, threads: usize, rows: usize, longest: usize) -> u64 {
        let results = rows * max_splits(longest) * Layout::new(shape).len() * size_of::<f32>();
        let queries = rows * (shape.width() * size_of::<i16>() + shape.heads * size_of::<f32>());
        let copied = PAGE_TOKENS * Format::Q8.row_bytes(shape.head_dim) as usize;
        let local = longest * POSITION + shape.heads * SPLIT_TOKENS * size_of::<f32>() + copied + SMALL;
        (results + queries) as u64 + GROWN * (threads * local) as u64
    }
}

impl PrefillScratch {
    /// What [`PrefillScratch::bytes`] comes to at most.
    pub fn bytes_for(shape: &HeadShape, threads: usize) -> u64 {
        let queries = tile_rows(shape.group()) * shape.group();
        let page = 2 * PAGE_TOKENS * shape.head_dim;
        // Queries, sums, weights, and the running maximum and sum.
        let rows = queries * (2 * shape.head_dim + PAGE_TOKENS + 2);
        GROWN * (threads * (page + rows) * size_of::<f32>()) as u64
    }
}
