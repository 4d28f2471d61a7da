//! Reading chosen rows of V through a reuse buffer: rows that it holds are read from it, the others are fetched and put
//! into it.
//!
//! Rows are summed in the same order as without a buffer, so the sums have the same bits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use half::f16;

use super::gather::{TOGETHER, add_scattered};
use crate::cache::{CachedRows, NO_SLOT, PAGE_TOKENS, Page, RowBuffer};

/// Buffers of a task.
#[derive(Debug, Default)]
pub(super) struct Reused {
    slots: Vec<u16>,
}

impl Reused {
    /// Bytes of its buffers.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<u16>() * self.slots.capacity()) as u64
    }

    /// `sums_h += Σ weights_h·v` over the rows of one KV head at `positions`, ascending, for the heads that read them:
    /// `sums` is `[heads, head_dim]`, and head `h` has its weights at `weights(h)`. Returns how many rows were fetched.
    pub(super) fn add<'a>(
        &mut self,
        buffer: &Mutex<RowBuffer>,
        (v, kv_head): (&[Page], usize),
        positions: &[u32],
        head_dim: usize,
        weights: impl Fn(usize) -> &'a [f32],
        sums: &mut [f32],
    ) -> usize {
        let page = |position: u32| {
            let rows = v[position as usize / PAGE_TOKENS].rows(kv_head, position as usize % PAGE_TOKENS, 1);
            match rows {
                CachedRows::F16(row) => row,
                CachedRows::Q8(_) => unreachable!("a kcache lane, and no other has buffers, keeps V as 16-bit floats"),
            }
        };
        let mut buffer = lock(buffer);
        let fetched = buffer.choose(positions, &mut self.slots, page);
        let heads = sums.len() / head_dim;
        let mut first = 0;
        for (positions, slots) in positions.chunks(TOGETHER).zip(self.slots.chunks(TOGETHER)) {
            let end = first + positions.len();
            let mut rows: [&[f16]; TOGETHER] = [&[]; TOGETHER];
            for (row, (&at, &slot)) in rows.iter_mut().zip(positions.iter().zip(slots)) {
                *row = if slot == NO_SLOT { page(at) } else { buffer.row(slot) };
            }
            let rows = &rows[..positions.len()];
            add_scattered((0..heads).map(|head| &weights(head)[first..end]), rows, head_dim, sums);
            first = end;
        }
        fetched
    }
}

/// Nobody else uses the buffer during a step, and it is whole between any two statements.
pub(super) fn lock(buffer: &Mutex<RowBuffer>) -> MutexGuard<'_, RowBuffer> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}
