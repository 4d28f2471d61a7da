//! Exact causal attention for runs of new tokens.
//!
//! A task is one tile of rows for one KV head. It walks the pages up to its last row, converts each page's keys and
//! values to 32 bits once for all rows and all query heads of the group, and keeps a running softmax, so that memory
//! does not grow with the context. A row reads the pages in order of position, and its arithmetic depends on its own
//! position alone. So the result does not depend on how a prompt is cut into chunks.

use super::{HeadShape, per_thread::PerThread};
use crate::{
    cache::{CachedKeys, CachedRows, PAGE_TOKENS, Page},
    kernels::{
        Pool,
        f16_to_f32::f16_to_f32,
        gemm::{Matrix, gemm},
        keys, q8, softmax,
    },
};

/// New tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct PrefillItem<'a> {
    /// Queries, `[rows, heads·head_dim]`, positions applied.
    pub q: &'a [f32],
    /// How many tokens.
    pub rows: usize,
    /// Position of the first.
    pub start: usize,
    /// Pages of keys; position `p` is in page `p / 64`, slot `p % 64`. The item's own keys are in them.
    pub k: &'a [Page],
    /// Pages of values, likewise.
    pub v: &'a [Page],
}

/// Buffers of [`prefill`], kept between calls.
#[derive(Debug, Default)]
pub struct PrefillScratch {
    locals: PerThread<Buffers>,
    /// Where the tiles begin, in rows, over all items.
    bounds: Vec<usize>,
    /// The item and first row of each tile.
    tiles: Vec<(usize, usize)>,
}

#[derive(Debug, Default)]
struct Buffers {
    /// Queries, scaled, `[rows·group, head_dim]`.
    q: Vec<f32>,
    /// A page's keys, `[head_dim, 64]`.
    k: Vec<f32>,
    /// A page's values, `[64, head_dim]`.
    v: Vec<f32>,
    /// Scores, then weights, `[rows·group, 64]`.
    weights: Vec<f32>,
    /// Sums of weighted values, `[rows·group, head_dim]`.
    sums: Vec<f32>,
    /// Largest score and sum of weights of each row so far.
    state: Vec<(f32, f32)>,
}

impl PrefillScratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of what its threads work in.
    pub fn bytes(&self) -> u64 {
        self.locals.sum(|Buffers { q, k, v, weights, sums, state }| {
            let values: usize = [q, k, v, weights, sums].into_iter().map(Vec::capacity).sum();
            ((values + 2 * state.capacity()) * size_of::<f32>()) as u64
        })
    }
}

/// Rows of a tile: enough that converting a page costs little beside multiplying with it.
pub(super) fn tile_rows(group: usize) -> usize {
    match group {
        0..=1 => 64,
        2..=4 => 32,
        _ => 16,
    }
}

/// Attention of every row to all positions up to its own; `out` is `[total rows, heads·head_dim]`, items in order.
///
/// # Panics
/// When an item's queries or pages, or `out`, are too short.
pub fn prefill(
    pool: &Pool,
    shape: &HeadShape,
    items: &[PrefillItem<'_>],
    scratch: &mut PrefillScratch,
    out: &mut [f32],
) {
    let PrefillScratch { locals, bounds, tiles } = scratch;
    locals.grow(pool.threads());
    bounds.clear();
    tiles.clear();
    let tall = tile_rows(shape.group());
    let mut total = 0;
    for (index, item) in items.iter().enumerate() {
        let pages = (item.start + item.rows).div_ceil(PAGE_TOKENS);
        assert!(item.q.len() == item.rows * shape.width() && item.k.len() >= pages && item.v.len() >= pages);
        // Tiles end at multiples of their height in the sequence, so that few rows share a page they do not need.
        let mut row = 0;
        while row < item.rows {
            bounds.push(total + row);
            tiles.push((index, row));
            row += tall - (item.start + row) % tall;
        }
        total += item.rows;
    }
    bounds.push(total);
    assert_eq!(out.len(), total * shape.width(), "rows of prefill");
    let columns = shape.group() * shape.head_dim;
    pool.run_tiles(out, shape.width(), bounds, columns, |tile, kv_head, mut out| {
        let (item, first) = tiles[tile];
        locals.with(|buffers| {
            buffers.attend(shape, &items[item], first, out.rows(), kv_head);
            for row in 0..out.rows() {
                out.row_mut(row).copy_from_slice(&buffers.sums[row * columns..][..columns]);
            }
        });
    });
}

impl Buffers {
    /// Leaves the result for rows `first..first + rows` and one KV head in `sums`, `[rows, group, head_dim]`.
    fn attend(&mut self, shape: &HeadShape, item: &PrefillItem<'_>, first: usize, rows: usize, kv_head: usize) {
        let (group, head_dim) = (shape.group(), shape.head_dim);
        let queries = rows * group;
        self.q.clear();
        for row in first..first + rows {
            let q = &item.q[row * shape.width() + kv_head * group * head_dim..][..group * head_dim];
            self.q.extend(q.iter().map(|q| q * shape.scale));
        }
        self.k.resize(head_dim * PAGE_TOKENS, 0.0);
        self.v.resize(head_dim * PAGE_TOKENS, 0.0);
        self.weights.resize(queries * PAGE_TOKENS, 0.0);
        self.sums.clear();
        self.sums.resize(queries * head_dim, 0.0);
        self.state.clear();
        self.state.resize(queries, (f32::NEG_INFINITY, 0.0));

        let start = item.start + first;
        let end = start + rows;
        for page in 0..end.div_ceil(PAGE_TOKENS) {
            let page_start = page * PAGE_TOKENS;
            let len = PAGE_TOKENS.min(end - page_start);
            match item.k[page].keys(kv_head) {
                CachedKeys::F16(k) => f16_to_f32(k, &mut self.k),
                CachedKeys::Q8(k) => keys::dequantise(k, head_dim, &mut self.k),
            }
            match item.v[page].rows(kv_head, 0, len) {
                CachedRows::F16(v) => f16_to_f32(v, &mut self.v[..len * head_dim]),
                CachedRows::Q8(v) => q8::dequantise(v, head_dim, &mut self.v[..len * head_dim]),
            }
            // Rows before this page have no part in it.
            let skipped = page_start.saturating_sub(start).min(rows) * group;
            let active = queries - skipped;
            let q = Matrix { data: &self.q[skipped * head_dim..], stride: head_dim };
            let k = Matrix { data: &self.k, stride: PAGE_TOKENS };
            let weights = &mut self.weights[..active * PAGE_TOKENS];
            // Whole vectors of columns; those beyond `len` are old keys and are masked below.
            let columns = len.next_multiple_of(8);
            gemm([active, columns, head_dim], q, k, weights, PAGE_TOKENS, false);
            for (at, weights) in weights.chunks_exact_mut(PAGE_TOKENS).enumerate() {
                let query = skipped + at;
                let seen = len.min(start + query / group + 1 - page_start);
                let (max, sum) = &mut self.state[query];
                let new_max = softmax::clamp_max(&mut weights[..seen]).max(*max);
                if new_max > *max {
                    let factor = softmax::factor(*max, new_max);
                    *sum *= factor;
                    softmax::scale(&mut self.sums[query * head_dim..][..head_dim], factor);
                    *max = new_max;
                }
                weights[seen..].fill(f32::NEG_INFINITY);
                *sum += softmax::weights(weights, *max);
            }
            let weights = Matrix { data: weights, stride: PAGE_TOKENS };
            let v = Matrix { data: &self.v, stride: head_dim };
            gemm([active, head_dim, len], weights, v, &mut self.sums[skipped * head_dim..], head_dim, true);
        }
        for (sums, (_, sum)) in self.sums.chunks_exact_mut(head_dim).zip(&self.state) {
            softmax::scale(sums, 1.0 / sum);
        }
    }
}
