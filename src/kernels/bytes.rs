//! Products of bytes for the linear layers: unsigned weights by signed activations, four to a 32-bit lane.
//!
//! AVX2 multiplies and adds pairs to 16 bits, which a caller has to widen before they overflow; AVX-512 VNNI adds all four
//! to the sum of 32 bits in one instruction.

use std::arch::x86_64::*;

use super::activations::Block;

/// Activations `at..at + 4` of a block, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn four(x: &Block, at: usize) -> __m256i {
    debug_assert!(at <= 28 && at.is_multiple_of(4));
    // SAFETY: `at` is 28 at most, and the 32 integers start at a multiple of 4 within a block aligned to 4.
    _mm256_set1_epi32(unsafe { *x.q.as_ptr().wrapping_add(at).cast::<i32>() })
}

/// Adds pairs to sums of 16 bits: [`widen`] makes them whole.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_16(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_add_epi16(sum, _mm256_maddubs_epi16(unsigned, signed))
}

/// The sums of [`add_16`] as 32-bit integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn widen(sum: __m256i) -> __m256i {
    _mm256_madd_epi16(sum, _mm256_set1_epi16(1))
}

/// Adds fours to sums of 32 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_32(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_add_epi32(sum, widen(_mm256_maddubs_epi16(unsigned, signed)))
}

/// The same in one instruction.
#[inline]
#[target_feature(enable = "avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn add_vnni(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(sum, unsigned, signed)
}
