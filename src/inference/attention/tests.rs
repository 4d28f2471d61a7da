//! Attention against its reference, and against itself: other batches, chunks and thread counts.

use std::sync::{LazyLock, Mutex};

use proptest::prelude::*;

use super::*;
use crate::{
    cache::{Format, PAGE_TOKENS, Page, RowBuffer, Select, Tail},
    kernels::Pool,
};

/// A small generator of numbers, so that a case is its seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Values within ±`size`; whole numbers where `whole`, so that scores are exact and many are equal.
    fn values(&mut self, len: usize, size: f32, whole: bool) -> Vec<f32> {
        (0..len).map(|_| if whole { (self.next() * 2.5).trunc() } else { self.next() * size }).collect()
    }
}

struct Sequence {
    q: Vec<f32>,
    k: Vec<Page>,
    v: Vec<Page>,
    len: usize,
    v_sum: Vec<f32>,
}

impl Sequence {
    /// `len` positions with queries for each of them, K and V in these formats.
    fn new(shape: &HeadShape, formats: [Format; 2], len: usize, seed: u64, whole: bool) -> Self {
        let mut numbers = Numbers(seed | 1);
        let width = shape.kv_heads * shape.head_dim;
        let q = numbers.values(len * shape.heads * shape.head_dim, 2.0, whole);
        let mut pages = |new: fn(Format, usize, usize) -> Page, format: Format, size: f32| -> Vec<Page> {
            let new = || new(format, shape.kv_heads, shape.head_dim);
            let mut pages: Vec<Page> = std::iter::repeat_with(new).take(len.div_ceil(PAGE_TOKENS)).collect();
            // Slots beyond `len` hold what an earlier sequence left there.
            for at in 0..pages.len() * PAGE_TOKENS {
                for head in 0..shape.kv_heads {
                    // Some rows are zero.
                    let size = if !whole && numbers.next() > 0.9 { 0.0 } else { size };
                    let values = numbers.values(shape.head_dim, size, whole);
                    pages[at / PAGE_TOKENS].write(head, at % PAGE_TOKENS, &values);
                }
            }
            pages
        };
        let (k, v) = (pages(Page::for_keys, formats[0], 2.0), pages(Page::for_values, formats[1], 1.0));
        let mut v_sum = vec![0.0; width];
        let mut row = vec![0.0; shape.head_dim];
        for at in 0..len {
            for (head, sums) in v_sum.chunks_exact_mut(shape.head_dim).enumerate() {
                v[at / PAGE_TOKENS].read(head, at % PAGE_TOKENS, &mut row);
                sums.iter_mut().zip(&row).for_each(|(sum, value)| *sum += value);
            }
        }
        Self { q, k, v, len, v_sum }
    }

    /// The last position as a decode row.
    fn row<'a>(&'a self, shape: &HeadShape, rows: Rows<'a>) -> DecodeRow<'a> {
        let width = shape.heads * shape.head_dim;
        let q = &self.q[(self.len - 1) * width..];
        DecodeRow { q, k: &self.k, v: &self.v, len: self.len, rows, v_sum: &self.v_sum, buffers: &[] }
    }

    fn item(&self, shape: &HeadShape, start: usize, end: usize) -> PrefillItem<'_> {
        let width = shape.heads * shape.head_dim;
        let q = &self.q[start * width..end * width];
        PrefillItem { q, rows: end - start, start, k: &self.k, v: &self.v }
    }
}

fn shapes() -> impl Strategy<Value = HeadShape> {
    let heads = prop_oneof![Just((4, 4)), Just((9, 3)), Just((6, 1)), Just((4, 2)), Just((1, 1)), Just((8, 2))];
    (heads, prop_oneof![Just(32), Just(64), Just(80), Just(128), Just(20)]).prop_map(|((heads, kv_heads), head_dim)| {
        HeadShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
    })
}

fn formats() -> impl Strategy<Value = [Format; 2]> {
    let one = || prop_oneof![Just(Format::F16), Just(Format::Q8)];
    [one(), one()]
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..8, 60usize..70, 120usize..136, 185usize..200, 250usize..262, 600usize..700]
}

/// Enough for any of [`shapes`].
const LEANS: [f32; 9] = [0.0, 1.0, 0.5, 0.25, 0.75, 0.1, 0.9, 0.3, 0.6];

fn rules() -> impl Strategy<Value = Rows<'static>> {
    // Enough counts for any shape; each is made once and kept, so that a rule can borrow it.
    static COUNTS: LazyLock<[Vec<u32>; 3]> = LazyLock::new(|| {
        [
            (0..16).map(|head| 1 + head * 29 % 97).collect(),
            (0..16).map(|head| if head % 3 == 1 { 900 } else { 5 }).collect(),
            vec![900; 16],
        ]
    });
    let tails = prop_oneof![Just(Tail::None), Just(Tail::Renorm), Just(Tail::Mean)];
    let counts = prop_oneof![
        prop_oneof![1usize..40, 1usize..400].prop_map(Count::Same),
        (0usize..3, 1usize..400).prop_map(|(which, mean)| Count::Each { rows: &COUNTS[which], mean }),
        (0.1f32..1.1, 1usize..400).prop_map(|(share, most)| Count::Mass { share, most }),
    ];
    let leans = prop_oneof![Just(&[][..]), Just(&LEANS[..])];
    let top = (counts, tails, prop_oneof![Just(Select::Head), Just(Select::Group)], leans)
        .prop_map(|(n, tail, select, lean)| Rows::Top { n, tail, select, lean });
    prop_oneof![1 => Just(Rows::All), 4 => top]
}

fn decoded(pool: &Pool, shape: &HeadShape, rows: &[DecodeRow<'_>]) -> (Vec<f32>, DecodeScratch) {
    let mut scratch = DecodeScratch::new();
    let mut out = vec![f32::NAN; rows.len() * shape.heads * shape.head_dim];
    decode(pool, shape, rows, &mut scratch, &mut out, &mut DecodeTimes::default());
    (out, scratch)
}

fn prefilled(pool: &Pool, shape: &HeadShape, items: &[PrefillItem<'_>]) -> Vec<f32> {
    let rows: usize = items.iter().map(|item| item.rows).sum();
    let mut out = vec![f32::NAN; rows * shape.heads * shape.head_dim];
    prefill(pool, shape, items, &mut PrefillScratch::new(), &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn assert_close(fast: &[f32], plain: &[f32], bound: f32) {
    assert_eq!(fast.len(), plain.len());
    for (at, (fast, plain)) in fast.iter().zip(plain).enumerate() {
        assert!((fast - plain).abs() < bound, "value {at}: {fast}, expected {plain}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn decode_is_the_reference(
        shape in shapes(), formats in formats(), len in lengths(), rows in rules(), seed: u64, whole: bool,
    ) {
        let sequence = Sequence::new(&shape, formats, len, seed, whole);
        // Against 8-bit keys the query is rounded too, to 16 bits.
        let exact = formats[0] == Format::F16;
        let (bound, weight_bound) = if exact { (2e-5, 1e-5) } else { (2e-4, 2e-4) };
        let row = sequence.row(&shape, rows);
        let (out, scratch) = decoded(&Pool::new(2), &shape, &[row]);
        let plain = reference::decode(&shape, &row).unwrap();
        let all = match rows {
            Rows::All => true,
            Rows::Top { n: Count::Same(n) | Count::Mass { most: n, .. }, .. } => n >= len,
            Rows::Top { n: Count::Each { rows, mean }, .. } => mean >= len || rows.iter().all(|&n| n as usize >= len),
        };
        prop_assert_eq!(scratch.kept_mass(0).is_none(), all);
        let mut same_rows = true;
        for head in 0..shape.heads {
            let Some(selected) = scratch.selected(0, head) else {
                prop_assert!(all);
                continue;
            };
            let Rows::Top { n, select, .. } = rows else { unreachable!() };
            let by_mass = matches!(n, Count::Mass { .. });
            prop_assert!(by_mass || selected.len() == plain.selected[head].len());
            prop_assert!(selected.is_sorted_by(|a, b| a < b));
            let kept = scratch.kept_mass(0).unwrap()[head];
            let mass: f32 = selected.iter().map(|&at| plain.weights[head][at as usize]).sum();
            prop_assert!((kept - mass).abs() < weight_bound, "{kept}, but the rows hold {mass}");
            // Rows that weigh the same for a group may weigh differently for each of its heads, and a share may be
            // reached a row earlier or later.
            if selected == plain.selected[head] || select == Select::Head && !by_mass {
                prop_assert!((kept - plain.kept[head]).abs() < weight_bound);
            }
            if let (Count::Mass { share, most }, Select::Head) = (n, select) {
                let least = selected.iter().map(|&at| plain.weights[head][at as usize]).fold(f32::MAX, f32::min);
                prop_assert!(mass >= share.min(1.0) - weight_bound || selected.len() == most.min(len), "too few");
                prop_assert!(selected.len() == 1 || mass - least < share + weight_bound, "more than the share needs");
            }
            if selected != plain.selected[head] {
                // Rounding may exchange rows of nearly equal weight, never others. Equal scores are no such case:
                // they are equal in both, so one head's choice of whole-number scores has to agree.
                prop_assert!(by_mass || !(whole && exact && select == Select::Head), "ties");
                same_rows = false;
                if selected.len() != plain.selected[head].len() {
                    // The mass was reached a row earlier or later.
                    continue;
                }
                let weight = |at: u32| match select {
                    Select::Head => plain.weights[head][at as usize],
                    Select::Group => {
                        let first = head / shape.group() * shape.group();
                        plain.weights[first..first + shape.group()].iter().map(|w| w[at as usize]).sum::<f32>()
                    }
                };
                let least = plain.selected[head].iter().map(|&at| weight(at)).fold(f32::MAX, f32::min);
                for &at in selected {
                    prop_assert!(weight(at) >= least * (1.0 - weight_bound));
                }
            }
        }
        if same_rows {
            assert_close(&out, &plain.out, bound);
        }
    }

    #[test]
    fn what_a_row_read_is_told_as_the_reference_has_it(
        shape in shapes(), formats in formats(), len in 2usize..400, n in 1usize..64, group in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let sequence = Sequence::new(&shape, formats, len, seed, false);
        let select = if group { Select::Group } else { Select::Head };
        let row = sequence.row(&shape, Rows::Top { n: Count::Same(n), tail: Tail::None, select, lean: &[] });
        let (_, scratch) = decoded(&Pool::new(2), &shape, &[row, row]);
        let mut reads = Reads::of(1, true);
        reads.layer(&scratch, len);
        let plain = reference::decode(&shape, &row).unwrap();
        if n >= len {
            prop_assert_eq!((&reads.layers[..], &reads.heads[..]), (&[vec![]][..], &[][..]));
            return Ok(());
        }
        let mut heads = vec![0u16; len];
        plain.selected.iter().flatten().for_each(|&position| heads[position as usize] += 1);
        let differing = reads.heads.iter().zip(&heads).filter(|(a, b)| a != b).count();
        // Scores that are as good as equal may be rounded either way.
        prop_assert!(differing <= 2 * shape.heads, "{:?} not {heads:?}", reads.heads);
        let counts = curve_counts(len);
        for (head, read) in reads.layers[0].iter().enumerate() {
            prop_assert_eq!(read.distance.iter().sum::<u32>() as usize, read.rows);
            let mut weights = plain.weights[head].clone();
            weights.sort_by(|a, b| b.total_cmp(a));
            for (&n, &mass) in counts.iter().zip(&read.curve) {
                let expected: f32 = weights[..n].iter().sum();
                prop_assert!((mass - expected).abs() < 1e-3, "{n}: {mass} not {expected}");
            }
            let at_n: f32 = weights[..n].iter().sum();
            prop_assert!(read.kept <= at_n + 1e-3, "no {n} rows hold more than the heaviest");
            prop_assert!(group || (read.kept - at_n).abs() < 1e-3);
        }
    }

    #[test]
    fn as_many_rows_as_there_are_is_all_bit_for_bit(
        shape in shapes(), formats in formats(), len in lengths(), more in 0usize..3, seed: u64,
        select in prop_oneof![Just(Select::Head), Just(Select::Group)],
    ) {
        let sequence = Sequence::new(&shape, formats, len, seed, false);
        let pool = Pool::new(2);
        let (all, _) = decoded(&pool, &shape, &[sequence.row(&shape, Rows::All)]);
        let n = len + more;
        // A profile that gives every head one row, and a share that one row holds.
        for n in [Count::Same(n), Count::Each { rows: &[1; 16], mean: n }, Count::Mass { share: 1e-6, most: n }] {
            let top = Rows::Top { n, tail: Tail::Mean, select, lean: &[] };
            let (out, scratch) = decoded(&pool, &shape, &[sequence.row(&shape, top)]);
            prop_assert_eq!(bits(&out), bits(&all));
            prop_assert_eq!(scratch.kept_mass(0), None);
        }
    }

    #[test]
    fn a_batch_is_its_rows_and_threads_change_nothing(
        shape in shapes(),
        inputs in prop::collection::vec((lengths(), rules(), any::<u64>(), formats()), 1..5),
    ) {
        let sequences: Vec<Sequence> =
            inputs.iter().map(|&(len, _, seed, formats)| Sequence::new(&shape, formats, len, seed, false)).collect();
        let rows: Vec<DecodeRow<'_>> =
            sequences.iter().zip(&inputs).map(|(sequence, input)| sequence.row(&shape, input.1)).collect();
        let (one, many) = (Pool::new(1), Pool::new(3));
        let (batch, batch_scratch) = decoded(&many, &shape, &rows);
        for (at, row) in rows.iter().enumerate() {
            let (alone, scratch) = decoded(&one, &shape, &[*row]);
            prop_assert_eq!(bits(&alone), bits(&batch[at * alone.len()..][..alone.len()]));
            prop_assert_eq!(scratch.kept_mass(0), batch_scratch.kept_mass(at));
            for head in 0..shape.heads {
                prop_assert_eq!(scratch.selected(0, head), batch_scratch.selected(at, head));
            }
        }
    }

    #[test]
    fn prefill_is_the_reference(
        shape in shapes(), formats in formats(), start in lengths(), rows in 1usize..150, seed: u64,
    ) {
        let sequence = Sequence::new(&shape, formats, start + rows, seed, false);
        let item = sequence.item(&shape, start, start + rows);
        let out = prefilled(&Pool::new(2), &shape, &[item]);
        assert_close(&out, &reference::prefill(&shape, &item).unwrap(), 2e-5);
    }

    #[test]
    fn chunks_and_threads_change_nothing(
        shape in shapes(), formats in formats(), cuts in prop::collection::vec(1usize..120, 1..5), seed: u64,
        other in lengths(),
    ) {
        let len = cuts.iter().sum();
        let sequence = Sequence::new(&shape, formats, len, seed, false);
        let beside = Sequence::new(&shape, [Format::F16; 2], other, !seed, false);
        let (one, many) = (Pool::new(1), Pool::new(3));
        let whole = prefilled(&one, &shape, &[sequence.item(&shape, 0, len)]);
        let mut chunked = Vec::new();
        let mut start = 0;
        for cut in cuts {
            let items = [sequence.item(&shape, start, start + cut), beside.item(&shape, 0, other)];
            let out = prefilled(&many, &shape, &items);
            chunked.extend_from_slice(&out[..cut * shape.heads * shape.head_dim]);
            start += cut;
        }
        prop_assert_eq!(bits(&chunked), bits(&whole));
    }
}

#[test]
fn strange_scores_give_numbers() {
    let shape = HeadShape { heads: 6, kv_heads: 2, head_dim: 32, scale: 0.2 };
    let pool = Pool::new(2);
    for (len, format) in [1, 2, 64, 65, 300].into_iter().flat_map(|len| [(len, Format::F16), (len, Format::Q8)]) {
        for key in [0.0, 1.0, 65504.0, f32::INFINITY, f32::NEG_INFINITY] {
            let mut sequence = Sequence::new(&shape, [format; 2], len, 5, false);
            for at in 0..len {
                for head in 0..2 {
                    sequence.k[at / PAGE_TOKENS].write(head, at % PAGE_TOKENS, &[key; 32]);
                }
            }
            for q in [0.0, 1.0, -1.0, 1e30, -1e30] {
                sequence.q.fill(q);
                for rows in [
                    Rows::All,
                    Rows::Top { n: Count::Same(1), tail: Tail::None, select: Select::Group, lean: &[] },
                    Rows::Top { n: Count::Same(40), tail: Tail::Renorm, select: Select::Head, lean: &[] },
                    Rows::Top { n: Count::Same(3), tail: Tail::Mean, select: Select::Group, lean: &[] },
                ] {
                    let (out, scratch) = decoded(&pool, &shape, &[sequence.row(&shape, rows)]);
                    assert!(out.iter().all(|value| value.is_finite()), "{len} {key} {q} {rows:?}");
                    if let Some(selected) = scratch.selected(0, 4) {
                        // All scores are equal, so the first positions win.
                        assert!(selected.iter().zip(0..).all(|(&position, at)| position == at));
                    }
                }
                let out = prefilled(&pool, &shape, &[sequence.item(&shape, 0, len)]);
                assert!(out.iter().all(|value| value.is_finite()), "{len} {key} {q}");
            }
        }
    }
}

proptest! {
    /// Over a run of steps, chosen rows that come from reuse buffers give the bits that the pages give; what is fetched
    /// depends on nothing but the steps.
    #[test]
    fn a_reuse_buffer_changes_no_bit(
        shape in shapes(), k in prop_oneof![Just(Format::F16), Just(Format::Q8)], len in lengths(), rule in rules(),
        capacity in prop_oneof![1usize..20, 1usize..300], steps in 1usize..6, seed: u64, whole: bool,
    ) {
        let steps = steps.min(len);
        let sequence = Sequence::new(&shape, [k, Format::F16], len, seed, whole);
        fn at<'a>(row: DecodeRow<'a>, q: &'a [f32], len: usize, buffers: &'a [Mutex<RowBuffer>]) -> DecodeRow<'a> {
            DecodeRow { q: &q[(len - 1) * row.q.len()..][..row.q.len()], len, buffers, ..row }
        }
        let (row, q) = (sequence.row(&shape, rule), &sequence.q);
        let mut fetched = Vec::new();
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let new = || Mutex::new(RowBuffer::new(capacity, shape.head_dim));
            let buffers: Vec<Mutex<RowBuffer>> = (0..shape.kv_heads).map(|_| new()).collect();
            let mut found = Vec::new();
            for len in len + 1 - steps..=len {
                let (plain, plain_scratch) = decoded(&pool, &shape, &[at(row, q, len, &[])]);
                let (reused, scratch) = decoded(&pool, &shape, &[at(row, q, len, &buffers)]);
                prop_assert_eq!(bits(&reused), bits(&plain));
                prop_assert_eq!(scratch.kept_mass(0), plain_scratch.kept_mass(0));
                for head in 0..shape.heads {
                    prop_assert_eq!(scratch.selected(0, head), plain_scratch.selected(0, head));
                }
                prop_assert!(scratch.fetched(0) <= plain_scratch.fetched(0));
                found.push(scratch.fetched(0));
            }
            // The same step once more has all it wants, if that fits.
            let (_, scratch) = decoded(&pool, &shape, &[at(row, q, len, &buffers)]);
            if capacity >= len {
                prop_assert!(scratch.fetched(0).unwrap_or(0) == 0);
            }
            fetched.push(found);
        }
        prop_assert_eq!(&fetched[0], &fetched[1]);
    }
}
