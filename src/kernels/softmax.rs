//! The parts of a softmax over a run of scores: the largest, and the exponentials with their sum.
//!
//! [`clamp_max`] comes first, so that a softmax over anything is a distribution. Sums are kept in eight lanes, in an
//! order that depends on the length alone.

use super::{cpu::by_cpu, exp::exp};

const LANES: usize = 8;

/// Holds the scores within the finite floats, one that is not a number becoming the lowest, and returns the largest;
/// [`f32::MIN`] for no scores.
pub fn clamp_max(scores: &mut [f32]) -> f32 {
    by_cpu!(avx2::clamp_max(scores), clamp_max_portable(scores))
}

/// The largest of the scores; [`f32::MIN`] for none, or where all are −∞.
pub fn max(scores: &[f32]) -> f32 {
    by_cpu!(avx2::max(scores), max_portable(scores))
}

/// `out = e^(score − max)`, and the sum of it. Scores are finite, or −∞ for what is masked, which gives 0.
///
/// # Panics
/// When the lengths differ.
pub fn weights(scores: &[f32], max: f32, out: &mut [f32]) -> f32 {
    assert_eq!(scores.len(), out.len());
    let (scores, len) = (scores.as_ptr(), scores.len());
    // SAFETY: `len` floats to read and as many to write.
    by_cpu!(avx2::weights(scores, out.as_mut_ptr(), len, max), unsafe {
        weights_portable(scores, out.as_mut_ptr(), len, max)
    })
}

/// [`weights`] written over the scores.
pub fn weights_in_place(scores: &mut [f32], max: f32) -> f32 {
    let (scores, len) = (scores.as_mut_ptr(), scores.len());
    // SAFETY: `len` floats to read and to write; each is read before it is written.
    by_cpu!(avx2::weights(scores, scores, len, max), unsafe { weights_portable(scores, scores, len, max) })
}

/// What weights and sums relative to the largest score `old` are multiplied by to be relative to `new`.
pub fn factor(old: f32, new: f32) -> f32 {
    exp(old - new)
}

/// Multiplies by `factor`.
pub fn scale(values: &mut [f32], factor: f32) {
    by_cpu!(avx2::scale(values, factor), values.iter_mut().for_each(|value| *value *= factor));
}

fn clamp_max_portable(scores: &mut [f32]) -> f32 {
    for score in scores.iter_mut() {
        *score = if score.is_nan() { f32::MIN } else { score.clamp(f32::MIN, f32::MAX) };
    }
    max_portable(scores)
}

fn max_portable(scores: &[f32]) -> f32 {
    scores.iter().fold(f32::MIN, |max, &score| if score > max { score } else { max })
}

/// # Safety
/// `len` floats can be read at `scores` and written at `out`, which is the same place or does not overlap it.
unsafe fn weights_portable(scores: *const f32, out: *mut f32, len: usize, max: f32) -> f32 {
    let mut sums = [0.0; LANES];
    for at in 0..len {
        // SAFETY: `at` is below `len`.
        let weight = exp(unsafe { *scores.add(at) } - max);
        sums[at % LANES] += weight;
        // SAFETY: as above.
        unsafe { *out.add(at) = weight };
    }
    sum8(sums)
}

/// The sum of eight lanes, halves first.
fn sum8(v: [f32; LANES]) -> f32 {
    let [a, b, c, d] = std::array::from_fn(|lane| v[lane] + v[lane + 4]);
    (a + c) + (b + d)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{super::exp::avx2::exp, LANES, clamp_max_portable, exp as exp1, max_portable, sum8};

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
        let mut out = [0.0; LANES];
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), lanes) };
        max_portable(&out)
    }

    /// # Safety
    /// As for `weights_portable`.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn weights(scores: *const f32, out: *mut f32, len: usize, max: f32) -> f32 {
        let shift = _mm256_set1_ps(max);
        let mut sum = _mm256_setzero_ps();
        let whole = len / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            // SAFETY: eight floats from `at` on are below `len`.
            let weight = exp(_mm256_sub_ps(unsafe { _mm256_loadu_ps(scores.wrapping_add(at)) }, shift));
            sum = _mm256_add_ps(sum, weight);
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(out.wrapping_add(at), weight) };
        }
        let mut sums = [0.0; LANES];
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), sum) };
        for at in whole..len {
            // SAFETY: `at` is below `len`.
            let weight = exp1(unsafe { *scores.add(at) } - max);
            sums[at % LANES] += weight;
            // SAFETY: as above.
            unsafe { *out.add(at) = weight };
        }
        sum8(sums)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twins_agree_within_the_error_of_exp() {
        for len in [0, 1, 7, 8, 9, 64, 203] {
            let scores: Vec<f32> = (0..len).map(|at| (at as f32 * 1.7).sin() * 30.0).collect();
            let highest = max(&scores);
            assert_eq!(highest, max_portable(&scores));
            let (mut fast, mut plain) = (vec![0.0; len], vec![0.0; len]);
            let fast_sum = weights(&scores, highest, &mut fast);
            // SAFETY: `len` floats each.
            let plain_sum = unsafe { weights_portable(scores.as_ptr(), plain.as_mut_ptr(), len, highest) };
            assert!((fast_sum - plain_sum).abs() <= 1e-6 * plain_sum);
            for (fast, plain) in fast.iter().zip(&plain) {
                assert!((fast - plain).abs() <= 1e-6 * plain, "{fast} {plain}");
            }
            let mut in_place = scores.clone();
            assert_eq!(weights_in_place(&mut in_place, highest).to_bits(), fast_sum.to_bits());
            assert_eq!(in_place, fast);
            scale(&mut in_place, 0.5);
            assert!(in_place.iter().zip(&fast).all(|(half, whole)| *half == whole * 0.5));
        }
    }

    #[test]
    fn nothing_is_too_strange_for_a_distribution() {
        for bad in [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, f32::MAX, f32::MIN, 0.0] {
            for len in [1, 5, 8, 11] {
                for fill in [bad, 1.0] {
                    let mut scores = vec![fill; len];
                    scores[len / 2] = bad;
                    let mut plain = scores.clone();
                    let highest = clamp_max(&mut scores);
                    assert_eq!(highest, clamp_max_portable(&mut plain));
                    assert_eq!(scores, plain);
                    assert_eq!(highest, max(&scores));
                    let sum = weights_in_place(&mut scores, highest);
                    assert!(sum.is_finite() && sum >= 1.0, "{bad} {fill} {len}: {sum}");
                    assert!(scores.iter().all(|weight| (0.0..=1.0).contains(weight)), "{scores:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_masked_weighs_nothing() {
        let mut scores = [f32::NEG_INFINITY; 10];
        assert_eq!(max(&scores), f32::MIN);
        scores[3] = f32::MIN;
        assert_eq!(weights_in_place(&mut scores, f32::MIN), 1.0);
        assert_eq!(factor(f32::NEG_INFINITY, f32::MIN), 0.0);
    }
}
