//! Q8_0 weights: `w = d·q` with 8-bit `q`, in blocks of 32.
//!
//! A vector of a block holds 4 weights of each output feature of a group. The multiply instructions take an unsigned
//! and a signed byte. With AVX2 a weight's sign is moved to the activation; a sum of 16 bits has room for two products
//! of 128·127 and no more, so each sum is turned into 32 bits at once. With VNNI 128 is added to the weights, and the
//! sum starts at what this adds too much. The size is the same as in the file: 34 bytes for 32 weights.

use half::f16;

use super::{
    activations::{BLOCK, Block},
    cpu::{by_avx512, by_cpu},
    packed::{self, Ahead, NARROW, Packed, ROWS, Sums, WIDE, pack},
};

/// Vectors of 4 inputs in a block.
const VECTORS: usize = BLOCK / 4;

/// One block of 32 inputs for `L` output features.
#[derive(Clone)]
#[repr(C)]
struct Group<const L: usize> {
    d: [f16; L],
    /// `[vector][feature][4 integers]`, as in the file.
    q: [[[u8; 4]; L]; VECTORS],
}

impl<const L: usize> packed::Group for Group<L> {
    const LANES: usize = L;
    /// Scale, 32 integers.
    const FILE_BLOCK: usize = 34;
    const ZERO: Self = Self { d: [f16::ZERO; L], q: [[[0; 4]; L]; VECTORS] };

    fn set(&mut self, lane: usize, block: &[u8]) {
        self.d[lane] = f16::from_le_bytes([block[0], block[1]]);
        for (vector, four) in self.q.iter_mut().zip(block[2..].chunks_exact(4)) {
            vector[lane].copy_from_slice(four);
        }
    }

    fn get(&self, lane: usize, out: &mut [f32]) {
        let d = self.d[lane].to_f32();
        for (vector, out) in self.q.iter().zip(out.chunks_exact_mut(4)) {
            for (q, out) in vector[lane].iter().zip(out) {
                *out = d * f32::from(q.cast_signed());
            }
        }
    }
}

/// Packs the bytes of a GGUF tensor of `[out_features, in_features]`.
pub(super) fn weights(bytes: &[u8], shape: [usize; 2]) -> Box<dyn Packed> {
    pack(bytes, shape, wide, narrow)
}

fn wide(groups: &[Group<WIDE>], rows: &[&[Block]], ahead: Ahead, out: &mut Sums) {
    by_avx512!(vnni::dot(groups, rows, ahead, out), portable(groups, rows, ahead, out));
}

fn narrow(groups: &[Group<NARROW>], rows: &[&[Block]], ahead: Ahead, out: &mut Sums) {
    by_cpu!(avx2::dot(groups, rows, out), portable(groups, rows, ahead, out));
}

fn portable<const L: usize>(groups: &[Group<L>], rows: &[&[Block]], ahead: Ahead, out: &mut Sums) {
    for (row, out) in rows.iter().zip(out) {
        let mut all = [0.0; L];
        for (at, (group, x)) in groups.iter().zip(*row).enumerate() {
            ahead.ask(at);
            let mut sums = [[0i32; L]; 2];
            for (at, (vector, x)) in group.q.iter().zip(x.q.chunks_exact(4)).enumerate() {
                for (sum, q) in sums[at / (VECTORS / 2)].iter_mut().zip(vector) {
                    *sum += q.iter().zip(x).map(|(q, &x)| i32::from(q.cast_signed()) * i32::from(x)).sum::<i32>();
                }
            }
            for lane in 0..L {
                let dot = sums[0][lane] as f32 * x.d[0] + sums[1][lane] as f32 * x.d[1];
                all[lane] += dot * group.d[lane].to_f32();
            }
        }
        out[..L].copy_from_slice(&all);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Block, Group, NARROW, ROWS, Sums, VECTORS};
    use crate::bytes::{add_32, four};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dot(groups: &[Group<NARROW>], rows: &[&[Block]], out: &mut Sums) {
        match *rows {
            [a] => dot_rows([a], groups, out),
            [a, b] => dot_rows([a, b], groups, out),
            [a, b, c] => dot_rows([a, b, c], groups, out),
            [a, b, c, d] => dot_rows([a, b, c, d], groups, out),
            _ => unreachable!("1 to {ROWS} rows"),
        }
    }

    /// The arithmetic of one row is the same sequence for every `R`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn dot_rows<const R: usize>(rows: [&[Block]; R], groups: &[Group<NARROW>], out: &mut Sums) {
        assert!(rows.iter().all(|row| row.len() == groups.len()));
        let mut sums = [_mm256_setzero_ps(); R];
        for (at, group) in groups.iter().enumerate() {
            // SAFETY: every row has as many blocks as there are groups.
            let x: [&Block; R] = std::array::from_fn(|row| unsafe { rows[row].get_unchecked(at) });
            let mut dots = [[_mm256_setzero_si256(); 2]; R];
            for vector in 0..VECTORS {
                // SAFETY: a vector is 32 bytes; the load asks for no alignment.
                let weights = unsafe { _mm256_loadu_si256(group.q[vector].as_ptr().cast()) };
                let magnitude = _mm256_abs_epi8(weights);
                for row in 0..R {
                    let signed = _mm256_sign_epi8(four(x[row], 4 * vector), weights);
                    let dot = &mut dots[row][vector / (VECTORS / 2)];
                    *dot = add_32(*dot, magnitude, signed);
                }
            }
            // SAFETY: eight 16-bit floats; the load asks for no alignment.
            let d = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(group.d.as_ptr().cast()) });
            for row in 0..R {
                let [first, second] = dots[row].map(|dot| _mm256_cvtepi32_ps(dot));
                let dot = _mm256_mul_ps(first, _mm256_set1_ps(x[row].d[0]));
                let dot = _mm256_fmadd_ps(second, _mm256_set1_ps(x[row].d[1]), dot);
                sums[row] = _mm256_fmadd_ps(dot, d, sums[row]);
            }
        }
        for (sum, out) in sums.into_iter().zip(out) {
            // SAFETY: eight floats of 32.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
}

/// The same whole numbers and the same operations on every lane as with AVX2, so the same bits.
#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::*;

    use super::{Ahead, Block, Group, ROWS, Sums, VECTORS, WIDE};
    use crate::bytes::{REGISTERS, floats_wide, four_wide, load_wide, store_wide};

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn dot(groups: &[Group<WIDE>], rows: &[&[Block]], ahead: Ahead, out: &mut Sums) {
        match *rows {
            [a] => dot_rows([a], groups, ahead, out),
            [a, b] => dot_rows([a, b], groups, ahead, out),
            [a, b, c] => dot_rows([a, b, c], groups, ahead, out),
            [a, b, c, d] => dot_rows([a, b, c, d], groups, ahead, out),
            _ => unreachable!("1 to {ROWS} rows"),
        }
    }

    /// The arithmetic of one row is the same sequence for every `R`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn dot_rows<const R: usize>(rows: [&[Block]; R], groups: &[Group<WIDE>], ahead: Ahead, out: &mut Sums) {
        assert!(rows.iter().all(|row| row.len() == groups.len()));
        // Flipping the sign bit adds 128, as an unsigned number.
        let flip = _mm512_set1_epi8(-128);
        let mut sums = [[_mm512_setzero_ps(); REGISTERS]; R];
        for (at, group) in groups.iter().enumerate() {
            // With one row of activations there is so little to do between loads that asking slows them.
            if R > 1 {
                ahead.ask(at);
            }
            // SAFETY: every row has as many blocks as there are groups.
            let x: [&Block; R] = std::array::from_fn(|row| unsafe { rows[row].get_unchecked(at) });
            let mut dots = [[[_mm512_setzero_si512(); 2]; REGISTERS]; R];
            for row in 0..R {
                dots[row] = [x[row].offset.map(|offset| _mm512_set1_epi32(offset)); REGISTERS];
            }
            for vector in 0..VECTORS {
                let weights = load_wide(&group.q[vector]).map(|weights| _mm512_xor_si512(weights, flip));
                for row in 0..R {
                    let four = four_wide(x[row], 4 * vector);
                    for at in 0..REGISTERS {
                        let dot = &mut dots[row][at][vector / (VECTORS / 2)];
                        *dot = _mm512_dpbusd_epi32(*dot, weights[at], four);
                    }
                }
            }
            let d = floats_wide(&group.d);
            for row in 0..R {
                let [d0, d1] = x[row].d.map(|d| _mm512_set1_ps(d));
                for at in 0..REGISTERS {
                    let [first, second] = dots[row][at].map(|dot| _mm512_cvtepi32_ps(dot));
                    let dot = _mm512_fmadd_ps(second, d1, _mm512_mul_ps(first, d0));
                    sums[row][at] = _mm512_fmadd_ps(dot, d[at], sums[row][at]);
                }
            }
        }
        for (sums, out) in sums.into_iter().zip(out) {
            store_wide(sums, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packed::paths::{agree, outputs};

    proptest! {
        #[test]
        fn the_paths_agree(features in 1usize..=WIDE, blocks in 1usize..8, seed in any::<u64>()) {
            agree([wide, portable], [narrow, portable], features, blocks, seed)?;
        }
    }

    #[test]
    fn the_extreme_block_does_not_saturate() {
        for (weight, x) in [(-128i8, 127i8), (-128, -127), (127, 127), (127, -127)] {
            let mut block = f16::ONE.to_le_bytes().to_vec();
            block.extend([weight.cast_unsigned(); 32]);
            let file = block.repeat(WIDE);
            let row = [Block::new([1.0; 2], [x; BLOCK])];
            let expected = 32.0 * f32::from(weight) * f32::from(x);
            for out in outputs([wide, portable], [narrow, portable], &file, &[&row]) {
                assert_eq!(out, [[expected; WIDE]]);
            }
        }
    }
}
