//! Rows of V: reading the chosen ones from wherever they are, and summing rows by weight.

use half::f16;

use crate::{
    cache::{CachedRows, Format, PAGE_TOKENS, Page},
    kernels::{
        prefetch::prefetch,
        q8::Q8Rows,
        q8_weighted_sum,
        weighted_sum::{weighted_sum, weighted_sum_of},
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

/// Chosen rows of one KV head, looked up where they lie; all of one format.
#[derive(Default)]
pub(super) struct Found<'a> {
    f16: Vec<&'a [f16]>,
    q8: Vec<Q8Rows<'a>>,
}

impl<'a> Found<'a> {
    /// Looks up the rows of a KV head at `positions`, and prefetches them: they lie anywhere, and will be summed soon.
    pub(super) fn ask(&mut self, v: &'a [Page], kv_head: usize, positions: &[u32]) {
        self.f16.clear();
        self.q8.clear();
        match v[0].format() {
            Format::F16 => self.f16.reserve(positions.len()),
            Format::Q8 => self.q8.reserve(positions.len()),
        }
        for &position in positions {
            match v[position as usize / PAGE_TOKENS].rows(kv_head, position as usize % PAGE_TOKENS, 1) {
                CachedRows::F16(row) => {
                    prefetch(row);
                    self.f16.push(row);
                }
                CachedRows::Q8(row) => {
                    prefetch(row.scales);
                    prefetch(row.values);
                    self.q8.push(row);
                }
            }
        }
    }
}

impl Gathered {
    /// `sums_h += Σ weights_h·v` over the rows of one KV head that were found, for the heads that read them: `sums` is
    /// `[heads, head_dim]`, and head `h` has its weights at `weights(h)`.
    pub(super) fn add<'a>(
        &mut self,
        found: &Found<'_>,
        head_dim: usize,
        weights: impl Fn(usize) -> &'a [f32] + Copy,
        sums: &mut [f32],
    ) {
        let heads = sums.len() / head_dim;
        let weights = |first: usize, rows: usize| (0..heads).map(move |head| &weights(head)[first..first + rows]);
        for (rows, first) in found.f16.chunks(TOGETHER).zip((0..).step_by(TOGETHER)) {
            add_scattered(weights(first, rows.len()), rows, head_dim, sums);
        }
        for (rows, first) in found.q8.chunks(TOGETHER).zip((0..).step_by(TOGETHER)) {
            self.copy(rows);
            let copied = CachedRows::Q8(Q8Rows { values: &self.values, scales: &self.scales });
            add_rows(weights(first, rows.len()), copied, copied, head_dim, sums);
        }
    }

    /// Bytes of its buffers.
    pub(super) fn bytes(&self) -> u64 {
        (size_of::<f16>() * self.scales.capacity() + self.values.capacity()) as u64
    }

    fn copy(&mut self, rows: &[Q8Rows<'_>]) {
        self.values.clear();
        self.scales.clear();
        for row in rows {
            self.values.extend_from_slice(row.values);
            self.scales.extend_from_slice(row.scales);
        }
    }
}

/// `sums_h += Σ weights_h·v` for up to [`TOGETHER`] rows of 16-bit floats that lie anywhere.
pub(super) fn add_scattered<'a>(
    weights: impl Iterator<Item = &'a [f32]>,
    rows: &[&[f16]],
    head_dim: usize,
    sums: &mut [f32],
) {
    side_by_side(weights, head_dim, sums, |weights, sums| {
        weighted_sum_of(weights, PAGE_TOKENS, rows, head_dim, sums);
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
        (CachedRows::Q8(v), CachedRows::Q8(next)) => {
            q8_weighted_sum::weighted_sum(weights, PAGE_TOKENS, [v, next], head_dim, sums);
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
