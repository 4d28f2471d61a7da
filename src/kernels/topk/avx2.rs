//! The choice in vectors of eight.

use std::arch::x86_64::*;

use super::{BLOCK, Cut, Extent, LANES, count_portable, extent_body, search_body};

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(crate) fn extent(values: &[f32]) -> Extent {
    extent_body::<LANES>(values)
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(crate) fn search(values: &[f32], (low, high): (f32, f32), n: usize, spare: usize) -> Cut {
    search_body((values.len(), low, high), n, spare, |least| count(values, least))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub(crate) fn count(values: &[f32], least: f32) -> usize {
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
pub(crate) fn keep(values: &[f32], from: &[u32], least: f32, found: &mut Vec<f32>, positions: &mut Vec<u32>) {
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
pub(crate) fn at_least<'a>(
    maxima: &[f32],
    block: impl Fn(usize) -> &'a [f32],
    threshold: f32,
    blocks: &mut Vec<u32>,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    let least = _mm256_set1_ps(threshold);
    let steps = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    // First the blocks, without a branch on any: so several are on their way at once.
    blocks.clear();
    blocks.reserve(maxima.len() + LANES);
    let (chunks, rest) = maxima.as_chunks::<LANES>();
    let mut reached = 0;
    for (chunk, first) in chunks.iter().zip((0..).step_by(LANES)) {
        // SAFETY: a chunk is eight floats; `reached` grows by at most as many, and there is room for a vector more than
        // all maxima.
        unsafe {
            let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_loadu_ps(chunk.as_ptr()), least)) as usize;
            let places = _mm256_loadu_si256(PLACES[mask].as_ptr().cast());
            let index = _mm256_add_epi32(_mm256_set1_epi32(first), places);
            _mm256_storeu_si256(blocks.as_mut_ptr().wrapping_add(reached).cast(), index);
            reached += mask.count_ones() as usize;
        }
    }
    // SAFETY: everything below `reached` was written, and there was room for it.
    unsafe { blocks.set_len(reached) };
    let rest = (chunks.len() * LANES..).zip(rest).filter(|&(_, &max)| max >= threshold);
    blocks.extend(rest.map(|(index, _)| index as u32));
    found.reserve((blocks.len() + 1) * BLOCK);
    positions.reserve((blocks.len() + 1) * BLOCK);
    let mut len = found.len();
    assert_eq!(len, positions.len());
    let mut room;
    for &index in &*blocks {
        let values = block(index as usize);
        let values: &[f32; BLOCK] = match values.first_chunk() {
            Some(values) => values,
            None => {
                // NaN reaches no threshold, so what is not there is let through by none, not even by −∞.
                room = [f32::NAN; BLOCK];
                room[..values.len()].copy_from_slice(values);
                &room
            }
        };
        let position = _mm256_add_epi32(_mm256_set1_epi32((index as usize * BLOCK) as i32), steps);
        // SAFETY: a block is eight floats; `len` grows by at most as many for every block, and there is room for a
        // vector more than all of them.
        unsafe {
            let value = _mm256_loadu_ps(values.as_ptr());
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(value, least);
            len += compact((value, position), reached, len, found, positions);
        }
    }
    // SAFETY: everything below `len` was written, and there was room for it.
    unsafe {
        found.set_len(len);
        positions.set_len(len);
    }
}
