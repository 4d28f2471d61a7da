//! 16-bit floats of the cache as 32-bit floats, and asking for them ahead of time.

use half::f16;

use super::cpu::by_cpu;

/// `out = values`.
///
/// # Panics
/// When the lengths differ.
pub fn widen(values: &[f16], out: &mut [f32]) {
    assert_eq!(values.len(), out.len());
    by_cpu!(avx2::widen(values, out), widen_portable(values, out));
}

/// The transpose of `values`, `[rows, width]`, into `out`, `[width, stride]` with `rows ≤ stride`; columns of `out`
/// beyond `rows` are left alone.
///
/// # Panics
/// When the lengths do not fit.
pub fn widen_transposed(values: &[f16], width: usize, out: &mut [f32], stride: usize) {
    let rows = values.len() / width;
    assert!(values.len() == rows * width && rows <= stride && out.len() >= width * stride);
    by_cpu!(avx2::widen_transposed(values, width, out, stride), transposed_portable(values, width, out, stride, 0, 0));
}

/// Asks the memory for `values`, which will be read soon. Changes nothing but the time that takes.
#[inline]
pub fn prefetch(values: &[f16]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(32) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: part of every x86-64; a prefetch reads nothing that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

fn widen_portable(values: &[f16], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.to_f32();
    }
}

/// The part of the transpose that is not in the first `rows_done` rows and `columns_done` columns at once.
fn transposed_portable(
    values: &[f16],
    width: usize,
    out: &mut [f32],
    stride: usize,
    rows_done: usize,
    columns_done: usize,
) {
    for (row, values) in values.chunks_exact(width).enumerate() {
        let start = if row < rows_done { columns_done } else { 0 };
        for (column, value) in values.iter().enumerate().skip(start) {
            out[column * stride + row] = value.to_f32();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{transposed_portable, widen_portable};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn widen(values: &[f16], out: &mut [f32]) {
        let whole = values.len() / 8 * 8;
        for (values, out) in values.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
            // SAFETY: eight values each.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(values.as_ptr().cast()))) };
        }
        widen_portable(&values[whole..], &mut out[whole..]);
    }

    /// Eight by eight at a time, the rest one by one.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn widen_transposed(values: &[f16], width: usize, out: &mut [f32], stride: usize) {
        let (rows, columns) = (values.len() / width / 8 * 8, width / 8 * 8);
        for row in (0..rows).step_by(8) {
            for column in (0..columns).step_by(8) {
                let v: [__m256; 8] = std::array::from_fn(|at| {
                    // SAFETY: row `row + at` exists and has eight values from `column` on.
                    let values =
                        unsafe { _mm_loadu_si128(values.as_ptr().wrapping_add((row + at) * width + column).cast()) };
                    _mm256_cvtph_ps(values)
                });
                for (at, v) in transpose(v).into_iter().enumerate() {
                    // SAFETY: `out` is at least [width, stride], and `row + 8` is within the stride.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr().wrapping_add((column + at) * stride + row), v) };
                }
            }
        }
        transposed_portable(values, width, out, stride, rows, columns);
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn transpose(v: [__m256; 8]) -> [__m256; 8] {
        let pairs: [__m256; 8] = std::array::from_fn(|at| {
            let (a, b) = (v[at / 2 * 2], v[at / 2 * 2 + 1]);
            if at % 2 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
        });
        let fours: [__m256; 8] = std::array::from_fn(|at| {
            let (a, b) = (pairs[at / 4 * 4 + at % 4 / 2], pairs[at / 4 * 4 + at % 4 / 2 + 2]);
            if at % 2 == 0 {
                _mm256_shuffle_ps::<0b01_00_01_00>(a, b)
            } else {
                _mm256_shuffle_ps::<0b11_10_11_10>(a, b)
            }
        });
        std::array::from_fn(|at| {
            let (a, b) = (fours[at % 4], fours[at % 4 + 4]);
            if at < 4 { _mm256_permute2f128_ps::<0x20>(a, b) } else { _mm256_permute2f128_ps::<0x31>(a, b) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_exact() {
        for (rows, width) in [(64, 64), (64, 80), (17, 40), (8, 8), (3, 5)] {
            let values: Vec<f16> = (0..rows * width).map(|at| f16::from_f32(at as f32 * 0.25 - 7.0)).collect();
            let mut out = vec![0.0; rows * width];
            widen(&values, &mut out);
            assert!(out.iter().zip(&values).all(|(out, value)| *out == value.to_f32()));
            let stride = rows + 3;
            let mut out = vec![-1.0; width * stride];
            widen_transposed(&values, width, &mut out, stride);
            for (at, out) in out.iter().enumerate() {
                let (column, row) = (at / stride, at % stride);
                let expected = if row < rows { values[row * width + column].to_f32() } else { -1.0 };
                assert_eq!(*out, expected, "{rows}x{width}: row {row}, column {column}");
            }
        }
    }
}
