//! How fast decoding attends on this machine: [`decode`] itself on made-up sequences in memory, for heads of one shape.
//!
//! A step's attention costs something for each position that a query head scores, and for each row that is chosen.
//! Kernels, softmax, choice and memory overlap, so their single rates cannot be added. They are measured together, with
//! one figure for each way to read.

use std::{ops::ControlFlow, time::Instant};

use serde::Serialize;

use super::{MachineError, MachineOptions, Spread, split_mix::SplitMix64};
use crate::{
    attention::{Count, DecodeRow, DecodeScratch, DecodeTimes, HeadShape, Rows, decode},
    cache::{Format, PAGE_TOKENS, Page, Select, Tail},
    kernels::Pool,
    progress::Progress,
};

const POSITIONS: usize = 4096;
/// Rows that each head chooses where the choice is measured, and where the rows are.
const FEW: usize = 16;
const MANY: usize = 272;
/// The part of the buffer that the sequences take: both together far more than the caches hold.
const PART: usize = 4;

/// What attention of a decoding step takes, in nanoseconds on all threads together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AttentionRates {
    /// For each position and query head where every row is read, scores, softmax and sum: 16-bit K and V.
    pub all_f16_ns: Spread,
    /// The same of 8-bit K and V.
    pub all_q8_ns: Spread,
    /// The same of 8-bit K and 16-bit V.
    pub all_mixed_ns: Spread,
    /// For each position and query head where rows are chosen, scores, softmax and choice: 16-bit K.
    pub choose_f16_ns: Spread,
    /// The same of 8-bit K.
    pub choose_q8_ns: Spread,
    /// For each row that a query head has chosen, 16 bits a value: fetched and summed.
    pub row_ns: Spread,
}

/// Ways to read, in the order in which they are measured.
const WAYS: [(Format, Format, Option<usize>); 6] = [
    (Format::F16, Format::F16, None),
    (Format::Q8, Format::Q8, None),
    (Format::Q8, Format::F16, None),
    (Format::F16, Format::F16, Some(FEW)),
    (Format::Q8, Format::F16, Some(FEW)),
    (Format::F16, Format::F16, Some(MANY)),
];

/// Measures attention for heads of this shape, with all threads of `pool`. `progress` is called after every way to
/// read and may break it off.
///
/// # Errors
/// When it was broken off, or there are no rounds.
pub fn attention_rates(
    pool: &Pool,
    shape: &HeadShape,
    options: MachineOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<AttentionRates, MachineError> {
    let total = 1 + options.rounds * WAYS.len();
    let mut advance = |what: String, done| match progress(Progress { what, done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(MachineError::Stopped),
    };
    let bytes = 2 * POSITIONS * shape.kv_heads * Format::F16.row_bytes(shape.head_dim) as usize;
    let sequences = (options.buffer_bytes / PART / bytes).max(1);
    let mut random = Values::new();
    let sequences: Vec<Sequence> = (0..sequences).map(|_| Sequence::new(shape, &mut random)).collect();
    advance("filling a cache".to_owned(), 1)?;
    let mut scratch = DecodeScratch::new();
    let mut out = vec![0.0; sequences.len() * shape.heads * shape.head_dim];
    let mut measured = WAYS.map(|_| Vec::new());
    for round in 0..options.rounds {
        for (at, (way, measured)) in WAYS.into_iter().zip(&mut measured).enumerate() {
            let rows: Vec<DecodeRow> = sequences.iter().map(|sequence| sequence.row(way)).collect();
            let mut attend = || decode(pool, shape, &rows, &mut scratch, &mut out, &mut DecodeTimes::default());
            // The first one wakes the workers and sizes the buffers.
            attend();
            let (started, mut times) = (Instant::now(), 0u32);
            while times == 0 || started.elapsed() < options.slice {
                attend();
                times += 1;
            }
            measured.push(started.elapsed().as_secs_f64() * 1e9 / f64::from(times));
            let done = 2 + round * WAYS.len() + at;
            advance(format!("round {} of {}: attention", round + 1, options.rounds), done)?;
        }
    }
    let heads = (sequences.len() * shape.heads) as f64;
    let [all_f16, all_q8, all_mixed, choose_f16, choose_q8, many] = measured;
    // On a machine that is disturbed the difference may come out below 0, which no row costs.
    let rows = |(many, few): (&f64, &f64)| ((many - few) / (heads * (MANY - FEW) as f64)).max(0.0);
    let row = Spread::of(many.iter().zip(&choose_f16).map(rows));
    let spread = |way: Vec<f64>| Spread::of(way.into_iter().map(|ns| ns / (heads * POSITIONS as f64)));
    let some = |spread: Option<Spread>| spread.ok_or(MachineError::NoRounds);
    Ok(AttentionRates {
        all_f16_ns: some(spread(all_f16))?,
        all_q8_ns: some(spread(all_q8))?,
        all_mixed_ns: some(spread(all_mixed))?,
        choose_f16_ns: some(spread(choose_f16))?,
        choose_q8_ns: some(spread(choose_q8))?,
        row_ns: some(row)?,
    })
}

/// Random numbers of −1..1, drawn once and read from anywhere.
struct Values {
    table: Vec<f32>,
    random: SplitMix64,
}

impl Values {
    const COUNT: usize = 1 << 18;

    fn new() -> Self {
        let mut random = SplitMix64(0);
        let table = std::iter::repeat_with(|| random.unit() as f32 * 2.0 - 1.0).take(Self::COUNT).collect();
        Self { table, random }
    }

    fn some(&mut self, count: usize) -> &[f32] {
        let last = (self.table.len() - count) as f64;
        &self.table[(self.random.unit() * last) as usize..][..count]
    }
}

/// K and V of a sequence in both formats, and the queries of its last position.
struct Sequence {
    q: Vec<f32>,
    k: [Vec<Page>; 2],
    v: [Vec<Page>; 2],
    v_sum: Vec<f32>,
}

impl Sequence {
    fn new(shape: &HeadShape, random: &mut Values) -> Self {
        let HeadShape { heads, kv_heads, head_dim, .. } = *shape;
        let mut pages = |new: fn(Format, usize, usize) -> Page| {
            let mut pages: Vec<Page> = Vec::with_capacity(POSITIONS / PAGE_TOKENS);
            for _ in 0..POSITIONS / PAGE_TOKENS {
                let mut page = new(Format::F16, kv_heads, head_dim);
                for row in 0..kv_heads * PAGE_TOKENS {
                    page.write(row / PAGE_TOKENS, row % PAGE_TOKENS, random.some(head_dim));
                }
                pages.push(page);
            }
            let narrow = pages.iter().map(|page| Page::copy(Format::Q8, page)).collect();
            [pages, narrow]
        };
        let (k, v) = (pages(Page::for_keys), pages(Page::for_values));
        Self { q: random.some(heads * head_dim).to_vec(), k, v, v_sum: vec![0.0; kv_heads * head_dim] }
    }

    fn row(&self, (k, v, n): (Format, Format, Option<usize>)) -> DecodeRow<'_> {
        let of = |format: Format| usize::from(format == Format::Q8);
        let rows =
            n.map_or(Rows::All, |n| Rows::Top { n: Count::Same(n), tail: Tail::Mean, select: Select::Head, lean: &[] });
        let (k, v) = (&self.k[of(k)], &self.v[of(v)]);
        DecodeRow { q: &self.q, k, v, len: POSITIONS, rows, v_sum: &self.v_sum, buffers: &[] }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const QUICK: MachineOptions = MachineOptions { buffer_bytes: 1 << 20, rounds: 2, slice: Duration::ZERO };

    #[test]
    fn every_way_to_read_takes_its_time() {
        let shape = HeadShape { heads: 4, kv_heads: 2, head_dim: 48, scale: 0.125 };
        let mut told = Vec::new();
        let mut progress = |progress: Progress| {
            told.push((progress.done, progress.total));
            ControlFlow::Continue(())
        };
        let rates = attention_rates(&Pool::new(2), &shape, QUICK, &mut progress).unwrap();
        assert_eq!(told, (1..=13).map(|done| (done, 13)).collect::<Vec<_>>());
        for ns in [rates.all_f16_ns, rates.all_q8_ns, rates.all_mixed_ns, rates.choose_f16_ns, rates.choose_q8_ns] {
            assert!(0.0 < ns.min && ns.min <= ns.median && ns.median <= ns.max && ns.max.is_finite(), "{rates:?}");
        }
        assert!(rates.row_ns.min >= 0.0 && rates.row_ns.max.is_finite(), "{rates:?}");
        let stopped = attention_rates(&Pool::new(1), &shape, QUICK, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(MachineError::Stopped)));
        let none = MachineOptions { rounds: 0, ..QUICK };
        let none = attention_rates(&Pool::new(1), &shape, none, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(none, Err(MachineError::NoRounds)));
    }
}
