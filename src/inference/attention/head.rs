//! The second pass of decoding, for one query head or for the heads that choose together: it merges the row's KV
//! splits, chooses rows of V, fetches and sums them, and adds the tail.

use super::{
    Count, DecodeRow, HeadShape, Hits, Rows,
    gather::{Found, Gathered},
    kv_split::split_len,
    reuse::Reused,
    row_splits::RowSplits,
    select::Selector,
    stage_clock::StageClock,
};
use crate::{
    cache::{Select, Tail},
    kernels::{
        softmax::{self, Running},
        topk::{BLOCK, LANES, RUN},
    },
};

/// What is known of one query head after a step.
#[derive(Debug, Default)]
pub(super) struct HeadState {
    /// Chosen positions, ascending. Where heads choose together, the first of them has these.
    pub selected: Vec<u32>,
    /// Where they lie; also at the first of them.
    pub hits: Hits,
    /// How many of them no reuse buffer held.
    pub fetched: usize,
    /// The share of the softmax that they hold.
    pub kept: f32,
    /// Whether all heads of the row are through the second pass; only the row's first head has this.
    pub done: bool,
    /// A score that none exceeds by much, and the sum of exponentials relative to it.
    reference: f32,
    total: f32,
    /// `e^(score − reference)` of the chosen positions, and the sum of those.
    chosen: Vec<f32>,
    chosen_total: f32,
}

/// Buffers of a task.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub gathered: Gathered,
    pub reused: Reused,
    /// Weights of a split of the first pass.
    pub weights: Vec<f32>,
    /// Sums of exponentials of a split, one for every head.
    pub sums: Vec<Running>,
    /// Since the call began.
    pub clock: StageClock,
    selector: Selector,
    shared: Vec<f32>,
    shared_maxima: Vec<f32>,
    order: Vec<(f32, u32)>,
}

/// Full attention of a query head: merges the sums of the splits.
pub(super) fn merge(splits: &mut RowSplits<'_>, head: usize, work: &mut Workspace, out: &mut [f32]) {
    splits.read(head, true);
    let (_, total) = splits.total(&mut work.weights);
    out.fill(0.0);
    for (split, factor) in splits.found.iter().zip(&work.weights) {
        out.iter_mut().zip(split.sum()).for_each(|(out, sum)| *out += factor * sum);
    }
    softmax::scale(out, 1.0 / total);
}

/// Chooses rows for the query heads in `states`, which are `first` and those after it.
pub(super) fn choose(
    splits: &mut RowSplits<'_>,
    first: usize,
    (n, select): (Count<'_>, Select),
    states: &mut [HeadState],
    work: &mut Workspace,
) {
    for (state, head) in states.iter_mut().zip(first..) {
        splits.read(head, false);
        (state.reference, state.total) = splits.total(&mut work.weights);
    }
    let most = n.most(first, states.len());
    let mut selected = std::mem::take(&mut states[0].selected);
    match select {
        Select::Head => {
            let state = &mut states[0];
            let block = |index: usize| splits.block(index);
            work.selector.largest(splits.maxima(), block, (splits.len, most), &mut selected, &mut state.chosen);
            state.weigh();
            if let Count::Mass { share, .. } = n {
                trim(&mut selected, &state.chosen, share * state.total, &mut work.order);
                state.take(splits, &selected);
            }
        }
        Select::Group => {
            work.share(splits, states, first);
            let (maxima, shared) = (std::iter::once(&work.shared_maxima[..]), &work.shared);
            let block = |index: usize| &shared[shared.len().min(index * BLOCK)..shared.len().min((index + 1) * BLOCK)];
            work.selector.largest(maxima, block, (splits.len, most), &mut selected, &mut work.weights);
            if let Count::Mass { share, .. } = n {
                trim(&mut selected, &work.weights, share * states.len() as f32, &mut work.order);
            }
            for (state, head) in states.iter_mut().zip(first..) {
                splits.read(head, false);
                state.take(splits, &selected);
            }
        }
    }
    states[0].hits = Hits::of(splits.len, &selected);
    states[0].selected = selected;
}

/// Sums the chosen rows, which were `found` or lie in the reuse buffer, and adds the tail: `out` is `[heads, head_dim]`
/// of the heads in `states`. `lean` is that of each head, or empty.
pub(super) fn attend(
    shape: &HeadShape,
    row: &DecodeRow<'_>,
    (tail, lean): (Tail, &[f32]),
    (kv_head, found): (usize, &Found<'_>),
    states: &mut [HeadState],
    work: &mut Workspace,
    out: &mut [f32],
) {
    out.fill(0.0);
    if tail == Tail::Mean {
        let rows = states[0].selected.len();
        states.iter_mut().zip(lean).for_each(|(state, &lean)| state.lean(lean, rows));
    }
    let weights = |head: usize| &states[head].chosen[..];
    let fetched = match row.buffers.get(kv_head) {
        None => {
            work.gathered.add(found, shape.head_dim, weights, out);
            states[0].selected.len()
        }
        Some(buffer) => work.reused.add(buffer, (row.v, kv_head), &states[0].selected, shape.head_dim, weights, out),
    };
    states[0].fetched = fetched;
    let states = &*states;
    for (head, (state, out)) in states.iter().zip(out.chunks_exact_mut(shape.head_dim)).enumerate() {
        let factor = match tail {
            // Where the group chose only rows that have no weight for this head, the sum is 0 and stays 0.
            Tail::Renorm => 1.0 / state.chosen_total.max(f32::MIN_POSITIVE),
            Tail::None | Tail::Mean => 1.0 / state.total,
        };
        softmax::scale(out, factor);
        if tail == Tail::Mean {
            let lean = lean.get(head).copied().unwrap_or(0.0);
            let share = (1.0 - state.kept) * (1.0 - lean) / row.len as f32;
            let v_sum = &row.v_sum[kv_head * shape.head_dim..];
            out.iter_mut().zip(v_sum).for_each(|(out, sum)| *out += share * sum);
        }
    }
}

impl HeadState {
    /// Takes the weights of the chosen positions, and their share.
    fn take(&mut self, splits: &RowSplits<'_>, selected: &[u32]) {
        self.chosen.clear();
        let step = split_len(splits.len);
        let mut rest = selected;
        for (split, start) in splits.found.iter().zip((0..).step_by(step)) {
            let here = rest.partition_point(|&position| (position as usize) < start + step);
            let scores = split.scores();
            self.chosen.extend(rest[..here].iter().map(|&position| scores[position as usize - start]));
            rest = &rest[here..];
        }
        self.weigh();
    }

    /// Turns the scores of the chosen positions into weights, and sums those.
    fn weigh(&mut self) {
        self.chosen_total = softmax::weights(&mut self.chosen, self.reference);
        self.kept = (self.chosen_total / self.total).min(1.0);
    }

    /// Adds to each of the `rows` chosen rows an equal part of the missing mass, as far as the tail leans to their
    /// mean.
    fn lean(&mut self, lean: f32, rows: usize) {
        let part = lean * (1.0 - self.kept) * self.total / rows as f32;
        self.chosen.iter_mut().for_each(|weight| *weight += part);
    }
}

impl Workspace {
    /// Bytes of its buffers.
    pub fn bytes(&self) -> u64 {
        let Self { gathered, reused, weights, sums, clock: _, selector, shared, shared_maxima, order } = self;
        let floats = weights.capacity() + shared.capacity() + shared_maxima.capacity();
        let own = size_of::<f32>() * floats
            + size_of::<Running>() * sums.capacity()
            + size_of::<(f32, u32)>() * order.capacity();
        own as u64 + gathered.bytes() + reused.bytes() + selector.bytes()
    }

    /// The summed softmax of the heads in `states`.
    fn share(&mut self, splits: &mut RowSplits<'_>, states: &[HeadState], first: usize) {
        self.shared.clear();
        self.shared.resize(splits.len, 0.0);
        for (state, head) in states.iter().zip(first..) {
            let factor = 1.0 / state.total;
            splits.read(head, false);
            for (split, shared) in splits.found.iter().zip(self.shared.chunks_mut(split_len(splits.len))) {
                self.weights.clear();
                self.weights.extend_from_slice(&split.scores()[..shared.len()]);
                softmax::weights(&mut self.weights, state.reference);
                shared.iter_mut().zip(&self.weights).for_each(|(shared, weight)| *shared += weight * factor);
            }
        }
        self.shared_maxima.resize(self.shared.len().div_ceil(RUN) * LANES, 0.0);
        softmax::clamp_maxima(&mut self.shared, &mut self.shared_maxima);
    }
}

/// Keeps the heaviest positions, as few as weigh at least `needed` together; of equal ones the lower position.
fn trim(selected: &mut Vec<u32>, weights: &[f32], needed: f32, order: &mut Vec<(f32, u32)>) {
    order.clear();
    order.extend(weights.iter().copied().zip(selected.iter().copied()));
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut sum = 0.0;
    let enough = order.iter().position(|&(weight, _)| {
        sum += weight;
        sum >= needed
    });
    if let Some(last) = enough {
        selected.clear();
        selected.extend(order[..=last].iter().map(|&(_, position)| position));
        selected.sort_unstable();
    }
}

/// The heads of a KV head that choose together.
pub(super) fn together(rows: Rows<'_>, group: usize) -> usize {
    match rows {
        Rows::All | Rows::Top { select: Select::Group, .. } => group,
        Rows::Top { select: Select::Head, .. } => 1,
    }
}
