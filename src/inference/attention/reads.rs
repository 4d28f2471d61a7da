//! What one token of a step read: which positions, by how many heads, and what mass more or fewer rows would have held.
//!
//! K is complete, so the softmax over all positions is known. From it follows, for every N, the mass that the N
//! heaviest positions hold: the coverage curve.

use std::time::{Duration, Instant};

use super::{DISTANCE_BUCKETS, DecodeScratch};

/// What a token read, summed over the layers. It is made before a step, and the step fills it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reads {
    row: usize,
    curves: bool,
    /// Positions it attended to.
    pub len: usize,
    /// How many heads of all layers chose each position, `[len]`; empty where no layer chose.
    pub heads: Vec<u16>,
    /// What each layer found; empty for a layer that read every row.
    pub layers: Vec<Vec<HeadReads>>,
    /// The time that noting took.
    pub took: Duration,
    weights: Vec<f32>,
}

/// What one query head read.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadReads {
    /// Rows it read.
    pub rows: usize,
    /// The mass that they held.
    pub kept: f32,
    /// Rows by distance from now, in powers of two.
    pub distance: [u32; DISTANCE_BUCKETS],
    /// The mass that the N heaviest positions hold, for every N of [`curve_counts`]; empty where it was not asked for.
    pub curve: Vec<f32>,
}

impl Reads {
    /// What row `row` of those that read by policy will read; with coverage curves where `curves`, which take a pass
    /// over every head's softmax.
    pub fn of(row: usize, curves: bool) -> Self {
        Self { row, curves, ..Self::default() }
    }

    /// Takes in what a layer did.
    pub(crate) fn layer(&mut self, decoded: &DecodeScratch, len: usize) {
        let began = Instant::now();
        self.note(decoded, len);
        self.took += began.elapsed();
    }

    fn note(&mut self, decoded: &DecodeScratch, len: usize) {
        self.len = len;
        let row = self.row;
        let Some(kept) = decoded.kept_mass(row) else { return self.layers.push(Vec::new()) };
        self.heads.resize(len, 0);
        let counts = if self.curves { curve_counts(len) } else { Vec::new() };
        let mut heads = Vec::with_capacity(decoded.heads());
        for (head, &kept) in kept.iter().enumerate() {
            let positions = decoded.selected(row, head).unwrap_or_default();
            let distance = decoded.hits(row, head).unwrap_or_default().distance;
            positions.iter().for_each(|&position| self.heads[position as usize] += 1);
            let known = self.curves && decoded.softmax(row, head, len, &mut self.weights);
            let curve = if known { coverage(&mut self.weights, &counts) } else { Vec::new() };
            heads.push(HeadReads { rows: positions.len(), kept, distance, curve });
        }
        self.layers.push(heads);
    }

    /// Which row it is about.
    pub(crate) fn row(&self) -> usize {
        self.row
    }
}

/// The N of a coverage curve over `len` positions: 1, 2, 4 and so on, and `len` itself.
pub fn curve_counts(len: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |n| Some(n * 2));
    doubled.take_while(|&n| n < len).chain([len]).collect()
}

/// The sum of the `n` largest weights for every `n` of `counts`, which ascend. Leaves the weights in another order.
fn coverage(weights: &mut [f32], counts: &[usize]) -> Vec<f32> {
    // From the largest count down: each selection leaves the larger weights in front, so the next one is shorter.
    let mut front = weights.len();
    for &n in counts.iter().rev() {
        if n < front {
            weights[..front].select_nth_unstable_by(n, |a, b| b.total_cmp(a));
            front = n;
        }
    }
    let (mut done, mut sum) = (0, 0.0);
    let mut sums = Vec::with_capacity(counts.len());
    for &n in counts {
        let n = n.min(weights.len());
        sum += weights[done..n].iter().map(|&weight| f64::from(weight)).sum::<f64>();
        done = n;
        sums.push(sum as f32);
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_double_up_to_the_length() {
        assert_eq!(curve_counts(1), [1]);
        assert_eq!(curve_counts(8), [1, 2, 4, 8]);
        assert_eq!(curve_counts(9), [1, 2, 4, 8, 9]);
    }

    proptest! {
        #[test]
        fn a_curve_is_that_of_sorted_weights(weights in prop::collection::vec(0.0f32..1.0, 1..300)) {
            let counts = curve_counts(weights.len());
            let found = coverage(&mut weights.clone(), &counts);
            let mut sorted = weights;
            sorted.sort_by(|a, b| b.total_cmp(a));
            for (n, found) in counts.into_iter().zip(found) {
                let expected: f32 = sorted[..n].iter().sum();
                prop_assert!((found - expected).abs() < 1e-4 * expected.max(1.0), "{n}: {found} not {expected}");
            }
        }
    }
}
