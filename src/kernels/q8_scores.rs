//! Scores of decoding on 8-bit keys: the queries that share a KV head against a run of its keys.
//!
//! Keys are 8-bit, queries 16-bit integers: a product of two of them and a sum over a block stay exact in 32 bits, so
//! all that is lost is the rounding of the keys. One instruction multiplies and adds two pairs in each of eight sums;
//! against 8-bit queries, which the CPU multiplies only unsigned by signed, this is no slower and 256 times finer.

use super::{
    cpu::by_cpu,
    q8::{BLOCK, Q8Rows, blocks},
};

/// `out[g·stride + i] = q_scales[g]·(q_g·k_i)`, with `q` `[group, head_dim]` and `k` rows of `head_dim`.
///
/// # Panics
/// When a slice is too short.
pub fn scores(q: &[i16], q_scales: &[f32], k: Q8Rows<'_>, head_dim: usize, out: &mut [f32], stride: usize) {
    let (group, keys) = (q_scales.len(), k.rows(head_dim));
    assert_eq!(q.len(), group * head_dim);
    assert!(keys <= stride && (group == 0 || out.len() >= (group - 1) * stride + keys));
    by_cpu!(
        avx2::scores(q, q_scales, k, head_dim, out, stride),
        scores_portable(q, q_scales, k, head_dim, out, stride)
    );
}

fn scores_portable(q: &[i16], q_scales: &[f32], k: Q8Rows<'_>, head_dim: usize, out: &mut [f32], stride: usize) {
    let scales = k.scales.chunks_exact(blocks(head_dim));
    for (at, (values, scales)) in k.values.chunks_exact(head_dim).zip(scales).enumerate() {
        for (group, (q, q_scale)) in q.chunks_exact(head_dim).zip(q_scales).enumerate() {
            let sum: f32 = q
                .chunks(BLOCK)
                .zip(values.chunks(BLOCK))
                .zip(scales)
                .map(|((q, k), d)| {
                    // 32 products of 127·32,767 fit.
                    let dot: i32 = q.iter().zip(k).map(|(&q, &k)| i32::from(q) * i32::from(k)).sum();
                    d.to_f32() * dot as f32
                })
                .sum();
            out[group * stride + at] = sum * q_scale;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Q8Rows, blocks, scores_portable};
    use crate::kernels::widen::widen;

    /// Scales that are widened at once.
    const SCALES: usize = 512;
    /// How many bytes ahead of the work keys are asked for.
    const AHEAD: usize = 4096;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn scores(q: &[i16], q_scales: &[f32], k: Q8Rows<'_>, head_dim: usize, out: &mut [f32], stride: usize) {
        let per_key = blocks(head_dim);
        if !head_dim.is_multiple_of(BLOCK / 2) || 4 * per_key > SCALES {
            return scores_portable(q, q_scales, k, head_dim, out, stride);
        }
        let keys = k.values.len() / head_dim;
        let run = SCALES / per_key / 4 * 4;
        let mut wide = [0.0; SCALES];
        for first in (0..keys).step_by(run) {
            let k = k.run(head_dim, first, run);
            let scales = &mut wide[..k.scales.len()];
            widen(k.scales, scales);
            let keys = k.values.len() / head_dim;
            for ((q, q_scales), at) in q.chunks(3 * head_dim).zip(q_scales.chunks(3)).zip((0..).step_by(3 * stride)) {
                let out = &mut out[at + first..];
                let mut key = 0;
                while key < keys {
                    let four = key + 4 <= keys;
                    let (k, scales) = (&k.values[key * head_dim..], &scales[key * per_key..]);
                    // SAFETY: q holds as many queries as said, k and its scales at least 4 keys or 1, and `scores` has
                    // checked `out`.
                    unsafe {
                        let out = out.as_mut_ptr().add(key);
                        match (q_scales, four) {
                            (&[a], true) => block::<1, 4>(q, [a], k, scales, head_dim, out, stride),
                            (&[a, b], true) => block::<2, 4>(q, [a, b], k, scales, head_dim, out, stride),
                            (&[a, b, c], true) => block::<3, 4>(q, [a, b, c], k, scales, head_dim, out, stride),
                            (&[a], false) => block::<1, 1>(q, [a], k, scales, head_dim, out, stride),
                            (&[a, b], false) => block::<2, 1>(q, [a, b], k, scales, head_dim, out, stride),
                            (&[a, b, c], false) => block::<3, 1>(q, [a, b, c], k, scales, head_dim, out, stride),
                            _ => unreachable!("one to three queries"),
                        }
                    }
                    key += if four { 4 } else { 1 };
                }
            }
        }
    }

    /// `G` queries by `K` keys, `K` being 1 or 4. The arithmetic of a score is the same for both.
    ///
    /// # Safety
    /// `q` holds `G` rows and `k` `K` rows of `head_dim`, a multiple of 16, `scales` those of `K` rows; `out` can be
    /// written at `g·stride + 0..K`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block<const G: usize, const K: usize>(
        q: &[i16],
        q_scales: [f32; G],
        k: &[i8],
        scales: &[f32],
        head_dim: usize,
        out: *mut f32,
        stride: usize,
    ) {
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (q, k, scales) = (q.as_ptr(), k.as_ptr(), scales.as_ptr());
        let per_key = blocks(head_dim);
        let mut sums = [[_mm256_setzero_ps(); K]; G];
        for index in 0..per_key {
            let at = index * BLOCK;
            let whole = at + BLOCK <= head_dim;
            for key in 0..K {
                let k = k.wrapping_add(key * head_dim + at);
                if index % 2 == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(k.wrapping_add(AHEAD).cast());
                }
                // SAFETY: sixteen values from `at` on in each row, and sixteen more in a whole block; a scale each.
                unsafe {
                    let d = _mm256_set1_ps(*scales.wrapping_add(key * per_key + index));
                    let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(k.cast()));
                    if whole {
                        let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(k.wrapping_add(16).cast()));
                        for g in 0..G {
                            let q = q.wrapping_add(g * head_dim + at);
                            let dots = _mm256_add_epi32(
                                _mm256_madd_epi16(low, _mm256_loadu_si256(q.cast())),
                                _mm256_madd_epi16(high, _mm256_loadu_si256(q.wrapping_add(16).cast())),
                            );
                            sums[g][key] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), d, sums[g][key]);
                        }
                    } else {
                        for g in 0..G {
                            let q = q.wrapping_add(g * head_dim + at);
                            let dots = _mm256_madd_epi16(low, _mm256_loadu_si256(q.cast()));
                            sums[g][key] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), d, sums[g][key]);
                        }
                    }
                }
            }
        }
        for (g, sums) in sums.into_iter().enumerate() {
            let pick = |key: usize| sums[key.min(K - 1)];
            let pairs = [_mm256_hadd_ps(pick(0), pick(1)), _mm256_hadd_ps(pick(2), pick(3))];
            let halves = _mm256_hadd_ps(pairs[0], pairs[1]);
            let total = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            let scaled = _mm_mul_ps(total, _mm_set1_ps(q_scales[g]));
            // SAFETY: `out` has room for K scores there.
            unsafe {
                if K == 4 {
                    _mm_storeu_ps(out.add(g * stride), scaled);
                } else {
                    _mm_store_ss(out.add(g * stride), scaled);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    /// Rows of whole numbers and scales; some rows are zero.
    fn keys(keys: usize, head_dim: usize, seed: usize) -> (Vec<i8>, Vec<f16>) {
        let value = |at: usize| if at / head_dim % 5 == seed % 5 { 0 } else { ((at * 37 + seed) % 255) as i32 - 127 };
        let values = (0..keys * head_dim).map(|at| value(at) as i8).collect();
        let scale = |at: usize| f16::from_f32(((at + seed) as f32 * 0.7).sin().abs() * 0.02);
        (values, (0..keys * blocks(head_dim)).map(scale).collect())
    }

    proptest! {
        #[test]
        fn the_twins_agree_and_keys_do_not_depend_on_their_neighbours(
            group in 1usize..9, count in 1usize..70, seed in 0usize..10_000,
            head_dim in prop::sample::select(vec![16, 20, 32, 48, 64, 80, 128, 256]),
        ) {
            let (values, scales) = keys(count, head_dim, seed);
            let k = Q8Rows { values: &values, scales: &scales };
            let q: Vec<i16> = (0..group * head_dim).map(|at| ((at * 7919 + seed) % 65535) as i16).collect();
            let q: Vec<i16> = q.into_iter().map(|q| q.max(-32767)).collect();
            let q_scales: Vec<f32> = (0..group).map(|g| (1.0 + g as f32) / 32767.0 / 8.0).collect();
            let stride = count + 2;
            let (mut fast, mut plain) = (vec![0.0; group * stride], vec![0.0; group * stride]);
            scores(&q, &q_scales, k, head_dim, &mut fast, stride);
            scores_portable(&q, &q_scales, k, head_dim, &mut plain, stride);
            for (fast, plain) in fast.iter().zip(&plain) {
                prop_assert!((fast - plain).abs() < 2e-4, "{} {}", fast, plain);
            }
            for key in 0..count {
                let mut one = vec![0.0; group];
                scores(&q, &q_scales, k.run(head_dim, key, 1), head_dim, &mut one, 1);
                prop_assert!((0..group).all(|g| one[g].to_bits() == fast[g * stride + key].to_bits()));
            }
        }
    }

    #[test]
    fn the_extreme_block_does_not_overflow() {
        for (key, query) in [(127, 32767), (-127, 32767), (127, -32767), (-127, -32767)] {
            let (values, scales) = (vec![key as i8; 64], [f16::ONE; 2]);
            let mut out = [0.0];
            let k = Q8Rows { values: &values, scales: &scales };
            scores(&[query as i16; 64], &[1.0], k, 64, &mut out, 1);
            assert_eq!(out[0], 64.0 * key as f32 * query as f32);
        }
    }
}
