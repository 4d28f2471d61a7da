//! Exact choice of the N largest values.
//!
//! The N-th largest of the block maxima is a lower bound of the N-th largest value. The values at or above it are a few
//! times N candidates, and the exact cut is searched among these alone. Nothing sorts all positions, and blocks whose
//! maxima lie below the bound are not read.

use crate::kernels::topk::{self, BLOCK, Cut};

/// Buffers of [`Selector::largest`], kept between calls.
#[derive(Debug, Default)]
pub(super) struct Selector {
    maxima: Vec<f32>,
    blocks: Vec<u32>,
    candidates: Vec<f32>,
    positions: Vec<u32>,
}

impl Selector {
    /// Bytes of its buffers.
    pub(super) fn bytes(&self) -> u64 {
        let Self { maxima, blocks, candidates, positions } = self;
        let (floats, numbers) = (maxima.capacity() + candidates.capacity(), blocks.capacity() + positions.capacity());
        (size_of::<f32>() * floats + size_of::<u32>() * numbers) as u64
    }

    /// The positions of the `n` largest of `len` values, ascending, and those values; of equal ones the lower
    /// positions.
    ///
    /// `maxima` are those of the values' blocks, in stretches one after the other, and `block(b)` are the values of
    /// block `b` (see [`topk::at_least`]). Values are finite; `n` is at least 1.
    pub(super) fn largest<'a>(
        &mut self,
        maxima: impl Iterator<Item = &'a [f32]>,
        block: impl Fn(usize) -> &'a [f32],
        (len, n): (usize, usize),
        selected: &mut Vec<u32>,
        chosen: &mut Vec<f32>,
    ) {
        selected.clear();
        chosen.clear();
        if n >= len {
            selected.extend(0..len as u32);
            (0..len.div_ceil(BLOCK)).for_each(|index| chosen.extend_from_slice(block(index)));
            return;
        }
        self.maxima.clear();
        maxima.for_each(|maxima| self.maxima.extend_from_slice(maxima));
        self.candidates.clear();
        self.positions.clear();
        let range = self.range(n);
        let floor = range.map_or(f32::MIN, |(floor, _)| floor);
        topk::at_least(&self.maxima, block, floor, &mut self.blocks, &mut self.candidates, &mut self.positions);
        let cut = range.map_or_else(|| Cut::new(&self.candidates, n), |range| Cut::between(&self.candidates, range, n));
        cut.keep(&self.candidates, &self.positions, chosen, selected);
    }

    /// A value that at least `n` values reach, and the largest; `None` where there are too few maxima to tell.
    ///
    /// Large scores stand close together. Maxima of longer blocks would hide more of them behind each other, and the
    /// value would lie further below the cut.
    fn range(&self, n: usize) -> Option<(f32, f32)> {
        (self.maxima.len() >= n).then(|| topk::floor(&self.maxima, n))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::{
        softmax::clamp_maxima,
        topk::{LANES, RUN},
    };

    proptest! {
        #[test]
        fn it_is_what_a_sort_finds(
            mut values in prop::collection::vec(prop_oneof![
                (0u8..4).prop_map(|few| f32::from(few) / 4.0 - 0.5),
                -1.0f32..1.0,
                Just(0.0),
                Just(-0.0),
            ], 1..1500),
            n in prop_oneof![(1usize..300).prop_map(|n| (n, false)), (0usize..20).prop_map(|left| (left, true))],
            width in prop_oneof![Just(64usize), Just(128), Just(256)],
        ) {
            let len = values.len();
            // So many, or all but so many.
            let n = if n.1 { len.saturating_sub(n.0).max(1) } else { n.0 };
            let mut order: Vec<usize> = (0..len).collect();
            // Both zeros are the same value.
            order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap().then(a.cmp(&b)));
            let mut expected: Vec<u32> = order[..n.min(len)].iter().map(|&at| at as u32).collect();
            expected.sort_unstable();
            let mut maxima = Vec::new();
            for values in values.chunks_mut(width) {
                let mut found = vec![0.0; values.len().div_ceil(RUN) * LANES];
                clamp_maxima(values, &mut found);
                maxima.push(found);
            }
            let (mut selected, mut chosen) = (Vec::new(), Vec::new());
            let block = |index: usize| values.chunks(BLOCK).nth(index).unwrap_or_default();
            let maxima = maxima.iter().map(|maxima| &maxima[..]);
            Selector::default().largest(maxima, block, (len, n), &mut selected, &mut chosen);
            prop_assert_eq!(&chosen, &expected.iter().map(|&at| values[at as usize]).collect::<Vec<_>>());
            prop_assert_eq!(selected, expected);
        }
    }
}
