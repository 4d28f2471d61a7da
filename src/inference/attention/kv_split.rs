//! The first pass of decoding over one KV split: some whole pages of a row, for all its heads.
//!
//! Where every row is read, the result is the split's own softmax and its weighted sum of V. Where rows are chosen
//! first, it is the scores, their maxima by block, and the sum of their exponentials. Both are relative to one of the
//! split's own scores, so that the second pass can merge splits (online softmax: Milakov & Gimelshein, arXiv
//! 1805.02867). Each page is read from end to end, all its KV heads in order, because memory is fastest in long runs.

use std::ops::Range;

use super::{DecodeRow, HeadShape, gather::add_rows};
use crate::{
    cache::{CachedKeys, PAGE_TOKENS},
    kernels::{
        q8_scores,
        scores::scores,
        softmax::{self, Running},
        topk::{LANES, RUN},
    },
};

/// The most positions of a split.
pub(super) const SPLIT_TOKENS: usize = 4 * PAGE_TOKENS;
const MAXIMA: usize = SPLIT_TOKENS / RUN * LANES;
/// Rows up to this length are cut into splits of one page, so that there is work for every thread.
const SHORT: usize = 16 * PAGE_TOKENS;

/// Positions of a split of a row of `len`. It depends on the length alone, so that a row's result does not depend on
/// the rest of the batch.
pub(super) fn split_len(len: usize) -> usize {
    if len <= SHORT { PAGE_TOKENS } else { SPLIT_TOKENS }
}

/// The most splits that a row of up to `longest` positions is cut into.
pub(super) fn max_splits(longest: usize) -> usize {
    longest.min(SHORT).div_ceil(PAGE_TOKENS).max(longest.div_ceil(SPLIT_TOKENS))
}

/// How the floats of a split's result are laid out: values, `[heads][width]` scores or `[heads][head_dim]` sums; then
/// `[heads][MAXIMA]` maxima; then for each head the reference and the sum of exponentials relative to it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    heads: usize,
    head_dim: usize,
    width: usize,
}

/// What a split found for one query head.
pub(super) struct HeadSplit<'a> {
    /// A score that no other exceeds by more than [`softmax::HEADROOM`].
    pub reference: f32,
    /// The sum of `e^(score − reference)`.
    pub total: f32,
    values: &'a [f32],
    maxima: &'a [f32],
}

impl<'a> HeadSplit<'a> {
    /// `Σ e^(score − reference)·v`, `[head_dim]`, of a split that was attended to.
    pub fn sum(&self) -> &'a [f32] {
        self.values
    }

    /// The scores, of a split that was scored, `[SPLIT_TOKENS]`; those beyond the split's positions mean nothing.
    pub fn scores(&self) -> &'a [f32] {
        self.values
    }

    /// The maxima of its first `len` scores, block by block.
    pub fn maxima(&self, len: usize) -> &'a [f32] {
        &self.maxima[..len.div_ceil(RUN) * LANES]
    }
}

impl Layout {
    pub fn new(shape: &HeadShape) -> Self {
        Self { heads: shape.heads, head_dim: shape.head_dim, width: SPLIT_TOKENS.max(shape.head_dim) }
    }

    /// Floats of one split.
    pub fn len(&self) -> usize {
        self.heads * (self.width + MAXIMA + 2)
    }

    /// The part of `split` for a query head. `attended` says whether it was attended to or only scored.
    pub fn head<'a>(&self, split: &'a [f32], head: usize, attended: bool) -> HeadSplit<'a> {
        let Self { heads, head_dim, width } = *self;
        let (values, rest) = split.split_at(heads * width);
        let (maxima, found) = rest.split_at(heads * MAXIMA);
        let values =
            if attended { &values[head * head_dim..][..head_dim] } else { &values[head * width..][..SPLIT_TOKENS] };
        let [reference, total] = [found[2 * head], found[2 * head + 1]];
        HeadSplit { reference, total, values, maxima: &maxima[head * MAXIMA..][..MAXIMA] }
    }

    /// Scores `positions` and sums their exponentials, a page of a KV head at a time, so that memory brings the next
    /// keys while there is arithmetic to do. `sums` is a buffer.
    pub fn score(
        &self,
        shape: &HeadShape,
        row: &Scoring<'_>,
        positions: Range<usize>,
        sums: &mut Vec<Running>,
        split: &mut [f32],
    ) {
        let Self { heads, width, .. } = *self;
        let (values, rest) = split.split_at_mut(heads * width);
        let (maxima, found) = rest.split_at_mut(heads * MAXIMA);
        let group = shape.group();
        sums.resize(heads, Running::default());
        let mut keys = row.keys(positions.start, 0);
        for (page, at) in positions.clone().step_by(PAGE_TOKENS).zip((0..).step_by(PAGE_TOKENS)) {
            let count = PAGE_TOKENS.min(positions.end - page);
            for kv_head in 0..shape.kv_heads {
                let first = kv_head * group;
                let next = row.keys_after(shape, page, kv_head);
                row.scores(shape, kv_head, [keys, next], count, &mut values[first * width + at..], width);
                keys = next;
                for head in first..first + group {
                    let scores = &mut values[head * width + at..][..count];
                    let maxima = &mut maxima.as_chunks_mut::<LANES>().0[head * (MAXIMA / LANES) + at / RUN];
                    if at == 0 {
                        sums[head] = Running::new(scores[0]);
                    }
                    // A key that makes a score infinite or undefined must not make the whole row undefined.
                    softmax::run(scores, maxima, &mut sums[head]);
                }
            }
        }
        for (sum, found) in sums.iter().zip(found.chunks_exact_mut(2)) {
            (found[0], found[1]) = (sum.reference, sum.total());
        }
    }

    /// Sums V of `positions` by their own softmax; `weights` is a buffer. Calls `scored` between scores and sums.
    pub fn attend(
        &self,
        shape: &HeadShape,
        row: &Scoring<'_>,
        positions: Range<usize>,
        weights: &mut Vec<f32>,
        split: &mut [f32],
        scored: impl FnOnce(),
    ) {
        let Self { heads, head_dim, width } = *self;
        weights.resize(heads * SPLIT_TOKENS, 0.0);
        let len = positions.len();
        let mut keys = row.keys(positions.start, 0);
        for (page, at) in positions.clone().step_by(PAGE_TOKENS).zip((0..).step_by(PAGE_TOKENS)) {
            let count = PAGE_TOKENS.min(positions.end - page);
            for kv_head in 0..shape.kv_heads {
                let next = row.keys_after(shape, page, kv_head);
                let weights = &mut weights[kv_head * shape.group() * SPLIT_TOKENS + at..];
                row.scores(shape, kv_head, [keys, next], count, weights, SPLIT_TOKENS);
                keys = next;
            }
        }
        let found = &mut split[heads * (width + MAXIMA)..];
        for (scores, found) in weights.chunks_exact_mut(SPLIT_TOKENS).zip(found.chunks_exact_mut(2)) {
            found[0] = softmax::clamp_max(&mut scores[..len]);
            found[1] = softmax::weights(&mut scores[..len], found[0]);
        }
        scored();
        let sums = &mut split[..heads * head_dim];
        sums.fill(0.0);
        let group = shape.group();
        let pages = &row.row.v[positions.start / PAGE_TOKENS..];
        for (index, at) in (0..len).step_by(PAGE_TOKENS).enumerate() {
            let (page, rows) = (&pages[index], PAGE_TOKENS.min(len - at));
            let after = pages.get(index + 1).unwrap_or(page);
            for (kv_head, sums) in sums.chunks_exact_mut(group * head_dim).enumerate() {
                let weights = weights[kv_head * group * SPLIT_TOKENS..].chunks_exact(SPLIT_TOKENS).take(group);
                let weights = weights.map(|weights| &weights[at..at + rows]);
                let next =
                    if kv_head + 1 < shape.kv_heads { page.rows(kv_head + 1, 0, rows) } else { after.rows(0, 0, rows) };
                add_rows(weights, page.rows(kv_head, 0, rows), next, head_dim, sums);
            }
        }
    }
}

/// A row whose positions are scored.
pub(super) struct Scoring<'a> {
    pub row: &'a DecodeRow<'a>,
    /// Its queries as integers, for 8-bit keys, and what an integer of each head stands for.
    pub narrow: (&'a [i16], &'a [f32]),
}

impl<'a> Scoring<'a> {
    /// The keys of a KV head in the page that begins at position `start`.
    fn keys(&self, start: usize, kv_head: usize) -> CachedKeys<'a> {
        self.row.k[start / PAGE_TOKENS].keys(kv_head)
    }

    /// The keys that are read after those, by this split or by the thread's next one; at the end of the row those of
    /// the last page once more.
    fn keys_after(&self, shape: &HeadShape, start: usize, kv_head: usize) -> CachedKeys<'a> {
        let (pages, page) = (&self.row.k, start / PAGE_TOKENS);
        if kv_head + 1 < shape.kv_heads {
            pages[page].keys(kv_head + 1)
        } else {
            pages.get(page + 1).unwrap_or(&pages[page]).keys(0)
        }
    }

    /// Scores of the first `count` keys of a page for the queries of a KV head, `[group][stride]`; `next` are asked
    /// for.
    fn scores(
        &self,
        shape: &HeadShape,
        kv_head: usize,
        [keys, next]: [CachedKeys<'_>; 2],
        count: usize,
        out: &mut [f32],
        stride: usize,
    ) {
        let (group, head_dim) = (shape.group(), shape.head_dim);
        let first = kv_head * group;
        match (keys, next) {
            (CachedKeys::F16(k), CachedKeys::F16(next)) => {
                let q = &self.row.q[first * head_dim..][..group * head_dim];
                scores(q, k, next, count, shape.scale, out, stride);
            }
            (CachedKeys::Q8(k), CachedKeys::Q8(next)) => {
                let (q, scales) = self.narrow;
                let (q, scales) = (&q[first * head_dim..][..group * head_dim], &scales[first..][..group]);
                q8_scores::scores(q, scales, k, next, count, out, stride);
            }
            _ => unreachable!("the keys of a sequence are stored in one format"),
        }
    }
}
