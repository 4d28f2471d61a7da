//! Rows of V: fetching the chosen ones together, and summing rows by weight.

use half::f16;

use crate::{
    cache::{CachedRows, Format, PAGE_TOKENS, Page},
    kernels::{q8::Q8Rows, q8_weighted_sum, weighted_sum::weighted_sum, widen::prefetch},
};

/// Chosen rows that are asked for ahead of the one being copied: they lie anywhere in memory.
const ROWS_AHEAD: usize = 16;
/// Rows that are copied together before they are summed: few enough to stay in the first cache.
pub(super) const TOGETHER: usize = PAGE_TOKENS;

/// Chosen rows, copied together.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    f16: Vec<f16>,
    values: Vec<i8>,
    scales: Vec<f16>,
}

impl Gathered {
    /// `sums_h += Σ weights_h·v` over the rows of one KV head at `positions`, for the heads that read them: `sums` is
    /// `[heads, head_dim]`, and head `h` has its weights at `weights(h)`.
    pub(super) fn add<'a>(
        &mut self,
        v: &[Page],
        kv_head: usize,
        positions: &[u32],
        head_dim: usize,
        weights: impl Fn(usize) -> &'a [f32],
        sums: &mut [f32],
    ) {
        let row = |position: u32| v[position as usize / PAGE_TOKENS].rows(kv_head, position as usize % PAGE_TOKENS, 1);
        let heads = sums.len() / head_dim;
        positions.iter().take(ROWS_AHEAD).for_each(|&position| prefetch_rows(row(position)));
        for first in (0..positions.len()).step_by(TOGETHER) {
            let end = (first + TOGETHER).min(positions.len());
            self.clear();
            for at in first..end {
                if let Some(&ahead) = positions.get(at + ROWS_AHEAD) {
                    prefetch_rows(row(ahead));
                }
                self.take(row(positions[at]));
            }
            let rows = self.rows(v[0].format());
            add_rows((0..heads).map(|head| &weights(head)[first..end]), rows, rows, head_dim, sums);
        }
    }

    /// Bytes of its buffers.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<f16>() * (self.f16.capacity() + self.scales.capacity()) + self.values.capacity()) as u64
    }

    fn clear(&mut self) {
        self.f16.clear();
        self.values.clear();
        self.scales.clear();
    }

    fn take(&mut self, row: CachedRows<'_>) {
        match row {
            CachedRows::F16(values) => self.f16.extend_from_slice(values),
            CachedRows::Q8(Q8Rows { values, scales }) => {
                self.values.extend_from_slice(values);
                self.scales.extend_from_slice(scales);
            }
        }
    }

    fn rows(&self, format: Format) -> CachedRows<'_> {
        match format {
            Format::F16 => CachedRows::F16(&self.f16),
            Format::Q8 => CachedRows::Q8(Q8Rows { values: &self.values, scales: &self.scales }),
        }
    }
}

/// `sums_h += Σ weights_h·v` for up to a page of rows; `next` are those that will be wanted after them. The kernel takes
/// three heads at a time, their weights side by side.
pub(super) fn add_rows<'a>(
    mut weights: impl Iterator<Item = &'a [f32]>,
    v: CachedRows<'_>,
    next: CachedRows<'_>,
    head_dim: usize,
    sums: &mut [f32],
) {
    const HEADS: usize = 3;
    let mut together = [0.0; HEADS * PAGE_TOKENS];
    for sums in sums.chunks_mut(HEADS * head_dim) {
        for (to, from) in together.chunks_exact_mut(PAGE_TOKENS).zip(weights.by_ref().take(HEADS)) {
            to[..from.len()].copy_from_slice(from);
        }
        match (v, next) {
            (CachedRows::F16(v), CachedRows::F16(next)) => {
                weighted_sum(&together, PAGE_TOKENS, v, next, head_dim, sums);
            }
            (CachedRows::Q8(v), CachedRows::Q8(_)) => {
                q8_weighted_sum::weighted_sum(&together, PAGE_TOKENS, v, head_dim, sums);
            }
            _ => unreachable!("the values of a sequence are stored in one format"),
        }
    }
}

fn prefetch_rows(rows: CachedRows<'_>) {
    match rows {
        CachedRows::F16(rows) => prefetch(rows),
        CachedRows::Q8(Q8Rows { values, scales }) => {
            prefetch(scales);
            prefetch(values);
        }
    }
}
