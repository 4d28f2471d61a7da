//! Rows of V: reading the chosen ones from wherever they are, and summing rows by weight.

use half::f16;

use crate::{
    cache::{CachedRows, Format, PAGE_TOKENS, Page},
    kernels::{
        q8::Q8Rows,
        q8_weighted_sum,
        weighted_sum::{weighted_sum, weighted_sum_of},
        widen::prefetch,
    },
};

/// Chosen rows that are summed in one go.
pub(super) const TOGETHER: usize = PAGE_TOKENS;
/// Heads that the kernels take in one go.
const HEADS: usize = 3;

/// Buffers of a task: 8-bit rows are copied together before they are summed.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    values: Vec<i8>,
    scales: Vec<f16>,
}

/// Asks memory for the rows of a KV head at `positions`, which will be summed soon: they lie anywhere.
pub(super) fn ask(v: &[Page], kv_head: usize, positions: &[u32]) {
    for &position in positions {
        match row(v, kv_head, position) {
            CachedRows::F16(rows) => prefetch(rows),
            CachedRows::Q8(Q8Rows { values, scales }) => {
                prefetch(scales);
                prefetch(values);
            }
        }
    }
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
        let heads = sums.len() / head_dim;
        let mut first = 0;
        for positions in positions.chunks(TOGETHER) {
            let end = first + positions.len();
            let weights = (0..heads).map(|head| &weights(head)[first..end]);
            match v[0].format() {
                Format::F16 => {
                    let rows = positions.iter().map(|&position| match row(v, kv_head, position) {
                        CachedRows::F16(row) => row,
                        CachedRows::Q8(_) => unreachable!("the values of a sequence are stored in one format"),
                    });
                    add_scattered(weights, rows, head_dim, sums);
                }
                Format::Q8 => {
                    self.copy(v, kv_head, positions);
                    let rows = CachedRows::Q8(Q8Rows { values: &self.values, scales: &self.scales });
                    add_rows(weights, rows, rows, head_dim, sums);
                }
            }
            first = end;
        }
    }

    /// Bytes of its buffers.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<f16>() * self.scales.capacity() + self.values.capacity()) as u64
    }

    fn copy(&mut self, v: &[Page], kv_head: usize, positions: &[u32]) {
        self.values.clear();
        self.scales.clear();
        for &position in positions {
            if let CachedRows::Q8(Q8Rows { values, scales }) = row(v, kv_head, position) {
                self.values.extend_from_slice(values);
                self.scales.extend_from_slice(scales);
            }
        }
    }
}

fn row(v: &[Page], kv_head: usize, position: u32) -> CachedRows<'_> {
    v[position as usize / PAGE_TOKENS].rows(kv_head, position as usize % PAGE_TOKENS, 1)
}

/// `sums_h += Σ weights_h·v` for up to [`TOGETHER`] rows of 16-bit floats that lie anywhere.
pub(super) fn add_scattered<'a, 'r>(
    weights: impl Iterator<Item = &'a [f32]>,
    rows: impl Iterator<Item = &'r [f16]>,
    head_dim: usize,
    sums: &mut [f32],
) {
    let mut list: [&[f16]; TOGETHER] = [&[]; TOGETHER];
    let count = list.iter_mut().zip(rows).map(|(to, row)| *to = row).count();
    side_by_side(weights, head_dim, sums, |weights, sums| {
        weighted_sum_of(weights, PAGE_TOKENS, &list[..count], head_dim, sums);
    });
}

/// `sums_h += Σ weights_h·v` for up to a page of rows; `next` are those that will be wanted after them.
pub(super) fn add_rows<'a>(
    weights: impl Iterator<Item = &'a [f32]>,
    v: CachedRows<'_>,
    next: CachedRows<'_>,
    head_dim: usize,
    sums: &mut [f32],
) {
    side_by_side(weights, head_dim, sums, |weights, sums| match (v, next) {
        (CachedRows::F16(v), CachedRows::F16(next)) => weighted_sum(weights, PAGE_TOKENS, v, next, head_dim, sums),
        (CachedRows::Q8(v), CachedRows::Q8(_)) => {
            q8_weighted_sum::weighted_sum(weights, PAGE_TOKENS, v, head_dim, sums);
        }
        _ => unreachable!("the values of a sequence are stored in one format"),
    });
}

/// Calls a kernel for a few heads at a time, their weights side by side, a page's worth for each.
fn side_by_side<'a>(
    mut weights: impl Iterator<Item = &'a [f32]>,
    head_dim: usize,
    sums: &mut [f32],
    kernel: impl Fn(&[f32], &mut [f32]),
) {
    let mut together = [0.0; HEADS * PAGE_TOKENS];
    for sums in sums.chunks_mut(HEADS * head_dim) {
        for (to, from) in together.chunks_exact_mut(PAGE_TOKENS).zip(weights.by_ref().take(HEADS)) {
            to[..from.len()].copy_from_slice(from);
        }
        kernel(&together, sums);
    }
}
