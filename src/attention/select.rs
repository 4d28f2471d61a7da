//! Exact choice of the N largest values.
//!
//! The N-th largest of some block maxima is a lower bound of the N-th largest value. What lies at or above it is a few
//! times N candidates, through which the exact cut is laid; no part of this sorts all positions, and blocks whose
//! maxima lie below the bound are not looked at.

use crate::kernels::pick::{self, Cut, LANES, RUN};

/// A run of neighbouring positions: their values, and the maxima that [`crate::kernels::softmax::clamp_maxima`] finds.
/// All but the last run of a row are a multiple of [`RUN`] long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub values: &'a [f32],
    pub maxima: &'a [f32],
}

/// Buffers of [`Selector::largest`], kept between calls.
#[derive(Debug, Default)]
pub(super) struct Selector {
    maxima: Vec<f32>,
    candidates: Vec<f32>,
    positions: Vec<u32>,
}

impl Selector {
    /// Bytes of its buffers.
    pub(super) fn bytes(&self) -> u64 {
        let Self { maxima, candidates, positions } = self;
        (size_of::<f32>() * (maxima.capacity() + candidates.capacity()) + size_of::<u32>() * positions.capacity())
            as u64
    }

    /// The positions of the `n` largest of `len` values, ascending, and those values; of equal ones the lower positions.
    ///
    /// Values are finite; `n` is at least 1.
    pub(super) fn largest<'a>(
        &mut self,
        stretches: impl Iterator<Item = Stretch<'a>> + Clone,
        len: usize,
        n: usize,
        selected: &mut Vec<u32>,
        chosen: &mut Vec<f32>,
    ) {
        selected.clear();
        chosen.clear();
        if n >= len {
            selected.extend(0..len as u32);
            stretches.for_each(|stretch| chosen.extend_from_slice(stretch.values));
            return;
        }
        let floor = self.floor(stretches.clone().map(|stretch| stretch.maxima), len, n);
        self.candidates.clear();
        self.positions.clear();
        let mut first = 0;
        for Stretch { values, maxima } in stretches {
            pick::at_least(values, maxima, floor, first, &mut self.candidates, &mut self.positions);
            first += values.len() as u32;
        }
        Cut::new(&self.candidates, n).keep(&self.candidates, &self.positions, chosen, selected);
    }

    /// A value that at least `n` values reach.
    fn floor<'a>(&mut self, maxima: impl Iterator<Item = &'a [f32]>, len: usize, n: usize) -> f32 {
        // Twice as many maxima as rows asked for keep the candidates few; without that many, everything is one.
        let runs = (len / RUN * LANES / (2 * n)).min(8);
        if runs == 0 {
            return f32::MIN;
        }
        self.maxima.clear();
        maxima.for_each(|maxima| self.maxima.extend_from_slice(maxima));
        let mut groups = 0;
        for at in (0..self.maxima.len()).step_by(LANES * runs) {
            let end = (at + LANES * runs).min(self.maxima.len());
            let mut lanes = [f32::MIN; LANES];
            for maxima in self.maxima[at..end].chunks_exact(LANES) {
                lanes.iter_mut().zip(maxima).for_each(|(lane, &max)| *lane = if max > *lane { max } else { *lane });
            }
            self.maxima[groups * LANES..][..LANES].copy_from_slice(&lanes);
            groups += 1;
        }
        let maxima = &self.maxima[..groups * LANES];
        Cut::new(maxima, n).least()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::softmax::clamp_maxima;

    proptest! {
        #[test]
        fn it_is_what_a_sort_finds(
            mut values in prop::collection::vec(prop_oneof![
                (0u8..4).prop_map(|few| f32::from(few) / 4.0 - 0.5),
                -1.0f32..1.0,
                Just(0.0),
                Just(-0.0),
            ], 1..1500),
            n in 1usize..300,
        ) {
            let len = values.len();
            let mut order: Vec<usize> = (0..len).collect();
            // Both zeros are the same value.
            order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap().then(a.cmp(&b)));
            let mut expected: Vec<u32> = order[..n.min(len)].iter().map(|&at| at as u32).collect();
            expected.sort_unstable();
            let mut maxima = Vec::new();
            for values in values.chunks_mut(256) {
                let mut found = vec![0.0; values.len().div_ceil(RUN) * LANES];
                clamp_maxima(values, &mut found);
                maxima.push(found);
            }
            let stretches = values.chunks(256).zip(&maxima).map(|(values, maxima)| Stretch { values, maxima });
            let (mut selected, mut chosen) = (Vec::new(), Vec::new());
            Selector::default().largest(stretches, len, n, &mut selected, &mut chosen);
            prop_assert_eq!(&chosen, &expected.iter().map(|&at| values[at as usize]).collect::<Vec<_>>());
            prop_assert_eq!(selected, expected);
        }
    }
}
