//! Scores of decoding: the queries that share a KV head against the keys of a page.
//!
//! Each key is read and converted to 32 bits once for up to three queries. A lane adds up the products of one key,
//! dimension after dimension, so a score does not depend on the other keys.

use half::f16;

use super::{
    cpu::{by_avx512, by_cpu},
    keys::SLOTS,
};

/// `out[g·stride + i] = scale·(q_g·k_i)` for the first `keys` keys, with `q` `[group, head_dim]` and `k`
/// `[head_dim][64]` (see [`super::keys`]). Up to 64 scores of a query are written; those beyond `keys` mean nothing.
/// `next` are the keys that will be wanted after these: memory is asked for them meanwhile.
///
/// # Panics
/// When a slice is too short.
pub fn scores(q: &[f32], k: &[f16], next: &[f16], keys: usize, scale: f32, out: &mut [f32], stride: usize) {
    let head_dim = k.len() / SLOTS;
    let group = q.len() / head_dim;
    assert!(k.len() == head_dim * SLOTS && q.len() == group * head_dim && keys <= SLOTS);
    assert!(group == 0 || (SLOTS <= stride || group == 1) && out.len() >= (group - 1) * stride + SLOTS);
    by_avx512!(
        avx512::scores(q, k, next, scale, out, stride),
        by_cpu!(avx2::scores(q, k, next, keys, scale, out, stride), scores_portable(q, k, keys, scale, out, stride))
    );
}

fn scores_portable(q: &[f32], k: &[f16], keys: usize, scale: f32, out: &mut [f32], stride: usize) {
    let head_dim = k.len() / SLOTS;
    for (q, out) in q.chunks_exact(head_dim).zip(out.chunks_mut(stride)) {
        let out = &mut out[..keys];
        out.fill(0.0);
        for (q, k) in q.iter().zip(k.chunks_exact(SLOTS)) {
            out.iter_mut().zip(k).for_each(|(out, k)| *out += q * k.to_f32());
        }
        out.iter_mut().for_each(|out| *out *= scale);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::SLOTS;

    /// Keys that are worked on together: four vectors, for three queries twelve sums, which leaves registers for a key
    /// and the queries.
    const TOGETHER: usize = 32;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn scores(q: &[f32], k: &[f16], next: &[f16], keys: usize, scale: f32, out: &mut [f32], stride: usize) {
        let head_dim = k.len() / SLOTS;
        for (q, at) in q.chunks(3 * head_dim).zip((0..).step_by(3 * stride)) {
            for first in (0..keys).step_by(TOGETHER) {
                // Each half asks for one half of the next keys, front to back: memory is fastest in long runs.
                let (k, next) = (&k[first..], next.as_ptr().wrapping_add(first * head_dim));
                let out = &mut out[at + first..];
                // SAFETY: q holds as many queries as said; `scores` has checked the lengths for all 64 keys.
                unsafe {
                    match q.len() / head_dim {
                        1 => some::<1>(q, k, next, head_dim, scale, out, stride),
                        2 => some::<2>(q, k, next, head_dim, scale, out, stride),
                        _ => some::<3>(q, k, next, head_dim, scale, out, stride),
                    }
                }
            }
        }
    }

    /// `G` queries by 32 keys.
    ///
    /// # Safety
    /// `q` holds `G` rows of `head_dim`, `k` 32 keys of every dimension; `out` can be written at `g·stride + 0..32`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn some<const G: usize>(
        q: &[f32],
        k: &[f16],
        next: *const f16,
        head_dim: usize,
        scale: f32,
        out: &mut [f32],
        stride: usize,
    ) {
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (q, k, out) = (q.as_ptr(), k.as_ptr(), out.as_mut_ptr());
        let mut sums = [[_mm256_setzero_ps(); TOGETHER / 8]; G];
        for dim in 0..head_dim {
            let k = k.wrapping_add(dim * SLOTS);
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(dim * TOGETHER).cast());
            let mut query = [_mm256_setzero_ps(); G];
            for g in 0..G {
                // SAFETY: a value of each query.
                query[g] = _mm256_set1_ps(unsafe { *q.wrapping_add(g * head_dim + dim) });
            }
            for at in 0..TOGETHER / 8 {
                // SAFETY: eight of the 32 keys.
                let k = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(k.wrapping_add(8 * at).cast()) });
                for g in 0..G {
                    sums[g][at] = _mm256_fmadd_ps(query[g], k, sums[g][at]);
                }
            }
        }
        for g in 0..G {
            for at in 0..TOGETHER / 8 {
                let scaled = _mm256_mul_ps(sums[g][at], _mm256_set1_ps(scale));
                // SAFETY: `out` has room for 32 scores there.
                unsafe { _mm256_storeu_ps(out.wrapping_add(g * stride + 8 * at), scaled) };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::SLOTS;

    /// Vectors of sixteen keys.
    const VECTORS: usize = SLOTS / 16;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    pub(super) fn scores(q: &[f32], k: &[f16], next: &[f16], scale: f32, out: &mut [f32], stride: usize) {
        let head_dim = k.len() / SLOTS;
        for (q, at) in q.chunks(3 * head_dim).zip((0..).step_by(3 * stride)) {
            let out = &mut out[at..];
            // SAFETY: q holds as many queries as said; `scores` has checked the lengths.
            unsafe {
                match q.len() / head_dim {
                    1 => some::<1>(q, k, next, scale, out, stride),
                    2 => some::<2>(q, k, next, scale, out, stride),
                    _ => some::<3>(q, k, next, scale, out, stride),
                }
            }
        }
    }

    /// `G` queries by 64 keys.
    ///
    /// # Safety
    /// `q` holds `G` rows of as many values as `k` has dimensions; `out` can be written at `g·stride + 0..64`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    unsafe fn some<const G: usize>(q: &[f32], k: &[f16], next: &[f16], scale: f32, out: &mut [f32], stride: usize) {
        let head_dim = k.len() / SLOTS;
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (q, k, next, out) = (q.as_ptr(), k.as_ptr(), next.as_ptr(), out.as_mut_ptr());
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; G];
        for dim in 0..head_dim {
            let (k, next) = (k.wrapping_add(dim * SLOTS), next.wrapping_add(dim * SLOTS));
            _mm_prefetch::<_MM_HINT_T1>(next.cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(SLOTS / 2).cast());
            let mut query = [_mm512_setzero_ps(); G];
            for g in 0..G {
                // SAFETY: a value of each query.
                query[g] = _mm512_set1_ps(unsafe { *q.wrapping_add(g * head_dim + dim) });
            }
            for at in 0..VECTORS {
                // SAFETY: sixteen of the 64 keys.
                let k = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(k.wrapping_add(16 * at).cast()) });
                for g in 0..G {
                    sums[g][at] = _mm512_fmadd_ps(query[g], k, sums[g][at]);
                }
            }
        }
        for g in 0..G {
            for at in 0..VECTORS {
                let scaled = _mm512_mul_ps(sums[g][at], _mm512_set1_ps(scale));
                // SAFETY: `out` has room for 64 scores there.
                unsafe { _mm512_storeu_ps(out.wrapping_add(g * stride + 16 * at), scaled) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::keys::write, *};

    type Path = fn(&[f32], &[f16], usize, &mut [f32], usize);

    /// Every way to score, where this CPU has it.
    const PATHS: [Path; 3] = [
        |q, k, keys, out, stride| scores_portable(q, k, keys, 0.125, out, stride),
        |q, k, keys, out, stride| {
            by_cpu!(avx2::scores(q, k, k, keys, 0.125, out, stride), scores_portable(q, k, keys, 0.125, out, stride));
        },
        |q, k, keys, out, stride| scores(q, k, &[], keys, 0.125, out, stride),
    ];

    #[test]
    fn the_paths_agree_with_each_other_and_with_the_product() {
        for (group, head_dim, keys) in [(1, 64, 64), (3, 64, 7), (4, 80, 33), (8, 32, 2), (2, 128, 5), (5, 13, 64)] {
            let q: Vec<f32> = (0..group * head_dim).map(|at| (at as f32 * 0.7).sin()).collect();
            let rows: Vec<f32> = (0..keys * head_dim).map(|at| (at as f32 * 0.3).cos()).collect();
            let mut k = vec![f16::NAN; head_dim * SLOTS];
            rows.chunks_exact(head_dim).enumerate().for_each(|(slot, row)| write(row, slot, &mut k));
            let stride = SLOTS + 3;
            for path in PATHS {
                let mut found = vec![0.0; group * stride];
                path(&q, &k, keys, &mut found, stride);
                for g in 0..group {
                    for (key, row) in rows.chunks_exact(head_dim).enumerate() {
                        let product = |(q, k): (&f32, &f32)| q * f16::from_f32(*k).to_f32();
                        let product = q[g * head_dim..].iter().zip(row).map(product).sum::<f32>() * 0.125;
                        let found = found[g * stride + key];
                        assert!((found - product).abs() < 1e-5, "{group} {head_dim} {keys}: {found} {product}");
                    }
                }
            }
        }
    }
}
