//! Attention of one new token per sequence: over every row, or over the rows with the largest weights.
//!
//! Four stages, each one parallel region: scores of all keys in pieces of 256 positions; per head the softmax, and
//! where only some rows are read their choice; per piece the weighted sum of rows (chosen rows are copied together
//! first: that copy is what fetching from the host tier costs); and the sum of the pieces with the tail. Pieces are
//! fixed and summed in order, so no result depends on threads or on other sequences in the batch.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use half::f16;

use super::{
    HeadShape, Rows,
    head::{HeadState, choose},
    locals::Locals,
};
use crate::{
    cache::{CachedRows, Format, PAGE_TOKENS, Page, Select, Tail},
    kernels::{
        Pool,
        q8::{self, Q8Rows},
        q8_scores, q8_weighted_sum,
        scores::scores,
        softmax,
        weighted_sum::weighted_sum,
        widen::prefetch,
    },
};

/// Positions, or chosen rows, per task.
pub(super) const PIECE: usize = 4 * PAGE_TOKENS;
/// Chosen rows that are asked for ahead of the one being copied: they lie anywhere in memory.
const ROWS_AHEAD: usize = 16;
/// Bytes of keys or values of the next page that are asked for while one page is worked on.
const PAGE_AHEAD: usize = 2048;

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
    pub rows: Rows,
    /// Sum of V over all positions, `[kv_heads·head_dim]`; may be empty where the tail is not [`Tail::Mean`].
    pub v_sum: &'a [f32],
}

/// Wall time of the stages; [`decode`] adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeTimes {
    /// Queries times keys.
    pub scores: Duration,
    /// Softmax and the choice of rows.
    pub select: Duration,
    /// Reading and summing the rows.
    pub gather: Duration,
}

/// Buffers of [`decode`], and what it found out, until the next call.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    heads: usize,
    group: usize,
    /// Tasks of each stage; a part is a run of `part_len` values or of heads.
    score_tasks: Vec<Piece>,
    softmax_tasks: Vec<Piece>,
    softmax_bounds: Vec<usize>,
    gather_tasks: Vec<Piece>,
    gather_bounds: Vec<usize>,
    /// Where the tasks of each row begin: scores, then gather.
    row_tasks: Vec<[usize; 2]>,
    /// `[score task][group][PIECE]`.
    scores: Vec<f32>,
    /// `[gather task][heads of the task][head_dim]`.
    sums: Vec<f32>,
    states: Vec<HeadState>,
    kept: Vec<f32>,
    rules: Vec<Rows>,
    /// Queries of the rows with 8-bit keys, `[row][heads·head_dim]`, and what an integer of a head stands for, times the
    /// scale of scores, `[row][heads]`.
    queries: Vec<i16>,
    query_scales: Vec<f32>,
    locals: Locals<Gathered>,
}

/// Chosen rows, copied together.
#[derive(Debug, Default)]
struct Gathered {
    f16: Vec<f16>,
    values: Vec<i8>,
    scales: Vec<f16>,
}

/// A task: some heads of a row, and a piece of its positions or of its chosen rows.
#[derive(Debug, Clone, Copy)]
struct Piece {
    row: usize,
    first_head: usize,
    heads: usize,
    index: usize,
}

impl DecodeScratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The softmax mass of the rows that each query head read, `[heads]`; `None` where `row` read every row.
    pub fn kept_mass(&self, row: usize) -> Option<&[f32]> {
        match self.rules.get(row)? {
            Rows::All => None,
            Rows::Top { .. } => Some(&self.kept[row * self.heads..][..self.heads]),
        }
    }

    /// The positions that query head `head` read, ascending; `None` where `row` read every row.
    pub fn selected(&self, row: usize, head: usize) -> Option<&[u32]> {
        let head = match self.rules.get(row)? {
            Rows::All => return None,
            Rows::Top { .. } if head >= self.heads => return None,
            Rows::Top { select: Select::Head, .. } => head,
            Rows::Top { select: Select::Group, .. } => head / self.group * self.group,
        };
        Some(&self.states[row * self.heads + head].selected)
    }

    /// Lays out the tasks of a call and makes room for their results.
    fn plan(&mut self, pool: &Pool, shape: &HeadShape, rows: &[DecodeRow<'_>]) {
        let (group, head_dim) = (shape.group(), shape.head_dim);
        (self.heads, self.group) = (shape.heads, group);
        self.score_tasks.clear();
        self.softmax_tasks.clear();
        self.softmax_bounds.clear();
        self.gather_tasks.clear();
        self.gather_bounds.clear();
        self.row_tasks.clear();
        self.rules.clear();
        let mut sums = 0;
        for (row, input) in rows.iter().enumerate() {
            let pages = input.len.div_ceil(PAGE_TOKENS);
            assert!(
                input.len > 0 && input.q.len() == shape.width() && input.k.len() >= pages && input.v.len() >= pages
            );
            let rule = input.rows.over(input.len);
            let mean = matches!(rule, Rows::Top { tail: Tail::Mean, .. });
            assert!(!mean || input.v_sum.len() == shape.kv_heads * head_dim, "the mean tail needs the sum of V");
            self.rules.push(rule);
            self.row_tasks.push([self.score_tasks.len(), self.gather_tasks.len()]);
            let by_group = |first: usize| Piece { row, first_head: first * group, heads: group, index: 0 };
            let by_head = |first_head: usize| Piece { row, first_head, heads: 1, index: 0 };
            let (read, shared_softmax, shared_rows) = match rule {
                Rows::All => (input.len, false, true),
                Rows::Top { n, select: Select::Head, .. } => (n, false, false),
                Rows::Top { n, select: Select::Group, .. } => (n, true, true),
            };
            let pieces = |task: Piece, len: usize| (0..len.div_ceil(PIECE)).map(move |index| Piece { index, ..task });
            for kv_head in 0..shape.kv_heads {
                self.score_tasks.extend(pieces(by_group(kv_head), input.len));
            }
            for index in 0..if shared_softmax { shape.kv_heads } else { shape.heads } {
                let task = if shared_softmax { by_group(index) } else { by_head(index) };
                self.softmax_bounds.push(row * shape.heads + task.first_head);
                self.softmax_tasks.push(task);
            }
            for index in 0..if shared_rows { shape.kv_heads } else { shape.heads } {
                for task in pieces(if shared_rows { by_group(index) } else { by_head(index) }, read) {
                    self.gather_bounds.push(sums);
                    self.gather_tasks.push(task);
                    sums += task.heads * head_dim;
                }
            }
        }
        self.softmax_bounds.push(rows.len() * shape.heads);
        self.gather_bounds.push(sums);
        self.scores.resize(self.score_tasks.len() * group * PIECE, 0.0);
        self.sums.clear();
        self.sums.resize(sums, 0.0);
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
}

impl Gathered {
    /// Takes the rows of one KV head at `positions`.
    fn gather(&mut self, v: &[Page], kv_head: usize, positions: &[u32]) {
        let row = |position: u32| v[position as usize / PAGE_TOKENS].rows(kv_head, position as usize % PAGE_TOKENS, 1);
        self.f16.clear();
        self.values.clear();
        self.scales.clear();
        positions.iter().take(ROWS_AHEAD).for_each(|&position| prefetch_rows(row(position)));
        for (at, &position) in positions.iter().enumerate() {
            if let Some(&ahead) = positions.get(at + ROWS_AHEAD) {
                prefetch_rows(row(ahead));
            }
            match row(position) {
                CachedRows::F16(values) => self.f16.extend_from_slice(values),
                CachedRows::Q8(Q8Rows { values, scales }) => {
                    self.values.extend_from_slice(values);
                    self.scales.extend_from_slice(scales);
                }
            }
        }
    }

    /// What was taken, up to a page of rows from `first` on.
    fn rows(&self, format: Format, head_dim: usize, first: usize, rows: usize) -> CachedRows<'_> {
        match format {
            Format::F16 => CachedRows::F16(&self.f16[first * head_dim..(first + rows) * head_dim]),
            Format::Q8 => {
                let all = Q8Rows { values: &self.values, scales: &self.scales };
                CachedRows::Q8(all.run(head_dim, first, rows))
            }
        }
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
        score_tasks,
        softmax_tasks,
        softmax_bounds,
        gather_tasks,
        gather_bounds,
        row_tasks,
        scores,
        sums,
        states,
        kept,
        rules,
        queries,
        query_scales,
        locals,
        ..
    } = scratch;
    let (group, head_dim) = (shape.group(), shape.head_dim);

    pool.run_chunks(scores, group * PIECE, |task, scores| {
        let Piece { row, first_head, index, .. } = score_tasks[task];
        let (first, at) = (row * shape.heads + first_head, index * PIECE);
        let narrow = (&queries[first * head_dim..][..group * head_dim], &query_scales[first..][..group]);
        score_piece(shape, &rows[row], narrow, first_head / group, at, scores);
    });
    let scored = Instant::now();

    pool.run_split(states, softmax_bounds, |task, states| {
        let Piece { row, first_head, .. } = softmax_tasks[task];
        let pieces = rows[row].len.div_ceil(PIECE);
        let (kv_head, first_lane) = (first_head / group, first_head % group);
        let tasks = row_tasks[row][0] + kv_head * pieces..row_tasks[row][0] + (kv_head + 1) * pieces;
        let scores = &scores[tasks.start * group * PIECE..tasks.end * group * PIECE];
        for (at, state) in states.iter_mut().enumerate() {
            state.softmax(scores, group, first_lane + at);
        }
        choose(states, rules[row], rows[row].len);
    });
    kept.clear();
    kept.extend(states[..rows.len() * shape.heads].iter().map(|state| state.kept));
    let selected = Instant::now();

    pool.run_split(sums, gather_bounds, |task, sums| {
        let Piece { row, first_head, heads, index } = gather_tasks[task];
        let states = &states[row * shape.heads + first_head..][..heads];
        let piece = index * PIECE..(index + 1) * PIECE;
        locals.with(|gathered| {
            gather_piece(shape, &rows[row], rules[row], states, piece, first_head / group, gathered, sums)
        });
    });
    pool.run_chunks(out, shape.width(), |row, out| {
        let tasks = row_tasks[row][1]..row_tasks.get(row + 1).map_or(gather_tasks.len(), |next| next[1]);
        out.fill(0.0);
        for task in tasks {
            let first = gather_tasks[task].first_head * head_dim;
            for (out, sum) in out[first..].iter_mut().zip(&sums[gather_bounds[task]..gather_bounds[task + 1]]) {
                *out += sum;
            }
        }
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            finish(&states[row * shape.heads + head], rules[row], &rows[row], head / group, out);
        }
    });
    times.scores += scored - started;
    times.select += selected - scored;
    times.gather += selected.elapsed();
}

/// Scores of one piece of positions for the query heads of one KV head, `[group, PIECE]`; −∞ beyond the last one.
/// `narrow` holds the same queries as integers, and their scales.
fn score_piece(
    shape: &HeadShape,
    row: &DecodeRow<'_>,
    narrow: (&[i16], &[f32]),
    kv_head: usize,
    start: usize,
    out: &mut [f32],
) {
    let (group, head_dim) = (shape.group(), shape.head_dim);
    let q = &row.q[kv_head * group * head_dim..][..group * head_dim];
    let len = PIECE.min(row.len - start);
    for (page, at) in row.k[start / PAGE_TOKENS..].iter().zip((0..len).step_by(PAGE_TOKENS)) {
        if let Some(next) = row.k.get((start + at) / PAGE_TOKENS + 1) {
            prefetch_head(next, kv_head);
        }
        let keys = PAGE_TOKENS.min(len - at);
        match page.rows(kv_head, 0, keys) {
            CachedRows::F16(k) => scores(q, k, head_dim, shape.scale, &mut out[at..], PIECE),
            CachedRows::Q8(k) => q8_scores::scores(narrow.0, narrow.1, k, head_dim, &mut out[at..], PIECE),
        }
    }
    for out in out.chunks_exact_mut(PIECE) {
        out[len..].fill(f32::NEG_INFINITY);
        // A key that makes a score infinite or undefined must not make the whole row undefined.
        softmax::clamp_max(&mut out[..len]);
    }
}

/// Asks for the first part of a head's rows; the kernels ask for the rest as they go.
fn prefetch_head(page: &Page, kv_head: usize) {
    match page.rows(kv_head, 0, PAGE_TOKENS) {
        CachedRows::F16(rows) => prefetch(&rows[..rows.len().min(PAGE_AHEAD / size_of::<f16>())]),
        CachedRows::Q8(Q8Rows { values, scales }) => {
            prefetch(scales);
            prefetch(&values[..values.len().min(PAGE_AHEAD)]);
        }
    }
}

fn prefetch_rows(rows: CachedRows<'_>) {
    match rows {
        CachedRows::F16(rows) => prefetch(rows),
        CachedRows::Q8(Q8Rows { values, scales }) => {
            prefetch(scales);
            prefetch(values);
        }
    }
}

/// The weighted sum over one piece of positions, or of chosen rows, for the query heads in `states`.
#[expect(clippy::too_many_arguments, reason = "a task's inputs, its buffer and its output")]
fn gather_piece(
    shape: &HeadShape,
    row: &DecodeRow<'_>,
    rule: Rows,
    states: &[HeadState],
    piece: Range<usize>,
    kv_head: usize,
    gathered: &mut Gathered,
    sums: &mut [f32],
) {
    let head_dim = shape.head_dim;
    match rule {
        Rows::All => {
            for page in (piece.start..piece.end.min(row.len)).step_by(PAGE_TOKENS) {
                let len = PAGE_TOKENS.min(row.len - page);
                if let Some(next) = row.v.get(page / PAGE_TOKENS + 1) {
                    prefetch_head(next, kv_head);
                }
                let v = row.v[page / PAGE_TOKENS].rows(kv_head, 0, len);
                let weights = states.iter().map(|state| &state.weights[page..page + len]);
                add_rows(weights, v, head_dim, sums);
            }
        }
        Rows::Top { .. } => {
            let piece = piece.start..piece.end.min(states[0].selected.len());
            gathered.gather(row.v, kv_head, &states[0].selected[piece.clone()]);
            let format = row.v[0].format();
            for first in (0..piece.len()).step_by(PAGE_TOKENS) {
                let len = PAGE_TOKENS.min(piece.len() - first);
                let weights = states.iter().map(|state| &state.chosen[piece.start + first..][..len]);
                add_rows(weights, gathered.rows(format, head_dim, first, len), head_dim, sums);
            }
        }
    }
}

/// `sums_g += Σ weights_g·v` for up to a page of rows. The kernel takes three heads at a time, their weights side by
/// side.
fn add_rows<'a>(mut weights: impl Iterator<Item = &'a [f32]>, v: CachedRows<'_>, head_dim: usize, sums: &mut [f32]) {
    const HEADS: usize = 3;
    let mut together = [0.0; HEADS * PAGE_TOKENS];
    for sums in sums.chunks_mut(HEADS * head_dim) {
        for (to, from) in together.chunks_exact_mut(PAGE_TOKENS).zip(weights.by_ref().take(HEADS)) {
            to[..from.len()].copy_from_slice(from);
        }
        match v {
            CachedRows::F16(v) => weighted_sum(&together, PAGE_TOKENS, v, head_dim, sums),
            CachedRows::Q8(v) => q8_weighted_sum::weighted_sum(&together, PAGE_TOKENS, v, head_dim, sums),
        }
    }
}

/// Turns a head's sum of weighted rows into its output: the division by the total, and the tail.
fn finish(state: &HeadState, rule: Rows, row: &DecodeRow<'_>, kv_head: usize, out: &mut [f32]) {
    let factor = match rule {
        // A head whose group chose only rows without weight for it has nothing to divide.
        Rows::Top { tail: Tail::Renorm, .. } => 1.0 / state.chosen_total.max(f32::MIN_POSITIVE),
        _ => 1.0 / state.total,
    };
    softmax::scale(out, factor);
    if let Rows::Top { tail: Tail::Mean, .. } = rule {
        let share = (1.0 - state.kept) / row.len as f32;
        let v_sum = &row.v_sum[kv_head * out.len()..];
        for (out, sum) in out.iter_mut().zip(v_sum) {
            *out += share * sum;
        }
    }
}
