//! Finding the largest weights: maxima over strided blocks, and a cut that leaves exactly N.
//!
//! Weights are finite and not negative, so their bits order as they do. The cut is found by bisection over bits: a
//! count of the weights above a value takes one compare per eight of them, and a dozen counts find it.

use super::cpu::by_cpu;

/// Weights are taken in runs of this length.
pub const RUN: usize = 64;
/// Maxima per run or group of runs.
pub const LANES: usize = 8;

/// Which weights are among the N largest: all whose bits are at least `above`, and the first `ties` equal to `tied`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    above: u32,
    tied: u32,
    ties: usize,
}

impl Cut {
    /// The cut that leaves `n` of the weights that are at least `floor`; there must be that many.
    pub fn new(weights: &[f32], floor: f32, n: usize) -> Self {
        // Always: at least `n` are at or above `low`, `above_high` < n are at or above `high`.
        let mut low = floor.to_bits();
        let mut high = maximum(weights).to_bits() + 1;
        let mut above_high = 0;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match count(weights, middle) {
                found if found > n => low = middle,
                found if found < n => (high, above_high) = (middle, found),
                _ => return Self { above: middle, tied: 0, ties: 0 },
            }
        }
        Self { above: high, tied: low, ties: n - above_high }
    }

    /// Calls `take` with the index of every weight that the cut leaves, ascending.
    pub fn apply(self, weights: &[f32], take: &mut impl FnMut(usize)) {
        let mut ties = self.ties;
        let least = if ties == 0 { self.above } else { self.tied };
        at_least(weights, f32::from_bits(least), |index, weight| {
            if weight.to_bits() >= self.above {
                take(index);
            } else if ties > 0 {
                ties -= 1;
                take(index);
            }
        });
    }
}

/// For every `runs` runs of 64 weights, eight maxima: maximum `l` is over the positions `≡ l` (mod 8) among them.
///
/// Appended to `maxima`. A last group may have fewer runs; weights beyond the last whole run of 64 are not looked at.
pub fn maxima(weights: &[f32], runs: usize, maxima: &mut Vec<f32>) {
    for group in weights[..weights.len() / RUN * RUN].chunks(RUN * runs) {
        maxima.extend(by_cpu!(avx2::lanes_max(group), lanes_max_portable(group)));
    }
}

/// Calls `take` with index and value of every weight `≥ threshold`, in order.
pub fn at_least(weights: &[f32], threshold: f32, mut take: impl FnMut(usize, f32)) {
    let mut masks = [0u8; RUN / LANES];
    for (run, first) in weights.chunks(RUN).zip((0..).step_by(RUN)) {
        by_cpu!(avx2::masks(run, threshold, &mut masks), masks_portable(run, threshold, &mut masks));
        for (mut mask, first) in masks.iter().copied().zip((first..).step_by(LANES)) {
            while mask != 0 {
                let index = first + mask.trailing_zeros() as usize;
                take(index, weights[index]);
                mask &= mask - 1;
            }
        }
    }
}

/// How many weights have bits of at least `least`, which is not 0.
fn count(weights: &[f32], least: u32) -> usize {
    by_cpu!(avx2::count(weights, least), count_portable(weights, least))
}

fn maximum(weights: &[f32]) -> f32 {
    by_cpu!(avx2::lanes_max(weights), lanes_max_portable(weights)).into_iter().fold(0.0, f32::max)
}

fn count_portable(weights: &[f32], least: u32) -> usize {
    weights.iter().filter(|weight| weight.to_bits() >= least).count()
}

fn lanes_max_portable(weights: &[f32]) -> [f32; LANES] {
    let mut max = [0f32; LANES];
    for weights in weights.chunks(LANES) {
        for (max, &weight) in max.iter_mut().zip(weights) {
            *max = if weight > *max { weight } else { *max };
        }
    }
    max
}

/// One bit per weight of a run of at most 64; bits beyond its end are 0.
fn masks_portable(run: &[f32], threshold: f32, masks: &mut [u8; RUN / LANES]) {
    *masks = [0; RUN / LANES];
    for (index, &weight) in run.iter().enumerate() {
        masks[index / LANES] |= u8::from(weight >= threshold) << (index % LANES);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, RUN, count_portable, lanes_max_portable, masks_portable};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn count(weights: &[f32], least: u32) -> usize {
        let chunks = weights.chunks_exact(LANES);
        let rest = count_portable(chunks.remainder(), least);
        // Bits of finite floats that are not negative are positive as signed numbers too.
        let below = _mm256_set1_epi32(least as i32 - 1);
        let mut found = _mm256_setzero_si256();
        for chunk in chunks {
            // SAFETY: a chunk is eight floats.
            let bits = _mm256_castps_si256(unsafe { _mm256_loadu_ps(chunk.as_ptr()) });
            found = _mm256_sub_epi32(found, _mm256_cmpgt_epi32(bits, below));
        }
        let mut lanes = [0u32; LANES];
        // SAFETY: eight integers.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), found) };
        rest + lanes.iter().sum::<u32>() as usize
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn lanes_max(weights: &[f32]) -> [f32; LANES] {
        let chunks = weights.chunks_exact(LANES);
        let rest = lanes_max_portable(chunks.remainder());
        let mut max = _mm256_setzero_ps();
        for chunk in chunks {
            // SAFETY: a chunk is eight floats.
            max = _mm256_max_ps(max, unsafe { _mm256_loadu_ps(chunk.as_ptr()) });
        }
        let mut lanes = [0f32; LANES];
        // SAFETY: eight floats on each side.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_max_ps(max, _mm256_loadu_ps(rest.as_ptr()))) };
        lanes
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
        (0..len).map(|at| (at as f32 * 0.37).sin().abs()).collect()
    }

    #[test]
    fn the_twins_agree() {
        for len in [0, 7, 64, 64 * 5 + 13] {
            let weights = waves(len);
            let least = 0.9f32.to_bits();
            assert_eq!(count(&weights, least), count_portable(&weights, least));
            assert_eq!(maximum(&weights), lanes_max_portable(&weights).into_iter().fold(0.0, f32::max));
            for run in weights.chunks(RUN) {
                let (mut fast, mut plain) = ([0; 8], [0; 8]);
                by_cpu!(avx2::masks(run, 0.9, &mut fast), masks_portable(run, 0.9, &mut fast));
                masks_portable(run, 0.9, &mut plain);
                assert_eq!(fast, plain);
            }
        }
    }

    #[test]
    fn maxima_are_maxima() {
        let weights = waves(64 * 5 + 13);
        for runs in [1, 2, 3, 8] {
            let mut found = Vec::new();
            maxima(&weights, runs, &mut found);
            assert_eq!(found.len(), 5usize.div_ceil(runs) * LANES);
            for (at, found) in found.iter().enumerate() {
                let group = weights[..320].chunks(RUN * runs).nth(at / LANES).unwrap();
                let expected = group.iter().skip(at % LANES).step_by(LANES).fold(0f32, |max, w| max.max(*w));
                assert_eq!(*found, expected);
            }
        }
    }

    #[test]
    fn a_cut_through_ties_takes_the_first_of_them() {
        let weights = [0.5, 0.25, 0.5, 0.0, 0.25, 0.25];
        let taken = |n| {
            let mut taken = Vec::new();
            Cut::new(&weights, 0.0, n).apply(&weights, &mut |index| taken.push(index));
            taken
        };
        assert_eq!(taken(1), [0]);
        assert_eq!(taken(2), [0, 2]);
        assert_eq!(taken(4), [0, 1, 2, 4]);
        assert_eq!(taken(6), [0, 1, 2, 3, 4, 5]);
    }
}
