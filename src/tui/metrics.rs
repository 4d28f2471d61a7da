//! What was measured of each lane and of the machine, over time. Fed by events, read by the charts.

mod lane;

pub use lane::LaneMetrics;

use crate::{
    engine::{Compare, Step},
    telemetry::{GpuSample, HostSample, Marks, Series},
};

/// Points of a series that gets one per step.
const STEPS: usize = 16_384;
/// Points of a series that is sampled more slowly.
const SAMPLES: usize = 4_096;
/// Knob marks kept.
const MARKS: usize = 256;

/// The machine over time, and the marks of the knobs.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The lanes, in the order of [`crate::engine::Lane::ALL`].
    pub lanes: [LaneMetrics; 2],
    /// Knobs that were turned; every chart shows them.
    pub marks: Marks,
    /// Resident memory of this process, in bytes.
    pub rss: Series,
    /// CPU of this process; 1 is one core.
    pub process_cpu: Series,
    /// CPU of the machine, in 0..=1.
    pub cpu: Series,
    /// Prefill, in prompt tokens per second of busy time.
    pub prefill_tok_s: Series,
    /// KL of the lanes' predictions of a token where both are fed the same, in nats.
    pub kl: Series,
    /// Whether both found the same token the likeliest: 1 or 0.
    pub agreed: Series,
    /// The last sample of the host.
    pub host: Option<HostSample>,
    /// The GPUs, by NVML index.
    pub gpus: Vec<Gpu>,
}

/// One GPU over time.
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
            prefill_tok_s: series(),
            kl: Series::new(STEPS),
            agreed: Series::new(STEPS),
            host: None,
            gpus: Vec::new(),
        }
    }
}

impl Metrics {
    /// A step; `lane` `None` is a prefill chunk that serves both.
    pub fn step(&mut self, t_ms: f64, step: &Step) {
        if step.prefill_rows > 0 && step.decode_rows == 0 && step.total_ms > 0.0 {
            self.prefill_tok_s.push(t_ms, step.prefill_rows as f64 * 1000.0 / step.total_ms);
        }
        if let Some(lane) = step.lane {
            self.lanes[lane as usize].step(t_ms, step);
        }
    }

    /// Two predictions of a token.
    pub fn compared(&mut self, t_ms: f64, compare: &Compare) {
        self.kl.push(t_ms, compare.kl);
        self.agreed.push(t_ms, f64::from(u8::from(compare.same)));
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

    /// A sample of a GPU.
    pub fn gpu(&mut self, t_ms: f64, sample: GpuSample) {
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
    let mut values: Vec<f64> = series.window(from_ms, to_ms).filter_map(|point| point.value).collect();
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
        assert_eq!(metrics.prefill_tok_s.last(), Some(640.0));
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
            ghost_kv_bytes: 0,
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
