//! Percentiles of a latency: over a sliding window, and over the whole run.
//!
//! The window is a bounded ring of samples. A window of a minute holds a few thousand latencies at most, so exact
//! percentiles by selection cost less than a frame. (Two rotating histograms would cover anything between one and two
//! windows.) The whole run has no bound in length, so it goes into an HDR histogram: constant memory, three significant
//! digits, from a microsecond to an hour.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

/// The longest latency told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// Percentiles of a set of latencies, in milliseconds. `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// How many latencies.
    pub count: u64,
    /// The median.
    pub p50: Option<f64>,
    /// 99 of 100 are at most this.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
}

/// Latencies of one kind (inter-token latency of a lane, time to first token).
#[derive(Debug, Clone)]
pub struct Latency {
    window_ms: f64,
    capacity: usize,
    recent: VecDeque<(f64, f64)>,
    run: Option<Histogram<u64>>,
}

impl Latency {
    /// No latency yet. The window reaches back `window_ms` and holds at most `capacity` samples (at least one).
    pub fn new(window_ms: f64, capacity: usize) -> Self {
        // The bounds are constants that hdrhistogram accepts; were they refused, the run's summary would say n/a.
        let run = Histogram::new_with_bounds(1, LONGEST_US, 3).ok();
        Self { window_ms, capacity: capacity.max(1), recent: VecDeque::new(), run }
    }

    /// Adds a latency that ended at `t_ms`. What is not finite or negative is no latency.
    pub fn record(&mut self, t_ms: f64, ms: f64) {
        if !(t_ms.is_finite() && ms.is_finite() && ms >= 0.0) {
            return;
        }
        if let Some(run) = &mut self.run {
            run.saturating_record((ms * 1000.0) as u64);
        }
        let from = t_ms - self.window_ms;
        while self.recent.len() >= self.capacity || self.recent.front().is_some_and(|&(t, _)| t < from) {
            self.recent.pop_front();
        }
        self.recent.push_back((t_ms, ms));
    }

    /// The latencies in the window that ends at `now_ms`, oldest first.
    pub fn samples(&self, now_ms: f64) -> impl Iterator<Item = f64> + '_ {
        let from = now_ms - self.window_ms;
        self.recent.iter().filter(move |&&(t, _)| t >= from && t <= now_ms).map(|&(_, ms)| ms)
    }

    /// Exact percentiles of the window that ends at `now_ms`.
    pub fn window(&self, now_ms: f64) -> Summary {
        let mut values: Vec<f64> = self.samples(now_ms).collect();
        if values.is_empty() {
            return Summary::default();
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let max = values.iter().copied().reduce(f64::max);
        let mut nearest_rank = |share: f64| {
            let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
            *values.select_nth_unstable_by(rank, f64::total_cmp).1
        };
        let (p50, p99) = (nearest_rank(0.5), nearest_rank(0.99));
        Summary { count: values.len() as u64, p50: Some(p50), p99: Some(p99), max, mean: Some(mean) }
    }

    /// Percentiles of everything since the start, to three significant digits.
    pub fn run(&self) -> Summary {
        let Some(run) = self.run.as_ref().filter(|run| !run.is_empty()) else { return Summary::default() };
        let ms = |us: u64| Some(us as f64 / 1000.0);
        Summary {
            count: run.len(),
            p50: ms(run.value_at_quantile(0.5)),
            p99: ms(run.value_at_quantile(0.99)),
            max: ms(run.max()),
            mean: Some(run.mean() / 1000.0),
        }
    }

    /// How many latencies of the window fall into each of `bins` equal parts of `0..top_ms`; the last part also counts
    /// everything above.
    pub fn bins(&self, now_ms: f64, top_ms: f64, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        if bins > 0 && top_ms > 0.0 {
            for ms in self.samples(now_ms) {
                counts[((ms / top_ms * bins as f64) as usize).min(bins - 1)] += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_measured_is_unknown() {
        let mut latency = Latency::new(1000.0, 10);
        latency.record(0.0, f64::NAN);
        latency.record(0.0, -1.0);
        assert_eq!(latency.window(0.0), Summary::default());
        assert_eq!(latency.run(), Summary::default());
    }

    #[test]
    fn the_window_slides_and_the_run_stays() {
        let mut latency = Latency::new(100.0, 1000);
        (0..200).for_each(|at| latency.record(at as f64, if at < 50 { 1000.0 } else { 10.0 }));
        let window = latency.window(199.0);
        assert_eq!((window.count, window.p50, window.max), (101, Some(10.0), Some(10.0)));
        assert_eq!(latency.window(10_000.0).count, 0);
        let run = latency.run();
        assert_eq!(run.count, 200);
        assert!((run.max.unwrap() - 1000.0).abs() < 1.0 && (run.p50.unwrap() - 10.0).abs() < 0.01);
    }

    #[test]
    fn bins_count_every_sample_once() {
        let mut latency = Latency::new(1000.0, 1000);
        [0.0, 9.9, 10.0, 55.0, 99.9, 500.0].iter().for_each(|&ms| latency.record(1.0, ms));
        assert_eq!(latency.bins(1.0, 100.0, 10), [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert!(latency.bins(1.0, 100.0, 0).is_empty());
    }

    proptest! {
        #[test]
        fn percentiles_are_ordered_and_near_the_histogram(values in prop::collection::vec(0.01..5000.0f64, 1..300)) {
            let mut latency = Latency::new(1e9, 1000);
            values.iter().enumerate().for_each(|(at, &ms)| latency.record(at as f64, ms));
            let (window, run) = (latency.window(1e6), latency.run());
            let (p50, p99, max) = (window.p50.unwrap(), window.p99.unwrap(), window.max.unwrap());
            prop_assert!(p50 <= p99 && p99 <= max);
            prop_assert!(values.contains(&p50) && values.contains(&p99));
            for (exact, rough) in [(p50, run.p50), (p99, run.p99), (max, run.max)] {
                prop_assert!((rough.unwrap() - exact).abs() <= exact * 0.002 + 0.002);
            }
        }

        #[test]
        fn the_ring_is_bounded(capacity in 1usize..20, count in 0usize..100) {
            let mut latency = Latency::new(1e9, capacity);
            (0..count).for_each(|at| latency.record(at as f64, 1.0));
            prop_assert_eq!(latency.window(1e6).count, count.min(capacity) as u64);
            prop_assert_eq!(latency.run().count, count as u64);
        }
    }
}
