//! Q8_0 weights: `w = d·q` with 8-bit `q`, in blocks of 32.
//!
//! Eight output features are interleaved, so that one 256-bit load brings 4 weights of each of them. The multiply
//! instruction takes an unsigned and a signed byte, so a weight's sign is moved to the activation; two products of
//! 128·127 fit its 16-bit sums, and no more, so each is widened at once. Same size as in the file: 34 bytes for 32.

use half::f16;

use super::{
    activations::{BLOCK, Block},
    cpu::{by_avx512, by_cpu},
    linear::{LANES, Packed, ROWS},
};

/// Bytes of a block in the file: scale, 32 integers.
const FILE_BLOCK: usize = 34;
/// Vectors of 4 inputs in a block.
const VECTORS: usize = BLOCK / 4;

/// One block of 32 inputs for 8 output features.
#[derive(Clone)]
#[repr(C)]
struct Group {
    d: [f16; LANES],
    /// `[vector][feature][4 integers]`.
    q: [[[i8; 4]; LANES]; VECTORS],
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
        let zero = Group { d: [f16::ZERO; LANES], q: [[[0; 4]; LANES]; VECTORS] };
        let mut groups = vec![zero; out_features.div_ceil(LANES) * blocks];
        for (at, block) in bytes.chunks_exact(FILE_BLOCK).enumerate() {
            let (feature, at) = (at / blocks, at % blocks);
            let (group, lane) = (&mut groups[feature / LANES * blocks + at], feature % LANES);
            group.d[lane] = f16::from_le_bytes([block[0], block[1]]);
            for (vector, four) in group.q.iter_mut().zip(block[2..].chunks_exact(4)) {
                for (to, &from) in vector[lane].iter_mut().zip(four) {
                    *to = from.cast_signed();
                }
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
            let d = group.d[lane].to_f32();
            for (vector, out) in group.q.iter().zip(out.chunks_exact_mut(4)) {
                for (q, out) in vector[lane].iter().zip(out) {
                    *out = d * f32::from(*q);
                }
            }
        }
    }
}

fn dot_portable(groups: &[Group], rows: &[&[Block]], out: &mut [[f32; LANES]; ROWS]) {
    for (row, out) in rows.iter().zip(out) {
        *out = [0.0; LANES];
        for (group, x) in groups.iter().zip(*row) {
            let mut sums = [[0i32; LANES]; 2];
            for (at, (vector, x)) in group.q.iter().zip(x.q.chunks_exact(4)).enumerate() {
                for (sum, q) in sums[at / (VECTORS / 2)].iter_mut().zip(vector) {
                    *sum += q.iter().zip(x).map(|(&q, &x)| i32::from(q) * i32::from(x)).sum::<i32>();
                }
            }
            for lane in 0..LANES {
                let dot = sums[0][lane] as f32 * x.d[0] + sums[1][lane] as f32 * x.d[1];
                out[lane] += dot * group.d[lane].to_f32();
            }
        }
    }
}

/// The vector code, written once. `$add` adds the products of unsigned and signed bytes to a sum of 32-bit integers. The
/// sums are the same whole numbers whatever the instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! vectors {
    ($module:ident, $features:literal, $add:path) => {
        mod $module {
            use std::arch::x86_64::*;

            use super::{Block, Group, LANES, ROWS, VECTORS};
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
                let mut sums = [_mm256_setzero_ps(); R];
                for (at, group) in groups.iter().enumerate() {
                    // SAFETY: every row has as many blocks as there are groups (checked by `Packed::dot`).
                    let x: [&Block; R] = std::array::from_fn(|row| unsafe { rows[row].get_unchecked(at) });
                    let mut dots = [[_mm256_setzero_si256(); 2]; R];
                    for vector in 0..VECTORS {
                        // SAFETY: a vector is 32 bytes; the load asks for no alignment.
                        let weights = unsafe { _mm256_loadu_si256(group.q[vector].as_ptr().cast()) };
                        let magnitude = _mm256_abs_epi8(weights);
                        for row in 0..R {
                            let signed = _mm256_sign_epi8(four(x[row], 4 * vector), weights);
                            let dot = &mut dots[row][vector / (VECTORS / 2)];
                            *dot = $add(*dot, magnitude, signed);
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
                    // SAFETY: eight floats.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vectors!(avx2, "avx2,fma,f16c", crate::kernels::bytes::add_32);
#[cfg(target_arch = "x86_64")]
vectors!(vnni, "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c", crate::kernels::bytes::add_vnni);

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
    fn the_extreme_block_does_not_saturate() {
        for (weight, x) in [(-128i8, 127i8), (-128, -127), (127, 127), (127, -127)] {
            let mut file = Vec::new();
            for _ in 0..LANES {
                file.extend(f16::ONE.to_le_bytes());
                file.extend([weight.cast_unsigned(); 32]);
            }
            let weights = Weights::new(&file, LANES, BLOCK);
            let row = [Block { d: [1.0; 2], s: 0.0, q: [x; BLOCK] }];
            let mut out = [[0.0; LANES]; ROWS];
            for path in PATHS {
                path(weights.group(0), &[&row], &mut out);
                assert_eq!(out[0], [32.0 * f32::from(weight) * f32::from(x); LANES]);
            }
        }
    }
}
