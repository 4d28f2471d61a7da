//! 8-bit rows of the cache: `x = d·q` with `q` within ±127, one 16-bit scale `d` for every 32 values of a row.
//!
//! This is GGML's Q8_0, except that the integers of many rows lie together and their scales apart, so that each is read
//! in one run. Where the length of a row is no multiple of 32, the last scale covers what is left. 32 values take 34
//! bytes.

use half::f16;

use super::cpu::by_cpu;

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// The largest integer.
const MOST: f32 = 127.0;
/// The largest value that a row can hold.
pub const LARGEST: f32 = MOST * 65_504.0;
/// The largest integer of a query.
pub(super) const QUERY_MOST: f32 = 32767.0;

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

/// Rounds one row. The rounded values are within half of the block's scale, unless a value is beyond
/// 127·65,504.
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
pub fn dequantise(rows: Q8Rows<'_>, width: usize, out: &mut [f32]) {
    assert_eq!(rows.rows(width) * width, out.len());
    by_cpu!(avx2::dequantise(rows, width, out), dequantise_portable(rows, width, out));
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

/// The scale of a block whose largest magnitude is `max`, in both widths; `narrow` and `wide` convert.
#[inline(always)]
fn scale(max: f32, narrow: impl Fn(f32) -> f16, wide: impl Fn(f16) -> f32) -> (f16, f32) {
    // A block with an infinity or NaN gets the largest scale there is.
    let d = narrow((max / MOST).min(f16::MAX.to_f32_const()));
    // Scales near zero are coarse: rounded down, the largest value would be cut off.
    let cut = wide(d) * (MOST + 0.5) < max && d.to_bits() < f16::MAX.to_bits();
    let d = f16::from_bits(d.to_bits() + u16::from(cut));
    (d, wide(d))
}

/// What a value is multiplied by.
#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn quantise_portable(x: &[f32], values: &mut [i8], scales: &mut [f16]) {
    for ((x, values), scale_16) in x.chunks(BLOCK).zip(values.chunks_mut(BLOCK)).zip(scales) {
        let d;
        (*scale_16, d) = scale(largest(x), f16::from_f32, f16::to_f32);
        let inverse = inverse(d);
        for (value, x) in values.iter_mut().zip(x) {
            *value = (x * inverse).round_ties_even().clamp(-MOST, MOST) as i8;
        }
    }
}

#[inline(always)]
fn query_portable(q: &[f32], out: &mut [i16]) -> f32 {
    let d = largest(q) / QUERY_MOST;
    // A query that is not finite, or too small for a scale, has the same score for every key.
    let (d, inverse) = if d.is_normal() { (d, 1.0 / d) } else { (0.0, 0.0) };
    for (out, q) in out.iter_mut().zip(q) {
        *out = (q * inverse).round_ties_even() as i16;
    }
    d
}

fn dequantise_portable(rows: Q8Rows<'_>, width: usize, out: &mut [f32]) {
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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{BLOCK, MOST, Q8Rows, blocks, inverse, quantise_portable, scale};

    /// One 16-bit float.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn wide(d: f16) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(d.to_bits()))))
    }

    /// The same rounding as the portable one: to the nearest, ties to even.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn narrow(x: f32) -> f16 {
        f16::from_bits(_mm_extract_epi16::<0>(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(x))) as u16)
    }

    /// Whole blocks; what is left of a row goes the portable way.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn quantise(x: &[f32], values: &mut [i8], scales: &mut [f16]) {
        let whole = x.len() / BLOCK;
        let (sign, most) = (_mm256_set1_ps(-0.0), _mm256_set1_ps(MOST));
        let blocks = x.chunks_exact(BLOCK).zip(values.chunks_exact_mut(BLOCK));
        for ((x, values), scale_16) in blocks.zip(scales.iter_mut()) {
            // SAFETY: a chunk holds 32 floats, four vectors of eight.
            let x: [__m256; 4] = std::array::from_fn(|at| unsafe { _mm256_loadu_ps(x.as_ptr().wrapping_add(8 * at)) });
            let abs = x.map(|x| _mm256_castps_si256(_mm256_andnot_ps(sign, x)));
            let max8 = _mm256_max_epu32(_mm256_max_epu32(abs[0], abs[1]), _mm256_max_epu32(abs[2], abs[3]));
            let max4 = _mm_max_epu32(_mm256_castsi256_si128(max8), _mm256_extracti128_si256::<1>(max8));
            let max2 = _mm_max_epu32(max4, _mm_shuffle_epi32::<0b01_00_11_10>(max4));
            let max = _mm_max_epu32(max2, _mm_shuffle_epi32::<0b10_11_00_01>(max2));
            let d;
            (*scale_16, d) = scale(_mm_cvtss_f32(_mm_castsi128_ps(max)), |x| narrow(x), |d| wide(d));
            let inverse = _mm256_set1_ps(inverse(d));
            let q = x.map(|x| {
                let scaled = _mm256_mul_ps(x, inverse);
                // What is no number becomes zero.
                let scaled = _mm256_and_ps(scaled, _mm256_cmp_ps::<_CMP_ORD_Q>(scaled, scaled));
                let low = _mm256_sub_ps(_mm256_setzero_ps(), most);
                _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(scaled, most), low))
            });
            // Packing works on each half of a register by itself; the permutation puts the fours back in order.
            let packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
            let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            // SAFETY: a chunk holds 32 integers.
            unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), packed) };
        }
        quantise_portable(&x[whole * BLOCK..], &mut values[whole * BLOCK..], &mut scales[whole..]);
    }

    /// The portable code once more, where the compiler may use wider instructions: the results are the same bits.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn quantise_query(q: &[f32], out: &mut [i16]) -> f32 {
        super::query_portable(q, out)
    }

    /// Eight values times their scale.
    ///
    /// # Safety
    /// `values` can be read eight times.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn eight(values: *const i8, d: f16) -> __m256 {
        // SAFETY: as the caller says.
        let values = unsafe { _mm_loadl_epi64(values.cast()) };
        _mm256_mul_ps(_mm256_set1_ps(wide(d)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(values)))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dequantise(rows: Q8Rows<'_>, width: usize, out: &mut [f32]) {
        if !width.is_multiple_of(8) {
            return super::dequantise_portable(rows, width, out);
        }
        let scales = rows.scales.chunks_exact(blocks(width));
        for ((values, scales), out) in rows.values.chunks_exact(width).zip(scales).zip(out.chunks_exact_mut(width)) {
            for ((values, d), out) in values.chunks(BLOCK).zip(scales).zip(out.chunks_mut(BLOCK)) {
                for (values, out) in values.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
                    // SAFETY: eight values each.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), eight(values.as_ptr(), *d)) };
                }
            }
        }
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
            dequantise(Q8Rows { values: &values, scales: &scales }, x.len(), &mut back);
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
            dequantise(Q8Rows { values: &values, scales: &scales }, 40, &mut back);
            assert!(back.iter().all(|value| value.is_finite()), "{strange}: {back:?}");
            assert!((back[39] - 1.0).abs() < 0.01, "the other block keeps its values");
            assert!(quantise_query(&x, &mut [0; 40]).is_finite());
        }
    }
}
