//! Scores of decoding on 8-bit keys: the queries that share a KV head against the keys of a page.
//!
//! Keys are 8-bit and queries 16-bit integers. A product of two of them and a sum over a block stay exact in 32 bits,
//! so only the rounding of the keys is lost, and every path here gives the same sums. Pairs of 16 bits are multiplied
//! and added; AVX-512 VNNI adds them to the sum in the same instruction.

use super::{
    cpu::{by_avx512, by_cpu},
    keys::{Q8Keys, QUAD, SLOTS, q8_at},
    q8::{BLOCK, blocks},
};

/// `out[g·stride + i] = q_scales[g]·(q_g·k_i)` for the first `keys` keys, with `q` `[group, head_dim]`. Up to 64 scores
/// of a query are written; those beyond `keys` mean nothing. `next` are the keys that will be wanted after these:
/// memory is asked for them meanwhile.
///
/// # Panics
/// When a slice is too short.
pub fn scores(
    q: &[i16],
    q_scales: &[f32],
    k: Q8Keys<'_>,
    next: Q8Keys<'_>,
    keys: usize,
    out: &mut [f32],
    stride: usize,
) {
    let (group, head_dim) = (q_scales.len(), k.values.len() / SLOTS);
    assert!(k.fit(head_dim) && q.len() == group * head_dim && keys <= SLOTS);
    assert!(group == 0 || (SLOTS <= stride || group == 1) && out.len() >= (group - 1) * stride + SLOTS);
    if !head_dim.is_multiple_of(QUAD) {
        return scores_portable(q, q_scales, k, keys, out, stride);
    }
    by_avx512!(
        vnni::scores(q, q_scales, k, next, out, stride),
        by_cpu!(
            avx2::scores(q, q_scales, k, next, keys, out, stride),
            scores_portable(q, q_scales, k, keys, out, stride)
        )
    );
}

fn scores_portable(q: &[i16], q_scales: &[f32], k: Q8Keys<'_>, keys: usize, out: &mut [f32], stride: usize) {
    let head_dim = k.values.len() / SLOTS;
    for ((q, q_scale), out) in q.chunks_exact(head_dim).zip(q_scales).zip(out.chunks_mut(stride)) {
        for (slot, out) in out[..keys].iter_mut().enumerate() {
            let blocks = q.chunks(BLOCK).zip(k.scales.chunks_exact(SLOTS)).enumerate();
            let sum: f32 = blocks
                .map(|(block, (q, scales))| {
                    // 32 products of 127 and at most 32,767 fit.
                    let key = |dim| i32::from(k.values[q8_at(head_dim, slot, block * BLOCK + dim)]);
                    let dot: i32 = q.iter().enumerate().map(|(dim, &q)| i32::from(q) * key(dim)).sum();
                    scales[slot].to_f32() * dot as f32
                })
                .sum();
            *out = sum * q_scale;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Q8Keys, QUAD, SLOTS, blocks};

    /// Keys that are worked on together: four vectors of pairs, for three queries twelve sums.
    const TOGETHER: usize = 16;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn scores(
        q: &[i16],
        q_scales: &[f32],
        k: Q8Keys<'_>,
        next: Q8Keys<'_>,
        keys: usize,
        out: &mut [f32],
        stride: usize,
    ) {
        let head_dim = k.values.len() / SLOTS;
        let groups = q.chunks(3 * head_dim).zip(q_scales.chunks(3));
        for ((q, q_scales), at) in groups.zip((0..).step_by(3 * stride)) {
            for first in (0..keys).step_by(TOGETHER) {
                let out = &mut out[at + first..];
                // SAFETY: q holds as many queries as there are scales; `scores` has checked the lengths for all 64 keys
                // and that the keys are whole quads.
                unsafe {
                    match *q_scales {
                        [a] => some(q, [a], k, next, first, out, stride),
                        [a, b] => some(q, [a, b], k, next, first, out, stride),
                        [a, b, c] => some(q, [a, b, c], k, next, first, out, stride),
                        _ => unreachable!("one to three queries"),
                    }
                }
            }
        }
    }

    /// `G` queries by the 16 keys from `first` on.
    ///
    /// # Safety
    /// `q` holds `G` rows of `head_dim`, a multiple of 4, of which `k` is a page; `first` is at most 48 and `out` can
    /// be written at `g·stride + 0..16`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn some<const G: usize>(
        q: &[i16],
        q_scales: [f32; G],
        k: Q8Keys<'_>,
        next: Q8Keys<'_>,
        first: usize,
        out: &mut [f32],
        stride: usize,
    ) {
        let head_dim = k.values.len() / SLOTS;
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (q, out) = (q.as_ptr(), out.as_mut_ptr());
        let (values, scales) = (k.values.as_ptr().wrapping_add(first * QUAD), k.scales.as_ptr().wrapping_add(first));
        let (next_values, next_scales) = (next.values.as_ptr().wrapping_add(first * QUAD), next.scales.as_ptr());
        let mut sums = [[_mm256_setzero_ps(); TOGETHER / 8]; G];
        for block in 0..blocks(head_dim) {
            let mut dots = [[_mm256_setzero_si256(); TOGETHER / 4]; G];
            _mm_prefetch::<_MM_HINT_T1>(next_scales.wrapping_add(block * SLOTS + first).cast());
            for dim in (block * BLOCK..head_dim.min((block + 1) * BLOCK)).step_by(QUAD) {
                let values = values.wrapping_add(dim * SLOTS);
                _mm_prefetch::<_MM_HINT_T1>(next_values.wrapping_add(dim * SLOTS));
                let mut query = [_mm256_setzero_si256(); G];
                for g in 0..G {
                    // SAFETY: four values of each query.
                    let four = unsafe { q.wrapping_add(g * head_dim + dim).cast::<i64>().read_unaligned() };
                    query[g] = _mm256_set1_epi64x(four);
                }
                for at in 0..TOGETHER / 4 {
                    // SAFETY: sixteen bytes, four of each of four keys.
                    let four = unsafe { _mm_loadu_si128(values.wrapping_add(4 * QUAD * at).cast()) };
                    let k = _mm256_cvtepi8_epi16(four);
                    for g in 0..G {
                        dots[g][at] = _mm256_add_epi32(dots[g][at], _mm256_madd_epi16(k, query[g]));
                    }
                }
            }
            for at in 0..TOGETHER / 8 {
                // SAFETY: a scale for each of eight keys.
                let d = unsafe { _mm_loadu_si128(scales.wrapping_add(block * SLOTS + 8 * at).cast()) };
                let d = _mm256_cvtph_ps(d);
                for g in 0..G {
                    // The sums of two pairs, in halves: keys 0 1 4 5 and 2 3 6 7.
                    let pairs = _mm256_hadd_epi32(dots[g][2 * at], dots[g][2 * at + 1]);
                    let dots = _mm256_cvtepi32_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(pairs));
                    sums[g][at] = _mm256_fmadd_ps(dots, d, sums[g][at]);
                }
            }
        }
        for g in 0..G {
            for at in 0..TOGETHER / 8 {
                let scaled = _mm256_mul_ps(sums[g][at], _mm256_set1_ps(q_scales[g]));
                // SAFETY: `out` has room for 16 scores there.
                unsafe { _mm256_storeu_ps(out.wrapping_add(g * stride + 8 * at), scaled) };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::*;

    use super::{BLOCK, Q8Keys, QUAD, SLOTS, blocks};

    /// Vectors of eight keys, two pairs of dimensions each.
    const VECTORS: usize = SLOTS / 8;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn scores(q: &[i16], q_scales: &[f32], k: Q8Keys<'_>, next: Q8Keys<'_>, out: &mut [f32], stride: usize) {
        let head_dim = k.values.len() / SLOTS;
        let groups = q.chunks(3 * head_dim).zip(q_scales.chunks(3));
        for ((q, q_scales), at) in groups.zip((0..).step_by(3 * stride)) {
            let out = &mut out[at..];
            // SAFETY: q holds as many queries as there are scales; `scores` has checked the lengths and that the keys
            // are whole quads.
            unsafe {
                match *q_scales {
                    [a] => some(q, [a], k, next, out, stride),
                    [a, b] => some(q, [a, b], k, next, out, stride),
                    [a, b, c] => some(q, [a, b, c], k, next, out, stride),
                    _ => unreachable!("one to three queries"),
                }
            }
        }
    }

    /// `G` queries by 64 keys.
    ///
    /// # Safety
    /// `q` holds `G` rows of `head_dim`, a multiple of 4, of which `k` is a page; `out` can be written at
    /// `g·stride + 0..64`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn some<const G: usize>(
        q: &[i16],
        q_scales: [f32; G],
        k: Q8Keys<'_>,
        next: Q8Keys<'_>,
        out: &mut [f32],
        stride: usize,
    ) {
        let head_dim = k.values.len() / SLOTS;
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (q, out) = (q.as_ptr(), out.as_mut_ptr());
        let (values, scales) = (k.values.as_ptr(), k.scales.as_ptr());
        let (next_values, next_scales) = (next.values.as_ptr(), next.scales.as_ptr());
        let (even, odd) =
            (_mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), _mm512_set1_epi32(1));
        let odd = _mm512_add_epi32(even, odd);
        let mut sums = [[_mm512_setzero_ps(); VECTORS / 2]; G];
        for block in 0..blocks(head_dim) {
            let mut dots = [[_mm512_setzero_si512(); VECTORS]; G];
            for dim in (block * BLOCK..head_dim.min((block + 1) * BLOCK)).step_by(QUAD) {
                let mut query = [_mm512_setzero_si512(); G];
                for g in 0..G {
                    // SAFETY: four values of each query.
                    let four = unsafe { q.wrapping_add(g * head_dim + dim).cast::<i64>().read_unaligned() };
                    query[g] = _mm512_set1_epi64(four);
                }
                for at in 0..VECTORS {
                    let line = dim * SLOTS + 8 * QUAD * at;
                    if at % 2 == 0 {
                        _mm_prefetch::<_MM_HINT_T1>(next_values.wrapping_add(line));
                    }
                    // SAFETY: 32 bytes, four of each of eight keys.
                    let k = _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(values.wrapping_add(line).cast()) });
                    for g in 0..G {
                        dots[g][at] = _mm512_dpwssd_epi32(dots[g][at], k, query[g]);
                    }
                }
            }
            for at in 0..VECTORS / 2 {
                let line = block * SLOTS + 16 * at;
                if at % 2 == 0 {
                    _mm_prefetch::<_MM_HINT_T1>(next_scales.wrapping_add(line).cast());
                }
                // SAFETY: a scale for each of sixteen keys.
                let d = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.wrapping_add(line).cast()) });
                for g in 0..G {
                    let [low, high] = [dots[g][2 * at], dots[g][2 * at + 1]];
                    let [even, odd] = [even, odd].map(|which| _mm512_permutex2var_epi32(low, which, high));
                    sums[g][at] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), d, sums[g][at]);
                }
            }
        }
        for g in 0..G {
            for at in 0..VECTORS / 2 {
                let scaled = _mm512_mul_ps(sums[g][at], _mm512_set1_ps(q_scales[g]));
                // SAFETY: `out` has room for 64 scores there.
                unsafe { _mm512_storeu_ps(out.wrapping_add(g * stride + 16 * at), scaled) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;
    use crate::q8::QUERY_MOST;

    /// What each of the paths that this CPU has makes of it.
    fn paths(q: &[i16], q_scales: &[f32], k: Q8Keys<'_>, keys: usize) -> Vec<Vec<f32>> {
        let stride = SLOTS + 2;
        let run = |path: &dyn Fn(&mut [f32])| {
            let mut out = vec![0.0; q_scales.len() * stride];
            path(&mut out);
            out.chunks_exact(stride).flat_map(|out| out[..keys].to_vec()).collect()
        };
        let mut found = vec![
            run(&|out| scores_portable(q, q_scales, k, keys, out, stride)),
            run(&|out| scores(q, q_scales, k, k, keys, out, stride)),
        ];
        if (k.values.len() / SLOTS).is_multiple_of(QUAD) {
            found.push(run(&|out| {
                by_cpu!(
                    avx2::scores(q, q_scales, k, k, keys, out, stride),
                    scores_portable(q, q_scales, k, keys, out, stride)
                );
            }));
        }
        found
    }

    proptest! {
        #[test]
        fn the_paths_agree(
            group in 1usize..9, keys in 1usize..=SLOTS, seed in 0usize..10_000,
            head_dim in prop::sample::select(vec![6usize, 16, 20, 32, 48, 64, 80, 128, 256]),
        ) {
            // Some keys are zero.
            let value = |at: usize| if at % 5 == seed % 5 { 0 } else { ((at * 37 + seed) % 255) as i32 - 127 };
            let values: Vec<i8> = (0..SLOTS * head_dim).map(|at| value(at) as i8).collect();
            let scale = |at: usize| f16::from_f32(((at + seed) as f32 * 0.7).sin().abs() * 0.02);
            let scales: Vec<f16> = (0..SLOTS * blocks(head_dim)).map(scale).collect();
            let k = Q8Keys { values: &values, scales: &scales };
            let most = QUERY_MOST as i32;
            let q: Vec<i16> = (0..group * head_dim).map(|at| ((at * 7919 + seed) as i32 % (2 * most + 1) - most) as i16).collect();
            let q_scales: Vec<f32> = (0..group).map(|g| (1.0 + g as f32) / 32767.0 / 8.0).collect();
            let paths = paths(&q, &q_scales, k, keys);
            for path in &paths[1..] {
                for (fast, plain) in path.iter().zip(&paths[0]) {
                    prop_assert!((fast - plain).abs() < 2e-4, "{} {}", fast, plain);
                }
            }
        }
    }

    #[test]
    fn the_extreme_block_does_not_overflow() {
        let most = QUERY_MOST as i16;
        for (key, query) in [(127, most), (-127, most), (127, -most), (-127, -most)] {
            let (values, scales) = (vec![key; 64 * SLOTS], [f16::ONE; 2 * SLOTS]);
            let k = Q8Keys { values: &values, scales: &scales };
            for path in paths(&[query; 64], &[1.0], k, SLOTS) {
                assert_eq!(path, [64.0 * f32::from(key) * f32::from(query); SLOTS]);
            }
        }
    }
}
