//! The softmax in vectors of eight.

use std::arch::x86_64::*;

use super::{
    super::exp::avx2::exp, HEADROOM, LANES, RUN, Running, clamp_max_portable, clamp_maxima_portable, exp as exp1,
    max_portable, sum8,
};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn clamp_max(scores: &mut [f32]) -> f32 {
    let (lowest, highest) = (_mm256_set1_ps(f32::MIN), _mm256_set1_ps(f32::MAX));
    let mut lanes = lowest;
    let mut chunks = scores.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        // SAFETY: a chunk is eight floats.
        unsafe {
            // The second operand is what remains where the first is not a number.
            let score = _mm256_max_ps(_mm256_loadu_ps(chunk.as_ptr()), lowest);
            let score = _mm256_min_ps(score, highest);
            lanes = _mm256_max_ps(score, lanes);
            _mm256_storeu_ps(chunk.as_mut_ptr(), score);
        }
    }
    max_of(lanes).max(clamp_max_portable(chunks.into_remainder()))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn max(scores: &[f32]) -> f32 {
    let chunks = scores.chunks_exact(LANES);
    let rest = max_portable(chunks.remainder());
    let mut lanes = _mm256_set1_ps(f32::MIN);
    for chunk in chunks {
        // SAFETY: a chunk is eight floats.
        lanes = _mm256_max_ps(unsafe { _mm256_loadu_ps(chunk.as_ptr()) }, lanes);
    }
    max_of(lanes).max(rest)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn max_of(lanes: __m256) -> f32 {
    max_portable(&lanes_of(lanes))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn clamp_maxima(scores: &mut [f32], maxima: &mut [f32]) {
    let (lowest, highest) = (_mm256_set1_ps(f32::MIN), _mm256_set1_ps(f32::MAX));
    for (run, maxima) in scores.chunks_mut(RUN).zip(maxima.chunks_exact_mut(LANES)) {
        if run.len() < RUN {
            return clamp_maxima_portable(run, maxima);
        }
        let mut blocks = [lowest; RUN / LANES];
        for (chunk, block) in run.chunks_exact_mut(LANES).zip(&mut blocks) {
            // SAFETY: a chunk is eight floats.
            unsafe {
                // The second operand is what remains where the first is not a number.
                let score = _mm256_max_ps(_mm256_loadu_ps(chunk.as_ptr()), lowest);
                *block = _mm256_min_ps(score, highest);
                _mm256_storeu_ps(chunk.as_mut_ptr(), *block);
            }
        }
        // SAFETY: the maxima of a run are eight floats.
        unsafe { _mm256_storeu_ps(maxima.as_mut_ptr(), maxima_of(blocks)) };
    }
}

/// The largest of each vector, in their order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn maxima_of([a, b, c, d, e, f, g, h]: [__m256; LANES]) -> __m256 {
    // Of two vectors, in each half: the maxima of lanes 0 and 2, then of 1 and 3, of both side by side.
    let two = |a, b| _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    // Of four: that of each half.
    let four = |a, b| {
        let [a, b] = [_mm256_castps_pd(a), _mm256_castps_pd(b)];
        let [low, high] = [_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b)];
        _mm256_max_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
    };
    let [a, e] = [four(two(a, b), two(c, d)), four(two(e, f), two(g, h))];
    _mm256_max_ps(_mm256_permute2f128_ps::<0x20>(a, e), _mm256_permute2f128_ps::<0x31>(a, e))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn weights(scores: &mut [f32], max: f32) -> f32 {
    let shift = _mm256_set1_ps(max);
    let mut sum = _mm256_setzero_ps();
    let mut chunks = scores.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        // SAFETY: a chunk is eight floats.
        unsafe {
            let weight = exp(_mm256_sub_ps(_mm256_loadu_ps(chunk.as_ptr()), shift));
            sum = _mm256_add_ps(sum, weight);
            _mm256_storeu_ps(chunk.as_mut_ptr(), weight);
        }
    }
    let mut sums = lanes_of(sum);
    for (score, sum) in chunks.into_remainder().iter_mut().zip(&mut sums) {
        *score = exp1(*score - max);
        *sum += *score;
    }
    sum8(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run(scores: &mut [f32], maxima: &mut [f32; LANES], running: &mut Running) {
    maxima.fill(f32::MIN);
    clamp_maxima(scores, maxima);
    let max = max_portable(maxima);
    if max > running.reference + HEADROOM {
        running.raise(max);
    }
    let shift = _mm256_set1_ps(running.reference);
    let (sums, _) = running.sums.as_chunks_mut::<LANES>();
    let mut chunks = scores.chunks_exact(LANES);
    for (at, chunk) in (&mut chunks).enumerate() {
        let sums = sums[at % 2].as_mut_ptr();
        // SAFETY: eight floats each.
        unsafe {
            let weight = exp(_mm256_sub_ps(_mm256_loadu_ps(chunk.as_ptr()), shift));
            _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_loadu_ps(sums), weight));
        }
    }
    let rest = &mut sums[scores.len() / LANES % 2];
    for (score, sum) in chunks.remainder().iter().zip(rest) {
        *sum += exp1(score - running.reference);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn total(scores: &[f32], max: f32) -> f32 {
    let shift = _mm256_set1_ps(max);
    let mut sum = _mm256_setzero_ps();
    let chunks = scores.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        // SAFETY: a chunk is eight floats.
        let score = unsafe { _mm256_loadu_ps(chunk.as_ptr()) };
        sum = _mm256_add_ps(sum, exp(_mm256_sub_ps(score, shift)));
    }
    let mut sums = lanes_of(sum);
    for (score, sum) in rest.iter().zip(&mut sums) {
        *sum += exp1(score - max);
    }
    sum8(sums)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn lanes_of(values: __m256) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), values) };
    lanes
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn scale(values: &mut [f32], factor: f32) {
    let factors = _mm256_set1_ps(factor);
    let mut chunks = values.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        // SAFETY: a chunk is eight floats.
        unsafe { _mm256_storeu_ps(chunk.as_mut_ptr(), _mm256_mul_ps(_mm256_loadu_ps(chunk.as_ptr()), factors)) };
    }
    chunks.into_remainder().iter_mut().for_each(|value| *value *= factor);
}
