//! The choice in vectors of eight.

use std::arch::x86_64::*;

use super::{Cut, LANES, Stretch, count_portable, lowest_body, runs, search_body, whole};

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(super) fn lowest(values: &[f32]) -> f32 {
    lowest_body::<LANES>(values)
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(super) fn search(values: &[f32], (low, high): (f32, f32), n: usize, spare: usize) -> Cut {
    search_body((values.len(), low, high), n, spare, |least| count(values, least))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(super) fn count(values: &[f32], least: f32) -> usize {
    let chunks = values.chunks_exact(LANES);
    let rest = count_portable(chunks.remainder(), least);
    let least = _mm256_set1_ps(least);
    let mut found = _mm256_setzero_si256();
    for chunk in chunks {
        // SAFETY: a chunk is eight floats.
        let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(unsafe { _mm256_loadu_ps(chunk.as_ptr()) }, least);
        found = _mm256_sub_epi32(found, _mm256_castps_si256(reached));
    }
    let mut lanes = [0u32; LANES];
    // SAFETY: eight integers.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), found) };
    rest + lanes.iter().sum::<u32>() as usize
}

/// For each of the masks of eight, where its bits are, lowest first.
const PLACES: [[u32; LANES]; 256] = {
    let mut places = [[0; LANES]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut bit, mut at) = (0, 0);
        while bit < LANES {
            if mask >> bit & 1 == 1 {
                places[mask][at] = bit as u32;
                at += 1;
            }
            bit += 1;
        }
        mask += 1;
    }
    places
};

/// Writes the lanes that `reached` names to the front of `found` and `positions` from `len` on; returns how many.
///
/// # Safety
/// Both have room for eight more than `len`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
unsafe fn compact(
    (value, position): (__m256, __m256i),
    reached: __m256,
    len: usize,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) -> usize {
    let mask = _mm256_movemask_ps(reached) as usize;
    // SAFETY: eight places; room for as many as the caller says. Of the vectors the first few values count.
    unsafe {
        let places = _mm256_loadu_si256(PLACES[mask].as_ptr().cast());
        _mm256_storeu_ps(found.as_mut_ptr().wrapping_add(len), _mm256_permutevar8x32_ps(value, places));
        let position = _mm256_permutevar8x32_epi32(position, places);
        _mm256_storeu_si256(positions.as_mut_ptr().wrapping_add(len).cast(), position);
    }
    mask.count_ones() as usize
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(super) fn keep(values: &[f32], from: &[u32], least: f32, found: &mut Vec<f32>, positions: &mut Vec<u32>) {
    let least8 = _mm256_set1_ps(least);
    let whole = values.len() / LANES * LANES;
    found.reserve(values.len() + LANES);
    positions.reserve(values.len() + LANES);
    let mut len = found.len();
    assert_eq!(len, positions.len());
    for (chunk, from) in values.chunks_exact(LANES).zip(from.chunks_exact(LANES)) {
        // SAFETY: eight values each; `len` grows by at most eight a chunk, and there is room for a vector more.
        unsafe {
            let (value, position) = (_mm256_loadu_ps(chunk.as_ptr()), _mm256_loadu_si256(from.as_ptr().cast()));
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(value, least8);
            len += compact((value, position), reached, len, found, positions);
        }
    }
    // SAFETY: everything below `len` was written, and there was room for it.
    unsafe {
        found.set_len(len);
        positions.set_len(len);
    }
    for (&value, &position) in values[whole..].iter().zip(&from[whole..]) {
        if value >= least {
            found.push(value);
            positions.push(position);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(super) fn at_least<'a>(
    stretches: impl Iterator<Item = Stretch<'a>>,
    threshold: f32,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    let least = _mm256_set1_ps(threshold);
    let steps = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mut first = 0;
    for stretch in stretches {
        found.reserve(stretch.values.len() + LANES);
        positions.reserve(stretch.values.len() + LANES);
        let mut len = found.len();
        assert_eq!(len, positions.len());
        for (run, maxima, first) in runs(stretch, first) {
            // SAFETY: eight floats.
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(unsafe { _mm256_loadu_ps(maxima.as_ptr()) }, least);
            if _mm256_movemask_ps(reached) == 0 {
                continue;
            }
            let mut position = _mm256_add_epi32(_mm256_set1_epi32(first as i32), steps);
            for chunk in whole(run, &mut [0.0; 64]).as_chunks::<LANES>().0 {
                // SAFETY: a chunk is eight floats; `len` grows by at most as many as the stretch has values, and there is
                // room for a vector more than all of them.
                unsafe {
                    let value = _mm256_loadu_ps(chunk.as_ptr());
                    let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(value, least);
                    len += compact((value, position), reached, len, found, positions);
                }
                position = _mm256_add_epi32(position, _mm256_set1_epi32(LANES as i32));
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
