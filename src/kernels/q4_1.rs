//! Q4_1 weights: `w = d·q + m` with 4-bit `q`, in blocks of 32.
//!
//! Eight output features are interleaved, so that one 256-bit load brings 4 bytes, 8 weights, of each of them: in
//! vector `j` of a block the low nibbles are inputs `4j..4j+4`, the high ones `16+4j..16+4j+4`: each kind meets one half
//! of the block of activations. Against these 8-bit integers, broadcast four at a time, products are summed in 16 bits
//! over a half, which cannot overflow (4 pairs of 15·127), then widened and scaled once per half. Same size as in the
//! file: 20 bytes for 32 weights.

use half::f16;

use super::{
    activations::{BLOCK, Block, HALF},
    cpu::{by_avx512, by_cpu},
    linear::{LANES, Packed, ROWS},
};

/// Bytes of a block in the file: scale, minimum, 16 bytes of nibbles.
const FILE_BLOCK: usize = 20;

/// One block of 32 inputs for 8 output features.
#[derive(Clone)]
#[repr(C, align(32))]
struct Group {
    d: [f16; LANES],
    m: [f16; LANES],
    /// `[vector][feature][4 bytes]`.
    q: [[[u8; 4]; LANES]; 4],
}

/// The weights of a layer.
pub(super) struct Weights {
    groups: Vec<Group>,
    blocks: usize,
}

impl Weights {
    /// Repacks the bytes of a GGUF tensor; features beyond the last are zeros.
    pub(super) fn new(bytes: &[u8], out_features: usize, in_features: usize) -> Self {
        let blocks = in_features / BLOCK;
        let zero = Group { d: [f16::ZERO; LANES], m: [f16::ZERO; LANES], q: [[[0; 4]; LANES]; 4] };
        let mut groups = vec![zero; out_features.div_ceil(LANES) * blocks];
        for (at, block) in bytes.chunks_exact(FILE_BLOCK).enumerate() {
            let (feature, at) = (at / blocks, at % blocks);
            let (group, lane) = (&mut groups[feature / LANES * blocks + at], feature % LANES);
            group.d[lane] = f16::from_le_bytes([block[0], block[1]]);
            group.m[lane] = f16::from_le_bytes([block[2], block[3]]);
            for (vector, nibbles) in group.q.iter_mut().zip(block[4..].chunks_exact(4)) {
                vector[lane].copy_from_slice(nibbles);
            }
        }
        Self { groups, blocks }
    }

    fn group(&self, group: usize) -> &[Group] {
        &self.groups[group * self.blocks..][..self.blocks]
    }
}

impl Packed for Weights {
    fn group_bytes(&self) -> usize {
        self.blocks * size_of::<Group>()
    }

    fn dot(&self, group: usize, rows: &[&[Block]], out: &mut [[f32; LANES]; ROWS]) {
        assert!(rows.iter().all(|row| row.len() == self.blocks));
        let group = self.group(group);
        by_avx512!(vnni::dot(group, rows, out), by_cpu!(avx2::dot(group, rows, out), dot_portable(group, rows, out)));
    }

    fn row(&self, index: usize, out: &mut [f32]) {
        let lane = index % LANES;
        for (group, out) in self.group(index / LANES).iter().zip(out.chunks_exact_mut(BLOCK)) {
            let (d, m) = (group.d[lane].to_f32(), group.m[lane].to_f32());
            for (vector, at) in group.q.iter().zip((0..).step_by(4)) {
                for (byte, at) in vector[lane].iter().zip(at..) {
                    out[at] = d * f32::from(byte & 15) + m;
                    out[at + 16] = d * f32::from(byte >> 4) + m;
                }
            }
        }
    }
}

fn dot_portable(groups: &[Group], rows: &[&[Block]], out: &mut [[f32; LANES]; ROWS]) {
    for (row, out) in rows.iter().zip(out) {
        *out = [0.0; LANES];
        for (group, x) in groups.iter().zip(*row) {
            let mut sums = [[0i32; 2]; LANES];
            for (vector, at) in group.q.iter().zip((0..).step_by(4)) {
                for ([low, high], bytes) in sums.iter_mut().zip(vector) {
                    for (byte, at) in bytes.iter().zip(at..) {
                        *low += i32::from(byte & 15) * i32::from(x.q[at]);
                        *high += i32::from(byte >> 4) * i32::from(x.q[at + HALF]);
                    }
                }
            }
            for lane in 0..LANES {
                let [low, high] = sums[lane].map(|sum| sum as f32);
                let dot = low * x.d[0] + high * x.d[1];
                out[lane] += dot * group.d[lane].to_f32() + group.m[lane].to_f32() * x.s;
            }
        }
    }
}

/// The vector code, written once. `$add` adds the products of unsigned and signed bytes to a sum, `$whole` makes that
/// eight 32-bit integers. The sums are the same whole numbers whatever the instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! vectors {
    ($module:ident, $features:literal, $add:path, $whole:path) => {
        mod $module {
            use std::arch::x86_64::*;

            use super::{Block, Group, HALF, LANES, ROWS};
            use crate::kernels::bytes::four;

            #[target_feature(enable = $features)]
            pub(super) fn dot(groups: &[Group], rows: &[&[Block]], out: &mut [[f32; LANES]; ROWS]) {
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
            #[target_feature(enable = $features)]
            fn dot_rows<const R: usize>(rows: [&[Block]; R], groups: &[Group], out: &mut [[f32; LANES]; ROWS]) {
                let nibble = _mm256_set1_epi8(15);
                let mut sums = [_mm256_setzero_ps(); R];
                for (at, group) in groups.iter().enumerate() {
                    // SAFETY: every row has as many blocks as there are groups (checked by `Packed::dot`).
                    let x: [&Block; R] = std::array::from_fn(|row| unsafe { rows[row].get_unchecked(at) });
                    let mut dots = [[_mm256_setzero_si256(); 2]; R];
                    for vector in 0..4 {
                        // SAFETY: a vector is 32 bytes, and the group and its first 32 bytes keep it aligned.
                        let bytes = unsafe { _mm256_load_si256(group.q[vector].as_ptr().cast()) };
                        let low = _mm256_and_si256(bytes, nibble);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
                        for row in 0..R {
                            dots[row][0] = $add(dots[row][0], low, four(x[row], 4 * vector));
                            dots[row][1] = $add(dots[row][1], high, four(x[row], HALF + 4 * vector));
                        }
                    }
                    // SAFETY: eight 16-bit floats each.
                    let d = _mm256_cvtph_ps(unsafe { _mm_load_si128(group.d.as_ptr().cast()) });
                    // SAFETY: as above.
                    let m = _mm256_cvtph_ps(unsafe { _mm_load_si128(group.m.as_ptr().cast()) });
                    for row in 0..R {
                        let [low, high] = dots[row].map(|dot| _mm256_cvtepi32_ps($whole(dot)));
                        let dot = _mm256_mul_ps(low, _mm256_set1_ps(x[row].d[0]));
                        let dot = _mm256_fmadd_ps(high, _mm256_set1_ps(x[row].d[1]), dot);
                        sums[row] = _mm256_fmadd_ps(dot, d, sums[row]);
                        sums[row] = _mm256_fmadd_ps(m, _mm256_set1_ps(x[row].s), sums[row]);
                    }
                }
                for (sum, out) in sums.into_iter().zip(out) {
                    // SAFETY: eight floats.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vectors!(avx2, "avx2,fma,f16c", crate::kernels::bytes::add_16, crate::kernels::bytes::widen);
#[cfg(target_arch = "x86_64")]
vectors!(
    vnni,
    "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c",
    crate::kernels::bytes::add_vnni,
    std::convert::identity
);

#[cfg(test)]
mod tests {
    use super::*;

    type Path = fn(&[Group], &[&[Block]], &mut [[f32; LANES]; ROWS]);

    /// Every way to multiply, where this CPU has it.
    const PATHS: [Path; 3] = [
        dot_portable,
        |group, rows, out| by_cpu!(avx2::dot(group, rows, out), dot_portable(group, rows, out)),
        |group, rows, out| by_avx512!(vnni::dot(group, rows, out), dot_portable(group, rows, out)),
    ];

    #[test]
    fn the_paths_agree() {
        let blocks = 5;
        let file: Vec<u8> = (0..LANES * blocks)
            .flat_map(|block| {
                let d = f16::from_f32(0.01 + block as f32 * 0.003).to_le_bytes();
                let m = f16::from_f32(-0.1 + block as f32 * 0.002).to_le_bytes();
                let nibbles = (0..16).map(move |at| (block * 37 + at * 89) as u8);
                d.into_iter().chain(m).chain(nibbles).collect::<Vec<_>>()
            })
            .collect();
        let weights = Weights::new(&file, LANES, blocks * BLOCK);
        let x: Vec<Block> = (0..ROWS * blocks)
            .map(|block| Block {
                d: [0.02, 0.03],
                s: block as f32 * 0.7 - 3.0,
                q: std::array::from_fn(|at| ((block * 53 + at * 71) % 255) as u8 as i8),
            })
            .collect();
        for count in 1..=ROWS {
            let rows: Vec<&[Block]> = x.chunks(blocks).take(count).collect();
            let found = PATHS.map(|path| {
                let mut out = [[0.0; LANES]; ROWS];
                path(weights.group(0), &rows, &mut out);
                out
            });
            if crate::kernels::cpu::has_avx512() {
                assert_eq!(found[1], found[2], "whole numbers, summed in one order");
            }
            for (fast, plain) in found[1].iter().flatten().zip(found[0].iter().flatten()) {
                assert!((fast - plain).abs() < 1e-3 * plain.abs().max(1.0), "{fast} {plain}");
            }
        }
    }

    #[test]
    fn the_extreme_block_does_not_overflow() {
        let mut file = Vec::new();
        for _ in 0..LANES {
            file.extend(f16::ONE.to_le_bytes());
            file.extend(f16::from_f32(-3.0).to_le_bytes());
            file.extend([0xff; 16]);
        }
        let weights = Weights::new(&file, LANES, BLOCK);
        for sign in [1i8, -1] {
            let x = [Block { d: [1.0; 2], s: f32::from(sign) * 127.0 * 32.0, q: [127 * sign; BLOCK] }];
            let mut out = [[0.0; LANES]; ROWS];
            for path in PATHS {
                path(weights.group(0), &[&x], &mut out);
                assert_eq!(out[0], [f32::from(sign) * 32.0 * 127.0 * (15.0 - 3.0); LANES]);
            }
        }
    }
}
