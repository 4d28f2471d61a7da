//! A bounded series of measurements over time, and labelled moments, both for drawing.
//!
//! A value that is unknown is a gap: the line is broken there, never drawn as 0. For drawing, a series is cut into
//! columns of equal time that keep the extremes, so that a spike of one sample stays visible however long the window
//! is. Columns lie on a fixed grid of time (column k covers `k·width..(k+1)·width`), so that a sample stays in its
//! column while the chart moves on with the clock.

use std::collections::VecDeque;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Milliseconds since the engine started.
    pub t_ms: f64,
    /// The value; `None` where it is unknown.
    pub value: Option<f64>,
}

/// What one column of a chart shows of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Column {
    /// Its place, counted from the first column asked for.
    pub index: usize,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
    /// The mean of the values.
    pub mean: f64,
    /// The first value in time.
    pub first: f64,
    /// The last value in time.
    pub last: f64,
    /// Whether the line goes on from the column before without a gap.
    pub joined: bool,
}

impl Column {
    fn of(index: usize, value: f64, joined: bool) -> Self {
        Self { index, min: value, max: value, mean: value, first: value, last: value, joined }
    }
}

/// A bounded series; the oldest points make room for new ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    points: VecDeque<Point>,
    capacity: usize,
}

impl Series {
    /// An empty series of at most `capacity` points (at least one).
    pub fn new(capacity: usize) -> Self {
        Self { points: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// Adds a measurement. A time before the last one counts as the last one; a value that is not finite is a gap; a
    /// time that is not finite is no measurement at all.
    pub fn push(&mut self, t_ms: f64, value: impl Into<Option<f64>>) {
        if !t_ms.is_finite() {
            return;
        }
        let t_ms = self.points.back().map_or(t_ms, |last| last.t_ms.max(t_ms));
        let value = value.into().filter(|value| value.is_finite());
        if self.points.len() == self.capacity {
            self.points.pop_front();
        }
        self.points.push_back(Point { t_ms, value });
    }

    /// Marks that from `t_ms` on the value is unknown.
    pub fn gap(&mut self, t_ms: f64) {
        self.push(t_ms, None);
    }

    /// Points held.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there is no point at all.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The most points it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The newest value; `None` where there is none or it is unknown.
    pub fn last(&self) -> Option<f64> {
        self.points.back().and_then(|point| point.value)
    }

    /// The value that held at `t_ms`: the newest one not after it.
    pub fn at(&self, t_ms: f64) -> Option<f64> {
        let after = self.points.partition_point(|point| point.t_ms <= t_ms);
        after.checked_sub(1).and_then(|at| self.points[at].value)
    }

    /// The points in `from_ms..=to_ms`, oldest first.
    pub fn window(&self, from_ms: f64, to_ms: f64) -> impl Iterator<Item = Point> + '_ {
        let start = self.points.partition_point(|point| point.t_ms < from_ms);
        self.points.range(start..).copied().take_while(move |point| point.t_ms <= to_ms)
    }

    /// The greatest value in `from_ms..=to_ms`.
    pub fn max(&self, from_ms: f64, to_ms: f64) -> Option<f64> {
        self.window(from_ms, to_ms).filter_map(|point| point.value).reduce(f64::max)
    }

    /// The mean of the values in `from_ms..=to_ms`.
    pub fn mean(&self, from_ms: f64, to_ms: f64) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0usize);
        for value in self.window(from_ms, to_ms).filter_map(|point| point.value) {
            sum += value;
            count += 1;
        }
        (count > 0).then(|| sum / count as f64)
    }

    /// The `count` columns from `first` on that hold a value; column k covers `k·width_ms..(k+1)·width_ms`. A column
    /// without a measurement is left out; whether the line crosses it is told by the next one's `joined`.
    pub fn columns(&self, first: i64, width_ms: f64, count: usize) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        if !width_ms.is_finite() || width_ms <= 0.0 {
            return columns;
        }
        let column_of = |point: &Point| (point.t_ms / width_ms).floor() as i64;
        let start = self.points.partition_point(|point| column_of(point) < first);
        let mut joined = false;
        let mut samples = 0usize;
        let mut previous: Option<Point> = None;
        // A line that comes from before the first column enters it at the height where it crosses the edge.
        if let (Some(before), Some(next)) = (start.checked_sub(1).map(|at| self.points[at]), self.points.get(start))
            && let (Some(a), Some(b)) = (before.value, next.value)
            && column_of(next) > first
            && count > 0
        {
            let edge = first as f64 * width_ms;
            let value = a + (b - a) * ((edge - before.t_ms) / (next.t_ms - before.t_ms)).clamp(0.0, 1.0);
            columns.push(Column::of(0, value, false));
            joined = true;
            previous = Some(before);
        }
        for point in self.points.range(start..) {
            let index = column_of(point).saturating_sub(first) as usize;
            if index >= count {
                // In the same way it leaves the last column where the next measurement lies beyond it.
                if let (Some(a), Some(b), Some(before)) = (previous.and_then(|p| p.value), point.value, previous)
                    && columns.last().is_some_and(|last| last.index + 1 < count)
                {
                    let edge = (first as f64 + count as f64) * width_ms;
                    let value = a + (b - a) * ((edge - before.t_ms) / (point.t_ms - before.t_ms)).clamp(0.0, 1.0);
                    columns.push(Column::of(count - 1, value, true));
                }
                break;
            }
            previous = Some(*point);
            let Some(value) = point.value else {
                joined = false;
                continue;
            };
            match columns.last_mut().filter(|last| last.index == index && samples > 0) {
                Some(column) => {
                    samples += 1;
                    column.min = column.min.min(value);
                    column.max = column.max.max(value);
                    column.mean += (value - column.mean) / samples as f64;
                    column.last = value;
                }
                None => {
                    samples = 1;
                    columns.push(Column::of(index, value, joined));
                }
            }
            joined = true;
        }
        columns
    }
}

/// A labelled moment: a knob that was turned.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Milliseconds since the engine started.
    pub t_ms: f64,
    /// The new value: `n=256`.
    pub label: String,
}

/// A bounded list of marks, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Marks {
    marks: VecDeque<Mark>,
    capacity: usize,
}

impl Marks {
    /// An empty list of at most `capacity` marks (at least one).
    pub fn new(capacity: usize) -> Self {
        Self { marks: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// Adds a mark; a time before the last one counts as the last one.
    pub fn push(&mut self, t_ms: f64, label: impl Into<String>) {
        if !t_ms.is_finite() {
            return;
        }
        let t_ms = self.marks.back().map_or(t_ms, |last| last.t_ms.max(t_ms));
        if self.marks.len() == self.capacity {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { t_ms, label: label.into() });
    }

    /// The marks in `from_ms..=to_ms`, oldest first.
    pub fn window(&self, from_ms: f64, to_ms: f64) -> impl DoubleEndedIterator<Item = &Mark> {
        let start = self.marks.partition_point(|mark| mark.t_ms < from_ms);
        let end = self.marks.partition_point(|mark| mark.t_ms <= to_ms);
        self.marks.range(start..end.max(start))
    }

    /// The newest mark.
    pub fn last(&self) -> Option<&Mark> {
        self.marks.back()
    }

    /// Marks held.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(points: &[(f64, Option<f64>)]) -> Series {
        let mut series = Series::new(100);
        points.iter().for_each(|&(t, value)| series.push(t, value));
        series
    }

    #[test]
    fn a_gap_breaks_the_line() {
        let series = series(&[(0.0, Some(1.0)), (10.0, Some(2.0)), (20.0, None), (30.0, Some(3.0)), (40.0, Some(4.0))]);
        let joined: Vec<_> = series.columns(0, 10.0, 5).iter().map(|column| (column.index, column.joined)).collect();
        assert_eq!(joined, [(0, false), (1, true), (3, false), (4, true)]);
        assert_eq!(series.at(25.0), None);
        assert_eq!(series.at(35.0), Some(3.0));
        assert_eq!(series.at(-1.0), None);
    }

    #[test]
    fn a_gap_inside_one_column_does_not_join() {
        let series = series(&[(0.0, Some(1.0)), (11.0, None), (12.0, Some(5.0))]);
        assert!(!series.columns(0, 10.0, 2)[1].joined);
    }

    #[test]
    fn the_line_enters_at_the_edge() {
        let series = series(&[(0.0, Some(0.0)), (100.0, Some(10.0))]);
        let columns = series.columns(5, 10.0, 6);
        assert_eq!((columns[0].index, columns[0].first), (0, 5.0));
        assert_eq!((columns[1].index, columns[1].first, columns[1].joined), (5, 10.0, true));
    }

    #[test]
    fn unknown_and_disordered_input_is_tamed() {
        let mut series = Series::new(0);
        series.push(f64::NAN, 1.0);
        assert!(series.is_empty() && series.capacity() == 1);
        series.push(5.0, f64::INFINITY);
        assert_eq!((series.len(), series.last()), (1, None));
        series.push(1.0, 7.0);
        assert_eq!(series.window(0.0, 9.0).next(), Some(Point { t_ms: 5.0, value: Some(7.0) }));
        assert!(series.columns(0, 0.0, 5).is_empty());
    }

    #[test]
    fn marks_are_bounded_and_found() {
        let mut marks = Marks::new(2);
        ["n=64", "n=128", "n=256"].iter().enumerate().for_each(|(at, label)| marks.push(at as f64 * 10.0, *label));
        assert_eq!(marks.len(), 2);
        assert_eq!(marks.window(15.0, 99.0).map(|mark| mark.label.as_str()).collect::<Vec<_>>(), ["n=256"]);
        assert_eq!(marks.window(9.0, 1.0).count(), 0);
    }

    proptest! {
        #[test]
        fn bounded_ordered_and_true_to_extremes(
            capacity in 1usize..50,
            points in prop::collection::vec((0.0..1000.0f64, prop::option::weighted(0.8, -5.0..5.0f64)), 0..120),
            count in 1usize..40,
        ) {
            let mut series = Series::new(capacity);
            points.iter().for_each(|&(t, value)| series.push(t, value));
            prop_assert!(series.len() <= capacity);
            let held: Vec<_> = series.window(0.0, 1000.0).collect();
            prop_assert_eq!(held.len(), points.len().min(capacity));
            prop_assert!(held.windows(2).all(|pair| pair[0].t_ms <= pair[1].t_ms));

            let columns = series.columns(0, 1001.0 / count as f64, count);
            prop_assert!(columns.windows(2).all(|pair| pair[0].index < pair[1].index));
            prop_assert!(columns.iter().all(|c| c.min <= c.mean + 1e-9 && c.mean <= c.max + 1e-9 && c.index < count));
            let top = columns.iter().map(|column| column.max).reduce(f64::max);
            let bottom = columns.iter().map(|column| column.min).reduce(f64::min);
            let values = held.iter().filter_map(|point| point.value);
            prop_assert_eq!(top, values.clone().reduce(f64::max));
            prop_assert_eq!(bottom, values.reduce(f64::min));
        }

        #[test]
        fn samples_stay_in_their_column_while_the_window_moves(
            points in prop::collection::vec((0.0..1000.0f64, -5.0..5.0f64), 1..60), first in 0i64..20,
        ) {
            let mut series = Series::new(100);
            points.iter().for_each(|&(t, value)| series.push(t, value));
            let whole = series.columns(0, 17.0, 80);
            let part = series.columns(first, 17.0, 80);
            for column in part.iter().filter(|column| column.joined) {
                let same = whole.iter().find(|other| other.index == column.index + first as usize).unwrap();
                prop_assert_eq!((same.min, same.max, same.mean), (column.min, column.max, column.mean));
            }
        }
    }
}
