//! Products of bytes for the linear layers: unsigned weights by signed activations, four to a 32-bit lane.
//!
//! AVX2 multiplies bytes and adds pairs of products to sums of 16 bits; the caller turns those into sums of 32 bits
//! before they overflow. AVX-512 VNNI adds four products to a sum of 32 bits in one instruction, so for it there are
//! only loads.

use std::arch::x86_64::*;

use half::f16;

use super::{activations::Block, packed::WIDE};

/// Activations `at..at + 4` of a block, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn four(x: &Block, at: usize) -> __m256i {
    debug_assert!(at <= 28 && at.is_multiple_of(4));
    // SAFETY: `at` is 28 at most, and the 32 integers start at a multiple of 4 within a block aligned to 4.
    _mm256_set1_epi32(unsafe { *x.q.as_ptr().wrapping_add(at).cast::<i32>() })
}

/// Adds pairs of products to sums of 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_16(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_add_epi16(sum, _mm256_maddubs_epi16(unsigned, signed))
}

/// Adds up neighbouring sums of [`add_16`], as 32-bit integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn i16_to_i32(sum: __m256i) -> __m256i {
    _mm256_madd_epi16(sum, _mm256_set1_epi16(1))
}

/// Adds four products to each sum of 32 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_32(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_add_epi32(sum, i16_to_i32(_mm256_maddubs_epi16(unsigned, signed)))
}

/// Registers of 512 bits that hold a 32-bit value of every output feature of a wide group.
pub(super) const REGISTERS: usize = WIDE / 16;

/// Activations `at..at + 4` of a block, in every lane of 512 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn four_wide(x: &Block, at: usize) -> __m512i {
    debug_assert!(at <= 28 && at.is_multiple_of(4));
    // SAFETY: `at` is 28 at most, and the 32 integers start at a multiple of 4 within a block aligned to 4.
    _mm512_set1_epi32(unsafe { *x.q.as_ptr().wrapping_add(at).cast::<i32>() })
}

/// Four bytes of every feature.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_wide(bytes: &[[u8; 4]; WIDE]) -> [__m512i; REGISTERS] {
    let (registers, _) = bytes.as_chunks::<16>();
    // SAFETY: a chunk is 64 bytes; the load asks for no alignment.
    std::array::from_fn(|at| unsafe { _mm512_loadu_si512(registers[at].as_ptr().cast()) })
}

/// A float of every feature.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn floats_wide(values: &[f16; WIDE]) -> [__m512; REGISTERS] {
    let (registers, _) = values.as_chunks::<16>();
    // SAFETY: a chunk is 32 bytes; the load asks for no alignment.
    std::array::from_fn(|at| _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(registers[at].as_ptr().cast()) }))
}

/// Writes a float of every feature.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn store_wide(sums: [__m512; REGISTERS], out: &mut [f32; WIDE]) {
    let (registers, _) = out.as_chunks_mut::<16>();
    for (out, sum) in registers.iter_mut().zip(sums) {
        // SAFETY: 16 floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
    }
}
