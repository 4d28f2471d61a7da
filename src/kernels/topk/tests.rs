//! Every way to find the largest values against the plain one, and cuts through strange values.

use super::*;
use crate::softmax::clamp_maxima;

fn waves(len: usize) -> Vec<f32> {
    (0..len).map(|at| (at as f32 * 0.37).sin()).collect()
}

/// The values of a block, as far as there are any.
fn block(values: &[f32], index: usize) -> &[f32] {
    values.chunks(BLOCK).nth(index).unwrap_or_default()
}

type Found = (Vec<f32>, Vec<u32>);
/// Maxima of blocks, the values, a threshold.
type AtLeast = fn(&[f32], &[f32], f32, &mut Found);
type Search = fn(&[f32], (f32, f32), usize, usize) -> Cut;
type Keep = fn(Cut, &[f32], &[u32], &mut Found);

/// Every way to find them but the portable one, where this CPU has it.
const COUNTS: [fn(&[f32], f32) -> usize; 2] = [
    |values, least| by_avx512!(avx512::count(values, least), count_portable(values, least)),
    |values, least| by_cpu!(avx2::count(values, least), count_portable(values, least)),
];
const AT_LEASTS: [AtLeast; 2] = [
    |maxima, values, least, (found, at)| {
        at_least(maxima, |index| block(values, index), least, &mut vec![7], found, at);
    },
    |maxima, values, least, (found, at)| {
        let block = |index: usize| block(values, index);
        by_cpu!(
            avx2::at_least(maxima, block, least, &mut vec![7], found, at),
            at_least_portable(maxima, block, least, found, at)
        );
    },
];
const EXTENTS: [fn(&[f32]) -> Extent; 3] = [
    extent_body::<LANES>,
    |values| by_cpu!(avx2::extent(values), extent_body::<LANES>(values)),
    |values| by_avx512!(avx512::extent(values), extent_body::<LANES>(values)),
];
const SEARCHES: [Search; 2] = [search, |values, range, n, spare| {
    by_cpu!(avx2::search(values, range, n, spare), search_portable(values, range, n, spare))
}];
const KEEPS: [Keep; 2] = [
    |cut, values, positions, (found, at)| cut.keep(values, positions, found, at),
    |cut, values, positions, (found, at)| {
        by_cpu!(avx2::keep(values, positions, cut.above, found, at), cut.keep_portable(values, positions, found, at));
    },
];

#[test]
fn the_twins_agree() {
    for len in [0, 7, 15, 16, 64, 64 * 5 + 13, 64 * 6 + 8, 64 * 3 - 1] {
        let values = waves(len);
        let mut maxima = vec![0.0; len.div_ceil(RUN) * LANES];
        clamp_maxima(&mut values.clone(), &mut maxima);
        for least in [f32::MIN, 0.9, 0.0, -0.4, f32::NEG_INFINITY, f32::INFINITY, f32::NAN] {
            COUNTS.iter().for_each(|count| assert_eq!(count(&values, least), count_portable(&values, least)));
            let mut plain = (vec![7.0], vec![1]);
            at_least_portable(&maxima, |index| block(&values, index), least, &mut plain.0, &mut plain.1);
            for way in AT_LEASTS {
                let mut fast = (vec![7.0], vec![1]);
                way(&maxima, &values, least, &mut fast);
                assert_eq!(fast, plain);
            }
            assert_eq!(plain.0.len(), 1 + count_portable(&values, least));
            assert!(plain.0.iter().zip(&plain.1).skip(1).all(|(found, &at)| *found == values[at as usize]));
            assert!(least != f32::NEG_INFINITY || plain.0.len() == 1 + len, "all of them, and nothing else");
        }
    }
}

#[test]
fn all_ways_to_search_find_the_same() {
    for (len, n) in [(8, 1), (9, 8), (64, 17), (203, 120), (256, 128), (1000, 999)] {
        for spare in [0, n / 8] {
            let values = waves(len);
            let range = range(&values, n);
            let plain = search_portable(&values, range, n, spare);
            SEARCHES.iter().for_each(|search| assert_eq!(search(&values, range, n, spare), plain));
            let least = floor(&values, n).0;
            assert!((n..=n + n / 8).contains(&count_portable(&values, least)));
        }
    }
}

#[test]
fn all_ways_to_keep_leave_the_same() {
    for (len, n) in [(8, 1), (9, 8), (64, 17), (203, 120)] {
        let (values, positions) = (waves(len), Vec::from_iter(100..100 + len as u32));
        let cut = Cut::new(&values, n);
        assert_eq!(cut.ties, 0, "with ties there is one way");
        let mut plain = (vec![7.0], vec![1]);
        cut.keep_portable(&values, &positions, &mut plain.0, &mut plain.1);
        assert_eq!(plain.0.len(), 1 + n);
        for keep in KEEPS {
            let mut fast = (vec![7.0], vec![1]);
            keep(cut, &values, &positions, &mut fast);
            assert_eq!(fast, plain);
        }
    }
}

#[test]
fn floats_are_numbered_in_their_order_without_gaps() {
    for value in [-f32::INFINITY, f32::MIN, -1.5, -1e-45, 0.0, 1e-45, 3.7, f32::MAX] {
        assert_eq!(order(value.next_up()), order(value) + 1);
        assert_eq!(from_order(order(value)), value);
    }
    assert_eq!(order(-0.0), order(0.0));
}

#[test]
fn the_search_begins_below_the_cut() {
    let values = [f32::MIN, 3.0, 1.0, f32::MIN, 2.0];
    assert_eq!([1, 3, 4].map(|n| range(&values, n)), [(1.0, 3.0), (1.0, 3.0), (f32::MIN, 3.0)]);
    assert_eq!(range(&[f32::MIN; 9], 2), (f32::MIN, f32::MIN));
    let values = waves(203);
    let lowest = values.iter().copied().fold(f32::MAX, f32::min);
    assert_eq!(range(&values, 203).0, lowest);
    let highest = values.iter().copied().fold(f32::MIN, f32::max);
    for path in EXTENTS {
        assert_eq!(path(&values), Extent { low: lowest, high: highest, above: 203 });
        assert_eq!(path(&[f32::MIN; 19]), Extent { low: f32::MAX, high: f32::MIN, above: 0 });
        assert_eq!(path(&[f32::MIN, 2.0, -3.0]), Extent { low: -3.0, high: 2.0, above: 2 });
    }
}

#[test]
fn a_cut_through_ties_takes_the_first_of_them() {
    for shift in [0.0, -0.3, -7.0] {
        let values = [0.5, 0.25, 0.5, 0.0, 0.25, 0.25].map(|value| value + shift);
        let taken = |n| {
            let (mut found, mut taken) = (Vec::new(), Vec::new());
            Cut::new(&values, n).keep(&values, &[0, 1, 2, 3, 4, 5], &mut found, &mut taken);
            assert!(found.iter().zip(&taken).all(|(found, &at)| *found == values[at as usize]));
            taken
        };
        assert_eq!(taken(1), [0]);
        assert_eq!(taken(2), [0, 2]);
        assert_eq!(taken(4), [0, 1, 2, 4]);
        assert_eq!(taken(6), [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_cut_is_found_among_the_strangest_values() {
    let values = [f32::MAX, 1e-40, f32::MIN, -1e-45, 2.0, 2.0f32.next_up(), f32::MIN, 1e30];
    let mut sorted = values;
    sorted.sort_by(f32::total_cmp);
    for n in 1..=values.len() {
        let mut taken = Vec::new();
        Cut::new(&values, n).keep(&values, &[0; 8], &mut taken, &mut Vec::new());
        taken.sort_by(f32::total_cmp);
        assert_eq!(taken, sorted[values.len() - n..]);
    }
}
