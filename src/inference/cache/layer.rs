//! The pages of one layer of a sequence, and the running sum of its values.

use std::{ops::Range, sync::Mutex};

use super::{CacheShape, CachedRows, PAGE_TOKENS, Page, RowBuffer};
use crate::kernels::q8::BLOCK;

/// One layer of a sequence. Its bytes are reserved when the sequence grows. The memory itself is taken a few pages at a
/// time, by the step that writes their first row, so that a long prompt starts at once.
#[derive(Debug)]
pub(super) struct LayerCache {
    pub(super) k: Vec<Page>,
    pub(super) v: Vec<Page>,
    /// Sum of all V rows, `[kv_heads, head_dim]`; empty in a lane that never needs it, and where nothing is held.
    pub(super) v_sum: Vec<f32>,
    /// A reuse buffer for every KV head, each used by one task of a step; none without the policy's key, and while the
    /// sequence is not resident.
    pub(super) buffers: Vec<Mutex<RowBuffer>>,
}

impl LayerCache {
    /// Adds rows to the running sum, in the order in which they were written.
    pub(super) fn sum_rows(&mut self, positions: Range<usize>, shape: CacheShape) {
        if self.v_sum.is_empty() {
            return;
        }
        for position in positions {
            let page = &self.v[position / PAGE_TOKENS];
            for (head, sums) in self.v_sum.chunks_exact_mut(shape.head_dim).enumerate() {
                add_row(page, head, position % PAGE_TOKENS, sums);
            }
        }
    }
}

/// `sum += row`, of the values as they are stored.
pub(super) fn add_row(page: &Page, kv_head: usize, slot: usize, sum: &mut [f32]) {
    match page.rows(kv_head, slot, 1) {
        CachedRows::F16(row) => sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.to_f32()),
        CachedRows::Q8(row) => {
            for ((sum, values), d) in sum.chunks_mut(BLOCK).zip(row.values.chunks(BLOCK)).zip(row.scales) {
                let d = d.to_f32();
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += d * f32::from(*value));
            }
        }
    }
}
