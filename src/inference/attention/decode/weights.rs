//! The softmax of a row over all its positions, also those that were not chosen: for the coverage curve.

use super::{DecodeScratch, split_len};
use crate::kernels::softmax;

impl DecodeScratch {
    /// Query heads of a row.
    pub(in crate::attention) fn heads(&self) -> usize {
        self.heads
    }

    /// The softmax of query head `head` of `row` over all its `len` positions. False where `row` read every row: then
    /// its scores are not kept.
    pub(in crate::attention) fn softmax(&self, row: usize, head: usize, len: usize, out: &mut Vec<f32>) -> bool {
        out.clear();
        let Some(first) = self.splits.iter().position(|split| split.row == row).filter(|_| !self.whole[row]) else {
            return false;
        };
        let step = split_len(len);
        let splits = self.results.chunks_exact(self.layout.len()).skip(first);
        for (split, at) in splits.zip((0..len).step_by(step)) {
            out.extend_from_slice(&self.layout.head(split, head, false).scores()[..step.min(len - at)]);
        }
        let max = softmax::max(out);
        let total = softmax::weights(out, max);
        softmax::scale(out, 1.0 / total);
        true
    }
}
