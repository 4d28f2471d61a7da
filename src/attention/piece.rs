//! A piece of a row's positions, for the query heads that share a KV head: what the first pass of decoding makes of it.
//!
//! Where every row is read, the piece's own softmax and its weighted sum of V. Where rows are chosen first, its scores,
//! their maxima by block, and the sum of their exponentials. Both are relative to the piece's own largest score; the
//! second pass puts pieces together (online softmax: Milakov & Gimelshein, arXiv 1805.02867).

use super::{
    DecodeRow, HeadShape,
    gather::{add_rows, prefetch_head},
    select::Stretch,
};
use crate::{
    cache::{CachedRows, PAGE_TOKENS},
    kernels::{
        pick::{LANES, RUN},
        q8_scores,
        scores::scores,
        softmax,
    },
};

/// Positions of a piece.
pub(super) const PIECE: usize = 4 * PAGE_TOKENS;
const MAXIMA: usize = PIECE / RUN * LANES;

/// How the floats of a piece's result are laid out: values, `[group][width]` scores or `[group][head_dim]` sums; then
/// `[group][MAXIMA]` maxima; then for each head the largest score and the sum of exponentials relative to it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Layout {
    group: usize,
    head_dim: usize,
    width: usize,
}

/// What a piece found for one query head.
pub(super) struct HeadPiece<'a> {
    /// The largest score.
    pub max: f32,
    /// The sum of `e^(score − max)`.
    pub total: f32,
    values: &'a [f32],
    maxima: &'a [f32],
    head_dim: usize,
}

impl<'a> HeadPiece<'a> {
    /// `Σ e^(score − max)·v`, `[head_dim]`, of a piece that was attended to.
    pub fn sum(&self) -> &'a [f32] {
        &self.values[..self.head_dim]
    }

    /// The scores, of a piece that was scored, `[PIECE]`; those beyond the row's last position mean nothing.
    pub fn scores(&self) -> &'a [f32] {
        self.values
    }

    /// The first `len` scores, to choose from.
    pub fn stretch(&self, len: usize) -> Stretch<'a> {
        Stretch { values: &self.values[..len], maxima: &self.maxima[..len.div_ceil(RUN) * LANES] }
    }
}

impl Layout {
    pub fn new(shape: &HeadShape) -> Self {
        Self { group: shape.group(), head_dim: shape.head_dim, width: PIECE.max(shape.head_dim) }
    }

    /// Floats of one piece.
    pub fn len(&self) -> usize {
        self.group * (self.width + MAXIMA + 2)
    }

    /// What the piece found for query head `lane` of the group. `attended` says which of the two it was made for.
    pub fn head<'a>(&self, piece: &'a [f32], lane: usize, attended: bool) -> HeadPiece<'a> {
        let Self { group, head_dim, width } = *self;
        let (values, rest) = piece.split_at(group * width);
        let (maxima, found) = rest.split_at(group * MAXIMA);
        let values = if attended { &values[lane * head_dim..][..head_dim] } else { &values[lane * width..][..PIECE] };
        let [max, total] = [found[2 * lane], found[2 * lane + 1]];
        HeadPiece { max, total, values, maxima: &maxima[lane * MAXIMA..][..MAXIMA], head_dim }
    }

    /// Scores the positions from `start` on and sums their exponentials.
    pub fn score(&self, shape: &HeadShape, task: &Scoring<'_>, start: usize, piece: &mut [f32]) {
        let Self { group, width, .. } = *self;
        let (values, rest) = piece.split_at_mut(group * width);
        let (maxima, found) = rest.split_at_mut(group * MAXIMA);
        let len = task.scores(shape, start, values, width);
        let heads = values.chunks_exact_mut(width).zip(maxima.chunks_exact_mut(MAXIMA));
        for ((scores, maxima), found) in heads.zip(found.chunks_exact_mut(2)) {
            // A key that makes a score infinite or undefined must not make the whole row undefined.
            found[0] = softmax::clamp_maxima(&mut scores[..len], &mut maxima[..len.div_ceil(RUN) * LANES]);
            found[1] = softmax::total(&scores[..len], found[0]);
        }
    }

    /// Scores the positions from `start` on into `weights` and sums V by the piece's own softmax. The two calls of
    /// `between` stand before and after the sum.
    pub fn attend(
        &self,
        shape: &HeadShape,
        task: &Scoring<'_>,
        start: usize,
        weights: &mut Vec<f32>,
        piece: &mut [f32],
        scored: impl FnOnce(),
    ) {
        let Self { group, head_dim, width } = *self;
        weights.resize(group * PIECE, 0.0);
        let len = task.scores(shape, start, weights, PIECE);
        let found = &mut piece[group * (width + MAXIMA)..];
        for (scores, found) in weights.chunks_exact_mut(PIECE).zip(found.chunks_exact_mut(2)) {
            found[0] = softmax::clamp_max(&mut scores[..len]);
            found[1] = softmax::weights(&mut scores[..len], found[0]);
        }
        scored();
        let sums = &mut piece[..group * head_dim];
        sums.fill(0.0);
        let v = task.row.v;
        for at in (0..len).step_by(PAGE_TOKENS) {
            let rows = PAGE_TOKENS.min(len - at);
            let page = (start + at) / PAGE_TOKENS;
            if let Some(next) = v.get(page + 1) {
                prefetch_head(next, task.kv_head);
            }
            let weights = weights.chunks_exact(PIECE).map(|weights| &weights[at..at + rows]);
            add_rows(weights, v[page].rows(task.kv_head, 0, rows), head_dim, sums);
        }
    }
}

/// The query heads of one KV head in one row.
pub(super) struct Scoring<'a> {
    pub row: &'a DecodeRow<'a>,
    pub kv_head: usize,
    /// Their queries as integers, for 8-bit keys, and what an integer of each stands for.
    pub narrow: (&'a [i16], &'a [f32]),
}

impl Scoring<'_> {
    /// Scores of the piece of positions from `start` on, `[group][stride]`; returns how many each head has.
    fn scores(&self, shape: &HeadShape, start: usize, out: &mut [f32], stride: usize) -> usize {
        let (group, head_dim) = (shape.group(), shape.head_dim);
        let q = &self.row.q[self.kv_head * group * head_dim..][..group * head_dim];
        let len = PIECE.min(self.row.len - start);
        for (page, at) in self.row.k[start / PAGE_TOKENS..].iter().zip((0..len).step_by(PAGE_TOKENS)) {
            if let Some(next) = self.row.k.get((start + at) / PAGE_TOKENS + 1) {
                prefetch_head(next, self.kv_head);
            }
            let keys = PAGE_TOKENS.min(len - at);
            match page.rows(self.kv_head, 0, keys) {
                CachedRows::F16(k) => scores(q, k, head_dim, shape.scale, &mut out[at..], stride),
                CachedRows::Q8(k) => {
                    let (q, scales) = self.narrow;
                    q8_scores::scores(q, scales, k, head_dim, &mut out[at..], stride);
                }
            }
        }
        len
    }
}
