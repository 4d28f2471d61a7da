//! Finding the largest values: a cut that leaves exactly N, and the values above a threshold.
//!
//! Values are finite. The cut is found by bisection: a count of the values above another one takes one compare per
//! eight of them, and a dozen counts find it.

use super::cpu::by_cpu;

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
    /// The cut that leaves `n` of the values that are at least `floor`; there must be that many.
    pub fn new(values: &[f32], floor: f32, n: usize) -> Self {
        // Always: at least `n` are at or above `low`, `above_high` < n are at or above `high`.
        let (mut low, mut high, mut above_high) = (floor, maximum(values).next_up(), 0);
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

    /// Calls `take` with the index of every value that the cut leaves, ascending.
    pub fn apply(self, values: &[f32], take: &mut impl FnMut(usize)) {
        let mut ties = self.ties;
        let least = if ties == 0 { self.above } else { self.tied };
        at_least(values, least, |index, value| {
            if value >= self.above {
                take(index);
            } else if ties > 0 {
                ties -= 1;
                take(index);
            }
        });
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

/// Calls `take` with index and value of every value `≥ threshold`, in order.
pub fn at_least(values: &[f32], threshold: f32, mut take: impl FnMut(usize, f32)) {
    let mut masks = [0u8; RUN / LANES];
    for (run, first) in values.chunks(RUN).zip((0..).step_by(RUN)) {
        by_cpu!(avx2::masks(run, threshold, &mut masks), masks_portable(run, threshold, &mut masks));
        for (mut mask, first) in masks.iter().copied().zip((first..).step_by(LANES)) {
            while mask != 0 {
                let index = first + mask.trailing_zeros() as usize;
                take(index, values[index]);
                mask &= mask - 1;
            }
        }
    }
}

/// How many values are at least `least`.
fn count(values: &[f32], least: f32) -> usize {
    by_cpu!(avx2::count(values, least), count_portable(values, least))
}

/// [`f32::MIN`] for no values.
fn maximum(values: &[f32]) -> f32 {
    super::softmax::max(values)
}

fn count_portable(values: &[f32], least: f32) -> usize {
    values.iter().filter(|&&value| value >= least).count()
}

/// One bit per value of a run of at most 64; bits beyond its end are 0.
fn masks_portable(run: &[f32], threshold: f32, masks: &mut [u8; RUN / LANES]) {
    *masks = [0; RUN / LANES];
    for (index, &weight) in run.iter().enumerate() {
        masks[index / LANES] |= u8::from(weight >= threshold) << (index % LANES);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, RUN, count_portable, masks_portable};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn count(values: &[f32], least: f32) -> usize {
        let chunks = values.chunks_exact(LANES);
        let rest = count_portable(chunks.remainder(), least);
        let least = _mm256_set1_ps(least);
        let mut found = _mm256_setzero_si256();
        for chunk in chunks {
            // SAFETY: a chunk is eight floats.
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(unsafe { _mm256_loadu_ps(chunk.as_ptr()) }, least);
            found = _mm256_sub_epi32(found, _mm256_castps_si256(reached));
        }
        let mut lanes = [0u32; LANES];
        // SAFETY: eight integers.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), found) };
        rest + lanes.iter().sum::<u32>() as usize
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn masks(run: &[f32], threshold: f32, masks: &mut [u8; RUN / LANES]) {
        if run.len() < RUN {
            return masks_portable(run, threshold, masks);
        }
        let least = _mm256_set1_ps(threshold);
        for (chunk, mask) in run.chunks_exact(LANES).zip(masks) {
            // SAFETY: a chunk is eight floats.
            let found = _mm256_cmp_ps::<_CMP_GE_OQ>(unsafe { _mm256_loadu_ps(chunk.as_ptr()) }, least);
            *mask = _mm256_movemask_ps(found) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(len: usize) -> Vec<f32> {
        (0..len).map(|at| (at as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn the_twins_agree() {
        for len in [0, 7, 64, 64 * 5 + 13] {
            let values = waves(len);
            for least in [0.9, 0.0, -0.4] {
                assert_eq!(count(&values, least), count_portable(&values, least));
                for run in values.chunks(RUN) {
                    let (mut fast, mut plain) = ([0; 8], [0; 8]);
                    by_cpu!(avx2::masks(run, least, &mut fast), masks_portable(run, least, &mut fast));
                    masks_portable(run, least, &mut plain);
                    assert_eq!(fast, plain);
                }
            }
        }
    }

    #[test]
    fn floats_are_numbered_in_their_order_without_gaps() {
        for value in [-f32::INFINITY, f32::MIN, -1.5, -1e-45, 0.0, 1e-45, 3.7, f32::MAX] {
            assert_eq!(order(value.next_up()), order(value) + 1);
            assert_eq!(from_order(order(value)), value);
        }
        assert_eq!(order(-0.0), order(0.0));
    }

    #[test]
    fn a_cut_through_ties_takes_the_first_of_them() {
        for shift in [0.0, -0.3, -7.0] {
            let values = [0.5, 0.25, 0.5, 0.0, 0.25, 0.25].map(|value| value + shift);
            let taken = |n| {
                let mut taken = Vec::new();
                Cut::new(&values, shift, n).apply(&values, &mut |index| taken.push(index));
                taken
            };
            assert_eq!(taken(1), [0]);
            assert_eq!(taken(2), [0, 2]);
            assert_eq!(taken(4), [0, 1, 2, 4]);
            assert_eq!(taken(6), [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_cut_is_found_among_the_strangest_values() {
        let values = [f32::MAX, 1e-40, f32::MIN, -1e-45, 2.0, 2.0f32.next_up(), f32::MIN, 1e30];
        let mut sorted = values;
        sorted.sort_by(f32::total_cmp);
        for n in 1..=values.len() {
            let mut taken = Vec::new();
            Cut::new(&values, f32::MIN, n).apply(&values, &mut |index| taken.push(values[index]));
            taken.sort_by(f32::total_cmp);
            assert_eq!(taken, sorted[values.len() - n..]);
        }
    }
}
