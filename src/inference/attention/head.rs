//! The second pass of decoding, for one query head or for those that choose together: the pieces of the first pass put
//! together, rows chosen where they are, fetched and summed, and the tail.

use super::{
    Count, DecodeRow, HeadShape, Hits, Rows,
    decode::Spent,
    gather::{Found, Gathered},
    kv_split::{HeadPiece, Layout, piece_len},
    reuse::Reused,
    select::Selector,
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
    /// Chosen positions, ascending; of heads that choose together they stand at the first.
    pub selected: Vec<u32>,
    /// Where they lie; likewise.
    pub hits: Hits,
    /// Those of them that no reuse buffer held.
    pub fetched: usize,
    /// The share of the softmax that they hold.
    pub kept: f32,
    /// Whether all heads of the row are through the second pass; it stands at the first.
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
    /// Weights of a piece of the first pass.
    pub weights: Vec<f32>,
    /// Sums of exponentials of a piece, one for every head.
    pub sums: Vec<Running>,
    /// Since the call began.
    pub spent: Spent,
    selector: Selector,
    shared: Vec<f32>,
    shared_maxima: Vec<f32>,
    order: Vec<(f32, u32)>,
}

/// A row of the first pass, as the second one sees it.
pub(super) struct Pieces<'a> {
    layout: Layout,
    /// Results of the row's pieces, one after the other.
    results: &'a [f32],
    /// Positions in them.
    len: usize,
    /// What the pieces found for the query head that was read last.
    found: Vec<HeadPiece<'a>>,
}

impl<'a> Pieces<'a> {
    pub fn new(layout: Layout, results: &'a [f32], len: usize) -> Self {
        Self { layout, results, len, found: Vec::new() }
    }

    /// Looks up a query head in every piece.
    fn read(&mut self, head: usize, attended: bool) {
        self.found.clear();
        let pieces = self.results.chunks_exact(self.layout.len());
        self.found.extend(pieces.map(|piece| self.layout.head(piece, head, attended)));
    }

    /// The largest reference of the head and the sum of exponentials relative to it; `factors` becomes what each piece's own
    /// sums are multiplied by.
    fn total(&self, factors: &mut Vec<f32>) -> (f32, f32) {
        factors.clear();
        factors.extend(self.found.iter().map(|piece| piece.reference));
        let reference = softmax::max(factors);
        softmax::weights(factors, reference);
        let total = self.found.iter().zip(factors.iter()).map(|(piece, factor)| factor * piece.total).sum();
        (reference, total)
    }

    /// The maxima of the head's scores, piece by piece.
    fn maxima(&self) -> impl Iterator<Item = &'a [f32]> {
        let step = piece_len(self.len);
        self.found.iter().zip((0..).step_by(step)).map(move |(piece, at)| piece.maxima(step.min(self.len - at)))
    }

    /// The scores of one of its blocks.
    fn block(&self, index: usize) -> &'a [f32] {
        let (step, at) = (piece_len(self.len), index * BLOCK);
        let scores = &self.found[at / step].scores()[at % step..];
        &scores[..BLOCK.min(self.len.saturating_sub(at))]
    }
}

/// Puts the sums of a query head together: full attention.
pub(super) fn merge(pieces: &mut Pieces<'_>, head: usize, work: &mut Workspace, out: &mut [f32]) {
    pieces.read(head, true);
    let (_, total) = pieces.total(&mut work.weights);
    out.fill(0.0);
    for (piece, factor) in pieces.found.iter().zip(&work.weights) {
        out.iter_mut().zip(piece.sum()).for_each(|(out, sum)| *out += factor * sum);
    }
    softmax::scale(out, 1.0 / total);
}

/// Chooses rows for the query heads in `states`, which are `first` and those after it.
pub(super) fn choose(
    pieces: &mut Pieces<'_>,
    first: usize,
    (n, select): (Count<'_>, Select),
    states: &mut [HeadState],
    work: &mut Workspace,
) {
    for (state, head) in states.iter_mut().zip(first..) {
        pieces.read(head, false);
        (state.reference, state.total) = pieces.total(&mut work.weights);
    }
    let most = n.most(first, states.len());
    let mut selected = std::mem::take(&mut states[0].selected);
    match select {
        Select::Head => {
            let state = &mut states[0];
            let block = |index: usize| pieces.block(index);
            work.selector.largest(pieces.maxima(), block, (pieces.len, most), &mut selected, &mut state.chosen);
            state.weigh();
            if let Count::Mass { share, .. } = n {
                trim(&mut selected, &state.chosen, share * state.total, &mut work.order);
                state.take(pieces, &selected);
            }
        }
        Select::Group => {
            work.share(pieces, states, first);
            let (maxima, shared) = (std::iter::once(&work.shared_maxima[..]), &work.shared);
            let block = |index: usize| &shared[shared.len().min(index * BLOCK)..shared.len().min((index + 1) * BLOCK)];
            work.selector.largest(maxima, block, (pieces.len, most), &mut selected, &mut work.weights);
            if let Count::Mass { share, .. } = n {
                trim(&mut selected, &work.weights, share * states.len() as f32, &mut work.order);
            }
            for (state, head) in states.iter_mut().zip(first..) {
                pieces.read(head, false);
                state.take(pieces, &selected);
            }
        }
    }
    states[0].hits = Hits::of(pieces.len, &selected);
    states[0].selected = selected;
}

/// Sums the chosen rows, which were `found` or lie in the reuse buffer, and adds the tail: `out` is `[heads, head_dim]` of
/// the heads in `states`. `lean` is that of each head, or empty.
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
            // A head whose group chose only rows without weight for it has nothing to divide.
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
    fn take(&mut self, pieces: &Pieces<'_>, selected: &[u32]) {
        self.chosen.clear();
        let step = piece_len(pieces.len);
        let mut rest = selected;
        for (piece, start) in pieces.found.iter().zip((0..).step_by(step)) {
            let here = rest.partition_point(|&position| (position as usize) < start + step);
            let scores = piece.scores();
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

    /// Gives each of the `rows` chosen rows an equal part of what the tail leans on their mean.
    fn lean(&mut self, lean: f32, rows: usize) {
        let part = lean * (1.0 - self.kept) * self.total / rows as f32;
        self.chosen.iter_mut().for_each(|weight| *weight += part);
    }
}

impl Workspace {
    /// Bytes of its buffers.
    pub fn bytes(&self) -> u64 {
        let Self { gathered, reused, weights, sums, spent: _, selector, shared, shared_maxima, order } = self;
        let floats = weights.capacity() + shared.capacity() + shared_maxima.capacity();
        let own = size_of::<f32>() * floats
            + size_of::<Running>() * sums.capacity()
            + size_of::<(f32, u32)>() * order.capacity();
        own as u64 + gathered.bytes() + reused.bytes() + selector.bytes()
    }

    /// The summed softmax of the heads in `states`.
    fn share(&mut self, pieces: &mut Pieces<'_>, states: &[HeadState], first: usize) {
        self.shared.clear();
        self.shared.resize(pieces.len, 0.0);
        for (state, head) in states.iter().zip(first..) {
            let factor = 1.0 / state.total;
            pieces.read(head, false);
            for (piece, shared) in pieces.found.iter().zip(self.shared.chunks_mut(piece_len(pieces.len))) {
                self.weights.clear();
                self.weights.extend_from_slice(&piece.scores()[..shared.len()]);
                softmax::weights(&mut self.weights, state.reference);
                shared.iter_mut().zip(&self.weights).for_each(|(shared, weight)| *shared += weight * factor);
            }
        }
        self.shared_maxima.resize(self.shared.len().div_ceil(RUN) * LANES, 0.0);
        softmax::clamp_maxima(&mut self.shared, &mut self.shared_maxima);
    }
}

/// Leaves as few of the positions as weigh at least `needed` together, the heaviest; of equal ones the lower.
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
