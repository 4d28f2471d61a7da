//! The choice in vectors of sixteen.

use std::arch::x86_64::*;

use super::{
    super::sixteen::{WIDE, lanes},
    Cut, Stretch, count_portable, lowest_body, runs, search_body, whole,
};

#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(super) fn lowest(values: &[f32]) -> f32 {
    lowest_body::<WIDE>(values)
}

#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(super) fn search(values: &[f32], (low, high): (f32, f32), n: usize, spare: usize) -> Cut {
    search_body((values.len(), low, high), n, spare, |least| count(values, least))
}

#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(super) fn count(values: &[f32], least: f32) -> usize {
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
pub(super) fn keep(values: &[f32], from: &[u32], least: f32, found: &mut Vec<f32>, positions: &mut Vec<u32>) {
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

#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub(super) fn at_least<'a>(
    stretches: impl Iterator<Item = Stretch<'a>>,
    threshold: f32,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    let (least, steps) =
        (_mm512_set1_ps(threshold), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    let mut first = 0;
    for stretch in stretches {
        found.reserve(stretch.values.len() + WIDE);
        positions.reserve(stretch.values.len() + WIDE);
        let mut len = found.len();
        assert_eq!(len, positions.len());
        for (run, maxima, first) in runs(stretch, first) {
            // SAFETY: eight floats.
            let most = unsafe { _mm256_loadu_ps(maxima.as_ptr()) };
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(most, _mm512_castps512_ps256(least));
            if _mm256_movemask_ps(reached) == 0 {
                continue;
            }
            let mut position = _mm512_add_epi32(_mm512_set1_epi32(first as i32), steps);
            for chunk in whole(run, &mut [0.0; 64]).as_chunks::<WIDE>().0 {
                // SAFETY: a chunk is sixteen floats; `len` grows by at most as many as the stretch has values, and there
                // is room for a vector more than all of them.
                unsafe {
                    let value = _mm512_loadu_ps(chunk.as_ptr());
                    let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(value, least);
                    len += compact((value, position), reached, len, found, positions);
                }
                position = _mm512_add_epi32(position, _mm512_set1_epi32(WIDE as i32));
            }
        }
        // SAFETY: everything below `len` was written, and there was room for it.
        unsafe {
            found.set_len(len);
            positions.set_len(len);
        }
        first += stretch.values.len() as u32;
    }
}
