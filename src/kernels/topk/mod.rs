//! Finding the largest values: a cut that leaves exactly N, and the values above a threshold.
//!
//! Values are finite. The cut is found by guessing and halving in turn. Counting the values above a guess takes one
//! compare for eight or sixteen of them, and a few counts find the cut.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

use super::cpu::{by_avx512, by_cpu};

/// Values are taken in runs of this length.
pub const RUN: usize = 64;
/// Values per vector.
pub const LANES: usize = 8;
/// Neighbouring values that have a maximum: [`super::softmax::clamp_maxima`].
pub const BLOCK: usize = 8;

/// Which values are among the N largest: all that are at least `above`, and the first `ties` equal to `tied`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    above: f32,
    tied: f32,
    ties: usize,
}

/// Steps of the search that guess or halve the distance; where they do not find the cut, the values lie so closely or
/// so unevenly that halving the number of floats in between is sure to.
const GUESSES: usize = 16;

impl Cut {
    /// The cut that leaves `n` of the values; there must be that many.
    pub fn new(values: &[f32], n: usize) -> Self {
        Self::between(values, range(values, n), n)
    }

    /// The cut that leaves `n` of the values, all of which are in `low..=high`; there must be that many.
    pub fn between(values: &[f32], (low, high): (f32, f32), n: usize) -> Self {
        search(values, (low, high), n, 0)
    }

    /// Appends every value that the cut leaves to `found`, and its position to `kept`; `positions` are those of
    /// `values`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn keep(self, values: &[f32], positions: &[u32], found: &mut Vec<f32>, kept: &mut Vec<u32>) {
        assert_eq!(values.len(), positions.len());
        if self.ties > 0 {
            self.keep_portable(values, positions, found, kept);
        } else {
            by_avx512!(
                avx512::keep(values, positions, self.above, found, kept),
                by_cpu!(
                    avx2::keep(values, positions, self.above, found, kept),
                    self.keep_portable(values, positions, found, kept)
                )
            );
        }
    }

    fn keep_portable(self, values: &[f32], positions: &[u32], found: &mut Vec<f32>, kept: &mut Vec<u32>) {
        let mut ties = self.ties;
        for (&value, &position) in values.iter().zip(positions) {
            let tied = ties > 0 && value == self.tied;
            ties -= usize::from(tied);
            if tied || value >= self.above {
                found.push(value);
                kept.push(position);
            }
        }
    }
}

/// A number for each float, in the order of the floats, without gaps.
fn order(value: f32) -> i64 {
    let bits = value.to_bits() as i32;
    i64::from(if bits < 0 { i32::MIN - bits } else { bits })
}

fn from_order(order: i64) -> f32 {
    let order = order as i32;
    f32::from_bits(if order < 0 { i32::MIN - order } else { order } as u32)
}

/// A value that at least `n` of the values reach, and not many more, and the largest value; there must be `n`.
pub fn floor(values: &[f32], n: usize) -> (f32, f32) {
    let (low, high) = range(values, n);
    let cut = search(values, (low, high), n, n / 8);
    (if cut.ties == 0 { cut.above } else { cut.tied }, high)
}

/// Appends every value `≥ threshold` of a row to `found`, and its position to `positions`. `maxima` are those of the
/// row's blocks, and `block(b)` are the values of block `b`: [`BLOCK`] of them, fewer at the end, or none beyond it.
/// Blocks whose maxima say that they have none are not looked at; `blocks` is a buffer. Any threshold will do: −∞ lets
/// through everything that is there, NaN nothing.
pub fn at_least<'a>(
    maxima: &[f32],
    block: impl Fn(usize) -> &'a [f32],
    threshold: f32,
    blocks: &mut Vec<u32>,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    by_avx512!(
        avx512::at_least(maxima, block, threshold, blocks, found, positions),
        by_cpu!(
            avx2::at_least(maxima, block, threshold, blocks, found, positions),
            at_least_portable(maxima, block, threshold, found, positions)
        )
    );
}

/// The lowest value, and the largest. Maxima of positions that a row does not have are [`f32::MIN`], from where it
/// would take a score of halvings to get to the others; so it is the lowest but those, if that leaves `n`.
fn range(values: &[f32], n: usize) -> (f32, f32) {
    let Extent { low, high, above } =
        by_avx512!(avx512::extent(values), by_cpu!(avx2::extent(values), extent_body::<LANES>(values)));
    (if above >= n { low } else { f32::MIN }, high)
}

/// The values above [`f32::MIN`]: the lowest, or [`f32::MAX`] for none; the largest, or `f32::MIN`; and how many there
/// are.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extent {
    low: f32,
    high: f32,
    above: usize,
}

/// Written once and compiled for each kind of vectors, of `N` lanes.
#[inline(always)]
fn extent_body<const N: usize>(values: &[f32]) -> Extent {
    let lower = |low: f32, value: f32| if value < low && value > f32::MIN { value } else { low };
    let higher = |high: f32, value: f32| if value > high { value } else { high };
    let (chunks, rest) = values.as_chunks::<N>();
    let (mut low, mut high, mut above) = ([f32::MAX; N], [f32::MIN; N], [0u32; N]);
    for chunk in chunks {
        low.iter_mut().zip(chunk).for_each(|(low, &value)| *low = lower(*low, value));
        high.iter_mut().zip(chunk).for_each(|(high, &value)| *high = higher(*high, value));
        above.iter_mut().zip(chunk).for_each(|(above, &value)| *above += u32::from(value > f32::MIN));
    }
    let rest_above = rest.iter().filter(|&&value| value > f32::MIN).count();
    Extent {
        low: low.into_iter().chain(rest.iter().copied()).fold(f32::MAX, lower),
        high: high.into_iter().chain(rest.iter().copied()).fold(f32::MIN, higher),
        above: above.iter().sum::<u32>() as usize + rest_above,
    }
}

/// A cut that leaves `n` of the values, or up to `spare` more, all of which are in `low..=high`.
fn search(values: &[f32], (low, high): (f32, f32), n: usize, spare: usize) -> Cut {
    by_avx512!(
        avx512::search(values, (low, high), n, spare),
        by_cpu!(avx2::search(values, (low, high), n, spare), search_portable(values, (low, high), n, spare))
    )
}

fn search_portable(values: &[f32], (low, high): (f32, f32), n: usize, spare: usize) -> Cut {
    search_body((values.len(), low, high), n, spare, |least| count_portable(values, least))
}

/// [`search`] by a way to count the values that are at least so large.
#[inline(always)]
fn search_body((len, low, high): (usize, f32, f32), n: usize, spare: usize, count: impl Fn(f32) -> usize) -> Cut {
    // Always: `reach_low` > n are at or above `low` (or n, before the first step), `reach_high` < n at or above `high`.
    let (mut low, mut reach_low, mut high, mut reach_high) = (low, len, high.next_up(), 0);
    let mut steps = 0;
    while order(high) - order(low) > 1 {
        let share = if steps % 2 == 0 { share(reach_low, n, reach_high) } else { 0.5 };
        let guess = low * (1.0 - share) + high * share;
        let near = steps < GUESSES && low < guess && guess < high;
        let middle = if near { guess } else { from_order(i64::midpoint(order(low), order(high))) };
        steps += 1;
        match count(middle) {
            found if found > n + spare => (low, reach_low) = (middle, found),
            found if found < n => (high, reach_high) = (middle, found),
            _ => return Cut { above: middle, tied: 0.0, ties: 0 },
        }
    }
    Cut { above: high, tied: low, ties: n - reach_high }
}

/// How far from where `low` values are reached to where `high` are `n` will be, if their logarithms fall evenly.
#[inline(always)]
fn share(low: usize, n: usize, high: usize) -> f32 {
    // Read as integers floats are logarithms, nearly.
    let [low, n, high] = [low as f32, n as f32, high.max(1) as f32].map(|count| count.to_bits() as f32);
    ((low - n) / (low - high)).clamp(0.0, 1.0)
}

fn count_portable(values: &[f32], least: f32) -> usize {
    values.iter().filter(|&&value| value >= least).count()
}

fn at_least_portable<'a>(
    maxima: &[f32],
    block: impl Fn(usize) -> &'a [f32],
    threshold: f32,
    found: &mut Vec<f32>,
    positions: &mut Vec<u32>,
) {
    for (index, _) in maxima.iter().enumerate().filter(|&(_, &max)| max >= threshold) {
        for (&value, position) in block(index).iter().zip((index * BLOCK) as u32..) {
            if value >= threshold {
                found.push(value);
                positions.push(position);
            }
        }
    }
}
