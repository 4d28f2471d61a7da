//! What was measured of each lane and of the machine, over time. Fed by events, read by the charts.

use std::collections::VecDeque;

use crate::{
    cache::Policy,
    engine::{Compare, Hits, LaneCard, Ledger, Queue, SessionId, Stages, Step, Token},
    telemetry::{GpuSample, HostSample, Marks, Series},
};

/// Points of a series that gets one per step.
const STEPS: usize = 16_384;
/// Points of a series that is sampled more slowly.
const SAMPLES: usize = 4_096;
/// `hits` events kept for scrubbing back.
const HITS: usize = 512;
/// Ledgers kept for scrubbing back.
const LEDGERS: usize = 4_096;
/// States of the queue kept for scrubbing back.
const QUEUES: usize = 4_096;
/// Knob marks kept.
const MARKS: usize = 256;
/// Throughput is a mean over this many milliseconds.
const RATE_MS: f64 = 2_000.0;
/// Throughput is noted this often.
const RATE_EVERY_MS: f64 = 250.0;
/// Without a decode step for this long the lines of speed are broken.
const QUIET_MS: f64 = 5_000.0;

/// One lane over time.
#[derive(Debug, Clone)]
pub struct LaneMetrics {
    /// Its policy now.
    pub policy: Option<Policy>,
    /// Its device budget now.
    pub budget_bytes: Option<u64>,
    /// Bytes of the cache on the device: K, V, tail and workspace.
    pub device: Series,
    /// Bytes that an ordinary KV cache would hold on the device for the same tokens.
    pub ghost: Series,
    /// Bytes of V in host memory.
    pub host_v: Series,
    /// Tokens in the cache.
    pub tokens: Series,
    /// Milliseconds of the lane's own decode steps, those that carry a piece of a prompt left out: what a token takes
    /// is not what a prompt takes. [`LaneMetrics::itl_ms`] has them all.
    pub step_ms: Series,
    /// Milliseconds between tokens as the reader sees them, the other lane's turns included.
    pub itl_ms: Series,
    /// Tokens per second of the lane's own busy time.
    pub tok_s: Series,
    /// Rows that a query head read per token.
    pub rows: Series,
    /// The kept mass per token.
    pub kept: Series,
    /// Milliseconds of the same steps by stage, in the order of [`Stages::named`].
    pub stages: [Series; 8],
    /// Bytes of V read from the host tier per step.
    pub host_read: Series,
    /// The accounts, with the time of each.
    pub ledgers: VecDeque<(f64, Ledger)>,
    /// Who runs and who waits, with the time of each event; without the list of those who wait.
    pub queues: VecDeque<(f64, Queue)>,
    /// Who starts or goes on next, in that order, as of the newest.
    pub next: Vec<SessionId>,
    /// Where the selected rows lay, with the time of each event.
    pub hits: VecDeque<(f64, Hits)>,
    recent: VecDeque<(f64, usize, f64)>,
    last_decode_ms: Option<f64>,
    last_rate_ms: f64,
}

impl Default for LaneMetrics {
    fn default() -> Self {
        Self {
            policy: None,
            budget_bytes: None,
            device: Series::new(STEPS),
            ghost: Series::new(STEPS),
            host_v: Series::new(STEPS),
            tokens: Series::new(STEPS),
            step_ms: Series::new(STEPS),
            itl_ms: Series::new(STEPS),
            tok_s: Series::new(SAMPLES),
            rows: Series::new(STEPS),
            kept: Series::new(STEPS),
            stages: std::array::from_fn(|_| Series::new(SAMPLES)),
            host_read: Series::new(SAMPLES),
            ledgers: VecDeque::new(),
            queues: VecDeque::new(),
            next: Vec::new(),
            hits: VecDeque::new(),
            recent: VecDeque::new(),
            last_decode_ms: None,
            last_rate_ms: f64::NEG_INFINITY,
        }
    }
}

impl LaneMetrics {
    /// The lane as it starts.
    pub fn card(&mut self, card: &LaneCard) {
        self.policy = Some(card.policy);
        self.budget_bytes = card.budget_bytes;
    }

    /// A step of this lane.
    pub fn step(&mut self, t_ms: f64, step: &Step) {
        if step.decode_rows == 0 {
            return;
        }
        self.quiet(t_ms);
        self.last_decode_ms = Some(t_ms);
        self.rows.push(t_ms, step.rows_per_head);
        self.host_read.push(t_ms, step.host_v_read_bytes as f64);
        if step.prefill_rows == 0 {
            self.step_ms.push(t_ms, step.total_ms);
            for (series, (_, ms)) in self.stages.iter_mut().zip(Stages::named(&step.stages)) {
                series.push(t_ms, ms);
            }
        }
        self.recent.push_back((t_ms, step.decode_rows, step.total_ms));
        while self.recent.front().is_some_and(|&(t, ..)| t < t_ms - RATE_MS) {
            self.recent.pop_front();
        }
        if t_ms - self.last_rate_ms >= RATE_EVERY_MS {
            let (rows, ms) = self.recent.iter().fold((0, 0.0), |(rows, ms), &(_, r, m)| (rows + r, ms + m));
            self.tok_s.push(t_ms, (ms > 0.0).then(|| rows as f64 * 1000.0 / ms));
            self.last_rate_ms = t_ms;
        }
    }

    /// A token of this lane.
    pub fn token(&mut self, t_ms: f64, token: &Token) {
        if token.itl_ms.is_some() {
            self.itl_ms.push(t_ms, token.itl_ms);
        }
        if token.kept_mass.is_some() {
            self.kept.push(t_ms, token.kept_mass.map(f64::from));
        }
    }

    /// The lane's account.
    pub fn ledger(&mut self, t_ms: f64, ledger: &Ledger) {
        self.device.push(t_ms, ledger.device.cache() as f64);
        self.ghost.push(t_ms, as_kv(ledger) as f64);
        self.host_v.push(t_ms, ledger.host.v as f64);
        self.tokens.push(t_ms, ledger.tokens as f64);
        self.budget_bytes = ledger.budget_bytes;
        if self.ledgers.len() == LEDGERS {
            self.ledgers.pop_front();
        }
        self.ledgers.push_back((t_ms, *ledger));
    }

    /// The newest account not after `t_ms`.
    pub fn ledger_at(&self, t_ms: f64) -> Option<&Ledger> {
        let after = self.ledgers.partition_point(|(t, _)| *t <= t_ms);
        after.checked_sub(1).map(|at| &self.ledgers[at].1)
    }

    /// Who runs and who waits in the lane.
    pub fn queue(&mut self, t_ms: f64, mut queue: Queue) {
        self.next = std::mem::take(&mut queue.next);
        if self.queues.len() == QUEUES {
            self.queues.pop_front();
        }
        self.queues.push_back((t_ms, queue));
    }

    /// The newest state of the queue not after `t_ms`.
    pub fn queue_at(&self, t_ms: f64) -> Option<&Queue> {
        let after = self.queues.partition_point(|(t, _)| *t <= t_ms);
        after.checked_sub(1).map(|at| &self.queues[at].1)
    }

    /// The place of a session among those that start or go on next, from 1, and how many there are.
    pub fn place(&self, session: SessionId) -> Option<(usize, usize)> {
        let at = self.next.iter().position(|&next| next == session)?;
        Some((at + 1, self.next.len()))
    }

    /// Where the rows of this lane lay.
    pub fn hits(&mut self, t_ms: f64, hits: Hits) {
        if self.hits.len() == HITS {
            self.hits.pop_front();
        }
        self.hits.push_back((t_ms, hits));
    }

    /// Breaks the lines of speed where the lane has not decoded for a while before `t_ms`.
    pub fn quiet(&mut self, t_ms: f64) {
        let Some(last) = self.last_decode_ms.filter(|last| t_ms - last > QUIET_MS) else { return };
        self.last_decode_ms = None;
        self.recent.clear();
        self.last_rate_ms = f64::NEG_INFINITY;
        for series in [&mut self.step_ms, &mut self.itl_ms, &mut self.tok_s, &mut self.rows, &mut self.kept] {
            series.gap(last + 1.0);
        }
        for series in self.stages.iter_mut().chain([&mut self.host_read]) {
            series.gap(last + 1.0);
        }
    }

    /// The newest `hits` event not after `t_ms`.
    pub fn hits_at(&self, t_ms: f64) -> Option<&Hits> {
        self.hits.iter().rev().find(|(t, _)| *t <= t_ms).map(|(_, hits)| hits)
    }

    /// The `hits` events of a span of time.
    pub fn hits_in(&self, from_ms: f64, to_ms: f64) -> impl Iterator<Item = &Hits> {
        self.hits.iter().filter(move |(t, _)| (from_ms..=to_ms).contains(t)).map(|(_, hits)| hits)
    }
}

/// What an ordinary KV cache would hold on the device in this lane's place: its pages, and the same buffers.
fn as_kv(ledger: &Ledger) -> u64 {
    ledger.ghost_kv_bytes + ledger.device.workspace
}

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
    use crate::engine::Lane;

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
