//! The KV splits of a row, as the second pass of decoding reads them.

use super::kv_split::{HeadSplit, Layout, split_len};
use crate::kernels::{softmax, topk::BLOCK};

/// A row of the first pass, as the second one sees it.
pub(super) struct RowSplits<'a> {
    layout: Layout,
    /// Results of the row's splits, one after the other.
    results: &'a [f32],
    /// Positions in them.
    pub len: usize,
    /// What the splits found for the query head that was read last.
    pub found: Vec<HeadSplit<'a>>,
}

impl<'a> RowSplits<'a> {
    pub fn new(layout: Layout, results: &'a [f32], len: usize) -> Self {
        Self { layout, results, len, found: Vec::new() }
    }

    /// Looks up a query head in every split.
    pub fn read(&mut self, head: usize, attended: bool) {
        self.found.clear();
        let splits = self.results.chunks_exact(self.layout.len());
        self.found.extend(splits.map(|split| self.layout.head(split, head, attended)));
    }

    /// The largest reference of the head and the sum of exponentials relative to it; `factors` becomes what each
    /// split's own sums are multiplied by.
    pub fn total(&self, factors: &mut Vec<f32>) -> (f32, f32) {
        factors.clear();
        factors.extend(self.found.iter().map(|split| split.reference));
        let reference = softmax::max(factors);
        softmax::weights(factors, reference);
        let total = self.found.iter().zip(factors.iter()).map(|(split, factor)| factor * split.total).sum();
        (reference, total)
    }

    /// The maxima of the head's scores, split by split.
    pub fn maxima(&self) -> impl Iterator<Item = &'a [f32]> {
        let step = split_len(self.len);
        self.found.iter().zip((0..).step_by(step)).map(move |(split, at)| split.maxima(step.min(self.len - at)))
    }

    /// The scores of one of its blocks.
    pub fn block(&self, index: usize) -> &'a [f32] {
        let (step, at) = (split_len(self.len), index * BLOCK);
        let scores = &self.found[at / step].scores()[at % step..];
        &scores[..BLOCK.min(self.len.saturating_sub(at))]
    }
}
