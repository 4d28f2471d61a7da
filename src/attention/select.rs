//! Exact choice of the N largest weights.
//!
//! The N-th largest of some block maxima is a lower bound of the N-th largest weight. What lies at or above it is a
//! few times N candidates, through which the exact cut is laid; no part of this sorts all positions.

use crate::kernels::pick::{self, Cut};

/// Buffers of [`Selector::largest`], kept between calls.
#[derive(Debug, Default)]
pub(super) struct Selector {
    maxima: Vec<f32>,
    candidates: Vec<f32>,
    positions: Vec<u32>,
}

impl Selector {
    /// The positions of the `n` largest of the first `len` weights, ascending; of equal weights the lower positions.
    ///
    /// Weights are finite and not negative. `weights` is a multiple of 64 long, zeros from `len` on, and `0 < n < len`.
    pub(super) fn largest(&mut self, weights: &[f32], len: usize, n: usize, selected: &mut Vec<u32>) {
        debug_assert!(0 < n && n < len && len <= weights.len() && weights.len().is_multiple_of(pick::RUN));
        selected.clear();
        // Twice as many maxima as rows asked for keep the candidates few; without that many, everything is one.
        let runs = (len / pick::RUN * pick::LANES / (2 * n)).min(8);
        if runs == 0 {
            let weights = &weights[..len];
            Cut::new(weights, 0.0, n).apply(weights, &mut |index| selected.push(index as u32));
            return;
        }
        self.maxima.clear();
        pick::maxima(weights, runs, &mut self.maxima);
        let mut floor = f32::INFINITY;
        Cut::new(&self.maxima, 0.0, n).apply(&self.maxima, &mut |index| floor = floor.min(self.maxima[index]));
        self.candidates.clear();
        self.positions.clear();
        pick::at_least(&weights[..len], floor, |index, weight| {
            self.candidates.push(weight);
            self.positions.push(index as u32);
        });
        let cut = Cut::new(&self.candidates, floor, n);
        cut.apply(&self.candidates, &mut |index| selected.push(self.positions[index]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_what_a_sort_finds(
            weights in prop::collection::vec(prop_oneof![
                (0u8..4).prop_map(|few| f32::from(few) / 4.0),
                0.0f32..1.0,
                Just(0.0),
            ], 2..1500),
            n in 1usize..300,
        ) {
            let len = weights.len();
            let n = n.min(len - 1);
            let mut order: Vec<usize> = (0..len).collect();
            order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
            let mut expected: Vec<u32> = order[..n].iter().map(|&at| at as u32).collect();
            expected.sort_unstable();
            let mut padded = weights;
            padded.resize(len.next_multiple_of(pick::RUN), 0.0);
            let mut selected = Vec::new();
            Selector::default().largest(&padded, len, n, &mut selected);
            prop_assert_eq!(selected, expected);
        }
    }
}
