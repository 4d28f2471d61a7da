//! Finding the largest values: a cut that leaves exactly N, and the values above a threshold.
//!
//! Values are finite. The cut is found by bisection: a count of the values above another one takes one compare per
//! eight of them, and a dozen counts find it.

use super::{
    cpu::{by_avx512, by_cpu},
    softmax,
};

/// Values are taken in runs of this length.
pub const RUN: usize = 64;
/// Values per vector; maxima of a run are kept apart by position modulo this.
pub const LANES: usize = 8;

/// Which values are among the N largest: all that are at least `above`, and the first `ties` equal to `tied`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    above: f32,
    tied: f32,
    ties: usize,
}

/// Steps of the bisection that halve the distance; where they do not find the cut, the values lie so closely or so
/// unevenly that halving the number of floats in between is sure to.
const HALVINGS: usize = 16;

impl Cut {
    /// The cut that leaves `n` of the values; there must be that many.
    pub fn new(values: &[f32], n: usize) -> Self {
        // Always: at least `n` are at or above `low`, `above_high` < n are at or above `high`.
        let (mut low, mut high, mut above_high) = (floor(values, n), softmax::max(values).next_up(), 0);
        let mut steps = 0;
        while order(high) - order(low) > 1 {
            let halfway = low * 0.5 + high * 0.5;
            let halves = steps < HALVINGS && low < halfway && halfway < high;
            let middle = if halves { halfway } else { from_order(i64::midpoint(order(low), order(high))) };
            steps += 1;
            match count(values, middle) {
                found if found > n => low = middle,
                found if found < n => (high, above_high) = (middle, found),
                _ => return Self { above: middle, tied: 0.0, ties: 0 },
            }
        }
        Self { above: high, tied: low, ties: n - above_high }
    }

    /// Appends every value that the cut leaves to `found`, and its position to `kept`; `positions` are those of `values`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn keep(self, values: &[f32], positions: &[u32], found: &mut Vec<f32>, kept: &mut Vec<u32>) {
        assert_eq!(values.len(), positions.len());
        if self.ties > 0 {
            self.keep_portable(values, positions, found, kept);
        } else {
            by_avx512!(
                avx512::keep(values, positions, self.above, found, kept),
                by_cpu!(
                    avx2::keep(values, positions, self.above, found, kept),
                    self.keep_portable(values, positions, found, kept)
                )
            );
        }
    }

    fn keep_portable(self, values: &[f32], positions: &[u32], found: &mut Vec<f32>, kept: &mut Vec<u32>) {
        let mut ties = self.ties;
        for (&value, &position) in values.iter().zip(positions) {
            let tied = ties > 0 && value == self.tied;
            ties -= usize::from(tied);
            if tied || value >= self.above {
                found.push(value);
                kept.push(position);
            }
        }
    }

    /// A value that all of those reach which the cut leaves.
    pub fn least(self) -> f32 {
        if self.ties == 0 { self.above } else { self.tied }
    }
}

/// A number for each float, in the order of the floats, without gaps.
fn order(value: f32) -> i64 {
    let bits = value.to_bits() as i32;
    i64::from(if bits < 0 { i32::MIN - bits } else { bits })
}

fn from_order(order: i64) -> f32 {
    let order = order as i32;
    f32::from_bits(if order < 0 { i32::MIN - order } else { order } as u32)
}

/// Appends every value `≥ threshold` of `values` to `found`, and its position, counted from `first`, to `positions`.
///
/// `maxima` are those of the values' runs ([`super::softmax::clamp_maxima`]): runs that have none are not looked at.
///
/// # Panics
/// When `maxima` is not `[runs, 8]`.
pub fn at_least(
    values: &[f32],
    maxima: &[f32],
    threshold: f32,
    first: u32,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    assert_eq!(maxima.len(), values.len().div_ceil(RUN) * LANES);
    by_avx512!(
        avx512::at_least(values, maxima, threshold, first, found, positions),
        by_cpu!(
            avx2::at_least(values, maxima, threshold, first, found, positions),
            at_least_portable(values, maxima, threshold, first, found, positions)
        )
    );
}

/// How many values are at least `least`.
fn count(values: &[f32], least: f32) -> usize {
    by_avx512!(avx512::count(values, least), by_cpu!(avx2::count(values, least), count_portable(values, least)))
}

/// Where the search for a cut begins: a value that `n` of them reach. The lowest is one; but maxima of positions that
/// a row does not have are [`f32::MIN`], from where it would take a score of halvings to get to the others.
fn floor(values: &[f32], n: usize) -> f32 {
    let lowest = by_cpu!(avx2::lowest(values), lowest_body(values));
    if count(values, lowest) >= n { lowest } else { f32::MIN }
}

/// The lowest of the values above [`f32::MIN`]; [`f32::MAX`] for none. Written once and compiled twice: with and without
/// AVX2.
#[inline(always)]
fn lowest_body(values: &[f32]) -> f32 {
    let lower = |low: f32, value: f32| if value < low && value > f32::MIN { value } else { low };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::MAX; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(low, &value)| *low = lower(*low, value));
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::MAX, lower)
}

fn count_portable(values: &[f32], least: f32) -> usize {
    values.iter().filter(|&&value| value >= least).count()
}

fn at_least_portable(
    values: &[f32],
    maxima: &[f32],
    threshold: f32,
    first: u32,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    for ((run, maxima), first) in values.chunks(RUN).zip(maxima.chunks_exact(LANES)).zip((first..).step_by(RUN)) {
        if maxima.iter().any(|&max| max >= threshold) {
            for (&value, position) in run.iter().zip(first..) {
                if value >= threshold {
                    found.push(value);
                    positions.push(position);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, RUN, at_least_portable, count_portable, lowest_body};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn lowest(values: &[f32]) -> f32 {
        lowest_body(values)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
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
    #[target_feature(enable = "avx2,fma,f16c")]
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

    #[target_feature(enable = "avx2,fma,f16c")]
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

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn at_least(
        values: &[f32],
        maxima: &[f32],
        threshold: f32,
        first: u32,
        found: &mut Vec<f32>,
        positions: &mut Vec<u32>,
    ) {
        let least = _mm256_set1_ps(threshold);
        let steps = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        for ((run, maxima), first) in values.chunks(RUN).zip(maxima.chunks_exact(LANES)).zip((first..).step_by(RUN)) {
            if run.len() < RUN {
                return at_least_portable(run, maxima, threshold, first, found, positions);
            }
            // SAFETY: the maxima of a run are eight floats.
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(unsafe { _mm256_loadu_ps(maxima.as_ptr()) }, least);
            if _mm256_movemask_ps(reached) == 0 {
                continue;
            }
            found.reserve(RUN + LANES);
            positions.reserve(RUN + LANES);
            let mut len = found.len();
            assert_eq!(len, positions.len());
            for (chunk, first) in run.chunks_exact(LANES).zip((first..).step_by(LANES)) {
                // SAFETY: a chunk is eight floats; `len` has grown by at most RUN − LANES since room for RUN + LANES more
                // was made, so eight fit behind it.
                unsafe {
                    let value = _mm256_loadu_ps(chunk.as_ptr());
                    let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(value, least);
                    let position = _mm256_add_epi32(_mm256_set1_epi32(first as i32), steps);
                    len += compact((value, position), reached, len, found, positions);
                }
            }
            // SAFETY: everything below `len` was written, and there was room for it.
            unsafe {
                found.set_len(len);
                positions.set_len(len);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{LANES, RUN, count_portable};

    const WIDE: usize = 16;

    /// Lanes of a vector of which `len` values are left.
    #[inline(always)]
    fn lanes(len: usize) -> __mmask16 {
        if len < WIDE { (1 << len) - 1 } else { !0 }
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
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
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    unsafe fn compact(
        (value, position): (__m512, __m512i),
        reached: __mmask16,
        len: usize,
        found: &mut Vec<f32>,
        positions: &mut Vec<u32>,
    ) -> usize {
        // In registers first: to compress into memory is slow on some CPUs.
        let (value, position) =
            (_mm512_maskz_compress_ps(reached, value), _mm512_maskz_compress_epi32(reached, position));
        // SAFETY: there is room for sixteen; the first few of them count.
        unsafe {
            _mm512_storeu_ps(found.as_mut_ptr().wrapping_add(len), value);
            _mm512_storeu_si512(positions.as_mut_ptr().wrapping_add(len).cast(), position);
        }
        reached.count_ones() as usize
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
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

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    pub(super) fn at_least(
        values: &[f32],
        maxima: &[f32],
        threshold: f32,
        first: u32,
        found: &mut Vec<f32>,
        positions: &mut Vec<u32>,
    ) {
        let (least, steps) =
            (_mm512_set1_ps(threshold), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        found.reserve(values.len() + WIDE);
        positions.reserve(values.len() + WIDE);
        let mut len = found.len();
        assert_eq!(len, positions.len());
        for ((run, maxima), first) in values.chunks(RUN).zip(maxima.chunks_exact(LANES)).zip((first..).step_by(RUN)) {
            // SAFETY: the maxima of a run are eight floats.
            let most = unsafe { _mm256_loadu_ps(maxima.as_ptr()) };
            let reached = _mm256_cmp_ps::<_CMP_GE_OQ>(most, _mm512_castps512_ps256(least));
            if _mm256_movemask_ps(reached) == 0 {
                continue;
            }
            for (chunk, first) in run.chunks(WIDE).zip((first..).step_by(WIDE)) {
                let lanes = lanes(chunk.len());
                // SAFETY: the lanes are those of the chunk; `len` grows by at most as many as a chunk has, and there is
                // room for a vector more than all of them.
                unsafe {
                    let value = _mm512_maskz_loadu_ps(lanes, chunk.as_ptr());
                    let reached = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(lanes, value, least);
                    let position = _mm512_add_epi32(_mm512_set1_epi32(first as i32), steps);
                    len += compact((value, position), reached, len, found, positions);
                }
            }
        }
        // SAFETY: everything below `len` was written, and there was room for it.
        unsafe {
            found.set_len(len);
            positions.set_len(len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(len: usize) -> Vec<f32> {
        (0..len).map(|at| (at as f32 * 0.37).sin()).collect()
    }

    type Found = (Vec<f32>, Vec<u32>);
    type Pick = fn(&[f32], &[f32], f32, &mut Found);
    type Keep = fn(Cut, &[f32], &[u32], &mut Found);

    /// Every way to pick but the portable one, where this CPU has it.
    const COUNTS: [fn(&[f32], f32) -> usize; 2] =
        [count, |values, least| by_cpu!(avx2::count(values, least), count_portable(values, least))];
    const PICKS: [Pick; 2] = [
        |values, maxima, least, (found, at)| at_least(values, maxima, least, 100, found, at),
        |values, maxima, least, (found, at)| {
            by_cpu!(
                avx2::at_least(values, maxima, least, 100, found, at),
                at_least_portable(values, maxima, least, 100, found, at)
            );
        },
    ];
    const KEEPS: [Keep; 2] = [
        |cut, values, positions, (found, at)| cut.keep(values, positions, found, at),
        |cut, values, positions, (found, at)| {
            by_cpu!(
                avx2::keep(values, positions, cut.above, found, at),
                cut.keep_portable(values, positions, found, at)
            );
        },
    ];

    #[test]
    fn the_twins_agree() {
        for len in [0, 7, 15, 16, 64, 64 * 5 + 13] {
            let values = waves(len);
            for least in [0.9, 0.0, -0.4] {
                COUNTS.iter().for_each(|count| assert_eq!(count(&values, least), count_portable(&values, least)));
                let mut maxima = vec![0.0; len.div_ceil(RUN) * LANES];
                softmax::clamp_maxima(&mut values.clone(), &mut maxima);
                let mut plain = (vec![7.0], vec![1]);
                at_least_portable(&values, &maxima, least, 100, &mut plain.0, &mut plain.1);
                for pick in PICKS {
                    let mut fast = (vec![7.0], vec![1]);
                    pick(&values, &maxima, least, &mut fast);
                    assert_eq!(fast, plain);
                }
                let expected = values.iter().filter(|&&value| value >= least).count();
                assert_eq!(plain.0.len(), 1 + expected);
            }
        }
    }

    #[test]
    fn all_ways_to_keep_leave_the_same() {
        for (len, n) in [(8, 1), (9, 8), (64, 17), (203, 120)] {
            let (values, positions) = (waves(len), Vec::from_iter(100..100 + len as u32));
            let cut = Cut::new(&values, n);
            assert_eq!(cut.ties, 0, "with ties there is one way");
            let mut plain = (vec![7.0], vec![1]);
            cut.keep_portable(&values, &positions, &mut plain.0, &mut plain.1);
            assert_eq!(plain.0.len(), 1 + n);
            for keep in KEEPS {
                let mut fast = (vec![7.0], vec![1]);
                keep(cut, &values, &positions, &mut fast);
                assert_eq!(fast, plain);
            }
        }
    }

    #[test]
    fn floats_are_numbered_in_their_order_without_gaps() {
        for value in [-f32::INFINITY, f32::MIN, -1.5, -1e-45, 0.0, 1e-45, 3.7, f32::MAX] {
            assert_eq!(order(value.next_up()), order(value) + 1);
            assert_eq!(from_order(order(value)), value);
        }
        assert_eq!(order(-0.0), order(0.0));
    }

    #[test]
    fn the_search_begins_below_the_cut() {
        let values = [f32::MIN, 3.0, 1.0, f32::MIN, 2.0];
        assert_eq!([1, 3, 4].map(|n| floor(&values, n)), [1.0, 1.0, f32::MIN]);
        assert_eq!(floor(&[f32::MIN; 9], 2), f32::MIN);
        let values = waves(203);
        assert_eq!(lowest_body(&values), values.iter().copied().fold(f32::MAX, f32::min));
        assert_eq!(floor(&values, 203), lowest_body(&values));
    }

    #[test]
    fn a_cut_through_ties_takes_the_first_of_them() {
        for shift in [0.0, -0.3, -7.0] {
            let values = [0.5, 0.25, 0.5, 0.0, 0.25, 0.25].map(|value| value + shift);
            let taken = |n| {
                let (mut found, mut taken) = (Vec::new(), Vec::new());
                Cut::new(&values, n).keep(&values, &[0, 1, 2, 3, 4, 5], &mut found, &mut taken);
                assert!(found.iter().zip(&taken).all(|(found, &at)| *found == values[at as usize]));
                taken
            };
            assert_eq!(taken(1), [0]);
            assert_eq!(taken(2), [0, 2]);
            assert_eq!(taken(4), [0, 1, 2, 4]);
            assert_eq!(taken(6), [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_cut_is_found_among_the_strangest_values() {
        let values = [f32::MAX, 1e-40, f32::MIN, -1e-45, 2.0, 2.0f32.next_up(), f32::MIN, 1e30];
        let mut sorted = values;
        sorted.sort_by(f32::total_cmp);
        for n in 1..=values.len() {
            let mut taken = Vec::new();
            Cut::new(&values, n).keep(&values, &[0; 8], &mut taken, &mut Vec::new());
            taken.sort_by(f32::total_cmp);
            assert_eq!(taken, sorted[values.len() - n..]);
        }
    }
}
