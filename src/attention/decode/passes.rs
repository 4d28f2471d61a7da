//! What the tasks of decoding do: a piece of a row's positions in the first pass, some of its heads in the second.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{
    super::{
        HeadShape, Rows,
        gather::Found,
        head::{self, HeadState, Pieces, Workspace},
        locals::Locals,
        piece::{Layout, Scoring, piece_len},
        reuse,
    },
    DecodeRow,
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
    pub locals: &'a Locals<Workspace>,
    /// Time in scores, in the choice, and in sums.
    pub shares: Shares<3>,
}

const SCORES: usize = 0;
const SELECT: usize = 1;
const GATHER: usize = 2;

impl Passes<'_> {
    /// The piece of `row` that begins at position `start`; `result` is `[layout.len()]`.
    pub fn first(&self, row: usize, start: usize, result: &mut [f32]) {
        let (shape, input) = (self.shape, &self.rows[row]);
        let positions = start..input.len.min(start + piece_len(input.len));
        let (queries, scales) = self.narrow;
        let narrow = (&queries[row * shape.width()..][..shape.width()], &scales[row * shape.heads..][..shape.heads]);
        let scoring = Scoring { row: input, narrow };
        let began = Instant::now();
        self.locals.with(|work| {
            if !self.whole[row] {
                self.layout.score(shape, &scoring, positions, &mut work.sums, result);
                self.shares.add(SCORES, began);
                return;
            }
            let mut scored = began;
            let note = || scored = self.shares.add(SCORES, began);
            self.layout.attend(shape, &scoring, positions, &mut work.weights, result, note);
            self.shares.add(GATHER, scored);
        });
    }

    /// The heads of `row` from `first` on, of one KV head: as many as there are `states`, and `out` is theirs. `results`
    /// are those of all pieces of the row.
    pub fn second(&self, row: usize, first: usize, results: &[f32], states: &mut [HeadState], out: &mut [f32]) {
        let (shape, input) = (self.shape, &self.rows[row]);
        let (group, head_dim) = (shape.group(), shape.head_dim);
        let mut pieces = Pieces::new(self.layout, results, input.len);
        let rule = input.rows.over(input.len);
        let mut began = Instant::now();
        self.locals.with(|work| {
            let Rows::Top { n, tail, select, lean } = rule else {
                for (out, head) in out.chunks_exact_mut(head_dim).zip(first..) {
                    head::merge(&mut pieces, head, work, out);
                }
                self.shares.add(GATHER, began);
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
                head::choose(&mut pieces, first, (n, select), states, work);
                if input.buffers.is_empty() {
                    next.ask(input.v, first / group, &states[0].selected);
                }
                let chosen = self.shares.add(SELECT, began);
                if let Some(before) = asked.replace((states, out, first)) {
                    attend(before, &found, work);
                }
                std::mem::swap(&mut found, &mut next);
                began = self.shares.add(GATHER, chosen);
            }
            if let Some(last) = asked {
                attend(last, &found, work);
                self.shares.add(GATHER, began);
            }
        });
    }
}

/// Heads that have chosen together, their part of the output, and the first of them.
type Chosen<'a> = (&'a mut [HeadState], &'a mut [f32], usize);

/// How the threads' time was divided between `N` stages.
pub(super) struct Shares<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Shares<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Shares<N> {
    /// Counts the time since `began` for a stage; returns now.
    fn add(&self, stage: usize, began: Instant) -> Instant {
        let now = Instant::now();
        self.0[stage].fetch_add((now - began).as_nanos() as u64, Ordering::Relaxed);
        now
    }

    /// Divides `wall` in the same way.
    pub fn of(&self, wall: Duration) -> [Duration; N] {
        let nanos = self.0.each_ref().map(|nanos| nanos.load(Ordering::Relaxed) as f64);
        let sum = nanos.iter().sum::<f64>().max(1.0);
        nanos.map(|nanos| wall.mul_f64(nanos / sum))
    }
}
