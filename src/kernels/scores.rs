//! Scores of decoding: the queries that share a KV head against a run of its keys.
//!
//! Each key is read and widened once for up to three queries; four keys are worked on together so that their sums
//! can be folded with few shuffles.

use half::f16;

use super::cpu::by_cpu;

/// `out[g·stride + i] = scale·(q_g·k_i)`, with `q` `[group, head_dim]` and `k` `[keys, head_dim]`.
///
/// # Panics
/// When a slice is too short.
pub fn scores(q: &[f32], k: &[f16], head_dim: usize, scale: f32, out: &mut [f32], stride: usize) {
    let (group, keys) = (q.len() / head_dim, k.len() / head_dim);
    assert!(q.len() == group * head_dim && k.len() == keys * head_dim);
    assert!(keys <= stride && (group == 0 || out.len() >= (group - 1) * stride + keys));
    by_cpu!(avx2::scores(q, k, head_dim, scale, out, stride), scores_portable(q, k, head_dim, scale, out, stride));
}

fn scores_portable(q: &[f32], k: &[f16], head_dim: usize, scale: f32, out: &mut [f32], stride: usize) {
    let mut wide = [0.0; 512];
    for (at, k) in k.chunks_exact(head_dim).enumerate() {
        for (group, q) in q.chunks_exact(head_dim).enumerate() {
            let mut sum = 0.0;
            for (q, k) in q.chunks(wide.len()).zip(k.chunks(wide.len())) {
                for (wide, k) in wide.iter_mut().zip(k) {
                    *wide = k.to_f32();
                }
                sum += q.iter().zip(&wide).map(|(q, k)| q * k).sum::<f32>();
            }
            out[group * stride + at] = sum * scale;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::scores_portable;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn scores(q: &[f32], k: &[f16], head_dim: usize, scale: f32, out: &mut [f32], stride: usize) {
        if !head_dim.is_multiple_of(8) {
            return scores_portable(q, k, head_dim, scale, out, stride);
        }
        let keys = k.len() / head_dim;
        for (q, at) in q.chunks(3 * head_dim).zip((0..).step_by(3 * stride)) {
            let out = &mut out[at..];
            let mut key = 0;
            while key < keys {
                let four = key + 4 <= keys;
                let k = &k[key * head_dim..];
                // SAFETY: q holds as many queries as said, k at least 4 keys or 1, and `scores` has checked `out`.
                unsafe {
                    let out = out.as_mut_ptr().add(key);
                    match (q.len() / head_dim, four) {
                        (1, true) => block::<1, 4>(q, k, head_dim, scale, out, stride),
                        (2, true) => block::<2, 4>(q, k, head_dim, scale, out, stride),
                        (_, true) => block::<3, 4>(q, k, head_dim, scale, out, stride),
                        (1, false) => block::<1, 1>(q, k, head_dim, scale, out, stride),
                        (2, false) => block::<2, 1>(q, k, head_dim, scale, out, stride),
                        (_, false) => block::<3, 1>(q, k, head_dim, scale, out, stride),
                    }
                }
                key += if four { 4 } else { 1 };
            }
        }
    }

    /// How far ahead of the work keys are asked for: far enough for memory, near enough to stay in the first cache.
    const AHEAD: usize = 2048;

    /// `G` queries by `K` keys, `K` being 1 or 4. The arithmetic of a score is the same for both.
    ///
    /// # Safety
    /// `q` holds `G` rows and `k` `K` rows of `head_dim`, a multiple of 8; `out` can be written at `g·stride + 0..K`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block<const G: usize, const K: usize>(
        q: &[f32],
        k: &[f16],
        head_dim: usize,
        scale: f32,
        out: *mut f32,
        stride: usize,
    ) {
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (q, k) = (q.as_ptr(), k.as_ptr());
        let mut sums = [[_mm256_setzero_ps(); K]; G];
        for at in (0..head_dim).step_by(8) {
            let mut query = [_mm256_setzero_ps(); G];
            for g in 0..G {
                // SAFETY: eight values from `at` on in each row.
                query[g] = unsafe { _mm256_loadu_ps(q.wrapping_add(g * head_dim + at)) };
            }
            for key in 0..K {
                let k = k.wrapping_add(key * head_dim + at);
                if at % 32 == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(k.wrapping_add(AHEAD).cast());
                }
                // SAFETY: as above.
                let k = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(k.cast()) });
                for g in 0..G {
                    sums[g][key] = _mm256_fmadd_ps(query[g], k, sums[g][key]);
                }
            }
        }
        for (g, sums) in sums.into_iter().enumerate() {
            let pick = |key: usize| sums[key.min(K - 1)];
            let pairs = [_mm256_hadd_ps(pick(0), pick(1)), _mm256_hadd_ps(pick(2), pick(3))];
            let halves = _mm256_hadd_ps(pairs[0], pairs[1]);
            let total = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            let scaled = _mm_mul_ps(total, _mm_set1_ps(scale));
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
    use super::*;

    #[test]
    fn the_twins_agree_and_keys_do_not_depend_on_their_neighbours() {
        for (group, head_dim, keys) in [(1, 64, 64), (3, 64, 7), (4, 80, 9), (8, 32, 2), (2, 128, 5), (2, 12, 6)] {
            let q: Vec<f32> = (0..group * head_dim).map(|at| (at as f32 * 0.7).sin()).collect();
            let k: Vec<f16> = (0..keys * head_dim).map(|at| f16::from_f32((at as f32 * 0.3).cos())).collect();
            let stride = keys + 2;
            let (mut fast, mut plain) = (vec![0.0; group * stride], vec![0.0; group * stride]);
            scores(&q, &k, head_dim, 0.125, &mut fast, stride);
            scores_portable(&q, &k, head_dim, 0.125, &mut plain, stride);
            for (fast, plain) in fast.iter().zip(&plain) {
                assert!((fast - plain).abs() < 1e-5, "{group} {head_dim} {keys}: {fast} {plain}");
            }
            for key in 0..keys {
                let mut one = vec![0.0; group];
                scores(&q, &k[key * head_dim..][..head_dim], head_dim, 0.125, &mut one, 1);
                assert!((0..group).all(|g| one[g].to_bits() == fast[g * stride + key].to_bits()));
            }
        }
    }
}
