//! A small matrix product for prefill: `C = A·B` or `C += A·B` on row-major floats.
//!
//! Made for operands that fit the caches (a block of queries, one page of keys or values): six rows by sixteen columns
//! of C stay in registers while A is broadcast and B is streamed. An element of C is one chain of additions along the
//! inner dimension, whatever the other rows and columns are.

use super::cpu::by_cpu;

/// A row-major matrix within a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The values, from the first one on.
    pub data: &'a [f32],
    /// Distance between rows.
    pub stride: usize,
}

/// `c = a·b`, or `c += a·b` where `accumulate`; a is `[m, k]`, b is `[k, n]`, c is `[m, n]` with rows `stride` apart.
///
/// # Panics
/// When a slice is too short for its matrix.
pub fn gemm([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], stride: usize, accumulate: bool) {
    if m == 0 || n == 0 {
        return;
    }
    let fits = |len: usize, rows: usize, columns: usize, stride: usize| {
        rows == 0 || columns == 0 || (columns <= stride && (rows - 1) * stride + columns <= len)
    };
    assert!(fits(a.data.len(), m, k, a.stride) && fits(b.data.len(), k, n, b.stride) && fits(c.len(), m, n, stride));
    by_cpu!(
        avx2::gemm([m, n, k], a, b, c, stride, accumulate),
        gemm_portable([m, n, k], 0, a, b, c, stride, accumulate)
    );
}

/// The columns of C from `first` on.
fn gemm_portable(
    [m, n, k]: [usize; 3],
    first: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: &mut [f32],
    stride: usize,
    accumulate: bool,
) {
    for row in 0..m {
        let c = &mut c[row * stride..][first..n];
        if !accumulate {
            c.fill(0.0);
        }
        for (at, &a) in a.data[row * a.stride..][..k].iter().enumerate() {
            for (c, b) in c.iter_mut().zip(&b.data[at * b.stride..][first..n]) {
                *c += a * b;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Matrix, gemm_portable};

    /// Rows of C in registers.
    const TALL: usize = 6;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn gemm(
        [m, n, k]: [usize; 3],
        a: Matrix<'_>,
        b: Matrix<'_>,
        c: &mut [f32],
        stride: usize,
        accumulate: bool,
    ) {
        let mut column = 0;
        while column + 8 <= n {
            let wide = column + 16 <= n;
            for row in (0..m).step_by(TALL) {
                let (a, rows) = (&a.data[row * a.stride..], Rows { a: a.stride, b: b.stride, c: stride, k });
                let (b, c) = (&b.data[column.min(b.data.len())..], &mut c[row * stride + column..]);
                // SAFETY: `gemm` has checked that the matrices lie within their slices; the tile is inside C.
                unsafe {
                    match (m - row, wide) {
                        (1, true) => tile::<1, 2>(a, b, c, rows, accumulate),
                        (2, true) => tile::<2, 2>(a, b, c, rows, accumulate),
                        (3, true) => tile::<3, 2>(a, b, c, rows, accumulate),
                        (4, true) => tile::<4, 2>(a, b, c, rows, accumulate),
                        (5, true) => tile::<5, 2>(a, b, c, rows, accumulate),
                        (_, true) => tile::<TALL, 2>(a, b, c, rows, accumulate),
                        (1, false) => tile::<1, 1>(a, b, c, rows, accumulate),
                        (2, false) => tile::<2, 1>(a, b, c, rows, accumulate),
                        (3, false) => tile::<3, 1>(a, b, c, rows, accumulate),
                        (4, false) => tile::<4, 1>(a, b, c, rows, accumulate),
                        (5, false) => tile::<5, 1>(a, b, c, rows, accumulate),
                        (_, false) => tile::<TALL, 1>(a, b, c, rows, accumulate),
                    }
                }
            }
            column += if wide { 16 } else { 8 };
        }
        if column < n {
            gemm_portable([m, n, k], column, a, b, c, stride, accumulate);
        }
    }

    /// Distances between rows, and the inner dimension.
    #[derive(Clone, Copy)]
    struct Rows {
        a: usize,
        b: usize,
        c: usize,
        k: usize,
    }

    /// `M` rows by `8·N` columns of C. Loops over constant ranges, which even a debug build unrolls into registers.
    ///
    /// # Safety
    /// a holds `[M, k]`, b holds `[k, 8·N]` and c holds `[M, 8·N]`, at the distances of `rows`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile<const M: usize, const N: usize>(a: &[f32], b: &[f32], c: &mut [f32], rows: Rows, accumulate: bool) {
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let c = |row: usize, at: usize| c.wrapping_add(row * rows.c + 8 * at);
        let mut sums = [[_mm256_setzero_ps(); N]; M];
        if accumulate {
            for row in 0..M {
                for at in 0..N {
                    // SAFETY: inside C.
                    sums[row][at] = unsafe { _mm256_loadu_ps(c(row, at)) };
                }
            }
        }
        for inner in 0..rows.k {
            let mut right = [_mm256_setzero_ps(); N];
            for at in 0..N {
                // SAFETY: row `inner` of B has 8·N columns.
                right[at] = unsafe { _mm256_loadu_ps(b.wrapping_add(inner * rows.b + 8 * at)) };
            }
            for row in 0..M {
                // SAFETY: row `row` of A has k columns.
                let left = _mm256_set1_ps(unsafe { *a.wrapping_add(row * rows.a + inner) });
                for at in 0..N {
                    sums[row][at] = _mm256_fmadd_ps(left, right[at], sums[row][at]);
                }
            }
        }
        for row in 0..M {
            for at in 0..N {
                // SAFETY: inside C.
                unsafe { _mm256_storeu_ps(c(row, at), sums[row][at]) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|at| (at as f32 * step).sin()).collect()
    }

    #[test]
    fn the_twins_agree() {
        for [m, n, k] in [[1, 1, 1], [6, 16, 64], [7, 64, 64], [13, 24, 80], [96, 64, 64], [5, 19, 3], [2, 8, 0]] {
            let (sa, sb, sc) = (k + 1, n + 2, n + 3);
            let (a, b) = (wave(m * sa, 0.7), wave(k.max(1) * sb, 0.3));
            let (a, b) = (Matrix { data: &a, stride: sa }, Matrix { data: &b, stride: sb });
            for accumulate in [false, true] {
                let mut fast = wave(m * sc, 0.1);
                let mut plain = fast.clone();
                gemm([m, n, k], a, b, &mut fast, sc, accumulate);
                gemm_portable([m, n, k], 0, a, b, &mut plain, sc, accumulate);
                for (fast, plain) in fast.iter().zip(&plain) {
                    assert!((fast - plain).abs() < 1e-4, "{m} {n} {k}: {fast} {plain}");
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let (m, n, k) = (11, 40, 64);
        let (a, b) = (wave(m * k, 0.7), wave(k * n, 0.3));
        let b = Matrix { data: &b, stride: n };
        let mut all = vec![0.0; m * n];
        gemm([m, n, k], Matrix { data: &a, stride: k }, b, &mut all, n, false);
        for row in 0..m {
            let mut one = vec![0.0; n];
            gemm([1, n, k], Matrix { data: &a[row * k..], stride: k }, b, &mut one, n, false);
            assert_eq!(one, all[row * n..][..n]);
        }
    }
}
