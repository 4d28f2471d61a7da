//! Keys of the cache: the keys of a page and KV head side by side, dimension after dimension.
//!
//! A query is multiplied with 64 keys at a time. Each dimension of all of them lies in one run, so the products of
//! eight or sixteen keys add up in one register, and no sum has to be folded across its lanes. 16-bit floats are
//! `[dim][slot]`. 8-bit keys are `[dim / 4][slot][4]`, because multiply-add instructions take four bytes (or two pairs
//! of 16 bits) of a lane at once; their scales, one for every 32 dimensions of a key, are `[dim / 32][slot]`. A last
//! group of fewer than four dimensions is only as wide as what is left.

use half::f16;

use super::{
    cpu::by_cpu,
    q8::{BLOCK, blocks, quantise},
};

/// Keys of a page.
pub const SLOTS: usize = 64;
/// Dimensions of an 8-bit key that lie together.
pub(super) const QUAD: usize = 4;

/// The 8-bit keys of a page and KV head: see the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Q8Keys<'a> {
    /// The integers, `[dim / 4][64][4]`.
    pub values: &'a [i8],
    /// The scales, `[dim / 32][64]`.
    pub scales: &'a [f16],
}

impl Q8Keys<'_> {
    /// Whether they are those of a page with keys of `head_dim` values.
    pub(super) fn fit(&self, head_dim: usize) -> bool {
        self.values.len() == head_dim * SLOTS && self.scales.len() == blocks(head_dim) * SLOTS
    }
}

/// Where the dimension of an 8-bit key is.
#[inline(always)]
pub(super) fn q8_at(head_dim: usize, slot: usize, dim: usize) -> usize {
    let first = dim / QUAD * QUAD;
    first * SLOTS + slot * QUAD.min(head_dim - first) + dim - first
}

/// Puts a key into `slot`, rounded; `keys` is `[row.len()][64]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn write(row: &[f32], slot: usize, keys: &mut [f16]) {
    assert!(slot < SLOTS && keys.len() == row.len() * SLOTS);
    by_cpu!(avx2::write(row, slot, keys), write_body(row, slot, keys));
}

/// Reads a key back.
///
/// # Panics
/// When the lengths do not fit.
pub fn read(keys: &[f16], slot: usize, row: &mut [f32]) {
    assert!(slot < SLOTS && keys.len() == row.len() * SLOTS);
    for (to, keys) in row.iter_mut().zip(keys.chunks_exact(SLOTS)) {
        *to = keys[slot].to_f32();
    }
}

/// Puts a key into `slot` as 8-bit integers; `values` and `scales` are those of [`Q8Keys`].
///
/// # Panics
/// When the lengths do not fit.
pub fn write_q8(row: &[f32], slot: usize, values: &mut [i8], scales: &mut [f16]) {
    let head_dim = row.len();
    assert!(slot < SLOTS && Q8Keys { values, scales }.fit(head_dim));
    let mut rounded = [0; BLOCK];
    for ((block, row), scales) in row.chunks(BLOCK).enumerate().zip(scales.chunks_exact_mut(SLOTS)) {
        let rounded = &mut rounded[..row.len()];
        quantise(row, rounded, &mut scales[slot..=slot]);
        for (quad, rounded) in rounded.chunks(QUAD).enumerate() {
            values[q8_at(head_dim, slot, block * BLOCK + quad * QUAD)..][..rounded.len()].copy_from_slice(rounded);
        }
    }
}

/// Reads an 8-bit key back.
///
/// # Panics
/// When the lengths do not fit.
pub fn read_q8(keys: Q8Keys<'_>, slot: usize, row: &mut [f32]) {
    let head_dim = row.len();
    assert!(slot < SLOTS && keys.fit(head_dim));
    for (dim, to) in row.iter_mut().enumerate() {
        *to = keys.scales[dim / BLOCK * SLOTS + slot].to_f32() * f32::from(keys.values[q8_at(head_dim, slot, dim)]);
    }
}

/// All keys as 32-bit floats, `[head_dim][64]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn dequantise(keys: Q8Keys<'_>, head_dim: usize, out: &mut [f32]) {
    assert!(keys.fit(head_dim) && out.len() == head_dim * SLOTS);
    by_cpu!(avx2::dequantise(keys, head_dim, out), dequantise_body(keys, head_dim, out));
}

/// Written once and compiled twice: with and without AVX2 and F16C.
#[inline(always)]
fn write_body(row: &[f32], slot: usize, keys: &mut [f16]) {
    for (value, keys) in row.iter().zip(keys.chunks_exact_mut(SLOTS)) {
        keys[slot] = f16::from_f32(*value);
    }
}

/// The same.
#[inline(always)]
fn dequantise_body(keys: Q8Keys<'_>, head_dim: usize, out: &mut [f32]) {
    let quads = keys.values.chunks(QUAD * SLOTS).zip(out.chunks_mut(QUAD * SLOTS));
    let mut wide = [0.0; SLOTS];
    for (quad, (values, out)) in quads.enumerate() {
        if (quad * QUAD).is_multiple_of(BLOCK) {
            let scales = &keys.scales[quad * QUAD / BLOCK * SLOTS..][..SLOTS];
            super::f16_to_f32::f16_to_f32(scales, &mut wide);
        }
        let width = QUAD.min(head_dim - quad * QUAD);
        if width == QUAD {
            for dim in 0..QUAD {
                let out = &mut out[dim * SLOTS..][..SLOTS];
                for ((out, values), scale) in out.iter_mut().zip(values.chunks_exact(QUAD)).zip(&wide) {
                    *out = scale * f32::from(values[dim]);
                }
            }
        } else {
            for (slot, values) in values.chunks_exact(width).enumerate() {
                values
                    .iter()
                    .enumerate()
                    .for_each(|(dim, value)| out[dim * SLOTS + slot] = wide[slot] * f32::from(*value));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{Q8Keys, SLOTS, write_body};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn write(row: &[f32], slot: usize, keys: &mut [f16]) {
        let whole = row.len() / 8 * 8;
        for (row, keys) in row.chunks_exact(8).zip(keys.chunks_exact_mut(8 * SLOTS)) {
            let mut eight = [f16::ZERO; 8];
            // SAFETY: eight values each.
            unsafe {
                let narrow = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(row.as_ptr()));
                _mm_storeu_si128(eight.as_mut_ptr().cast(), narrow);
            }
            for (keys, value) in keys.chunks_exact_mut(SLOTS).zip(eight) {
                keys[slot] = value;
            }
        }
        write_body(&row[whole..], slot, &mut keys[whole * SLOTS..]);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dequantise(keys: Q8Keys<'_>, head_dim: usize, out: &mut [f32]) {
        super::dequantise_body(keys, head_dim, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::q8;

    proptest! {
        #[test]
        fn a_key_comes_back_and_leaves_the_others_alone(
            head_dim in prop::sample::select(vec![5usize, 12, 20, 32, 40, 64, 80, 128]), slot in 0..SLOTS, seed in 0u32..1000,
        ) {
            let row: Vec<f32> = (0..head_dim).map(|at| ((at as f32 + seed as f32) * 0.7).sin() * 3.0).collect();
            let mut keys = vec![f16::ONE; head_dim * SLOTS];
            write(&row, slot, &mut keys);
            let mut plain = vec![f16::ONE; head_dim * SLOTS];
            write_body(&row, slot, &mut plain);
            prop_assert_eq!(&keys, &plain);
            let mut back = vec![0.0; head_dim];
            read(&keys, slot, &mut back);
            let expected: Vec<f32> = row.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
            prop_assert_eq!(&back, &expected);
            prop_assert_eq!(keys.iter().filter(|key| **key == f16::ONE).count(), head_dim * (SLOTS - 1));

            let (mut values, mut scales) = (vec![1; head_dim * SLOTS], vec![f16::ONE; blocks(head_dim) * SLOTS]);
            write_q8(&row, slot, &mut values, &mut scales);
            let keys = Q8Keys { values: &values, scales: &scales };
            let (mut rounded, mut steps) = (vec![0; head_dim], vec![f16::ZERO; blocks(head_dim)]);
            quantise(&row, &mut rounded, &mut steps);
            let mut expected = vec![0.0; head_dim];
            q8::dequantise(q8::Q8Rows { values: &rounded, scales: &steps }, head_dim, &mut expected);
            read_q8(keys, slot, &mut back);
            prop_assert_eq!(&back, &expected);
            let mut other = vec![0.0; head_dim];
            read_q8(keys, (slot + 1) % SLOTS, &mut other);
            prop_assert_eq!(other, vec![1.0; head_dim]);

            let (mut wide, mut plain) = (vec![0.0; head_dim * SLOTS], vec![0.0; head_dim * SLOTS]);
            dequantise(keys, head_dim, &mut wide);
            dequantise_body(keys, head_dim, &mut plain);
            prop_assert_eq!(&wide, &plain);
            for (dim, back) in back.iter().enumerate() {
                prop_assert_eq!(wide[dim * SLOTS + slot], *back);
            }
        }
    }
}
