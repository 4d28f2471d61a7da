//! The parts of a softmax over a run of scores: the largest score, and the exponentials with their sum.
//!
//! [`clamp_max`] comes first: it makes scores finite, so that the softmax is always a distribution. Sums are kept in
//! eight lanes, or in sixteen where vectors are that wide, in an order that depends on the length alone.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

use super::{
    cpu::{by_avx512, by_cpu},
    exp::exp,
    f32x16::WIDE,
    topk::{BLOCK, LANES, RUN},
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

/// [`clamp_max`] that also tells where the large ones are: the maxima of every eight neighbours, eight of them for
/// every run of 64 scores; [`f32::MIN`] where a last run has none.
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

/// A sum of `e^(score − reference)` over scores that come run by run.
///
/// Any reference gives the same softmax in the end. So it is not the largest score, which is known only after a look at
/// all of them, but one that is at hand; a score that lies more than [`HEADROOM`] above raises it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Running {
    /// What the sum is relative to.
    pub reference: f32,
    sums: [f32; WIDE],
}

/// How far a score may lie above the reference: sums of `e^HEADROOM` over any context, and products of them with
/// values, are far from the largest float.
pub const HEADROOM: f32 = 60.0;

impl Running {
    /// An empty sum, relative to one of its scores.
    pub fn new(score: f32) -> Self {
        Self { reference: finite(score), sums: [0.0; WIDE] }
    }

    /// The sum.
    pub fn total(&self) -> f32 {
        let (low, high) = self.sums.split_at(LANES);
        sum8(std::array::from_fn(|lane| low[lane] + high[lane]))
    }

    /// From now on relative to `reference`.
    fn raise(&mut self, reference: f32) {
        let factor = factor(self.reference, reference);
        self.sums.iter_mut().for_each(|sum| *sum *= factor);
        self.reference = reference;
    }
}

/// [`clamp_maxima`] of one run, whose scores are added to `running` and stay what they are.
///
/// # Panics
/// When there are more than 64 scores.
pub fn run(scores: &mut [f32], maxima: &mut [f32; LANES], running: &mut Running) {
    assert!(scores.len() <= RUN);
    by_avx512!(
        avx512::run(scores, maxima, running),
        by_cpu!(avx2::run(scores, maxima, running), run_portable(scores, maxima, running))
    );
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
        *score = finite(*score);
    }
    max_portable(scores)
}

fn finite(score: f32) -> f32 {
    if score.is_nan() { f32::MIN } else { score.clamp(f32::MIN, f32::MAX) }
}

fn max_portable(scores: &[f32]) -> f32 {
    scores.iter().fold(f32::MIN, |max, &score| if score > max { score } else { max })
}

fn clamp_maxima_portable(scores: &mut [f32], maxima: &mut [f32]) {
    clamp_max_portable(scores);
    maxima.fill(f32::MIN);
    maxima.iter_mut().zip(scores.chunks(BLOCK)).for_each(|(max, block)| *max = max_portable(block));
}

fn weights_portable(scores: &mut [f32], max: f32) -> f32 {
    for score in scores.iter_mut() {
        *score = exp(*score - max);
    }
    sum_portable(scores, |weight| weight)
}

fn run_portable(scores: &mut [f32], maxima: &mut [f32; LANES], running: &mut Running) {
    maxima.fill(f32::MIN);
    clamp_maxima_portable(scores, maxima);
    let max = max_portable(maxima);
    if max > running.reference + HEADROOM {
        running.raise(max);
    }
    for (at, &score) in scores.iter().enumerate() {
        running.sums[at % WIDE] += exp(score - running.reference);
    }
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
