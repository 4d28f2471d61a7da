//! Q4_1 weights: `w = d·q + m` with 4-bit `q`, in blocks of 32.
//!
//! Vector `j` of a block holds 4 bytes, which are 8 weights, of each output feature of a group: the low nibbles are
//! inputs `4j..4j+4`, the high ones inputs `16+4j..16+4j+4`, so that each kind is multiplied with one half of the block
//! of activations. The 8-bit activations are broadcast four at a time; products are summed over a half and then scaled.
//! AVX2 sums in 16 bits, which cannot overflow (4 pairs of 15·127), VNNI in 32. The size is the same as in the file: 20
//! bytes for 32 weights.

use half::f16;

use super::{
    activations::{Block, HALF},
    cpu::{by_avx512, by_cpu},
    packed::{self, Ahead, NARROW, Packed, ROWS, Sums, WIDE, pack},
};

/// One block of 32 inputs for `L` output features.
#[derive(Clone)]
#[repr(C, align(32))]
struct Group<const L: usize> {
    d: [f16; L],
    m: [f16; L],
    /// `[vector][feature][4 bytes]`.
    q: [[[u8; 4]; L]; 4],
}

impl<const L: usize> packed::Group for Group<L> {
    const LANES: usize = L;
    /// Scale, minimum, 16 bytes of nibbles.
    const FILE_BLOCK: usize = 20;
    const ZERO: Self = Self { d: [f16::ZERO; L], m: [f16::ZERO; L], q: [[[0; 4]; L]; 4] };

    fn set(&mut self, lane: usize, block: &[u8]) {
        self.d[lane] = f16::from_le_bytes([block[0], block[1]]);
        self.m[lane] = f16::from_le_bytes([block[2], block[3]]);
        for (vector, nibbles) in self.q.iter_mut().zip(block[4..].chunks_exact(4)) {
            vector[lane].copy_from_slice(nibbles);
        }
    }

    fn get(&self, lane: usize, out: &mut [f32]) {
        let (d, m) = (self.d[lane].to_f32(), self.m[lane].to_f32());
        for (vector, at) in self.q.iter().zip((0..).step_by(4)) {
            for (byte, at) in vector[lane].iter().zip(at..) {
                out[at] = d * f32::from(byte & 15) + m;
                out[at + HALF] = d * f32::from(byte >> 4) + m;
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
            let mut sums = [[0i32; 2]; L];
            for (vector, at) in group.q.iter().zip((0..).step_by(4)) {
                for ([low, high], bytes) in sums.iter_mut().zip(vector) {
                    for (byte, at) in bytes.iter().zip(at..) {
                        *low += i32::from(byte & 15) * i32::from(x.q[at]);
                        *high += i32::from(byte >> 4) * i32::from(x.q[at + HALF]);
                    }
                }
            }
            for lane in 0..L {
                let [low, high] = sums[lane].map(|sum| sum as f32);
                let dot = low * x.d[0] + high * x.d[1];
                all[lane] += dot * group.d[lane].to_f32() + group.m[lane].to_f32() * x.s;
            }
        }
        out[..L].copy_from_slice(&all);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Block, Group, HALF, NARROW, ROWS, Sums};
    use crate::bytes::{add_16, four, i16_to_i32};

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
        let nibble = _mm256_set1_epi8(15);
        let mut sums = [_mm256_setzero_ps(); R];
        for (at, group) in groups.iter().enumerate() {
            // SAFETY: every row has as many blocks as there are groups.
            let x: [&Block; R] = std::array::from_fn(|row| unsafe { rows[row].get_unchecked(at) });
            let mut dots = [[_mm256_setzero_si256(); 2]; R];
            for vector in 0..4 {
                // SAFETY: a vector is 32 bytes, and the group and its first 32 bytes keep it aligned.
                let bytes = unsafe { _mm256_load_si256(group.q[vector].as_ptr().cast()) };
                let low = _mm256_and_si256(bytes, nibble);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
                for row in 0..R {
                    dots[row][0] = add_16(dots[row][0], low, four(x[row], 4 * vector));
                    dots[row][1] = add_16(dots[row][1], high, four(x[row], HALF + 4 * vector));
                }
            }
            // SAFETY: eight 16-bit floats each.
            let d = _mm256_cvtph_ps(unsafe { _mm_load_si128(group.d.as_ptr().cast()) });
            // SAFETY: as above.
            let m = _mm256_cvtph_ps(unsafe { _mm_load_si128(group.m.as_ptr().cast()) });
            for row in 0..R {
                let [low, high] = dots[row].map(|dot| _mm256_cvtepi32_ps(i16_to_i32(dot)));
                let dot = _mm256_mul_ps(low, _mm256_set1_ps(x[row].d[0]));
                let dot = _mm256_fmadd_ps(high, _mm256_set1_ps(x[row].d[1]), dot);
                sums[row] = _mm256_fmadd_ps(dot, d, sums[row]);
                sums[row] = _mm256_fmadd_ps(m, _mm256_set1_ps(x[row].s), sums[row]);
            }
        }
        for (sum, out) in sums.into_iter().zip(out) {
            // SAFETY: eight floats of 32.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
}

/// The same operations on every lane as with AVX2, so the same bits.
#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::*;

    use super::{Ahead, Block, Group, HALF, ROWS, Sums, WIDE};
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
        let nibble = _mm512_set1_epi8(15);
        let mut sums = [[_mm512_setzero_ps(); REGISTERS]; R];
        for (at, group) in groups.iter().enumerate() {
            ahead.ask(at);
            // SAFETY: every row has as many blocks as there are groups.
            let x: [&Block; R] = std::array::from_fn(|row| unsafe { rows[row].get_unchecked(at) });
            let mut dots = [[[_mm512_setzero_si512(); 2]; REGISTERS]; R];
            for vector in 0..4 {
                let bytes = load_wide(&group.q[vector]);
                let low = bytes.map(|bytes| _mm512_and_si512(bytes, nibble));
                let high = bytes.map(|bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble));
                for row in 0..R {
                    let x = [four_wide(x[row], 4 * vector), four_wide(x[row], HALF + 4 * vector)];
                    for (at, dots) in dots[row].iter_mut().enumerate() {
                        dots[0] = _mm512_dpbusd_epi32(dots[0], low[at], x[0]);
                        dots[1] = _mm512_dpbusd_epi32(dots[1], high[at], x[1]);
                    }
                }
            }
            let [d, m] = [floats_wide(&group.d), floats_wide(&group.m)];
            for row in 0..R {
                let [d0, d1, s] = [x[row].d[0], x[row].d[1], x[row].s].map(|x| _mm512_set1_ps(x));
                for at in 0..REGISTERS {
                    let [low, high] = dots[row][at].map(|dot| _mm512_cvtepi32_ps(dot));
                    let dot = _mm512_fmadd_ps(high, d1, _mm512_mul_ps(low, d0));
                    sums[row][at] = _mm512_fmadd_ps(dot, d[at], sums[row][at]);
                    sums[row][at] = _mm512_fmadd_ps(m[at], s, sums[row][at]);
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
    use crate::{
        activations::BLOCK,
        packed::paths::{agree, outputs},
    };

    proptest! {
        #[test]
        fn the_paths_agree(features in 1usize..=WIDE, blocks in 1usize..8, seed in any::<u64>()) {
            agree([wide, portable], [narrow, portable], features, blocks, seed)?;
        }
    }

    #[test]
    fn the_extreme_block_does_not_overflow() {
        let mut block = [f16::ONE.to_le_bytes(), f16::from_f32(-3.0).to_le_bytes()].concat();
        block.extend([0xff; 16]);
        let file = block.repeat(WIDE);
        for sign in [1i8, -1] {
            let x = [Block::new([1.0; 2], [127 * sign; BLOCK])];
            let expected = f32::from(sign) * 32.0 * 127.0 * (15.0 - 3.0);
            for out in outputs([wide, portable], [narrow, portable], &file, &[&x]) {
                assert_eq!(out, [[expected; WIDE]]);
            }
        }
    }
}
