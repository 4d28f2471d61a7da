//! The softmax in vectors of sixteen.

use std::arch::x86_64::*;

use super::{super::exp::avx512::exp, HEADROOM, LANES, RUN, Running};
use crate::f32x16::{WIDE, lanes};

/// Writes `value` where `lanes` says. Whole vectors are not masked: what is read soon after comes from the store at
/// once.
///
/// # Safety
/// `to` can be written there.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn store(to: *mut f32, lanes: __mmask16, value: __m512) {
    // SAFETY: as promised.
    unsafe {
        if lanes == !0 {
            _mm512_storeu_ps(to, value);
        } else {
            _mm512_mask_storeu_ps(to, lanes, value);
        }
    }
}

/// Scores within the finite floats; the lanes that are not asked for are the lowest.
///
/// # Safety
/// `scores` can be read where `lanes` says.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn clamped(scores: *const f32, lanes: __mmask16) -> __m512 {
    let (lowest, highest) = (_mm512_set1_ps(f32::MIN), _mm512_set1_ps(f32::MAX));
    // SAFETY: as promised.
    let score = unsafe { _mm512_mask_loadu_ps(lowest, lanes, scores) };
    // The second operand is what remains where the first is not a number.
    _mm512_min_ps(_mm512_max_ps(score, lowest), highest)
}

#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn clamp_max(scores: &mut [f32]) -> f32 {
    let mut max = _mm512_set1_ps(f32::MIN);
    for chunk in scores.chunks_mut(WIDE) {
        let lanes = lanes(chunk.len());
        // SAFETY: the lanes are those of the chunk.
        unsafe {
            let score = clamped(chunk.as_ptr(), lanes);
            max = _mm512_max_ps(score, max);
            store(chunk.as_mut_ptr(), lanes, score);
        }
    }
    _mm512_reduce_max_ps(max)
}

#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn weights(scores: &mut [f32], max: f32) -> f32 {
    let shift = _mm512_set1_ps(max);
    let mut sum = _mm512_setzero_ps();
    for chunk in scores.chunks_mut(WIDE) {
        let lanes = lanes(chunk.len());
        // SAFETY: the lanes are those of the chunk.
        unsafe {
            let score = _mm512_mask_loadu_ps(shift, lanes, chunk.as_ptr());
            let weight = exp(_mm512_sub_ps(score, shift));
            sum = _mm512_mask_add_ps(sum, lanes, sum, weight);
            store(chunk.as_mut_ptr(), lanes, weight);
        }
    }
    _mm512_reduce_add_ps(sum)
}

#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn total(scores: &[f32], max: f32) -> f32 {
    let shift = _mm512_set1_ps(max);
    let mut sum = _mm512_setzero_ps();
    for chunk in scores.chunks(WIDE) {
        let lanes = lanes(chunk.len());
        // SAFETY: the lanes are those of the chunk.
        let score = unsafe { _mm512_mask_loadu_ps(shift, lanes, chunk.as_ptr()) };
        sum = _mm512_mask_add_ps(sum, lanes, sum, exp(_mm512_sub_ps(score, shift)));
    }
    _mm512_reduce_add_ps(sum)
}

#[target_feature(enable = "avx512f,avx2,fma,f16c")]
pub(super) fn run(scores: &mut [f32], maxima: &mut [f32; LANES], running: &mut Running) {
    const VECTORS: usize = RUN / WIDE;
    let len = scores.len().min(RUN);
    let lanes: [__mmask16; VECTORS] = std::array::from_fn(|at| lanes(len.saturating_sub(at * WIDE)));
    let mut values = [_mm512_setzero_ps(); VECTORS];
    for at in 0..VECTORS {
        // Where a short run has ended the pointer lies beyond it and no lane is read or written.
        let scores = scores.as_mut_ptr().wrapping_add(at * WIDE);
        // SAFETY: the lanes are those below `len`.
        unsafe {
            values[at] = clamped(scores, lanes[at]);
            store(scores, lanes[at], values[at]);
        }
    }
    let most = fours(values);
    // The halves of a block of eight lie in neighbouring quarters.
    let most = _mm512_max_ps(most, _mm512_shuffle_f32x4::<0b10_11_00_01>(most, most));
    let order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 0, 0, 0, 0, 0, 0, 0, 0);
    let eight = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, most));
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(maxima.as_mut_ptr(), eight) };
    // Hardly ever, so nothing waits for it.
    let highest = _mm512_set1_ps(running.reference + HEADROOM);
    if _mm512_cmp_ps_mask::<_CMP_GT_OQ>(most, highest) != 0 {
        running.raise(_mm512_reduce_max_ps(most));
    }
    let shift = _mm512_set1_ps(running.reference);
    let mut weights = [_mm512_setzero_ps(); VECTORS];
    for at in 0..VECTORS {
        weights[at] = _mm512_maskz_mov_ps(lanes[at], exp(_mm512_sub_ps(values[at], shift)));
    }
    let [a, b, c, d] = weights;
    let weights = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
    let sums = running.sums.as_mut_ptr();
    // SAFETY: sixteen floats.
    unsafe { _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), weights)) };
}

/// The largest of every four neighbours: in quarter `i` that of the `i`-th four of each vector.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
fn fours([a, b, c, d]: [__m512; 4]) -> __m512 {
    // Of two vectors, in each quarter: the maxima of lanes 0 and 2, then of 1 and 3, of both side by side.
    let two = |a, b| _mm512_castps_pd(_mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    let (a, c) = (two(a, b), two(c, d));
    let [low, high] = [_mm512_unpacklo_pd(a, c), _mm512_unpackhi_pd(a, c)];
    _mm512_max_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
}
