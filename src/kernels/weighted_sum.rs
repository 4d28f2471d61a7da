//! The output of decoding: values of one KV head summed by the weights of the queries that share it.
//!
//! Each value row is read and converted to 32 bits once for up to three queries, whose sums stay in registers.

use half::f16;

use super::cpu::{by_avx512, by_cpu};

/// `out_g += Σ_i weights[g·stride + i]·v_i`, with `v` `[rows, head_dim]` and `out` `[group, head_dim]`. `next` are the
/// rows that will be wanted after these: memory is asked for them meanwhile.
///
/// # Panics
/// When a slice is too short.
pub fn weighted_sum(weights: &[f32], stride: usize, v: &[f16], next: &[f16], head_dim: usize, out: &mut [f32]) {
    assert!(v.len().is_multiple_of(head_dim));
    add(weights, stride, Run { values: v, next, head_dim }, head_dim, out);
}

/// The same over rows that lie anywhere, each `[head_dim]`.
///
/// # Panics
/// When a slice is too short, or a row has another length.
pub fn weighted_sum_of(weights: &[f32], stride: usize, rows: &[&[f16]], head_dim: usize, out: &mut [f32]) {
    assert!(rows.iter().all(|row| row.len() == head_dim));
    add(weights, stride, Scattered(rows), head_dim, out);
}

/// Either of them; every row is `[head_dim]`.
fn add(weights: &[f32], stride: usize, v: impl Values, head_dim: usize, out: &mut [f32]) {
    let (group, rows) = (out.len() / head_dim, v.len());
    assert!(out.len() == group * head_dim && rows <= stride);
    assert!(group == 0 || weights.len() >= (group - 1) * stride + rows);
    by_avx512!(
        avx512::weighted_sum(weights, stride, v, head_dim, out),
        by_cpu!(
            avx2::weighted_sum(weights, stride, v, head_dim, out, 0),
            weighted_sum_portable(weights, stride, v, head_dim, out, 0)
        )
    );
}

/// Rows of values, in a run or anywhere.
trait Values: Copy {
    /// How many there are.
    fn len(self) -> usize;
    /// Where row `index`, which must be one of them, begins.
    fn row(self, index: usize) -> *const f16;
    /// What to ask memory for while row `index` is summed.
    fn next(self, index: usize) -> *const f16;
}

/// Rows in a run, and those that will be wanted after them.
#[derive(Clone, Copy)]
struct Run<'a> {
    values: &'a [f16],
    next: &'a [f16],
    head_dim: usize,
}

impl Values for Run<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.values.len() / self.head_dim
    }

    // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
    #[inline(always)]
    fn row(self, index: usize) -> *const f16 {
        self.values.as_ptr().wrapping_add(index * self.head_dim)
    }

    #[inline(always)]
    fn next(self, index: usize) -> *const f16 {
        self.next.as_ptr().wrapping_add(index * self.head_dim)
    }
}

/// Rows anywhere. Who made the list has asked for them.
#[derive(Clone, Copy)]
struct Scattered<'a>(&'a [&'a [f16]]);

impl Values for Scattered<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn row(self, index: usize) -> *const f16 {
        self.0[index].as_ptr()
    }

    #[inline(always)]
    fn next(self, index: usize) -> *const f16 {
        self.row(index)
    }
}

/// The columns from `first` on.
fn weighted_sum_portable(
    weights: &[f32],
    stride: usize,
    v: impl Values,
    head_dim: usize,
    out: &mut [f32],
    first: usize,
) {
    for at in 0..v.len() {
        // SAFETY: a row is `head_dim` values (checked by whoever made `v`), and `at` is one of them.
        let v = unsafe { std::slice::from_raw_parts(v.row(at), head_dim) };
        for (group, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let weight = weights[group * stride + at];
            for (out, v) in out[first..].iter_mut().zip(&v[first..]) {
                *out += weight * v.to_f32();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Values, weighted_sum_portable};

    /// The columns from `first` on.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn weighted_sum(
        weights: &[f32],
        stride: usize,
        v: impl Values,
        head_dim: usize,
        out: &mut [f32],
        first: usize,
    ) {
        let whole = head_dim / 8 * 8;
        for (out, at) in out.chunks_mut(3 * head_dim).zip((0..).step_by(3 * stride)) {
            let weights = &weights[at..];
            let mut column = first;
            while column < whole {
                let four = column + 32 <= whole;
                // SAFETY: the columns are inside the rows of `v` and `out`; `add` has checked the lengths.
                unsafe {
                    match (out.len() / head_dim, four) {
                        (1, true) => columns::<1, 4>(weights, stride, v, head_dim, column, out),
                        (2, true) => columns::<2, 4>(weights, stride, v, head_dim, column, out),
                        (_, true) => columns::<3, 4>(weights, stride, v, head_dim, column, out),
                        (1, false) => columns::<1, 1>(weights, stride, v, head_dim, column, out),
                        (2, false) => columns::<2, 1>(weights, stride, v, head_dim, column, out),
                        (_, false) => columns::<3, 1>(weights, stride, v, head_dim, column, out),
                    }
                }
                column += if four { 32 } else { 8 };
            }
            if whole.max(first) < head_dim {
                weighted_sum_portable(weights, stride, v, head_dim, out, whole.max(first));
            }
        }
    }

    /// `8·C` columns from `column` on, for `G` queries.
    ///
    /// # Safety
    /// `out` holds `G` rows of `head_dim`, of which the columns are part; `weights` holds `g·stride + rows`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn columns<const G: usize, const C: usize>(
        weights: &[f32],
        stride: usize,
        v: impl Values,
        head_dim: usize,
        column: usize,
        out: &mut [f32],
    ) {
        let rows = v.len();
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (weights, out) = (weights.as_ptr(), out.as_mut_ptr());
        let out = |g: usize, at: usize| out.wrapping_add(g * head_dim + column + 8 * at);
        let mut sums = [[_mm256_setzero_ps(); C]; G];
        for g in 0..G {
            for at in 0..C {
                // SAFETY: inside row g of `out`.
                sums[g][at] = unsafe { _mm256_loadu_ps(out(g, at)) };
            }
        }
        for row in 0..rows {
            let mut weight = [_mm256_setzero_ps(); G];
            for g in 0..G {
                // SAFETY: one weight per query and row.
                weight[g] = _mm256_set1_ps(unsafe { *weights.wrapping_add(g * stride + row) });
            }
            _mm_prefetch::<_MM_HINT_T1>(v.next(row).wrapping_add(column).cast());
            let v = v.row(row).wrapping_add(column);
            for at in 0..C {
                // SAFETY: inside row `row` of `v`.
                let v = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(v.wrapping_add(8 * at).cast()) });
                for g in 0..G {
                    sums[g][at] = _mm256_fmadd_ps(weight[g], v, sums[g][at]);
                }
            }
        }
        for g in 0..G {
            for at in 0..C {
                // SAFETY: inside row g of `out`.
                unsafe { _mm256_storeu_ps(out(g, at), sums[g][at]) };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::Values;

    /// Columns that are summed together: four vectors, for three queries twelve sums.
    const TOGETHER: usize = 64;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    pub(super) fn weighted_sum(weights: &[f32], stride: usize, v: impl Values, head_dim: usize, out: &mut [f32]) {
        let whole = head_dim / TOGETHER * TOGETHER;
        for (out, at) in out.chunks_mut(3 * head_dim).zip((0..).step_by(3 * stride)) {
            let weights = &weights[at..];
            for column in (0..whole).step_by(TOGETHER) {
                // SAFETY: the columns are inside the rows of `v` and `out`; `add` has checked the lengths.
                unsafe {
                    match out.len() / head_dim {
                        1 => columns::<1>(weights, stride, v, head_dim, column, out),
                        2 => columns::<2>(weights, stride, v, head_dim, column, out),
                        _ => columns::<3>(weights, stride, v, head_dim, column, out),
                    }
                }
            }
        }
        if whole < head_dim {
            super::avx2::weighted_sum(weights, stride, v, head_dim, out, whole);
        }
    }

    /// 64 columns from `column` on, for `G` queries.
    ///
    /// # Safety
    /// `out` holds `G` rows of `head_dim`, of which the columns are part; `weights` holds `g·stride + rows`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    unsafe fn columns<const G: usize>(
        weights: &[f32],
        stride: usize,
        v: impl Values,
        head_dim: usize,
        column: usize,
        out: &mut [f32],
    ) {
        const VECTORS: usize = TOGETHER / 16;
        let rows = v.len();
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (weights, out) = (weights.as_ptr(), out.as_mut_ptr());
        let out = |g: usize, at: usize| out.wrapping_add(g * head_dim + column + 16 * at);
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; G];
        for g in 0..G {
            for at in 0..VECTORS {
                // SAFETY: inside row g of `out`.
                sums[g][at] = unsafe { _mm512_loadu_ps(out(g, at)) };
            }
        }
        for row in 0..rows {
            let mut weight = [_mm512_setzero_ps(); G];
            for g in 0..G {
                // SAFETY: one weight per query and row.
                weight[g] = _mm512_set1_ps(unsafe { *weights.wrapping_add(g * stride + row) });
            }
            let (v, next) = (v.row(row).wrapping_add(column), v.next(row).wrapping_add(column));
            _mm_prefetch::<_MM_HINT_T1>(next.cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(TOGETHER / 2).cast());
            for at in 0..VECTORS {
                // SAFETY: inside row `row` of `v`.
                let v = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(v.wrapping_add(16 * at).cast()) });
                for g in 0..G {
                    sums[g][at] = _mm512_fmadd_ps(weight[g], v, sums[g][at]);
                }
            }
        }
        for g in 0..G {
            for at in 0..VECTORS {
                // SAFETY: inside row g of `out`.
                unsafe { _mm512_storeu_ps(out(g, at), sums[g][at]) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Path = fn(&[f32], usize, &[f16], usize, &mut [f32]);

    fn run(values: &[f16], head_dim: usize) -> Run<'_> {
        Run { values, next: values, head_dim }
    }

    /// Every way to sum but the portable one, where this CPU has it.
    const PATHS: [Path; 4] = [
        |weights, stride, v, head_dim, out| weighted_sum(weights, stride, v, &[], head_dim, out),
        |weights, stride, v, head_dim, out| {
            by_cpu!(
                avx2::weighted_sum(weights, stride, run(v, head_dim), head_dim, out, 0),
                weighted_sum_portable(weights, stride, run(v, head_dim), head_dim, out, 0)
            );
        },
        |weights, stride, v, head_dim, out| {
            let rows: Vec<&[f16]> = v.chunks_exact(head_dim).collect();
            weighted_sum_of(weights, stride, &rows, head_dim, out);
        },
        |weights, stride, v, head_dim, out| {
            let rows: Vec<&[f16]> = v.chunks_exact(head_dim).collect();
            by_cpu!(
                avx2::weighted_sum(weights, stride, Scattered(&rows), head_dim, out, 0),
                weighted_sum_portable(weights, stride, Scattered(&rows), head_dim, out, 0)
            );
        },
    ];

    #[test]
    fn the_paths_agree() {
        for (group, head_dim, rows) in
            [(1, 64, 64), (3, 64, 7), (4, 80, 9), (8, 32, 2), (2, 128, 5), (2, 12, 6), (3, 200, 11)]
        {
            let stride = rows + 1;
            let weights: Vec<f32> = (0..group * stride).map(|at| (at as f32 * 0.7).sin().abs()).collect();
            let v: Vec<f16> = (0..rows * head_dim).map(|at| f16::from_f32((at as f32 * 0.3).cos())).collect();
            let before: Vec<f32> = (0..group * head_dim).map(|at| at as f32 * 0.01).collect();
            let mut plain = before.clone();
            weighted_sum_portable(&weights, stride, run(&v, head_dim), head_dim, &mut plain, 0);
            for path in PATHS {
                let mut fast = before.clone();
                path(&weights, stride, &v, head_dim, &mut fast);
                for (fast, plain) in fast.iter().zip(&plain) {
                    assert!((fast - plain).abs() < 1e-4, "{group} {head_dim} {rows}: {fast} {plain}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "row.len() == head_dim")]
    fn a_short_row_is_refused() {
        weighted_sum_of(&[1.0; 2], 2, &[&[f16::ONE; 8], &[f16::ONE; 7]], 8, &mut [0.0; 8]);
    }
}
