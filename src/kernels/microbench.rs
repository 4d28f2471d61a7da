//! Microbenchmarks: loops that keep one unit of the machine busy. The stages of a step are compared with what they
//! reach.
//!
//! Each returns a result that depends on all of its work, so that the compiler cannot leave any of it out and tests can
//! compare it with the portable twin.

use super::cpu::{by_avx512, by_cpu};

/// Words in a row that [`gather`] reads: 128 bytes, an f16 row of a head of 64 values.
pub const ROW_WORDS: usize = 16;
/// Multiplications and additions of one round of [`fma`].
pub const FMA_FLOP: usize = 2 * CHAINS * FMA_LANES;
/// Rows of activations that [`dots`] multiplies each vector of weights with, as the linear kernels do.
pub const DOT_ROWS: usize = 4;
/// Weights in a vector of [`dots`]: four of each feature.
pub const DOT_WEIGHTS: usize = 4 * LANES;

/// Independent chains of [`fma`]: more than the latency of an instruction times those that start in a cycle.
const CHAINS: usize = 12;
/// Numbers of a chain: a register of AVX-512, two of AVX2.
const FMA_LANES: usize = 16;
/// Features of [`dots`], as many as the widest linear kernels take together.
const LANES: usize = 32;
/// Vectors of [`dots`] that are summed in 16 bits: 8 pairs of 15·127 fit.
const NARROW: usize = 8;

/// The wrapping sum of all words: memory is read from front to back.
pub fn read(data: &[u64]) -> u64 {
    by_cpu!(avx2::read(data), read_portable(data))
}

/// The wrapping sum of `rows` rows of [`ROW_WORDS`] words at places that follow from `seed`. A place does not depend
/// on what was read at the one before, as with the rows that a query head has chosen.
///
/// # Panics
/// When there is no whole row.
pub fn gather(data: &[u64], rows: usize, seed: u64) -> u64 {
    let (all, _) = data.as_chunks::<ROW_WORDS>();
    assert!(!all.is_empty() && all.len() <= 1 << 32, "rows to gather");
    by_cpu!(avx2::gather(all, rows, seed), gather_body(all, rows, seed))
}

/// `rounds` rounds of `x = x·factor + addend` on 192 numbers that stay in registers; their sum. With a factor of a half
/// products are exact, and the twins agree to the bit.
pub fn fma(rounds: usize, factor: f32, addend: f32) -> f32 {
    by_avx512!(
        avx512::fma(rounds, factor, addend),
        by_cpu!(avx2::fma(rounds, factor, addend), fma_portable(rounds, factor, addend))
    )
}

/// Products of 4-bit weights, `[vectors][32 features][4 inputs]`, with 8-bit activations, `[DOT_ROWS][4·vectors]`, by
/// the instructions of the linear kernels, without their scales: the sum for every row and feature.
///
/// # Panics
/// When the lengths do not fit.
pub fn dots(weights: &[[u8; DOT_WEIGHTS]], x: [&[[i8; 4]]; DOT_ROWS]) -> [[i32; LANES]; DOT_ROWS] {
    assert!(x.iter().all(|x| x.len() == weights.len()), "activations for every vector of weights");
    by_avx512!(avx512::dots(weights, x), by_cpu!(avx2::dots(weights, x), dots_portable(weights, x)))
}

fn read_portable(data: &[u64]) -> u64 {
    data.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Written once and compiled twice: with and without AVX2.
#[inline(always)]
fn gather_body(all: &[[u64; ROW_WORDS]], rows: usize, seed: u64) -> u64 {
    let mut sums = [0u64; 4];
    let mut state = seed;
    for _ in 0..rows {
        // Knuth's MMIX generator; its upper bits scaled to the number of rows.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let row = &all[(((state >> 32) * all.len() as u64) >> 32) as usize];
        for (at, word) in row.iter().enumerate() {
            sums[at % 4] = sums[at % 4].wrapping_add(*word);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Where chain `chain` and lane `lane` start.
fn start(chain: usize, lane: usize) -> f32 {
    (chain * FMA_LANES + lane) as f32
}

fn fma_portable(rounds: usize, factor: f32, addend: f32) -> f32 {
    let mut chains: [[f32; FMA_LANES]; CHAINS] =
        std::array::from_fn(|chain| std::array::from_fn(|lane| start(chain, lane)));
    for _ in 0..rounds {
        for x in chains.as_flattened_mut() {
            *x = *x * factor + addend;
        }
    }
    total(&chains)
}

fn total(chains: &[[f32; FMA_LANES]; CHAINS]) -> f32 {
    chains.as_flattened().iter().sum()
}

fn dots_portable(weights: &[[u8; DOT_WEIGHTS]], x: [&[[i8; 4]]; DOT_ROWS]) -> [[i32; LANES]; DOT_ROWS] {
    x.map(|x| {
        let mut sums = [0i32; LANES];
        for (weights, x) in weights.iter().zip(x) {
            for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
                *sum += weights.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum::<i32>();
            }
        }
        sums
    })
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{
        CHAINS, DOT_ROWS, DOT_WEIGHTS, FMA_LANES, LANES, NARROW, ROW_WORDS, gather_body, read_portable, start, total,
    };

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn read(data: &[u64]) -> u64 {
        const VECTORS: usize = 8;
        let (chunks, rest) = data.as_chunks::<{ 4 * VECTORS }>();
        let mut sums = [_mm256_setzero_si256(); VECTORS];
        for chunk in chunks {
            for (at, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a chunk is eight vectors of four words.
                let words = unsafe { _mm256_loadu_si256(chunk.as_ptr().wrapping_add(4 * at).cast()) };
                *sum = _mm256_add_epi64(*sum, words);
            }
        }
        let mut words = [0u64; 4 * VECTORS];
        for (words, sum) in words.chunks_exact_mut(4).zip(sums) {
            // SAFETY: four words.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), sum) };
        }
        read_portable(&words).wrapping_add(read_portable(rest))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn gather(all: &[[u64; ROW_WORDS]], rows: usize, seed: u64) -> u64 {
        gather_body(all, rows, seed)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn fma(rounds: usize, factor: f32, addend: f32) -> f32 {
        let (factor, addend) = (_mm256_set1_ps(factor), _mm256_set1_ps(addend));
        let lane = _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0);
        let mut out = [[0f32; FMA_LANES]; CHAINS];
        for first in (0..FMA_LANES).step_by(8) {
            let mut chains = [_mm256_setzero_ps(); CHAINS];
            for (chain, x) in chains.iter_mut().enumerate() {
                *x = _mm256_add_ps(_mm256_set1_ps(start(chain, first)), lane);
            }
            for _ in 0..rounds {
                for x in &mut chains {
                    *x = _mm256_fmadd_ps(*x, factor, addend);
                }
            }
            for (out, x) in out.iter_mut().zip(chains) {
                // SAFETY: eight floats of sixteen, from 0 or 8 on.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().wrapping_add(first), x) };
            }
        }
        total(&out)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dots(weights: &[[u8; DOT_WEIGHTS]], x: [&[[i8; 4]]; DOT_ROWS]) -> [[i32; LANES]; DOT_ROWS] {
        let ones = _mm256_set1_epi16(1);
        let mut out = [[0i32; LANES]; DOT_ROWS];
        for lane in (0..LANES).step_by(8) {
            let mut sums = [_mm256_setzero_si256(); DOT_ROWS];
            for first in (0..weights.len()).step_by(NARROW) {
                let mut narrow = [_mm256_setzero_si256(); DOT_ROWS];
                for at in first..(first + NARROW).min(weights.len()) {
                    // SAFETY: 32 bytes, four of each of eight features that begin with `lane`, 24 at most.
                    let weights = unsafe { _mm256_loadu_si256(weights[at].as_ptr().wrapping_add(4 * lane).cast()) };
                    for row in 0..DOT_ROWS {
                        let four = _mm256_set1_epi32(i32::from_le_bytes(x[row][at].map(i8::cast_unsigned)));
                        narrow[row] = _mm256_add_epi16(narrow[row], _mm256_maddubs_epi16(weights, four));
                    }
                }
                for row in 0..DOT_ROWS {
                    sums[row] = _mm256_add_epi32(sums[row], _mm256_madd_epi16(narrow[row], ones));
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                // SAFETY: eight integers of 32, from `lane` on, which is 24 at most.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().wrapping_add(lane).cast(), sum) };
            }
        }
        out
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{CHAINS, DOT_ROWS, DOT_WEIGHTS, FMA_LANES, LANES, start, total};

    #[target_feature(enable = "avx512f")]
    pub(super) fn fma(rounds: usize, factor: f32, addend: f32) -> f32 {
        let (factor, addend) = (_mm512_set1_ps(factor), _mm512_set1_ps(addend));
        let mut out: [[f32; FMA_LANES]; CHAINS] =
            std::array::from_fn(|chain| std::array::from_fn(|lane| start(chain, lane)));
        let mut chains = [_mm512_setzero_ps(); CHAINS];
        for (x, start) in chains.iter_mut().zip(&out) {
            // SAFETY: sixteen floats.
            *x = unsafe { _mm512_loadu_ps(start.as_ptr()) };
        }
        for _ in 0..rounds {
            for x in &mut chains {
                *x = _mm512_fmadd_ps(*x, factor, addend);
            }
        }
        for (out, x) in out.iter_mut().zip(chains) {
            // SAFETY: sixteen floats.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) };
        }
        total(&out)
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn dots(weights: &[[u8; DOT_WEIGHTS]], x: [&[[i8; 4]]; DOT_ROWS]) -> [[i32; LANES]; DOT_ROWS] {
        const REGISTERS: usize = LANES / 16;
        let mut sums = [[_mm512_setzero_si512(); REGISTERS]; DOT_ROWS];
        for (at, weights) in weights.iter().enumerate() {
            let (registers, _) = weights.as_chunks::<64>();
            // SAFETY: a chunk is 64 bytes; the load asks for no alignment.
            let load = |at: usize| unsafe { _mm512_loadu_si512(registers[at].as_ptr().cast()) };
            let weights: [__m512i; REGISTERS] = [load(0), load(1)];
            for row in 0..DOT_ROWS {
                // SAFETY: `dots` has checked that every row is as long as the weights.
                let four = unsafe { x[row].get_unchecked(at) };
                let four = _mm512_set1_epi32(i32::from_le_bytes(four.map(i8::cast_unsigned)));
                for (sum, weights) in sums[row].iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, weights, four);
                }
            }
        }
        let mut out = [[0i32; LANES]; DOT_ROWS];
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sum) in out.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
                // SAFETY: sixteen integers.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_is_a_sum(data in prop::collection::vec(any::<u64>(), 0..300)) {
            prop_assert_eq!(read(&data), read_portable(&data));
        }

        #[test]
        fn products_are_those_of_integers(
            weights in prop::collection::vec(prop::array::uniform32(prop::array::uniform4(0u8..16)), 0..40),
            seed in any::<i8>(),
        ) {
            let weights: Vec<[u8; DOT_WEIGHTS]> =
                weights.iter().map(|vector| std::array::from_fn(|at| vector[at / 4][at % 4])).collect();
            let x: Vec<Vec<[i8; 4]>> = (0..DOT_ROWS)
                .map(|row| (0..weights.len()).map(|at| [seed, -127, 127, (row * 31 + at) as i8]).collect())
                .collect();
            let x = [&x[0][..], &x[1][..], &x[2][..], &x[3][..]];
            let fast = dots(&weights, x);
            let plain = dots_portable(&weights, x);
            prop_assert_eq!(fast, plain);
            let narrow = by_cpu!(avx2::dots(&weights, x), plain);
            prop_assert_eq!(narrow, plain);
            let plain: i32 = (0..weights.len())
                .flat_map(|at| (0..4).map(move |input| (at, input)))
                .map(|(at, input)| i32::from(weights[at][21 * 4 + input]) * i32::from(x[2][at][input]))
                .sum();
            prop_assert_eq!(fast[2][21], plain);
        }
    }

    #[test]
    fn the_largest_products_do_not_overflow() {
        let (weights, x) = ([[15; DOT_WEIGHTS]; 24], [[127; 4]; 24]);
        assert_eq!(dots(&weights, [&x; DOT_ROWS]), [[24 * 4 * 15 * 127; LANES]; DOT_ROWS]);
    }

    #[test]
    fn gathered_rows_are_whole_rows_of_the_data() {
        // Every row holds one value: whatever is gathered is a multiple of it, and one row alone is found each time.
        let one = [7u64; ROW_WORDS];
        assert_eq!(gather(&one, 1000, 3), 7000 * ROW_WORDS as u64);
        let data: Vec<u64> = (0..100 * ROW_WORDS as u64).collect();
        let (all, _) = data.as_chunks();
        assert_eq!(gather(&data, 5000, 1), gather_body(all, 5000, 1));
        assert_ne!(gather(&data, 50, 1), gather(&data, 50, 2));
        // Places are spread over the rows: the mean row is near the middle.
        let mean = gather(&data, 20_000, 5) as f64 / (20_000 * ROW_WORDS) as f64;
        assert!((700.0..900.0).contains(&mean), "{mean}");
    }

    #[test]
    fn registers_hold_what_was_computed() {
        for rounds in [0, 1, 2, 30, 1000] {
            let plain = fma_portable(rounds, 0.5, 0.5);
            assert_eq!(fma(rounds, 0.5, 0.5), plain, "{rounds}");
            assert_eq!(by_cpu!(avx2::fma(rounds, 0.5, 0.5), plain), plain, "{rounds}");
        }
        assert_eq!(fma(0, 0.5, 0.5), (0..192).sum::<usize>() as f32);
        // x = x/2 + 1/2 ends at 1.
        assert_eq!(fma(1000, 0.5, 0.5), 192.0);
    }
}
