//! The choice in vectors of sixteen.

use std::arch::x86_64::*;

use super::{BLOCK, Cut, Extent, count_portable, extent_body, search_body};
use crate::f32x16::{WIDE, lanes};

#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(crate) fn extent(values: &[f32]) -> Extent {
    extent_body::<WIDE>(values)
}

#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(crate) fn search(values: &[f32], (low, high): (f32, f32), n: usize, spare: usize) -> Cut {
    search_body((values.len(), low, high), n, spare, |least| count(values, least))
}

#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(crate) fn count(values: &[f32], least: f32) -> usize {
    let (chunks, rest) = values.as_chunks::<WIDE>();
    let (threshold, one) = (_mm512_set1_ps(least), _mm512_set1_epi32(1));
    let mut found = _mm512_setzero_si512();
    for chunk in chunks {
        // SAFETY: a chunk is sixteen floats.
        let value = unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
        let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(value, threshold);
        found = _mm512_mask_add_epi32(found, reached, found, one);
    }
    count_portable(rest, least) + _mm512_reduce_add_epi32(found) as usize
}

/// Writes the lanes that `reached` names to the front of `found` and `positions` from `len` on; returns how many.
///
/// # Safety
/// Both have room for sixteen more than `len`.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
unsafe fn compact(
    (value, position): (__m512, __m512i),
    reached: __mmask16,
    len: usize,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) -> usize {
    // In registers first: to compress into memory is slow on some CPUs.
    let (value, position) = (_mm512_maskz_compress_ps(reached, value), _mm512_maskz_compress_epi32(reached, position));
    // SAFETY: there is room for sixteen; the first few of them count.
    unsafe {
        _mm512_storeu_ps(found.as_mut_ptr().wrapping_add(len), value);
        _mm512_storeu_si512(positions.as_mut_ptr().wrapping_add(len).cast(), position);
    }
    reached.count_ones() as usize
}

#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(crate) fn keep(values: &[f32], from: &[u32], least: f32, found: &mut Vec<f32>, positions: &mut Vec<u32>) {
    let least = _mm512_set1_ps(least);
    found.reserve(values.len() + WIDE);
    positions.reserve(values.len() + WIDE);
    let mut len = found.len();
    assert_eq!(len, positions.len());
    for (chunk, from) in values.chunks(WIDE).zip(from.chunks(WIDE)) {
        let lanes = lanes(chunk.len().min(from.len()));
        // SAFETY: the lanes are those of both chunks; `len` grows by at most as many as a chunk has, and there is room
        // for a vector more than all of them.
        unsafe {
            let value = _mm512_maskz_loadu_ps(lanes, chunk.as_ptr());
            let position = _mm512_maskz_loadu_epi32(lanes, from.as_ptr().cast());
            let reached = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(lanes, value, least);
            len += compact((value, position), reached, len, found, positions);
        }
    }
    // SAFETY: everything below `len` was written, and there was room for it.
    unsafe {
        found.set_len(len);
        positions.set_len(len);
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx2,fma,f16c,popcnt")]
pub(crate) fn at_least<'a>(
    maxima: &[f32],
    block: impl Fn(usize) -> &'a [f32],
    threshold: f32,
    blocks: &mut Vec<u32>,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    let least = _mm512_set1_ps(threshold);
    let steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    // First the blocks, without a branch on any: so several are on their way at once.
    blocks.clear();
    blocks.reserve(maxima.len() + WIDE);
    let (mut reached, mut index) = (0, steps);
    for chunk in maxima.chunks(WIDE) {
        let lanes = lanes(chunk.len());
        // SAFETY: the lanes are those of the chunk; `reached` grows by at most as many, and there is room for a vector
        // more than all maxima.
        unsafe {
            let max = _mm512_maskz_loadu_ps(lanes, chunk.as_ptr());
            let here = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(lanes, max, least);
            let to = blocks.as_mut_ptr().wrapping_add(reached).cast();
            _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(here, index));
            reached += here.count_ones() as usize;
        }
        index = _mm512_add_epi32(index, _mm512_set1_epi32(WIDE as i32));
    }
    // SAFETY: everything below `reached` was written, and there was room for it.
    unsafe { blocks.set_len(reached) };
    // Then two blocks side by side.
    found.reserve((reached + 2) * BLOCK);
    positions.reserve((reached + 2) * BLOCK);
    let mut len = found.len();
    assert_eq!(len, positions.len());
    let eight = _mm512_castsi512_si256(steps);
    for two in blocks.chunks(2) {
        let [low, high] = [two[0], two[two.len() - 1]];
        let [a, b] = [block(low as usize), if two.len() == 2 { block(high as usize) } else { &[] }];
        // No value is as large where a block has none.
        let first = lanes(a.len().min(BLOCK)) | lanes(b.len().min(BLOCK)) << BLOCK;
        // SAFETY: lanes are read where the blocks have values; `len` grows by at most as many, and there is room for a
        // vector more than all of them.
        unsafe {
            let a = _mm256_maskz_loadu_ps(first as __mmask8, a.as_ptr());
            let b = _mm256_maskz_loadu_ps((first >> BLOCK) as __mmask8, b.as_ptr());
            let value = join(a, b);
            let [a, b] = [low, high].map(|index| _mm256_set1_epi32((index as usize * BLOCK) as i32));
            let position =
                join(_mm256_castsi256_ps(_mm256_add_epi32(a, eight)), _mm256_castsi256_ps(_mm256_add_epi32(b, eight)));
            let reached = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(first, value, least);
            len += compact((value, _mm512_castps_si512(position)), reached, len, found, positions);
        }
    }
    // SAFETY: everything below `len` was written, and there was room for it.
    unsafe {
        found.set_len(len);
        positions.set_len(len);
    }
}

/// Two vectors of eight as one of sixteen.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
fn join(low: __m256, high: __m256) -> __m512 {
    let low = _mm512_castpd256_pd512(_mm256_castps_pd(low));
    _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(high)))
}
