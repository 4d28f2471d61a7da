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
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(values)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: part of every x86-64; a prefetch reads nothing that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast::<i8>().wrapping_add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::transposed_with;

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
        let whole = [values.len() / width / 8 * 8, width / 8 * 8];
        // SAFETY: whole eights within `values`, and `out` is at least [width, stride].
        unsafe {
            transposed_with(whole, out, stride, |row, column| {
                _mm256_cvtph_ps(_mm_loadu_si128(values.as_ptr().wrapping_add(row * width + column).cast()))
            });
        }
        transposed_portable(values, width, out, stride, whole[0], whole[1]);
    }

    /// The transpose of `[rows, columns]` values, whole eights of both, into `out`, `[columns, stride]`; `load` gives
    /// eight values of a row from a column on.
    ///
    /// # Safety
    /// `out` holds `columns·stride` values, and `rows ≤ stride`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in crate::kernels) unsafe fn transposed_with(
        [rows, columns]: [usize; 2],
        out: &mut [f32],
        stride: usize,
        load: impl Fn(usize, usize) -> __m256,
    ) {
        for row in (0..rows).step_by(8) {
            for column in (0..columns).step_by(8) {
                let v: [__m256; 8] = std::array::from_fn(|at| load(row + at, column));
                for (at, v) in transpose(v).into_iter().enumerate() {
                    // SAFETY: `column + at` is a row of `out`, and `row + 8` is within the stride.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr().wrapping_add((column + at) * stride + row), v) };
                }
            }
        }
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
