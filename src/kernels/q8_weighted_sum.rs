//! The output of decoding on 8-bit values: rows of one KV head summed by the weights of the queries that share it.
//!
//! It works as for 16-bit floats, but the scale of a block is multiplied into the weight of each query: once for 32
//! values instead of once for each.

use super::{
    cpu::{by_avx512, by_cpu},
    q8::{BLOCK, Q8Rows, blocks},
};

/// `out_g += Σ_i weights[g·stride + i]·v_i`, with `v` rows of `head_dim` and `out` `[group, head_dim]`. `next` are the
/// rows that will be wanted after these: memory is asked for them meanwhile.
///
/// # Panics
/// When a slice is too short.
pub fn weighted_sum(weights: &[f32], stride: usize, [v, next]: [Q8Rows<'_>; 2], head_dim: usize, out: &mut [f32]) {
    let (group, rows) = (out.len() / head_dim, v.rows(head_dim));
    assert_eq!(out.len(), group * head_dim);
    assert!(rows <= stride && (group == 0 || weights.len() >= (group - 1) * stride + rows));
    if head_dim.is_multiple_of(2 * BLOCK) {
        by_avx512!(
            avx512::weighted_sum(weights, stride, [v, next], head_dim, out),
            narrow(weights, stride, [v, next], head_dim, out)
        );
    } else {
        narrow(weights, stride, [v, next], head_dim, out);
    }
}

/// The same in vectors of eight at most.
fn narrow(weights: &[f32], stride: usize, [v, next]: [Q8Rows<'_>; 2], head_dim: usize, out: &mut [f32]) {
    by_cpu!(
        avx2::weighted_sum(weights, stride, [v, next], head_dim, out),
        weighted_sum_portable(weights, stride, v, head_dim, out, 0)
    );
}

/// The columns from `first` on.
fn weighted_sum_portable(
    weights: &[f32],
    stride: usize,
    v: Q8Rows<'_>,
    head_dim: usize,
    out: &mut [f32],
    first: usize,
) {
    let scales = v.scales.chunks_exact(blocks(head_dim));
    for (at, (values, scales)) in v.values.chunks_exact(head_dim).zip(scales).enumerate() {
        for (group, out) in out.chunks_exact_mut(head_dim).enumerate() {
            let weight = weights[group * stride + at];
            for (column, (out, value)) in out.iter_mut().zip(values).enumerate().skip(first) {
                *out += weight * scales[column / BLOCK].to_f32() * f32::from(*value);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Q8Rows, blocks, weighted_sum_portable};
    use crate::f16_to_f32::f16_to_f32;

    /// Scales that are converted at once.
    const SCALES: usize = 512;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn weighted_sum(
        weights: &[f32],
        stride: usize,
        [v, next]: [Q8Rows<'_>; 2],
        head_dim: usize,
        out: &mut [f32],
    ) {
        let whole = head_dim / 8 * 8;
        let per_row = blocks(head_dim);
        if per_row > SCALES {
            return weighted_sum_portable(weights, stride, v, head_dim, out, 0);
        }
        let (rows, run) = (v.values.len() / head_dim, SCALES / per_row);
        let mut wide = [0.0; SCALES];
        for first in (0..rows).step_by(run) {
            // Where rows are as many as a page has, those that are asked for have the same numbers.
            let next = next.values.as_ptr().wrapping_add(first * head_dim);
            let v = v.run(head_dim, first, run);
            let scales = &mut wide[..v.scales.len()];
            f16_to_f32(v.scales, scales);
            for (out, at) in out.chunks_mut(3 * head_dim).zip((0..).step_by(3 * stride)) {
                let weights = &weights[at + first..];
                let mut column = 0;
                while column < whole {
                    let four = column + BLOCK <= whole;
                    // SAFETY: the columns are inside the rows of `v` and `out` and share a scale; `weighted_sum` has
                    // checked the lengths.
                    unsafe {
                        match (out.len() / head_dim, four) {
                            (1, true) => {
                                columns::<1, 4>(weights, stride, (v.values, next), scales, head_dim, column, out)
                            }
                            (2, true) => {
                                columns::<2, 4>(weights, stride, (v.values, next), scales, head_dim, column, out)
                            }
                            (_, true) => {
                                columns::<3, 4>(weights, stride, (v.values, next), scales, head_dim, column, out)
                            }
                            (1, false) => {
                                columns::<1, 1>(weights, stride, (v.values, next), scales, head_dim, column, out)
                            }
                            (2, false) => {
                                columns::<2, 1>(weights, stride, (v.values, next), scales, head_dim, column, out)
                            }
                            (_, false) => {
                                columns::<3, 1>(weights, stride, (v.values, next), scales, head_dim, column, out)
                            }
                        }
                    }
                    column += if four { BLOCK } else { 8 };
                }
                if whole < head_dim {
                    weighted_sum_portable(weights, stride, v, head_dim, out, whole);
                }
            }
        }
    }

    /// `8·C` columns of one block, from `column` on, for `G` queries.
    ///
    /// # Safety
    /// `out` holds `G` rows of `head_dim`, of which the columns are part; `weights` holds `g·stride + rows`, `scales`
    /// those of all rows.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn columns<const G: usize, const C: usize>(
        weights: &[f32],
        stride: usize,
        (v, next): (&[i8], *const i8),
        scales: &[f32],
        head_dim: usize,
        column: usize,
        out: &mut [f32],
    ) {
        let rows = v.len() / head_dim;
        let per_row = blocks(head_dim);
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (weights, v, out) = (weights.as_ptr(), v.as_ptr().wrapping_add(column), out.as_mut_ptr());
        let scales = scales.as_ptr().wrapping_add(column / BLOCK);
        let out = |g: usize, at: usize| out.wrapping_add(g * head_dim + column + 8 * at);
        let mut sums = [[_mm256_setzero_ps(); C]; G];
        for g in 0..G {
            for at in 0..C {
                // SAFETY: inside row g of `out`.
                sums[g][at] = unsafe { _mm256_loadu_ps(out(g, at)) };
            }
        }
        for row in 0..rows {
            // SAFETY: one scale per block and row.
            let d = unsafe { *scales.wrapping_add(row * per_row) };
            let mut weight = [_mm256_setzero_ps(); G];
            for g in 0..G {
                // SAFETY: one weight per query and row.
                weight[g] = _mm256_set1_ps(d * unsafe { *weights.wrapping_add(g * stride + row) });
            }
            let v = v.wrapping_add(row * head_dim);
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(row * head_dim + column));
            for at in 0..C {
                // SAFETY: inside row `row` of `v`.
                let v = unsafe { _mm_loadl_epi64(v.wrapping_add(8 * at).cast()) };
                let v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v));
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

    use super::{BLOCK, Q8Rows, blocks};

    /// Columns that are summed together, two blocks: four vectors, for three queries twelve sums.
    const TOGETHER: usize = 2 * BLOCK;

    /// For rows of whole pairs of blocks.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    pub(super) fn weighted_sum(weights: &[f32], stride: usize, v: [Q8Rows<'_>; 2], head_dim: usize, out: &mut [f32]) {
        for (out, at) in out.chunks_mut(3 * head_dim).zip((0..).step_by(3 * stride)) {
            let weights = &weights[at..];
            for column in (0..head_dim).step_by(TOGETHER) {
                // SAFETY: the columns are inside the rows of `v` and `out`; `weighted_sum` has checked the lengths.
                unsafe {
                    match out.len() / head_dim {
                        1 => columns::<1>(weights, stride, v, head_dim, column, out),
                        2 => columns::<2>(weights, stride, v, head_dim, column, out),
                        _ => columns::<3>(weights, stride, v, head_dim, column, out),
                    }
                }
            }
        }
    }

    /// 64 columns from `column` on, for `G` queries.
    ///
    /// # Safety
    /// `out` holds `G` rows of `head_dim`, of which the columns are two blocks; `weights` holds `g·stride + rows`.
    #[inline]
    #[allow(clippy::needless_range_loop, reason = "constant ranges are unrolled, iterators are not in a debug build")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
    unsafe fn columns<const G: usize>(
        weights: &[f32],
        stride: usize,
        [v, next]: [Q8Rows<'_>; 2],
        head_dim: usize,
        column: usize,
        out: &mut [f32],
    ) {
        const VECTORS: usize = TOGETHER / 16;
        let (rows, per_row) = (v.values.len() / head_dim, blocks(head_dim));
        // `wrapping_add`, because `add` checks itself where debug assertions are on, in the innermost loop.
        let (weights, out) = (weights.as_ptr(), out.as_mut_ptr());
        let (values, scales) = (v.values.as_ptr().wrapping_add(column), v.scales.as_ptr().wrapping_add(column / BLOCK));
        let next = next.values.as_ptr().wrapping_add(column);
        let out = |g: usize, at: usize| out.wrapping_add(g * head_dim + column + 16 * at);
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; G];
        for g in 0..G {
            for at in 0..VECTORS {
                // SAFETY: inside row g of `out`.
                sums[g][at] = unsafe { _mm512_loadu_ps(out(g, at)) };
            }
        }
        for row in 0..rows {
            // SAFETY: the scales of two blocks of the row.
            let pair = unsafe { scales.wrapping_add(row * per_row).cast::<i32>().read_unaligned() };
            let pair = _mm_cvtph_ps(_mm_cvtsi32_si128(pair));
            let d = [_mm512_broadcastss_ps(pair), _mm512_broadcastss_ps(_mm_movehdup_ps(pair))];
            let mut weight = [[_mm512_setzero_ps(); 2]; G];
            for g in 0..G {
                // SAFETY: one weight per query and row.
                let of_query = _mm512_set1_ps(unsafe { *weights.wrapping_add(g * stride + row) });
                weight[g] = [_mm512_mul_ps(d[0], of_query), _mm512_mul_ps(d[1], of_query)];
            }
            let values = values.wrapping_add(row * head_dim);
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(row * head_dim));
            for at in 0..VECTORS {
                // SAFETY: inside row `row` of `v`.
                let v = unsafe { _mm_loadu_si128(values.wrapping_add(16 * at).cast()) };
                let v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v));
                for g in 0..G {
                    sums[g][at] = _mm512_fmadd_ps(weight[g][at / 2], v, sums[g][at]);
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
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_twins_agree(
            group in 1usize..9, rows in 1usize..80, seed in 0usize..10_000,
            head_dim in prop::sample::select(vec![12, 16, 20, 32, 64, 80, 128, 256, 320]),
        ) {
            let stride = rows + 1;
            let weights: Vec<f32> = (0..group * stride).map(|at| ((at + seed) as f32 * 0.7).sin().abs()).collect();
            let values: Vec<i8> = (0..rows * head_dim).map(|at| ((at * 37 + seed) % 255) as i32 - 127)
                .map(|value| value as i8).collect();
            let scales: Vec<f16> =
                (0..rows * blocks(head_dim)).map(|at| f16::from_f32(((at + seed) as f32).cos().abs() * 0.01)).collect();
            let v = Q8Rows { values: &values, scales: &scales };
            let mut fast: Vec<f32> = (0..group * head_dim).map(|at| at as f32 * 0.01).collect();
            let mut plain = fast.clone();
            let mut eight = fast.clone();
            weighted_sum(&weights, stride, [v, v], head_dim, &mut fast);
            narrow(&weights, stride, [v, v], head_dim, &mut eight);
            weighted_sum_portable(&weights, stride, v, head_dim, &mut plain, 0);
            prop_assert_eq!(&fast, &eight, "the same sums in the same order");
            for (fast, plain) in fast.iter().zip(&plain) {
                prop_assert!((fast - plain).abs() < 2e-4, "{} {}", fast, plain);
            }
        }
    }
}
