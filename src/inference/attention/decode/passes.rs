//! The tasks of decoding: one KV split of a row in the first pass, some of the row's heads in the second.

use std::time::Instant;

use crate::attention::{
    DecodeRow, HeadShape, Rows,
    gather::Found,
    head::{self, HeadState, Workspace},
    kv_split::{Layout, Scoring, split_len},
    per_thread::PerThread,
    reuse,
    row_splits::RowSplits,
    stage_clock::{GATHER, SCORES, SELECT},
};

/// What all tasks of a call share.
pub(super) struct Passes<'a> {
    pub shape: &'a HeadShape,
    pub rows: &'a [DecodeRow<'a>],
    pub layout: Layout,
    /// Which rows read everything.
    pub whole: &'a [bool],
    /// Queries as integers, `[rows][heads·head_dim]`, and what an integer stands for, `[rows][heads]`.
    pub narrow: (&'a [i16], &'a [f32]),
    pub locals: &'a PerThread<Workspace>,
    /// When the tasks began.
    pub since: Instant,
}

impl Passes<'_> {
    /// The split of `row` that begins at position `start`; `result` is `[layout.len()]`.
    pub fn first(&self, row: usize, start: usize, result: &mut [f32]) {
        let (shape, input) = (self.shape, &self.rows[row]);
        let positions = start..input.len.min(start + split_len(input.len));
        let (queries, scales) = self.narrow;
        let narrow = (&queries[row * shape.width()..][..shape.width()], &scales[row * shape.heads..][..shape.heads]);
        let scoring = Scoring { row: input, narrow };
        self.locals.with(|work| {
            if self.whole[row] {
                let scored = || work.clock.lap(SCORES, self.since);
                self.layout.attend(shape, &scoring, positions, &mut work.weights, result, scored);
                work.clock.lap(GATHER, self.since);
            } else {
                self.layout.score(shape, &scoring, positions, &mut work.sums, result);
                work.clock.lap(SCORES, self.since);
            }
        });
    }

    /// The heads of `row` from `first` on, of one KV head: as many as there are `states`, and `out` is theirs.
    /// `results` are those of all splits of the row.
    pub fn second(&self, row: usize, first: usize, results: &[f32], states: &mut [HeadState], out: &mut [f32]) {
        let (shape, input) = (self.shape, &self.rows[row]);
        let (group, head_dim) = (shape.group(), shape.head_dim);
        let mut splits = RowSplits::new(self.layout, results, input.len);
        let rule = input.rows.over(input.len);
        self.locals.with(|work| {
            let Rows::Top { n, tail, select, lean } = rule else {
                for (out, head) in out.chunks_exact_mut(head_dim).zip(first..) {
                    head::merge(&mut splits, head, work, out);
                }
                work.clock.lap(GATHER, self.since);
                return;
            };
            let together = head::together(rule, group);
            if let Some(buffer) = input.buffers.get(first / group) {
                reuse::lock(buffer).begin();
            }
            let attend = |(states, out, first): Chosen<'_>, found: &Found<'_>, work: &mut Workspace| {
                let lean = if lean.is_empty() { lean } else { &lean[first..first + states.len()] };
                head::attend(shape, input, (tail, lean), (first / group, found), states, work, out);
            };
            // While memory brings the rows of some heads, the next ones choose.
            let mut asked: Option<Chosen<'_>> = None;
            let (mut found, mut next) = (Found::default(), Found::default());
            let parts = states.chunks_mut(together).zip(out.chunks_mut(together * head_dim));
            for ((states, out), first) in parts.zip((first..).step_by(together)) {
                head::choose(&mut splits, first, (n, select), states, work);
                if input.buffers.is_empty() {
                    next.ask(input.v, first / group, &states[0].selected);
                }
                work.clock.lap(SELECT, self.since);
                if let Some(before) = asked.replace((states, out, first)) {
                    attend(before, &found, work);
                }
                std::mem::swap(&mut found, &mut next);
                work.clock.lap(GATHER, self.since);
            }
            if let Some(last) = asked {
                attend(last, &found, work);
                work.clock.lap(GATHER, self.since);
            }
        });
    }
}

/// Heads that have chosen together, their part of the output, and the first of them.
type Chosen<'a> = (&'a mut [HeadState], &'a mut [f32], usize);
