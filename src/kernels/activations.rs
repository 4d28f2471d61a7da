//! The input of linear layers: the floats, and the same in blocks of 32 as 8-bit integers.
//!
//! A block is `x ≈ d·q`, each half with a scale `d = max|x| / 127` of its own (GGML's Q8_1 has one for both, and a
//! quarter more rounding noise), plus `s = Σ d·q`, by which weights with a minimum (`w = d·q + m`) multiply that
//! minimum. Each layer's input is quantised once, however many layers read it.

use std::sync::{Mutex, PoisonError};

use super::{Pool, finite};

/// Values per block.
pub const BLOCK: usize = 32;
/// Values that share a scale.
pub(crate) const HALF: usize = BLOCK / 2;

/// 32 activations as 8-bit integers, in a cache line of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Block {
    /// The integers, each within ±127.
    pub q: [i8; BLOCK],
    /// The scales of the halves: `x ≈ d·q`.
    pub d: [f32; 2],
    /// `Σ d·q`.
    pub s: f32,
    /// `-128·Σ q` of the halves: sums of products begin with it where 128 was added to the weights.
    pub offset: [i32; 2],
}

impl Block {
    /// A block of integers and their scales.
    pub fn new(d: [f32; 2], q: [i8; BLOCK]) -> Self {
        let mut block = Self { q, ..Self::default() };
        block.scale(d, [0, HALF].map(|at| q[at..at + HALF].iter().map(|&q| i32::from(q)).sum()));
        block
    }

    /// Takes the scales; `sums` are those of the integers.
    fn scale(&mut self, d: [f32; 2], sums: [i32; 2]) {
        self.d = d;
        self.s = d[0] * sums[0] as f32 + d[1] * sums[1] as f32;
        // An infinity or NaN gives integers that mean nothing, and a scale of 0.
        self.offset = sums.map(|sum| sum.wrapping_mul(-128));
    }
}

/// `[rows, width]` activations in both forms. The buffers are kept from one use to the next.
#[derive(Debug, Default)]
pub struct Activations {
    values: Vec<f32>,
    blocks: Vec<Block>,
    width: usize,
    rows: usize,
    exact: bool,
    /// Rows with a value that is no finite number.
    broken: Vec<usize>,
}

/// With fewer rows a second thread does not pay.
const ROWS_PER_TASK: usize = 8;

impl Activations {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether layers multiply the floats as they are instead of their 8-bit form: slow, and without rounding noise.
    pub fn set_exact(&mut self, exact: bool) {
        self.exact = exact;
    }

    /// See [`Activations::set_exact`].
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// Takes `x`, `[rows, width]`. The 8-bit form is made where `width` is a multiple of 32.
    ///
    /// # Panics
    /// When `width` is 0 or does not divide the length of `x`.
    pub fn fill(&mut self, pool: &Pool, x: &[f32], width: usize) {
        assert!(width > 0 && x.len().is_multiple_of(width), "{} values are not rows of {width}", x.len());
        (self.rows, self.width) = (x.len() / width, width);
        self.values.clear();
        self.values.extend_from_slice(x);
        let blocks = if width.is_multiple_of(BLOCK) && !self.exact { x.len() / BLOCK } else { 0 };
        self.blocks.resize(blocks, Block::default());
        let chunk = ROWS_PER_TASK * width / BLOCK;
        let values = &self.values;
        self.broken.clear();
        let broken = Mutex::new(&mut self.broken);
        // The scales need the largest magnitude anyway; it says whether the rows of a task have to be searched.
        let look = |largest: u32, values: &[f32], first: usize| {
            if largest >= finite::INFINITE {
                let rows = values.chunks_exact(width).zip(first..);
                let rows = rows.filter(|(row, _)| finite::largest(row) >= finite::INFINITE).map(|(_, index)| index);
                broken.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
            }
        };
        if blocks == 0 {
            look(finite::largest(values), values, 0);
        }
        pool.run_chunks(&mut self.blocks, chunk.max(1), |index, blocks| {
            let values = &values[index * chunk * BLOCK..][..blocks.len() * BLOCK];
            look(quantise(values, blocks), values, index * ROWS_PER_TASK);
        });
        self.broken.sort_unstable();
    }

    /// The rows of `x` with an infinity or NaN among their values, ascending. Their 8-bit form does not show it.
    pub fn broken_rows(&self) -> &[usize] {
        &self.broken
    }

    /// Makes room for `rows` rows of up to `width` values.
    pub fn reserve(&mut self, rows: usize, width: usize) {
        self.values.reserve_exact(rows * width);
        self.blocks.reserve_exact(rows * width / BLOCK);
    }

    /// Bytes of its buffers.
    pub fn bytes(&self) -> u64 {
        (size_of::<f32>() * self.values.capacity() + size_of::<Block>() * self.blocks.capacity()) as u64
    }

    /// What [`Activations::bytes`] is where so much was reserved.
    pub fn bytes_for(rows: usize, width: usize) -> u64 {
        (size_of::<f32>() * rows * width + size_of::<Block>() * (rows * width / BLOCK)) as u64
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values as they came, `[rows, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One row in blocks, `[width / 32]`; empty where `width` is no multiple of 32 or the activations are exact.
    pub fn blocks(&self, row: usize) -> &[Block] {
        if self.blocks.is_empty() {
            return &[];
        }
        let per_row = self.width / BLOCK;
        &self.blocks[row * per_row..][..per_row]
    }
}

/// Quantises `x` into `blocks`; returns the bits of the largest magnitude. A half with an infinity or NaN gets the
/// scale 0.
fn quantise(x: &[f32], blocks: &mut [Block]) -> u32 {
    assert_eq!(x.len(), blocks.len() * BLOCK);
    super::cpu::by_cpu!(avx2::quantise(x, blocks), quantise_portable(x, blocks))
}

/// The scale of a half and its inverse, from the bits of its largest magnitude. One too small for a normal scale, or
/// with what is no number, is all zeros.
fn scales(max: u32) -> (f32, f32) {
    let d = f32::from_bits(max) / 127.0;
    if d.is_normal() { (d, 1.0 / d) } else { (0.0, 0.0) }
}

fn quantise_portable(x: &[f32], blocks: &mut [Block]) -> u32 {
    let mut largest = 0;
    for (x, block) in x.chunks_exact(BLOCK).zip(blocks) {
        let (mut d, mut q) = ([0.0; 2], [0; BLOCK]);
        for (half, x) in x.chunks_exact(HALF).enumerate() {
            let max = x.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0);
            largest = largest.max(max);
            let (scale, inverse) = scales(max);
            for (q, x) in q[half * HALF..].iter_mut().zip(x) {
                *q = (x * inverse).round_ties_even() as i8;
            }
            d[half] = scale;
        }
        *block = Block::new(d, q);
    }
    largest
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Block, scales};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn quantise(x: &[f32], blocks: &mut [Block]) -> u32 {
        let sign = _mm256_set1_ps(-0.0);
        let mut most = 0;
        for (x, block) in x.chunks_exact(BLOCK).zip(blocks) {
            // SAFETY: a chunk holds 32 floats, four vectors of eight.
            let x: [__m256; 4] = std::array::from_fn(|at| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * at)) });
            let abs = x.map(|x| _mm256_castps_si256(_mm256_andnot_ps(sign, x)));
            let maxima = [0, 2].map(|at| largest(_mm256_max_epi32(abs[at], abs[at + 1])));
            most = most.max(maxima[0]).max(maxima[1]);
            let halves = maxima.map(scales);
            let q: [__m256i; 4] =
                std::array::from_fn(|at| _mm256_cvtps_epi32(_mm256_mul_ps(x[at], _mm256_set1_ps(halves[at / 2].1))));
            let sums = [0, 2].map(|at| total(_mm256_add_epi32(q[at], q[at + 1])));
            // Packing works on each half of a register by itself; the permutation puts the fours back in order.
            let packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
            let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            // SAFETY: `q` is 32 bytes long.
            unsafe { _mm256_storeu_si256(block.q.as_mut_ptr().cast(), packed) };
            block.scale(halves.map(|(d, _)| d), sums);
        }
        most
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn largest(values: __m256i) -> u32 {
        let max4 = _mm_max_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
        let max2 = _mm_max_epi32(max4, _mm_shuffle_epi32::<0b01_00_11_10>(max4));
        _mm_cvtsi128_si32(_mm_max_epi32(max2, _mm_shuffle_epi32::<0b10_11_00_01>(max2))).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn total(values: __m256i) -> i32 {
        let sum4 = _mm_add_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
        let sum2 = _mm_add_epi32(sum4, _mm_shuffle_epi32::<0b01_00_11_10>(sum4));
        _mm_cvtsi128_si32(_mm_add_epi32(sum2, _mm_shuffle_epi32::<0b10_11_00_01>(sum2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize) -> Vec<f32> {
        (0..len).map(|at| (at as f32 * 0.37).sin() * (1.0 + at as f32)).collect()
    }

    #[test]
    fn the_twins_agree_bit_for_bit() {
        let mut x = wave(BLOCK * 9);
        x[..BLOCK].fill(0.0);
        x[BLOCK..2 * BLOCK].fill(1e-41);
        x[2 * BLOCK] = -1e30;
        let (mut fast, mut plain) = (vec![Block::default(); 9], vec![Block::default(); 9]);
        assert_eq!(quantise(&x, &mut fast), quantise_portable(&x, &mut plain));
        assert_eq!(fast, plain);
        for (x, block) in x.chunks_exact(BLOCK).zip(&plain) {
            for (at, (x, &q)) in x.iter().zip(&block.q).enumerate() {
                let d = block.d[at / HALF];
                let back = d * f32::from(q);
                assert!((x - back).abs() <= d * 0.5001 + 1e-38, "{x} came back as {back}");
            }
        }
    }

    #[test]
    fn rows_with_what_is_no_number_are_named_in_every_form() {
        let pool = Pool::new(2);
        for (exact, width) in [(false, 64), (true, 64), (false, 33)] {
            for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut activations = Activations::new();
                activations.set_exact(exact);
                let mut x = wave(20 * width);
                x[3 * width] = f32::MAX;
                activations.fill(&pool, &x, width);
                assert_eq!(activations.broken_rows(), [0; 0]);
                for row in [19, 7, 2] {
                    x[row * width + row] = value;
                }
                activations.fill(&pool, &x, width);
                assert_eq!(activations.broken_rows(), [2, 7, 19], "{exact} {width} {value}");
                let (mut fast, mut plain) = (vec![Block::default(); 2], vec![Block::default(); 2]);
                if width == 64 {
                    let x = &x[7 * width..][..width];
                    assert_eq!(quantise(x, &mut fast), quantise_portable(x, &mut plain));
                    assert_eq!(fast[0].d[0], 0.0);
                    assert_eq!((fast[0].d, fast[0].s, fast[1]), (plain[0].d, plain[0].s, plain[1]));
                }
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_neighbours() {
        let pool = Pool::new(2);
        let x = wave(20 * 64);
        let (mut all, mut one) = (Activations::new(), Activations::new());
        all.fill(&pool, &x, 64);
        for row in 0..20 {
            one.fill(&pool, &x[row * 64..][..64], 64);
            assert_eq!(one.blocks(0), all.blocks(row));
        }
        all.fill(&pool, &x[..30], 15);
        assert_eq!((all.rows(), all.width(), all.blocks(1).len()), (2, 15, 0));
        assert_eq!(all.values(), &x[..30]);
    }
}
