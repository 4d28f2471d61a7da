//! One query head of a decode step: its softmax, and the rows it chooses, alone or with its group.

use super::{Rows, decode::PIECE, select::Selector};
use crate::{cache::Select, kernels::softmax};

/// What the softmax stage leaves for one query head.
#[derive(Debug, Default)]
pub(super) struct HeadState {
    /// `e^(score − max)` for every position, zeros up to a whole piece.
    pub(super) weights: Vec<f32>,
    /// Sum of the weights.
    pub(super) total: f32,
    /// Chosen positions, ascending; of a group they stand at its first head.
    pub(super) selected: Vec<u32>,
    /// Weights of the chosen positions.
    pub(super) chosen: Vec<f32>,
    /// Sum of those.
    pub(super) chosen_total: f32,
    /// Their share of the total.
    pub(super) kept: f32,
    /// A group's summed weights, at its first head.
    shared: Vec<f32>,
    selector: Selector,
}

impl HeadState {
    /// The softmax of query head `lane` of a group, from that group's scores, `[pieces][group][PIECE]`.
    pub(super) fn softmax(&mut self, scores: &[f32], group: usize, lane: usize) {
        let pieces = || scores.chunks_exact(PIECE).skip(lane).step_by(group);
        let max = pieces().map(softmax::max).fold(f32::MIN, f32::max);
        self.weights.resize(scores.len() / group, 0.0);
        self.total = pieces()
            .zip(self.weights.chunks_exact_mut(PIECE))
            .map(|(scores, weights)| softmax::weights(scores, max, weights))
            .sum();
    }

    /// Takes the weights of the chosen positions, and their share.
    fn take(&mut self, selected: &[u32]) {
        self.chosen.clear();
        self.chosen.extend(selected.iter().map(|&position| self.weights[position as usize]));
        self.chosen_total = self.chosen.iter().sum();
        self.kept = (self.chosen_total / self.total).min(1.0);
    }
}

/// Chooses the rows of one head, or of one group of heads together.
pub(super) fn choose(states: &mut [HeadState], rule: Rows, len: usize) {
    let Rows::Top { n, select, .. } = rule else { return };
    let [first, ..] = states else { return };
    let mut selected = std::mem::take(&mut first.selected);
    match select {
        Select::Head => first.selector.largest(&first.weights, len, n, &mut selected),
        Select::Group => {
            let mut shared = std::mem::take(&mut first.shared);
            shared.clear();
            shared.resize(states[0].weights.len(), 0.0);
            for state in states.iter() {
                let factor = 1.0 / state.total;
                for (shared, weight) in shared.iter_mut().zip(&state.weights) {
                    *shared += weight * factor;
                }
            }
            states[0].selector.largest(&shared, len, n, &mut selected);
            states[0].shared = shared;
        }
    }
    for state in states.iter_mut() {
        state.take(&selected);
    }
    states[0].selected = selected;
}
