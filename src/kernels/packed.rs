//! Weights as the kernels read them: output features interleaved, block by block, so that one load brings the same
//! inputs of many features.
//!
//! How many features make a group is decided once, when weights are packed. With AVX-512 it is 32, two registers, so
//! that a row's activations are fetched once for both; elsewhere it is 8, one register of AVX2. Both are computed with
//! up to 4 rows at a time.

use super::{
    activations::{BLOCK, Block},
    cpu::has_avx512,
};

/// Output features of a group for AVX2 and for the portable twins.
pub(super) const NARROW: usize = 8;
/// Output features of a group for AVX-512: the most there are.
pub(super) const WIDE: usize = 32;
/// Rows that a kernel takes at most.
pub(super) const ROWS: usize = 4;

/// Bytes that memory hands out at once.
const LINE: usize = 64;

/// What a kernel computes: the outputs of a group for every row; lanes beyond the group's are left alone.
pub(super) type Sums = [[f32; WIDE]; ROWS];

/// One block of 32 inputs for [`Group::LANES`] output features.
pub(super) trait Group: Clone + Send + Sync {
    /// Output features.
    const LANES: usize;
    /// Bytes of one feature's block in a file.
    const FILE_BLOCK: usize;
    /// All weights 0.
    const ZERO: Self;
    /// Takes one feature's block from a file.
    fn set(&mut self, lane: usize, block: &[u8]);
    /// The weights of one feature, 32 of them.
    fn get(&self, lane: usize, out: &mut [f32]);
}

/// Products of one group of features with 1 to [`ROWS`] rows; every row has a block for every block of the weights.
pub(super) type Dot<G> = fn(&[G], &[&[Block]], Ahead, &mut Sums);

/// Bytes by which weights are asked for ahead where a group is gone through once.
const AHEAD: usize = 8 << 10;

/// What a kernel asks memory for while it computes, evenly over its blocks.
///
/// Prefetching hardware stops at the end of a page, and would leave memory idle while weights that the first-level
/// cache holds are multiplied with further rows.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    start: *const i8,
    /// Cache lines for every block, in 65536ths.
    pace: usize,
}

impl Ahead {
    /// Call `part` of `parts` on `group`. A single one asks for what comes [`AHEAD`] bytes later, one of several for
    /// its part of `next`, the group after this one.
    fn new<G>(group: &[G], next: &[G], [part, parts]: [usize; 2]) -> Self {
        let (start, bytes) = if parts == 1 {
            (group.as_ptr().cast::<i8>().wrapping_add(AHEAD), size_of_val(group))
        } else {
            let part = &next[next.len() * part / parts..next.len() * (part + 1) / parts];
            (part.as_ptr().cast(), size_of_val(part))
        };
        Self { start, pace: (bytes.div_ceil(LINE) << 16) / group.len() }
    }

    /// Asks for what goes with block `at`.
    #[inline(always)]
    pub(super) fn ask(self, at: usize) {
        for line in (at * self.pace) >> 16..((at + 1) * self.pace) >> 16 {
            let line = self.start.wrapping_add(LINE * line);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: SSE is part of x86-64, and a prefetch of any address changes nothing that a program could see.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line);
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = line;
        }
    }
}

/// The weights of a layer.
pub(super) struct Weights<G> {
    groups: Vec<G>,
    blocks: usize,
    dot: Dot<G>,
}

impl<G: Group> Weights<G> {
    /// Repacks the bytes of a GGUF tensor; features beyond the last are zeros.
    pub(super) fn new(bytes: &[u8], out_features: usize, in_features: usize, dot: Dot<G>) -> Self {
        let blocks = in_features / BLOCK;
        let mut groups = vec![G::ZERO; out_features.div_ceil(G::LANES) * blocks];
        for (at, block) in bytes.chunks_exact(G::FILE_BLOCK).enumerate() {
            let (feature, at) = (at / blocks, at % blocks);
            groups[feature / G::LANES * blocks + at].set(feature % G::LANES, block);
        }
        Self { groups, blocks, dot }
    }

    fn group(&self, group: usize) -> &[G] {
        &self.groups[group * self.blocks..][..self.blocks]
    }
}

/// [`Weights`] of any type.
pub(super) trait Packed: Send + Sync {
    /// Output features of a group.
    fn lanes(&self) -> usize;
    /// Bytes of a group.
    fn group_bytes(&self) -> usize;
    /// Outputs `lanes·group..lanes·(group + 1)` for 1 to [`ROWS`] rows of blocks, and asks memory for what comes
    /// next. `part_of` is which call on this group it is, of how many.
    fn dot(&self, group: usize, rows: &[&[Block]], part_of: [usize; 2], out: &mut Sums);
    /// The weights of output feature `index`.
    fn row(&self, index: usize, out: &mut [f32]);
}

impl<G: Group> Packed for Weights<G> {
    fn lanes(&self) -> usize {
        G::LANES
    }

    fn group_bytes(&self) -> usize {
        self.blocks * size_of::<G>()
    }

    fn dot(&self, group: usize, rows: &[&[Block]], part_of: [usize; 2], out: &mut Sums) {
        let next = self.groups.get((group + 1) * self.blocks..).unwrap_or_default();
        let (group, next) = (self.group(group), &next[..next.len().min(self.blocks)]);
        (self.dot)(group, rows, Ahead::new(group, next, part_of), out);
    }

    fn row(&self, index: usize, out: &mut [f32]) {
        for (group, out) in self.group(index / G::LANES).iter().zip(out.chunks_exact_mut(BLOCK)) {
            group.get(index % G::LANES, out);
        }
    }
}

/// Packs the bytes of a GGUF tensor as this CPU's kernels read them best.
pub(super) fn pack<W: Group + 'static, N: Group + 'static>(
    bytes: &[u8],
    [out_features, in_features]: [usize; 2],
    wide: Dot<W>,
    narrow: Dot<N>,
) -> Box<dyn Packed> {
    if has_avx512() {
        Box::new(Weights::new(bytes, out_features, in_features, wide))
    } else {
        Box::new(Weights::new(bytes, out_features, in_features, narrow))
    }
}

/// Every way to multiply, for the tests of the types of weights.
#[cfg(test)]
pub(super) mod paths {
    use proptest::prelude::*;

    use super::*;

    /// What every path computes for up to [`WIDE`] features, `[features]` for each row, in the order of the arguments;
    /// the first of each pair is the fast one.
    pub fn outputs<W: Group, N: Group>(
        wide: [Dot<W>; 2],
        narrow: [Dot<N>; 2],
        file: &[u8],
        rows: &[&[Block]],
    ) -> [Vec<[f32; WIDE]>; 4] {
        let blocks = rows[0].len();
        let features = file.len() / W::FILE_BLOCK / blocks;
        let shape = |dot| Weights::new(file, features, blocks * BLOCK, dot);
        let [a, b] = wide.map(|dot| all(&shape(dot), features, rows));
        let shape = |dot| Weights::new(file, features, blocks * BLOCK, dot);
        let [c, d] = narrow.map(|dot| all(&shape(dot), features, rows));
        [a, b, c, d]
    }

    fn all(weights: &dyn Packed, features: usize, rows: &[&[Block]]) -> Vec<[f32; WIDE]> {
        let mut outputs = vec![[0.0; WIDE]; rows.len()];
        for group in 0..features.div_ceil(weights.lanes()) {
            let mut sums = [[f32::NAN; WIDE]; ROWS];
            weights.dot(group, rows, [0, 1], &mut sums);
            for (output, sums) in outputs.iter_mut().zip(sums) {
                output[group * weights.lanes()..][..weights.lanes()].copy_from_slice(&sums[..weights.lanes()]);
            }
        }
        outputs
    }

    /// Random weights and activations: fast paths agree bit for bit, and with the portable ones within rounding.
    pub fn agree<W: Group, N: Group>(
        wide: [Dot<W>; 2],
        narrow: [Dot<N>; 2],
        features: usize,
        blocks: usize,
        seed: u64,
    ) -> Result<(), TestCaseError> {
        let mut state = seed;
        let mut byte = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let mut file: Vec<u8> = (0..features * blocks * W::FILE_BLOCK).map(|_| byte()).collect();
        for block in file.chunks_exact_mut(W::FILE_BLOCK) {
            // The scale's exponent, and the minimum's where there is one, or an integer: ordinary numbers.
            for at in [1, 3] {
                block[at] = block[at] & 0x83 | 0x24;
            }
        }
        let x: Vec<Block> = (0..ROWS * blocks)
            .map(|_| {
                let d = [f32::from(byte()) / 999.0, f32::from(byte()) / 999.0];
                Block::new(d, std::array::from_fn(|_| byte().cast_signed().max(-127)))
            })
            .collect();
        for count in 1..=ROWS {
            let rows: Vec<&[Block]> = x.chunks(blocks).take(count).collect();
            let [fast, portable, narrow, narrow_portable] = outputs(wide, narrow, &file, &rows);
            prop_assert_eq!(&portable, &narrow_portable);
            // Without the instructions one or both of the fast paths are the portable one.
            if has_avx512() {
                prop_assert_eq!(&fast, &narrow);
            }
            for fast in [fast, narrow] {
                for (fast, plain) in fast.as_flattened().iter().zip(portable.as_flattened()) {
                    prop_assert!((fast - plain).abs() < 1e-4 * plain.abs().max(1.0), "{} {}", fast, plain);
                }
            }
        }
        Ok(())
    }
}
