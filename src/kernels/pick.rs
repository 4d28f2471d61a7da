//! Finding large weights: maxima over strided blocks, and the positions at or above a threshold.

use super::cpu::by_cpu;

/// Weights are taken in runs of this length.
pub const RUN: usize = 64;
/// Maxima per run or group of runs.
pub const LANES: usize = 8;

/// For every `runs` runs of 64 weights, eight maxima: maximum `l` is over the positions `≡ l` (mod 8) among them.
///
/// Appended to `maxima` as bits, which order non-negative floats as the floats themselves are ordered. A last group
/// may have fewer runs; weights beyond the last whole run of 64 are not looked at.
pub fn maxima(weights: &[f32], runs: usize, maxima: &mut Vec<u32>) {
    for group in weights[..weights.len() / RUN * RUN].chunks(RUN * runs) {
        let mut max = [0f32; LANES];
        for weights in group.chunks_exact(LANES) {
            for (max, &weight) in max.iter_mut().zip(weights) {
                *max = if weight > *max { weight } else { *max };
            }
        }
        maxima.extend(max.map(f32::to_bits));
    }
}

/// Appends a key for every weight `≥ threshold`, in order of position: see [`key`].
pub fn at_least(weights: &[f32], threshold: f32, keys: &mut Vec<u64>) {
    by_cpu!(avx2::at_least(weights, threshold, keys), at_least_portable(weights, 0, threshold, keys));
}

/// A weight and its position as one number: a larger weight is larger, and of equal weights the lower position.
pub fn key(weight: f32, position: usize) -> u64 {
    u64::from(weight.to_bits()) << 32 | u64::from(!(position as u32))
}

/// The position of a [`key`].
pub fn position(key: u64) -> u32 {
    !(key as u32)
}

fn at_least_portable(weights: &[f32], first: usize, threshold: f32, keys: &mut Vec<u64>) {
    for (position, &weight) in weights.iter().enumerate().skip(first) {
        if weight >= threshold {
            keys.push(key(weight, position));
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, at_least_portable, key};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn at_least(weights: &[f32], threshold: f32, keys: &mut Vec<u64>) {
        let least = _mm256_set1_ps(threshold);
        for (chunk, first) in weights.chunks_exact(LANES).zip((0..).step_by(LANES)) {
            // SAFETY: a chunk is eight floats.
            let found = _mm256_cmp_ps::<_CMP_GE_OQ>(unsafe { _mm256_loadu_ps(chunk.as_ptr()) }, least);
            let mut mask = _mm256_movemask_ps(found);
            while mask != 0 {
                let lane = mask.trailing_zeros() as usize;
                keys.push(key(chunk[lane], first + lane));
                mask &= mask - 1;
            }
        }
        at_least_portable(weights, weights.len() / LANES * LANES, threshold, keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_weight_then_lower_position() {
        assert!(key(0.5, 9) > key(0.25, 1));
        assert!(key(0.5, 1) > key(0.5, 2));
        assert!(key(0.0, 0) > key(0.0, 1));
        assert_eq!(position(key(0.1, 77)), 77);
    }

    #[test]
    fn the_twins_agree_and_maxima_are_maxima() {
        let weights: Vec<f32> = (0..64 * 5 + 13).map(|at| (at as f32 * 0.37).sin().abs()).collect();
        let (mut fast, mut plain) = (Vec::new(), Vec::new());
        at_least(&weights, 0.9, &mut fast);
        at_least_portable(&weights, 0, 0.9, &mut plain);
        assert_eq!(fast, plain);
        assert!(!fast.is_empty() && fast.len() < weights.len());
        for runs in [1, 2, 3, 8] {
            let mut found = Vec::new();
            maxima(&weights, runs, &mut found);
            assert_eq!(found.len(), 5usize.div_ceil(runs) * LANES);
            for (at, bits) in found.iter().enumerate() {
                let group = weights[..320].chunks(RUN * runs).nth(at / LANES).unwrap();
                let expected = group.iter().skip(at % LANES).step_by(LANES).fold(0f32, |max, w| max.max(*w));
                assert_eq!(f32::from_bits(*bits), expected);
            }
        }
    }
}
