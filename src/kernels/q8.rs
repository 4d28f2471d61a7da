//! 8-bit rows of the cache: `x = d·q` with `q` within ±127, one 16-bit scale `d` for every 32 values of a row.
//!
//! As GGML's Q8_0, but with the integers of many rows together and their scales apart, so that both are read in one
//! run. Where a row is no multiple of 32 long, its last scale stands for what is left. 34 bytes for 32 values.

use half::f16;

use super::cpu::by_cpu;

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// The largest integer.
const MOST: f32 = 127.0;
/// The largest integer of a query.
const QUERY_MOST: f32 = 32767.0;

/// Some rows, to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Q8Rows<'a> {
    /// The integers, `[rows, width]`.
    pub values: &'a [i8],
    /// The scales, `[rows, blocks(width)]`.
    pub scales: &'a [f16],
}

impl<'a> Q8Rows<'a> {
    /// How many rows of `width` values.
    ///
    /// # Panics
    /// When the lengths are not those of whole rows.
    pub fn rows(&self, width: usize) -> usize {
        let rows = self.values.len() / width;
        assert!(
            self.values.len() == rows * width && self.scales.len() == rows * blocks(width),
            "8-bit rows of {width}"
        );
        rows
    }

    /// Up to `rows` rows from `first` on.
    pub fn run(&self, width: usize, first: usize, rows: usize) -> Self {
        let end = (first + rows).min(self.values.len() / width);
        Self {
            values: &self.values[first * width..end * width],
            scales: &self.scales[first * blocks(width)..end * blocks(width)],
        }
    }
}

/// Scales of a row of `width` values.
pub const fn blocks(width: usize) -> usize {
    width.div_ceil(BLOCK)
}

/// Rounds one row. What comes back is within half of its block's scale, unless a value is beyond 127·65,504.
///
/// # Panics
/// When the lengths do not fit.
pub fn quantise(x: &[f32], values: &mut [i8], scales: &mut [f16]) {
    assert!(values.len() == x.len() && scales.len() == blocks(x.len()));
    by_cpu!(avx2::quantise(x, values, scales), quantise_portable(x, values, scales));
}

/// `out = rows`, `[rows, width]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn widen(rows: Q8Rows<'_>, width: usize, out: &mut [f32]) {
    assert_eq!(rows.rows(width) * width, out.len());
    by_cpu!(avx2::widen(rows, width, out), widen_portable(rows, width, out));
}

/// The transpose of `rows` into `out`, `[width, stride]` with `rows ≤ stride`; columns of `out` beyond the rows are left
/// alone.
///
/// # Panics
/// When the lengths do not fit.
pub fn widen_transposed(rows: Q8Rows<'_>, width: usize, out: &mut [f32], stride: usize) {
    assert!(rows.rows(width) <= stride && out.len() >= width * stride);
    by_cpu!(avx2::widen_transposed(rows, width, out, stride), transposed_portable(rows, width, out, stride, 0, 0));
}

/// Rounds a query to 16 bits, for products with 8-bit keys in whole numbers: `q ≈ scale·out`; returns the scale.
///
/// # Panics
/// When the lengths differ.
pub fn quantise_query(q: &[f32], out: &mut [i16]) -> f32 {
    assert_eq!(q.len(), out.len());
    by_cpu!(avx2::quantise_query(q, out), query_portable(q, out))
}

/// The largest magnitude; NaN where one is among the values. As whole numbers, because those can be compared in any
/// order.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().map(|x| x.to_bits() & !(1 << 31)).max().unwrap_or(0))
}

/// The scale of a block whose largest magnitude is `max`.
#[inline(always)]
fn scale(max: f32) -> f16 {
    // A block with an infinity or NaN gets the largest scale there is.
    let d = f16::from_f32(max / MOST).min(f16::MAX);
    // Scales near zero are coarse: rounded down, the largest value would be cut off.
    if d < f16::MAX && d.to_f32() * (MOST + 0.5) < max { f16::from_bits(d.to_bits() + 1) } else { d }
}

#[inline(always)]
fn quantise_portable(x: &[f32], values: &mut [i8], scales: &mut [f16]) {
    for ((x, values), d) in x.chunks(BLOCK).zip(values.chunks_mut(BLOCK)).zip(scales) {
        *d = scale(largest(x));
        let inverse = if *d == f16::ZERO { 0.0 } else { 1.0 / d.to_f32() };
        for (value, x) in values.iter_mut().zip(x) {
            *value = (x * inverse).round_ties_even().clamp(-MOST, MOST) as i8;
        }
    }
}

#[inline(always)]
fn query_portable(q: &[f32], out: &mut [i16]) -> f32 {
    let d = largest(q) / QUERY_MOST;
    // A query that is no number, or too small for one, is like every key.
    let (d, inverse) = if d.is_normal() { (d, 1.0 / d) } else { (0.0, 0.0) };
    for (out, q) in out.iter_mut().zip(q) {
        *out = (q * inverse).round_ties_even() as i16;
    }
    d
}

#[inline(always)]
fn widen_portable(rows: Q8Rows<'_>, width: usize, out: &mut [f32]) {
    let scales = rows.scales.chunks_exact(blocks(width));
    for ((values, scales), out) in rows.values.chunks_exact(width).zip(scales).zip(out.chunks_exact_mut(width)) {
        for ((values, d), out) in values.chunks(BLOCK).zip(scales).zip(out.chunks_mut(BLOCK)) {
            let d = d.to_f32();
            for (out, value) in out.iter_mut().zip(values) {
                *out = d * f32::from(*value);
            }
        }
    }
}

/// The part of the transpose that is not in the first `rows_done` rows and `columns_done` columns at once.
fn transposed_portable(
    rows: Q8Rows<'_>,
    width: usize,
    out: &mut [f32],
    stride: usize,
    rows_done: usize,
    columns_done: usize,
) {
    let scales = rows.scales.chunks_exact(blocks(width));
    for (row, (values, scales)) in rows.values.chunks_exact(width).zip(scales).enumerate() {
        let start = if row < rows_done { columns_done } else { 0 };
        for (column, value) in values.iter().enumerate().skip(start) {
            out[column * stride + row] = scales[column / BLOCK].to_f32() * f32::from(*value);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{BLOCK, Q8Rows, blocks, transposed_portable};
    use crate::kernels::widen::transposed_with;

    // The portable code once more, where the compiler may use wider instructions: the results are the same bits.

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn quantise(x: &[f32], values: &mut [i8], scales: &mut [f16]) {
        super::quantise_portable(x, values, scales);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn quantise_query(q: &[f32], out: &mut [i16]) -> f32 {
        super::query_portable(q, out)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn widen(rows: Q8Rows<'_>, width: usize, out: &mut [f32]) {
        super::widen_portable(rows, width, out);
    }

    /// Eight by eight at a time, the rest one by one.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn widen_transposed(rows: Q8Rows<'_>, width: usize, out: &mut [f32], stride: usize) {
        let whole = [rows.values.len() / width / 8 * 8, width / 8 * 8];
        let per_row = blocks(width);
        // SAFETY: whole eights within the rows, whose shape the caller of this has checked with that of `out`.
        unsafe {
            transposed_with(whole, out, stride, |row, column| {
                let values = _mm_loadl_epi64(rows.values.as_ptr().wrapping_add(row * width + column).cast());
                let d = rows.scales[row * per_row + column / BLOCK].to_f32();
                _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(values)))
            });
        }
        transposed_portable(rows, width, out, stride, whole[0], whole[1]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(width: usize) -> impl Strategy<Value = Vec<f32>> {
        let size = prop_oneof![Just(0.0f32), Just(1e-9), Just(1e-6), Just(0.003), Just(1.0), Just(60.0), Just(1e6)];
        (size, prop::collection::vec(prop_oneof![4 => -1.0f32..1.0, 1 => Just(0.0)], width))
            .prop_map(|(size, values)| values.into_iter().map(|value| value * size).collect())
    }

    proptest! {
        #[test]
        fn what_comes_back_is_within_half_a_step(
            x in prop_oneof![Just(64), Just(80), Just(16), Just(7), Just(128)].prop_flat_map(row),
        ) {
            let count = blocks(x.len());
            let (mut values, mut scales) = (vec![1; x.len()], vec![f16::ONE; count]);
            quantise(&x, &mut values, &mut scales);
            let (mut plain, mut plain_scales) = (vec![0; x.len()], vec![f16::ZERO; count]);
            quantise_portable(&x, &mut plain, &mut plain_scales);
            prop_assert_eq!((&values, &scales), (&plain, &plain_scales));
            let mut back = vec![f32::NAN; x.len()];
            widen(Q8Rows { values: &values, scales: &scales }, x.len(), &mut back);
            for (block, (x, back)) in x.chunks(BLOCK).zip(back.chunks(BLOCK)).enumerate() {
                let (d, max) = (scales[block].to_f32(), largest(x));
                // The next scale above max/127 is at most a 2048th, or the smallest 16-bit float, larger.
                prop_assert!(d <= max / MOST * (1.0 + 1.0 / 1024.0) + 6e-8);
                for (x, back) in x.iter().zip(back) {
                    prop_assert!((x - back).abs() <= 0.5001 * d, "{} came back as {}", x, back);
                    prop_assert!(*x != 0.0 || *back == 0.0);
                }
            }
        }

        #[test]
        fn a_query_is_within_half_a_step(q in row(80)) {
            let (mut fast, mut plain) = (vec![0; 80], vec![0; 80]);
            let d = quantise_query(&q, &mut fast);
            prop_assert_eq!((d, &fast), (query_portable(&q, &mut plain), &plain));
            for (q, narrow) in q.iter().zip(&fast) {
                prop_assert!((q - d * f32::from(*narrow)).abs() <= 0.51 * d + 1e-33);
            }
        }
    }

    #[test]
    fn values_that_are_no_numbers_give_numbers() {
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1e9] {
            let mut x = [1.0; 40];
            x[3] = strange;
            let (mut values, mut scales, mut back) = ([0; 40], [f16::ZERO; 2], [0.0; 40]);
            quantise(&x, &mut values, &mut scales);
            widen(Q8Rows { values: &values, scales: &scales }, 40, &mut back);
            assert!(back.iter().all(|value| value.is_finite()), "{strange}: {back:?}");
            assert!((back[39] - 1.0).abs() < 0.01, "the other block keeps its values");
            assert!(quantise_query(&x, &mut [0; 40]).is_finite());
        }
    }

    #[test]
    fn the_transpose_is_the_same_values() {
        for (rows, width) in [(64, 64), (64, 80), (17, 40), (8, 8), (3, 5)] {
            let (mut values, mut scales) = (vec![0; rows * width], vec![f16::ZERO; rows * blocks(width)]);
            for (row, (values, scales)) in
                values.chunks_exact_mut(width).zip(scales.chunks_exact_mut(blocks(width))).enumerate()
            {
                let x: Vec<f32> = (0..width).map(|at| ((row * width + at) as f32 * 0.37).sin()).collect();
                quantise(&x, values, scales);
            }
            let all = Q8Rows { values: &values, scales: &scales };
            let mut plain = vec![0.0; rows * width];
            widen(all, width, &mut plain);
            let stride = rows + 3;
            let mut out = vec![-1.0; width * stride];
            widen_transposed(all, width, &mut out, stride);
            for (at, out) in out.iter().enumerate() {
                let (column, row) = (at / stride, at % stride);
                let expected = if row < rows { plain[row * width + column] } else { -1.0 };
                assert_eq!(*out, expected, "{rows}x{width}: row {row}, column {column}");
            }
        }
    }
}
