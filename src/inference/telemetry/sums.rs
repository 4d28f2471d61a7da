//! Sums over time: how much of several things had come by any moment, and so in any stretch between two moments.
//!
//! A rate over a stretch of time is a sum divided by a sum. The mean of the rates of many small windows is another
//! number, because it counts a window with one token as much as one with a hundred. So whoever shows a rate keeps the
//! sums.

use std::collections::VecDeque;

/// `N` things that are counted together: tokens and the milliseconds that they took.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums<const N: usize> {
    /// Moments, each with all that has come until then.
    points: VecDeque<(f64, [f64; N])>,
    capacity: usize,
}

impl<const N: usize> Sums<N> {
    /// Nothing yet. At most `capacity` moments are kept apart (at least two); where there are more, the older ones are
    /// kept less finely. What is counted is never lost.
    pub fn new(capacity: usize) -> Self {
        Self { points: VecDeque::new(), capacity: capacity.max(2) }
    }

    /// Adds what came at `t_ms`. A time before the last one counts as the last one. What is not finite, or came at no
    /// moment, is not counted.
    pub fn push(&mut self, t_ms: f64, values: [f64; N]) {
        if !t_ms.is_finite() || values.iter().any(|value| !value.is_finite()) {
            return;
        }
        let (t_ms, mut all) = self.points.back().map_or((t_ms, [0.0; N]), |&(last, all)| (last.max(t_ms), all));
        all.iter_mut().zip(values).for_each(|(all, value)| *all += value);
        if self.points.len() == self.capacity {
            self.thin();
        }
        self.points.push_back((t_ms, all));
    }

    /// Leaves every second moment of the older half out; what came then counts as of the next.
    fn thin(&mut self) {
        let half = (self.capacity / 2).max(2);
        let mut at = 0;
        self.points.retain(|_| {
            at += 1;
            at > half || at % 2 == 0
        });
    }

    /// What came in `from_ms..=to_ms`.
    pub fn between(&self, from_ms: f64, to_ms: f64) -> [f64; N] {
        let until = |count: usize| count.checked_sub(1).map_or([0.0; N], |at| self.points[at].1);
        let before = until(self.points.partition_point(|(t_ms, _)| *t_ms < from_ms));
        let after = until(self.points.partition_point(|(t_ms, _)| *t_ms <= to_ms));
        // A stretch that ends before it begins holds nothing.
        std::array::from_fn(|at| (after[at] - before[at]).max(0.0))
    }

    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

impl Sums<2> {
    /// The first divided by the second, of all that came in `from_ms..=to_ms`; `None` where there is nothing to divide
    /// by.
    pub fn ratio(&self, from_ms: f64, to_ms: f64) -> Option<f64> {
        let [sum, by] = self.between(from_ms, to_ms);
        (by > 0.0).then(|| sum / by)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ratio_is_of_sums_and_no_mean_of_ratios() {
        let mut sums = Sums::new(10);
        assert!(sums.is_empty() && sums.ratio(0.0, 9.0).is_none());
        // One token in 10 ms, then 30 in 100 ms: 31 in 110, and not the mean of 0.1 and 0.3.
        sums.push(1.0, [1.0, 10.0]);
        sums.push(2.0, [30.0, 100.0]);
        assert_eq!(sums.ratio(0.0, 9.0), Some(31.0 / 110.0));
        assert_eq!(sums.ratio(2.0, 2.0), Some(0.3));
        assert_eq!((sums.ratio(3.0, 9.0), sums.ratio(9.0, 0.0)), (None, None));
    }

    #[test]
    fn what_cannot_be_counted_is_not() {
        let mut sums = Sums::new(0);
        sums.push(f64::NAN, [1.0]);
        sums.push(1.0, [f64::INFINITY]);
        assert!(sums.is_empty());
        sums.push(5.0, [1.0]);
        sums.push(4.0, [2.0]);
        assert_eq!((sums.between(0.0, 4.9), sums.between(5.0, 5.0)), ([0.0], [3.0]));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_newer_half_is_exact(
            capacity in 2usize..40, values in prop::collection::vec(0u32..100, 1..200), from in 0usize..200,
        ) {
            let mut sums = Sums::new(capacity);
            values.iter().enumerate().for_each(|(at, &value)| sums.push(at as f64, [f64::from(value)]));
            prop_assert!(sums.points.len() <= capacity);
            let all: u32 = values.iter().sum();
            prop_assert_eq!(sums.between(0.0, 1e9), [f64::from(all)]);
            let from = from.max(values.len().saturating_sub(capacity / 4));
            let newer: u32 = values.iter().skip(from).sum();
            prop_assert_eq!(sums.between(from as f64, 1e9), [f64::from(newer)]);
        }
    }
}
