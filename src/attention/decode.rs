//! Attention of one new token per sequence: over every row, or over the rows with the largest weights.
//!
//! Two passes, each one parallel region. The first goes over all keys in pieces of whole pages; where every row is
//! read it sums V of the piece at once, by the piece's own softmax. The second puts the pieces of a head together, and
//! where rows are chosen it chooses, fetches and sums them (they are copied together first: that copy is what fetching
//! from the host tier costs). Pieces are fixed and taken in order, so no result depends on threads or on other
//! sequences in the batch.

mod weights;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    HeadShape, Rows,
    head::{self, HeadState, Pieces, Workspace},
    locals::Locals,
    piece::{Layout, Scoring, most_pieces, piece_len},
    reuse,
};
use crate::{
    cache::{Format, PAGE_TOKENS, Page, RowBuffer, Select, Tail},
    kernels::{Pool, q8},
};

/// The new token of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct DecodeRow<'a> {
    /// Its queries, `[heads·head_dim]`, position applied.
    pub q: &'a [f32],
    /// Pages of keys, all of one format; position `p` is in page `p / 64`, slot `p % 64`. The token's own key is in them.
    pub k: &'a [Page],
    /// Pages of values, likewise.
    pub v: &'a [Page],
    /// Positions attended to, itself included; at least 1.
    pub len: usize,
    /// Which rows of V are read.
    pub rows: Rows<'a>,
    /// Sum of V over all positions, `[kv_heads·head_dim]`; may be empty where the tail is not [`Tail::Mean`].
    pub v_sum: &'a [f32],
    /// Reuse buffers of chosen rows, one for every KV head, used by nobody else during the call; or none.
    pub buffers: &'a [Mutex<RowBuffer>],
}

/// Wall time of the stages; [`decode`] adds to it. Where stages follow each other within a task, a pass's wall time is
/// divided as the threads' time was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeTimes {
    /// Queries times keys, and the softmax.
    pub scores: Duration,
    /// The choice of rows.
    pub select: Duration,
    /// Reading and summing the rows.
    pub gather: Duration,
}

/// Buffers of [`decode`], and what it found out, until the next call.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    heads: usize,
    group: usize,
    layout: Layout,
    /// Tasks of the first pass, row after row.
    pieces: Vec<Piece>,
    /// `[pieces][layout.len()]`.
    results: Vec<f32>,
    /// Tasks of the second pass, and where each begins among all heads of all rows.
    tasks: Vec<Heads>,
    bounds: Vec<usize>,
    states: Vec<HeadState>,
    kept: Vec<f32>,
    whole: Vec<bool>,
    selects: Vec<Select>,
    /// Queries of the rows with 8-bit keys, `[row][heads·head_dim]`, and what an integer of a head stands for, times the
    /// scale of scores, `[row][heads]`.
    queries: Vec<i16>,
    query_scales: Vec<f32>,
    locals: Locals<Workspace>,
}

/// A task of the first pass.
#[derive(Debug, Clone, Copy)]
struct Piece {
    row: usize,
    start: usize,
}

/// A task of the second pass: the query heads from `first` on, and the first of their row's pieces.
#[derive(Debug, Clone, Copy)]
struct Heads {
    row: usize,
    first: usize,
    piece: usize,
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
        if *self.whole.get(row)? || head >= self.heads {
            return None;
        }
        let head = match self.selects[row] {
            Select::Head => head,
            Select::Group => head / self.group * self.group,
        };
        Some(&self.states[row * self.heads + head].selected)
    }

    /// The V rows that were fetched for `row`, one KV head's row each; heads that choose together fetch once, and what a
    /// reuse buffer held is not fetched. `None` where `row` read every row.
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
        self.pieces.clear();
        self.tasks.clear();
        self.bounds.clear();
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
            let together = if input.buffers.is_empty() { head::together(rule, group) } else { group };
            let piece = self.pieces.len();
            self.pieces.extend((0..input.len).step_by(piece_len(input.len)).map(|start| Piece { row, start }));
            for first in (0..shape.heads).step_by(together) {
                self.bounds.push(row * shape.heads + first);
                self.tasks.push(Heads { row, first, piece });
            }
        }
        self.bounds.push(rows.len() * shape.heads);
        self.results.resize(self.pieces.len() * self.layout.len(), 0.0);
        self.states.resize_with(self.states.len().max(rows.len() * shape.heads), HeadState::default);
        self.locals.grow(pool.threads());
        self.queries.resize(rows.len() * shape.width(), 0);
        self.query_scales.resize(rows.len() * shape.heads, 0.0);
        let queries = self.queries.chunks_exact_mut(head_dim).zip(&mut self.query_scales);
        let heads = rows.iter().flat_map(|row| row.q.chunks_exact(head_dim).map(|q| (q, row.k[0].format())));
        for ((q, format), (to, scale)) in heads.zip(queries) {
            if format == Format::Q8 {
                *scale = shape.scale * q8::quantise_query(q, to);
            }
        }
    }

    /// Makes room for `rows` rows of up to `longest` positions.
    pub fn reserve(&mut self, shape: &HeadShape, rows: usize, longest: usize) {
        self.results.reserve_exact(rows * most_pieces(longest) * Layout::new(shape).len());
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
    let DecodeScratch {
        layout,
        pieces,
        results,
        tasks,
        bounds,
        states,
        kept,
        whole,
        queries,
        query_scales,
        locals,
        ..
    } = scratch;
    let (layout, group, head_dim) = (*layout, shape.group(), shape.head_dim);

    let first_pass = Shares::default();
    pool.run_chunks(results, layout.len(), |task, result| {
        let Piece { row, start } = pieces[task];
        let input = &rows[row];
        let positions = start..input.len.min(start + piece_len(input.len));
        let narrow =
            (&queries[row * shape.width()..][..shape.width()], &query_scales[row * shape.heads..][..shape.heads]);
        let scoring = Scoring { row: input, narrow };
        let began = Instant::now();
        if !whole[row] {
            layout.score(shape, &scoring, positions, result);
            first_pass.add(0, began);
            return;
        }
        locals.with(|work| {
            let mut scored = began;
            layout.attend(shape, &scoring, positions, &mut work.weights, result, || scored = first_pass.add(0, began));
            first_pass.add(1, scored);
        });
    });
    let scored = Instant::now();

    let second_pass = Shares::default();
    let states = &mut states[..rows.len() * shape.heads];
    pool.run_split_rows(states, out, head_dim, bounds, |task, states, out| {
        let Heads { row, first, piece } = tasks[task];
        let input = &rows[row];
        let count = input.len.div_ceil(piece_len(input.len));
        let results = &results[piece * layout.len()..][..count * layout.len()];
        let pieces = Pieces { layout, results, len: input.len };
        let began = Instant::now();
        let Rows::Top { n, tail, select, lean } = input.rows.over(input.len) else {
            locals.with(|work| {
                for (out, head) in out.chunks_exact_mut(head_dim).zip(first..) {
                    head::merge(pieces, head, work, out);
                }
            });
            second_pass.add(1, began);
            return;
        };
        locals.with(|work| {
            let together = head::together(input.rows.over(input.len), group);
            let parts = states.chunks_mut(together).zip(out.chunks_mut(together * head_dim));
            let (mut first, mut began) = (first, began);
            if let Some(buffer) = input.buffers.get(first / group) {
                reuse::lock(buffer).begin();
            }
            for (states, out) in parts {
                head::choose(pieces, first, (n, select), states, work);
                let chosen = second_pass.add(0, began);
                let lean = if lean.is_empty() { lean } else { &lean[first..first + states.len()] };
                head::attend(shape, input, (tail, lean), first / group, states, work, out);
                began = second_pass.add(1, chosen);
                first += states.len();
            }
        });
    });
    kept.clear();
    kept.extend(states.iter().map(|state| state.kept));

    let [scores, sums] = first_pass.of(scored - started);
    let [select, gather] = second_pass.of(scored.elapsed());
    times.scores += scores;
    times.select += select;
    times.gather += sums + gather;
}

/// How the threads' time in a pass was divided between two stages.
#[derive(Default)]
struct Shares([AtomicU64; 2]);

impl Shares {
    /// Counts the time since `began` for a stage; returns now.
    fn add(&self, stage: usize, began: Instant) -> Instant {
        let now = Instant::now();
        self.0[stage].fetch_add((now - began).as_nanos() as u64, Ordering::Relaxed);
        now
    }

    /// Divides the pass's wall time.
    fn of(&self, wall: Duration) -> [Duration; 2] {
        let [first, second] = self.0.each_ref().map(|nanos| nanos.load(Ordering::Relaxed) as f64);
        let first = wall.mul_f64(if first + second > 0.0 { first / (first + second) } else { 0.0 });
        [first, wall - first]
    }
}
