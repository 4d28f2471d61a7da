//! What was measured of each lane and of the machine, over time. Fed by events, read by the charts.

mod answers;
mod lane;

pub use answers::{Answers, Delivery, Since};
pub use lane::LaneMetrics;

use crate::{
    engine::{Compare, EventKind, Lane, Probe, Step},
    telemetry::{GpuSample, HostSample, Mark, Marks, Series, Sums},
};

/// Points of a series that gets one per step.
const STEPS: usize = 16_384;
/// Points of a series that is sampled more slowly.
const SAMPLES: usize = 4_096;
const MARKS: usize = 256;

/// The machine over time, and the marks of the knobs.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The lanes, in the order of [`crate::engine::Lane::ALL`].
    pub lanes: [LaneMetrics; 2],
    /// Knobs that were changed; every chart shows them.
    pub marks: Marks,
    /// Resident memory of this process, in bytes.
    pub rss: Series,
    /// CPU of this process; 1 is one core.
    pub process_cpu: Series,
    /// CPU of the machine, in 0..=1.
    pub cpu: Series,
    /// Prompt tokens of steps that did nothing else, and the milliseconds of these steps.
    pub prefilled: Sums<2>,
    /// KL of the lanes' predictions of a token where both are fed the same, in nats.
    pub kl: Series,
    /// Predictions in which both found the same token the likeliest, and all that were compared.
    pub agreed: Sums<2>,
    /// KL(exact ‖ policy) of the tokens of the KCache lane that were probed, in nats.
    pub probe_kl: Series,
    /// Probes in which both found the same token the likeliest, and all.
    pub probe_agreed: Sums<2>,
    /// The last sample of the host.
    pub host: Option<HostSample>,
    /// The GPUs, by NVML index.
    pub gpus: Vec<Gpu>,
}

#[derive(Debug, Clone)]
pub struct Gpu {
    /// Its last sample.
    pub sample: GpuSample,
    /// Memory in use, in bytes.
    pub memory: Series,
}

impl Default for Metrics {
    fn default() -> Self {
        let series = || Series::new(SAMPLES);
        Self {
            lanes: Default::default(),
            marks: Marks::new(MARKS),
            rss: series(),
            process_cpu: series(),
            cpu: series(),
            prefilled: Sums::new(STEPS),
            kl: Series::new(STEPS),
            agreed: Sums::new(STEPS),
            probe_kl: Series::new(STEPS),
            probe_agreed: Sums::new(STEPS),
            host: None,
            gpus: Vec::new(),
        }
    }
}

impl Metrics {
    /// A step; `lane` `None` is a prefill chunk that serves both.
    pub fn step(&mut self, t_ms: f64, step: &Step) {
        if step.prefill_rows > 0 && step.decode_rows == 0 && step.total_ms > 0.0 {
            self.prefilled.push(t_ms, [step.prefill_rows as f64, step.total_ms]);
        }
        if let Some(lane) = step.lane {
            self.lanes[lane as usize].step(t_ms, step);
        }
    }

    /// Two predictions of a token.
    pub fn compared(&mut self, t_ms: f64, compare: &Compare) {
        self.kl.push(t_ms, compare.kl);
        self.agreed.push(t_ms, [f64::from(u8::from(compare.same)), 1.0]);
    }

    /// A probe. Only those of the KCache lane are what the figures ask for.
    pub fn probed(&mut self, t_ms: f64, probe: &Probe) {
        if probe.lane == Lane::KCache {
            self.probe_kl.push(t_ms, probe.kl);
            self.probe_agreed.push(t_ms, [f64::from(u8::from(probe.agree)), 1.0]);
        }
    }

    /// A knob of a lane was changed.
    pub fn knob_changed(&mut self, t_ms: f64, lane: Lane, change: String) {
        self.marks.push(t_ms, change.clone());
        self.lanes[lane as usize].changes.push(t_ms, change);
    }

    /// The knob with which a lane's figures at `to_ms` begin: the last of either lane, so that the figures of both are of the
    /// same time and can be compared. A lane that has decoded nothing since then keeps its figures; they begin with the
    /// last of its own knobs, so that none mixes two settings.
    pub fn last_change(&self, lane: Lane, to_ms: f64) -> Option<&Mark> {
        let metrics = &self.lanes[lane as usize];
        let last = |marks: &'_ Marks| marks.window(f64::MIN, to_ms).next_back().map(|mark| mark.t_ms);
        let decoded = |since: f64| metrics.decoded.between(since, to_ms)[0] > 0.0;
        let marks = if last(&self.marks).is_some_and(decoded) { &self.marks } else { &metrics.changes };
        marks.window(f64::MIN, to_ms).next_back()
    }

    /// The stretch of time of a lane's figures: no longer than `from_ms..=to_ms`.
    pub fn stretch(&self, lane: Lane, from_ms: f64, to_ms: f64) -> (f64, f64) {
        let changed_ms = self.last_change(lane, to_ms).map_or(from_ms, |mark| mark.t_ms);
        (changed_ms.max(from_ms), to_ms)
    }

    /// What an event says about the answers of the lanes, those of a load included.
    pub fn answers(&mut self, t_ms: f64, event: &EventKind) {
        Lane::ALL.iter().for_each(|&lane| self.lanes[lane as usize].answers.note(lane, t_ms, event));
    }

    /// Another load begins: what is delivered is counted from its first answer on.
    pub fn load_begins(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.answers.load_begins());
    }

    /// Prompt tokens per second of the steps that did nothing else.
    pub fn prefill_tok_s(&self, from_ms: f64, to_ms: f64) -> Option<f64> {
        self.prefilled.ratio(from_ms, to_ms).map(|per_ms| per_ms * 1000.0)
    }

    /// A sample of the host.
    pub fn host(&mut self, t_ms: f64, sample: HostSample) {
        let share = |percent: f32| f64::from(percent) / 100.0;
        self.rss.push(t_ms, sample.process_rss_bytes.map(|bytes| bytes as f64));
        self.process_cpu.push(t_ms, sample.process_cpu_percent.map(share));
        self.cpu.push(t_ms, sample.cpu_percent.map(share));
        self.host = Some(sample);
        self.lanes.iter_mut().for_each(|lane| lane.quiet(t_ms));
    }

    /// A sample of a GPU. One from a recording may be of a version that believed every driver.
    pub fn gpu(&mut self, t_ms: f64, sample: GpuSample) {
        let sample = sample.plausible();
        let at = match self.gpus.binary_search_by_key(&sample.index, |gpu| gpu.sample.index) {
            Ok(at) => at,
            Err(at) => {
                self.gpus.insert(at, Gpu { sample: sample.clone(), memory: Series::new(SAMPLES) });
                at
            }
        };
        let gpu = &mut self.gpus[at];
        gpu.memory.push(t_ms, sample.memory_used_bytes.map(|bytes| bytes as f64));
        gpu.sample = sample;
    }
}

/// The median and the 99th percentile (nearest rank) of the values of a span of time.
pub fn percentiles(series: &Series, from_ms: f64, to_ms: f64) -> Option<(f64, f64)> {
    nearest_ranks(series.window(from_ms, to_ms).filter_map(|point| point.value).collect())
}

/// The median and the 99th percentile (nearest rank) of `values`.
pub fn nearest_ranks(mut values: Vec<f64>) -> Option<(f64, f64)> {
    if values.is_empty() {
        return None;
    }
    let mut rank = |share: f64| {
        let at = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
        *values.select_nth_unstable_by(at, f64::total_cmp).1
    };
    Some((rank(0.5), rank(0.99)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Lane, Ledger, Stages};

    fn step(total_ms: f64, decode_rows: usize, prefill_rows: usize) -> Step {
        Step {
            lane: Some(Lane::KCache),
            step: 1,
            decode_rows,
            prefill_rows,
            total_ms,
            stages: Stages { linear_ms: total_ms, ..Stages::default() },
            context: 10,
            rows_per_head: Some(8.0),
            host_v_read_bytes: 1,
            device_read_bytes: 1,
            probes: 0,
            probe_read_bytes: 0,
            rows_chosen: 0,
            rows_fetched: 0,
        }
    }

    #[test]
    fn throughput_counts_the_lanes_own_time() {
        let mut metrics = Metrics::default();
        // Two rows in 40 ms of the lane's own time, whatever the clock on the wall says in between.
        metrics.step(100.0, &step(40.0, 2, 0));
        metrics.step(400.0, &step(40.0, 2, 0));
        assert_eq!(metrics.lanes[0].tok_s.last(), Some(50.0));
        metrics.step(500.0, &step(100.0, 0, 64));
        assert_eq!(metrics.prefill_tok_s(0.0, 500.0), Some(640.0));
        assert_eq!(metrics.lanes[0].step_ms.len(), 2);
        // A step that also carries a piece of a prompt is throughput, but no figure of what a token takes.
        metrics.step(800.0, &step(160.0, 2, 64));
        assert_eq!((metrics.lanes[0].step_ms.len(), metrics.lanes[0].tok_s.last()), (2, Some(25.0)));
    }

    #[test]
    fn a_pause_is_a_gap() {
        let mut metrics = Metrics::default();
        metrics.step(100.0, &step(40.0, 1, 0));
        metrics.step(9_000.0, &step(40.0, 1, 0));
        assert_eq!(metrics.lanes[0].step_ms.at(5_000.0), None);
        assert_eq!(metrics.lanes[0].step_ms.at(9_000.0), Some(40.0));
    }

    #[test]
    fn accounts_are_found_by_time() {
        let mut lane = LaneMetrics::default();
        let account = |tokens| Ledger {
            lane: Lane::KCache,
            step: 1,
            device: crate::engine::TierBytes::default(),
            host: crate::engine::TierBytes::default(),
            budget_bytes: None,
            kv_equivalent_bytes: 0,
            tokens,
            sequences: 1,
        };
        [(1.0, 10), (2.0, 20)].into_iter().for_each(|(t_ms, tokens)| lane.ledger(t_ms, &account(tokens)));
        let tokens = |t_ms| lane.ledger_at(t_ms).map(|ledger| ledger.tokens);
        assert_eq!([0.5, 1.0, 1.9, 2.0, 9.0].map(tokens), [None, Some(10), Some(10), Some(20), Some(20)]);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut series = Series::new(200);
        (1..=100).for_each(|ms| series.push(f64::from(ms), f64::from(ms)));
        assert_eq!(percentiles(&series, 0.0, 1000.0), Some((50.0, 99.0)));
        assert_eq!(percentiles(&series, 2000.0, 3000.0), None);
    }
}
