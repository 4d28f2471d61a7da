//! Finding the largest values: a cut that leaves exactly N, and the values above a threshold.
//!
//! Values are finite. The cut is found by bisection: a count of the values above another one takes one compare for
//! eight or sixteen of them, and a dozen counts find it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

use super::{
    cpu::{by_avx512, by_cpu},
    softmax,
};

/// Values are taken in runs of this length.
pub const RUN: usize = 64;
/// Values per vector; maxima of a run are kept apart by position modulo this.
pub const LANES: usize = 8;

/// Which values are among the N largest: all that are at least `above`, and the first `ties` equal to `tied`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    above: f32,
    tied: f32,
    ties: usize,
}

/// Steps of the bisection that halve the distance; where they do not find the cut, the values lie so closely or so
/// unevenly that halving the number of floats in between is sure to.
const HALVINGS: usize = 16;

impl Cut {
    /// The cut that leaves `n` of the values; there must be that many.
    pub fn new(values: &[f32], n: usize) -> Self {
        // Always: at least `n` are at or above `low`, `above_high` < n are at or above `high`.
        let (mut low, mut high, mut above_high) = (floor(values, n), softmax::max(values).next_up(), 0);
        let mut steps = 0;
        while order(high) - order(low) > 1 {
            let halfway = low * 0.5 + high * 0.5;
            let halves = steps < HALVINGS && low < halfway && halfway < high;
            let middle = if halves { halfway } else { from_order(i64::midpoint(order(low), order(high))) };
            steps += 1;
            match count(values, middle) {
                found if found > n => low = middle,
                found if found < n => (high, above_high) = (middle, found),
                _ => return Self { above: middle, tied: 0.0, ties: 0 },
            }
        }
        Self { above: high, tied: low, ties: n - above_high }
    }

    /// Appends every value that the cut leaves to `found`, and its position to `kept`; `positions` are those of `values`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn keep(self, values: &[f32], positions: &[u32], found: &mut Vec<f32>, kept: &mut Vec<u32>) {
        assert_eq!(values.len(), positions.len());
        if self.ties > 0 {
            self.keep_portable(values, positions, found, kept);
        } else {
            by_avx512!(
                avx512::keep(values, positions, self.above, found, kept),
                by_cpu!(
                    avx2::keep(values, positions, self.above, found, kept),
                    self.keep_portable(values, positions, found, kept)
                )
            );
        }
    }

    fn keep_portable(self, values: &[f32], positions: &[u32], found: &mut Vec<f32>, kept: &mut Vec<u32>) {
        let mut ties = self.ties;
        for (&value, &position) in values.iter().zip(positions) {
            let tied = ties > 0 && value == self.tied;
            ties -= usize::from(tied);
            if tied || value >= self.above {
                found.push(value);
                kept.push(position);
            }
        }
    }

    /// A value that all of those reach which the cut leaves.
    pub fn least(self) -> f32 {
        if self.ties == 0 { self.above } else { self.tied }
    }
}

/// A number for each float, in the order of the floats, without gaps.
fn order(value: f32) -> i64 {
    let bits = value.to_bits() as i32;
    i64::from(if bits < 0 { i32::MIN - bits } else { bits })
}

fn from_order(order: i64) -> f32 {
    let order = order as i32;
    f32::from_bits(if order < 0 { i32::MIN - order } else { order } as u32)
}

/// Appends every value `≥ threshold` of `values` to `found`, and its position, counted from `first`, to `positions`.
///
/// `maxima` are those of the values' runs ([`super::softmax::clamp_maxima`]): runs that have none are not looked at.
///
/// # Panics
/// When `maxima` is not `[runs, 8]`.
pub fn at_least(
    values: &[f32],
    maxima: &[f32],
    threshold: f32,
    first: u32,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    assert_eq!(maxima.len(), values.len().div_ceil(RUN) * LANES);
    by_avx512!(
        avx512::at_least(values, maxima, threshold, first, found, positions),
        by_cpu!(
            avx2::at_least(values, maxima, threshold, first, found, positions),
            at_least_portable(values, maxima, threshold, first, found, positions)
        )
    );
}

/// How many values are at least `least`.
fn count(values: &[f32], least: f32) -> usize {
    by_avx512!(avx512::count(values, least), by_cpu!(avx2::count(values, least), count_portable(values, least)))
}

/// Where the search for a cut begins: a value that `n` of them reach. The lowest is one; but maxima of positions that
/// a row does not have are [`f32::MIN`], from where it would take a score of halvings to get to the others.
fn floor(values: &[f32], n: usize) -> f32 {
    let lowest = by_cpu!(avx2::lowest(values), lowest_body(values));
    if count(values, lowest) >= n { lowest } else { f32::MIN }
}

/// The lowest of the values above [`f32::MIN`]; [`f32::MAX`] for none. Written once and compiled twice: with and without
/// AVX2.
#[inline(always)]
fn lowest_body(values: &[f32]) -> f32 {
    let lower = |low: f32, value: f32| if value < low && value > f32::MIN { value } else { low };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::MAX; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(low, &value)| *low = lower(*low, value));
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::MAX, lower)
}

fn count_portable(values: &[f32], least: f32) -> usize {
    values.iter().filter(|&&value| value >= least).count()
}

fn at_least_portable(
    values: &[f32],
    maxima: &[f32],
    threshold: f32,
    first: u32,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    for ((run, maxima), first) in values.chunks(RUN).zip(maxima.chunks_exact(LANES)).zip((first..).step_by(RUN)) {
        if maxima.iter().any(|&max| max >= threshold) {
            for (&value, position) in run.iter().zip(first..) {
                if value >= threshold {
                    found.push(value);
                    positions.push(position);
                }
            }
        }
    }
}
