//! The parts of a softmax over a run of scores: the largest, and the exponentials with their sum.
//!
//! [`clamp_max`] comes first, so that a softmax over anything is a distribution. Sums are kept in eight lanes, or in
//! sixteen where vectors are that wide, in an order that depends on the length alone.

use super::{
    cpu::{by_avx512, by_cpu},
    exp::exp,
    pick::{LANES, RUN},
};

/// Holds the scores within the finite floats, one that is not a number becoming the lowest, and returns the largest;
/// [`f32::MIN`] for no scores.
pub fn clamp_max(scores: &mut [f32]) -> f32 {
    by_avx512!(avx512::clamp_max(scores), by_cpu!(avx2::clamp_max(scores), clamp_max_portable(scores)))
}

/// The largest of the scores; [`f32::MIN`] for none, or where all are −∞.
pub fn max(scores: &[f32]) -> f32 {
    by_cpu!(avx2::max(scores), max_portable(scores))
}

/// [`clamp_max`] that also tells where the large ones are: eight maxima for every run of 64 scores, of the positions
/// equal modulo eight; [`f32::MIN`] where a last run has none.
///
/// # Panics
/// When `maxima` is not `[runs, 8]`.
pub fn clamp_maxima(scores: &mut [f32], maxima: &mut [f32]) -> f32 {
    assert_eq!(maxima.len(), scores.len().div_ceil(RUN) * LANES);
    by_cpu!(avx2::clamp_maxima(scores, maxima), clamp_maxima_portable(scores, maxima));
    max(maxima)
}

/// `score ← e^(score − max)`, and the sum of it. Scores are finite, or −∞ for what is masked, which gives 0.
pub fn weights(scores: &mut [f32], max: f32) -> f32 {
    by_avx512!(avx512::weights(scores, max), by_cpu!(avx2::weights(scores, max), weights_portable(scores, max)))
}

/// The sum that [`weights`] returns, the scores staying what they are.
pub fn total(scores: &[f32], max: f32) -> f32 {
    by_avx512!(avx512::total(scores, max), by_cpu!(avx2::total(scores, max), total_portable(scores, max)))
}

/// [`clamp_maxima`] of one run, and the sum of `e^(score − largest)`, the scores staying what they are: the largest and
/// the sum.
///
/// # Panics
/// When there are more than 64 scores.
pub fn run(scores: &mut [f32], maxima: &mut [f32; LANES]) -> (f32, f32) {
    assert!(scores.len() <= RUN);
    by_avx512!(avx512::run(scores, maxima), by_cpu!(avx2::run(scores, maxima), run_portable(scores, maxima)))
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

fn clamp_maxima_portable(scores: &mut [f32], maxima: &mut [f32]) {
    clamp_max_portable(scores);
    for (run, maxima) in scores.chunks(RUN).zip(maxima.chunks_exact_mut(LANES)) {
        maxima.fill(f32::MIN);
        for (at, &score) in run.iter().enumerate() {
            let max = &mut maxima[at % LANES];
            *max = if score > *max { score } else { *max };
        }
    }
}

fn weights_portable(scores: &mut [f32], max: f32) -> f32 {
    for score in scores.iter_mut() {
        *score = exp(*score - max);
    }
    sum_portable(scores, |weight| weight)
}

fn run_portable(scores: &mut [f32], maxima: &mut [f32; LANES]) -> (f32, f32) {
    maxima.fill(f32::MIN);
    clamp_maxima_portable(scores, maxima);
    let max = max_portable(maxima);
    (max, total_portable(scores, max))
}

fn total_portable(scores: &[f32], max: f32) -> f32 {
    sum_portable(scores, |score| exp(score - max))
}

fn sum_portable(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    for (at, &value) in values.iter().enumerate() {
        sums[at % LANES] += of(value);
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

    use super::{
        super::exp::avx2::exp, LANES, RUN, clamp_max_portable, clamp_maxima_portable, exp as exp1, max_portable, sum8,
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
            let mut lanes = lowest;
            for chunk in run.chunks_exact_mut(LANES) {
                // SAFETY: a chunk is eight floats.
                unsafe {
                    // The second operand is what remains where the first is not a number.
                    let score = _mm256_max_ps(_mm256_loadu_ps(chunk.as_ptr()), lowest);
                    let score = _mm256_min_ps(score, highest);
                    lanes = _mm256_max_ps(score, lanes);
                    _mm256_storeu_ps(chunk.as_mut_ptr(), score);
                }
            }
            // SAFETY: the maxima of a run are eight floats.
            unsafe { _mm256_storeu_ps(maxima.as_mut_ptr(), lanes) };
        }
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
    pub(super) fn run(scores: &mut [f32], maxima: &mut [f32; LANES]) -> (f32, f32) {
        maxima.fill(f32::MIN);
        clamp_maxima(scores, maxima);
        let max = max_portable(maxima);
        (max, total(scores, max))
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
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{super::exp::avx512::exp, LANES, RUN};

    const WIDE: usize = 16;

    /// Lanes of a vector of which `len` values are left.
    #[inline(always)]
    fn lanes(len: usize) -> __mmask16 {
        if len < WIDE { (1 << len) - 1 } else { !0 }
    }

    /// Writes `value` where `lanes` says. Whole vectors are not masked: what is read soon after comes from the store at once.
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
    pub(super) fn run(scores: &mut [f32], maxima: &mut [f32; LANES]) -> (f32, f32) {
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
        let [a, b, c, d] = values;
        let most = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d));
        // Positions equal modulo eight: the halves of a vector.
        let upper = _mm512_shuffle_f32x4::<0b11_10_11_10>(most, most);
        let eight = _mm512_castps512_ps256(_mm512_max_ps(most, upper));
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(maxima.as_mut_ptr(), eight) };
        let max = _mm512_reduce_max_ps(most);
        let shift = _mm512_set1_ps(max);
        let mut sums = [_mm512_setzero_ps(); VECTORS];
        for at in 0..VECTORS {
            sums[at] = _mm512_maskz_mov_ps(lanes[at], exp(_mm512_sub_ps(values[at], shift)));
        }
        let [a, b, c, d] = sums;
        (max, _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d))))
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
            let (mut fast, mut plain) = (scores.clone(), scores.clone());
            let fast_sum = weights(&mut fast, highest);
            let plain_sum = weights_portable(&mut plain, highest);
            assert!((fast_sum - plain_sum).abs() <= 1e-6 * plain_sum);
            for (fast, plain) in fast.iter().zip(&plain) {
                assert!((fast - plain).abs() <= 1e-6 * plain, "{fast} {plain}");
            }
            assert_eq!(total(&scores, highest).to_bits(), fast_sum.to_bits());
            assert_eq!(total_portable(&scores, highest).to_bits(), plain_sum.to_bits());
            let mut halves = fast.clone();
            scale(&mut halves, 0.5);
            assert!(halves.iter().zip(&fast).all(|(half, whole)| *half == whole * 0.5));
        }
    }

    type Run = fn(&mut [f32], &mut [f32; LANES]) -> (f32, f32);

    #[test]
    fn a_run_is_its_maxima_and_its_sum_on_every_path() {
        const PATHS: [Run; 3] =
            [run_portable, |scores, maxima| by_cpu!(avx2::run(scores, maxima), run_portable(scores, maxima)), run];
        for len in 0..=RUN {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, 2.0] {
                let mut scores: Vec<f32> = (0..len).map(|at| (at as f32 * 1.7).sin() * 30.0).collect();
                scores.iter_mut().skip(len / 3).step_by(29).for_each(|score| *score = bad);
                let (mut clamped, mut expected) = (scores.clone(), [0.0; LANES]);
                expected.fill(f32::MIN);
                clamp_maxima_portable(&mut clamped, &mut expected);
                let highest = max_portable(&clamped);
                let sum: f64 = clamped.iter().map(|score| f64::from(score - highest).exp()).sum();
                for path in PATHS {
                    let (mut scores, mut maxima) = (scores.clone(), [0.0; LANES]);
                    let (max, total) = path(&mut scores, &mut maxima);
                    assert_eq!((&scores, maxima, max), (&clamped, expected, highest), "{len} {bad}");
                    assert!((f64::from(total) - sum).abs() <= 2e-6 * sum, "{len} {bad}: {total} {sum}");
                }
            }
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
                    let mut maxima = [0.0; LANES];
                    assert_eq!(clamp_maxima(&mut plain, &mut maxima), highest);
                    let sum = weights(&mut scores, highest);
                    assert!(sum.is_finite() && sum >= 1.0, "{bad} {fill} {len}: {sum}");
                    assert!(scores.iter().all(|weight| (0.0..=1.0).contains(weight)), "{scores:?}");
                }
            }
        }
    }

    #[test]
    fn maxima_are_those_of_their_lanes() {
        for len in [1, 63, 64, 65, 256, 300] {
            let mut scores: Vec<f32> = (0..len).map(|at| (at as f32 * 2.3).sin() * 9.0 - 4.0).collect();
            scores[len / 3] = f32::NAN;
            let mut plain = scores.clone();
            let (mut fast_maxima, mut maxima) =
                (vec![0.0; len.div_ceil(RUN) * LANES], vec![0.0; len.div_ceil(RUN) * LANES]);
            assert_eq!(clamp_maxima(&mut scores, &mut fast_maxima), clamp_max(&mut plain.clone()));
            clamp_maxima_portable(&mut plain, &mut maxima);
            assert_eq!((&scores, &fast_maxima), (&plain, &maxima));
            for (at, &max) in maxima.iter().enumerate() {
                let run = scores.chunks(RUN).nth(at / LANES).unwrap();
                assert_eq!(max, run.iter().skip(at % LANES).step_by(LANES).fold(f32::MIN, |max, &x| max.max(x)));
            }
        }
    }

    #[test]
    fn what_is_masked_weighs_nothing() {
        let mut scores = [f32::NEG_INFINITY; 10];
        assert_eq!(max(&scores), f32::MIN);
        scores[3] = f32::MIN;
        assert_eq!(weights(&mut scores, f32::MIN), 1.0);
        assert_eq!(factor(f32::NEG_INFINITY, f32::MIN), 0.0);
    }
}
