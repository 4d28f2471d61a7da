//! Attention of one new token per sequence: over every row, or over the rows with the largest weights.
//!
//! There are two passes. The first goes over all keys, one KV split (some whole pages) at a time. Where every row is
//! read, it sums the V rows of the split at once, weighted by the split's own softmax. The second pass merges the
//! splits of each head; where rows are chosen, it chooses them, fetches them and sums them.
//!
//! Where a row is split depends on its length alone, and splits are merged in order. So results do not depend on the
//! number of threads or on the other sequences in the batch.
//!
//! The first pass waits for memory and the second mostly computes. So a sequence's second pass follows its first at
//! once, while other threads read the keys of other sequences; [`stagger`] keeps them from all computing at the same
//! time. Second passes that are left when no more keys are to be read are divided among all threads by heads.

mod passes;
mod stagger;
mod weights;

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use self::{passes::Passes, stagger::Stagger};
use super::{
    DecodeRow, HeadShape, Hits, Rows,
    head::{self, HeadState, Workspace},
    kv_split::{Layout, max_splits, split_len},
    per_thread::PerThread,
    stage_clock::StageClock,
};
use crate::{
    cache::{Format, PAGE_TOKENS, Select, Tail},
    kernels::{Pool, q8, split::Countdown},
};

/// Wall time of the stages; [`decode`] adds to it. Stages of different sequences run side by side, so the
/// wall time is divided in proportion to the time that threads spent in each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeTimes {
    /// Queries times keys, and the softmax.
    pub scores: Duration,
    /// The choice of rows.
    pub select: Duration,
    /// Reading and summing the rows.
    pub gather: Duration,
}

/// Buffers of [`decode`], and the results of the last call.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    heads: usize,
    group: usize,
    layout: Layout,
    /// Tasks of the first pass, row after row, and where each row's begin.
    splits: Vec<KvSplit>,
    firsts: Vec<usize>,
    left: Countdown,
    /// `[splits][layout.len()]`.
    results: Vec<f32>,
    /// Heads that choose together, or come to the same buffer, of each row.
    together: Vec<usize>,
    /// Heads among those of all rows: whose queries a task rounds, then what is left of the second pass after the
    /// first.
    ranges: Vec<Range<usize>>,
    states: Vec<HeadState>,
    kept: Vec<f32>,
    whole: Vec<bool>,
    selects: Vec<Select>,
    /// Queries of the rows with 8-bit keys, `[row][heads·head_dim]`, and what an integer of a head stands for, times
    /// the scale of scores, `[row][heads]`.
    queries: Vec<i16>,
    query_scales: Vec<f32>,
    locals: PerThread<Workspace>,
}

/// A task of the first pass: the positions of a row from `start` on, up to the next split.
#[derive(Debug, Clone, Copy)]
struct KvSplit {
    row: usize,
    start: usize,
}

impl DecodeScratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The softmax mass of the rows that each query head read, `[heads]`; `None` where `row` read every row.
    pub fn kept_mass(&self, row: usize) -> Option<&[f32]> {
        (!*self.whole.get(row)?).then(|| &self.kept[row * self.heads..][..self.heads])
    }

    /// The positions that query head `head` read, ascending; `None` where `row` read every row.
    pub fn selected(&self, row: usize, head: usize) -> Option<&[u32]> {
        Some(&self.state(row, head)?.selected)
    }

    /// Where those positions lie.
    pub fn hits(&self, row: usize, head: usize) -> Option<Hits> {
        Some(self.state(row, head)?.hits)
    }

    /// What is known of the head that chose for `head`.
    fn state(&self, row: usize, head: usize) -> Option<&HeadState> {
        if *self.whole.get(row)? || head >= self.heads {
            return None;
        }
        let head = match self.selects[row] {
            Select::Head => head,
            Select::Group => head / self.group * self.group,
        };
        Some(&self.states[row * self.heads + head])
    }

    /// The V rows that were fetched for `row`, one KV head's row each; heads that choose together fetch once, and what
    /// a reuse buffer held is not fetched. `None` where `row` read every row.
    pub fn fetched(&self, row: usize) -> Option<usize> {
        Some(self.states(row)?.map(|state| state.fetched).sum())
    }

    /// The positions that `row` chose, a list for every query head or for those that choose together. `None` where it
    /// read every row.
    pub fn choosing(&self, row: usize) -> Option<impl Iterator<Item = &[u32]>> {
        Some(self.states(row)?.map(|state| &state.selected[..]))
    }

    fn states(&self, row: usize) -> Option<impl Iterator<Item = &HeadState>> {
        let step = match (*self.whole.get(row)?, self.selects[row]) {
            (true, _) => return None,
            (false, Select::Head) => 1,
            (false, Select::Group) => self.group,
        };
        Some(self.states[row * self.heads..][..self.heads].iter().step_by(step))
    }

    /// Lays out the tasks of a call and makes room for their results.
    fn plan(&mut self, pool: &Pool, shape: &HeadShape, rows: &[DecodeRow<'_>]) {
        let (group, head_dim) = (shape.group(), shape.head_dim);
        (self.heads, self.group, self.layout) = (shape.heads, group, Layout::new(shape));
        self.splits.clear();
        self.firsts.clear();
        self.together.clear();
        self.whole.clear();
        self.selects.clear();
        for (row, input) in rows.iter().enumerate() {
            let pages = input.len.div_ceil(PAGE_TOKENS);
            assert!(
                input.len > 0 && input.q.len() == shape.width() && input.k.len() >= pages && input.v.len() >= pages
            );
            let rule = input.rows.over(input.len);
            let mean = matches!(rule, Rows::Top { tail: Tail::Mean, .. });
            let leans = !matches!(rule, Rows::Top { lean, .. } if !lean.is_empty() && lean.len() < shape.heads);
            assert!(leans, "a lean for every query head, or for none");
            assert!(!mean || input.v_sum.len() == shape.kv_heads * head_dim, "the mean tail needs the sum of V");
            self.whole.push(rule == Rows::All);
            self.selects.push(if let Rows::Top { select, .. } = rule { select } else { Select::Group });
            // Heads that share a buffer use it one after the other.
            self.together.push(if input.buffers.is_empty() { head::together(rule, group) } else { group });
            self.firsts.push(self.splits.len());
            self.splits.extend((0..input.len).step_by(split_len(input.len)).map(|start| KvSplit { row, start }));
        }
        self.firsts.push(self.splits.len());
        self.results.resize(self.splits.len() * self.layout.len(), 0.0);
        self.states.resize_with(self.states.len().max(rows.len() * shape.heads), HeadState::default);
        self.locals.grow(pool.threads());
        self.queries.resize(rows.len() * shape.width(), 0);
        self.query_scales.resize(rows.len() * shape.heads, 0.0);
        if rows.iter().any(|row| row.k[0].format() == Format::Q8) {
            self.round_queries(pool, shape, rows);
        }
    }

    /// Rounds the queries of rows with 8-bit keys.
    fn round_queries(&mut self, pool: &Pool, shape: &HeadShape, rows: &[DecodeRow<'_>]) {
        // Rows that a task rounds: fewer would cost less than giving the task to another thread.
        const ROUNDED: usize = 8;
        let (heads, head_dim) = (shape.heads, shape.head_dim);
        let whole = (0..rows.len()).step_by(ROUNDED).map(|row| row..rows.len().min(row + ROUNDED));
        self.ranges.clear();
        self.ranges.extend(whole.map(|rows| rows.start * heads..rows.end * heads));
        let (ranges, queries) = (&self.ranges, (&mut self.queries[..], head_dim));
        pool.run_ranges(&mut self.query_scales, queries, ranges, |task, scales, queries| {
            let rows = &rows[ranges[task].start / heads..];
            let heads = rows.iter().flat_map(|row| row.q.chunks_exact(head_dim).map(|q| (q, row.k[0].format())));
            for ((q, format), (to, scale)) in heads.zip(queries.chunks_exact_mut(head_dim).zip(scales)) {
                if format == Format::Q8 {
                    *scale = shape.scale * q8::quantise_query(q, to);
                }
            }
        });
    }

    /// Makes room for `rows` rows of up to `longest` positions.
    pub fn reserve(&mut self, shape: &HeadShape, rows: usize, longest: usize) {
        self.results.reserve_exact(rows * max_splits(longest) * Layout::new(shape).len());
        self.queries.reserve_exact(rows * shape.width());
        self.query_scales.reserve_exact(rows * shape.heads);
    }

    /// Bytes of scores, partial sums and queries, and of what its threads work in.
    pub fn bytes(&self) -> u64 {
        let floats = size_of::<f32>() * (self.results.capacity() + self.query_scales.capacity());
        (floats + size_of::<i16>() * self.queries.capacity()) as u64 + self.locals.sum(Workspace::bytes)
    }
}

/// Attention of each row to its sequence; `out` is `[rows, heads·head_dim]`.
///
/// # Panics
/// When a row's queries, pages or sum of V, or `out`, are too short.
pub fn decode(
    pool: &Pool,
    shape: &HeadShape,
    rows: &[DecodeRow<'_>],
    scratch: &mut DecodeScratch,
    out: &mut [f32],
    times: &mut DecodeTimes,
) {
    assert_eq!(out.len(), rows.len() * shape.width(), "rows of decode");
    let started = Instant::now();
    scratch.plan(pool, shape, rows);
    let DecodeScratch { layout, splits, firsts, left, results, together, ranges, states, kept, .. } = scratch;
    let mut passes = Passes {
        shape,
        rows,
        layout: *layout,
        whole: &scratch.whole,
        narrow: (&scratch.queries, &scratch.query_scales),
        locals: &scratch.locals,
        since: started,
    };
    let states = &mut states[..rows.len() * shape.heads];
    states.iter_mut().step_by(shape.heads).for_each(|state| state.done = false);
    let stagger = Stagger::new(pool.threads());
    pool.run_chunks_then(
        (results, passes.layout.len()),
        (firsts, left),
        (states, out),
        |task, result| {
            passes.first(splits[task].row, splits[task].start, result);
        },
        |row, left, results, states, out| {
            states[0].done = stagger.second_pass(left, || {
                let group = shape.group();
                let kv_heads = states.chunks_exact_mut(group).zip(out.chunks_exact_mut(group * shape.head_dim));
                for ((states, out), first) in kv_heads.zip((0..).step_by(group)) {
                    passes.second(row, first, results, states, out);
                }
            });
        },
    );
    ranges.clear();
    for row in (0..rows.len()).filter(|row| !states[row * shape.heads].done) {
        for first in (0..shape.heads).step_by(together[row]) {
            let heads = row * shape.heads + first;
            ranges.push(heads..heads + together[row]);
        }
    }
    passes.since = Instant::now();
    pool.run_ranges(states, (out, shape.head_dim), ranges, |task, states, out| {
        let (row, first) = (ranges[task].start / shape.heads, ranges[task].start % shape.heads);
        let results = &results[firsts[row] * passes.layout.len()..firsts[row + 1] * passes.layout.len()];
        passes.second(row, first, results, states, out);
    });
    kept.clear();
    kept.extend(states.iter().map(|state| state.kept));

    let spent = scratch.locals.each().map(|work| std::mem::take(&mut work.clock));
    let [scores, select, gather] = StageClock::share(spent, started.elapsed());
    times.scores += scores;
    times.select += select;
    times.gather += gather;
}
