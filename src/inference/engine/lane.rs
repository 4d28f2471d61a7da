//! A lane: one policy, its cache with its budgets, and what it has to report.

use std::time::{Duration, Instant};

use super::{
    Delivered, EventKind, Hits, Lane, LaneOptions, Ledger, Queue, SessionId, TierBytes,
    session::sequence::{Sequence, Stage},
};
use crate::{
    attention::HitCounts,
    cache::{CacheShape, LaneCache, MemoryKind, MemoryPool, PAGE_TOKENS, SequenceCache},
    model::StepSize,
    quality::GuardOptions,
    telemetry::Latency,
};

/// The least time between two reports of the same kind from one lane: faster than a reader can see helps nobody.
const REPORT_EVERY: Duration = Duration::from_millis(100);

pub(super) struct LaneState {
    pub lane: Lane,
    pub cache: LaneCache,
    /// How its answers are probed and guarded.
    pub guard: GuardOptions,
    /// Steps taken.
    pub steps: u64,
    pub hits: HitCounts,
    /// Sequences for which the buffers of the step are booked.
    pub rows: usize,
    /// The size of step for which they are.
    pub booked: Option<StepSize>,
    /// What scheduling did so far.
    pub counts: Counts,
    /// How long answers waited before they started, since the start.
    queued: Latency,
    /// The time that scheduling the next step took.
    pub scheduling: Duration,
    ledger_reported: Option<Instant>,
    hits_reported: Option<Instant>,
    queue_reported: Option<Instant>,
    longest_scheduling: Duration,
}

/// What scheduling did since the start: see [`Queue`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub preemptions: u64,
    pub freed: u64,
    pub recomputed_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub refused: u64,
    pub tokens: u64,
    pub decoded_tokens: u64,
    pub decode_ms: f64,
    pub finished: u64,
    pub running_peak: usize,
}

impl LaneState {
    pub fn new(options: &LaneOptions, guard: GuardOptions, shape: CacheShape) -> Self {
        Self {
            lane: options.lane,
            // A lane that reads every row has nothing to guard.
            guard: if options.policy.knobs().is_some() { guard } else { GuardOptions::OFF },
            cache: LaneCache::new(shape, options.policy, options.device_budget, options.host_budget),
            steps: 0,
            hits: HitCounts::new(shape.layers),
            rows: 0,
            booked: None,
            counts: Counts::default(),
            // The whole run alone is asked for.
            queued: Latency::new(0.0, 1),
            scheduling: Duration::ZERO,
            ledger_reported: None,
            hits_reported: None,
            queue_reported: None,
            longest_scheduling: Duration::ZERO,
        }
    }

    /// Rows of a step in which `rows` sequences decode, if all of them are probed where the lane probes.
    pub fn step_rows(&self, rows: usize) -> usize {
        if self.guard.probe_every > 0 { 2 * rows } else { rows }
    }

    /// Notes how long the next step's scheduling took.
    pub fn scheduled(&mut self, took: Duration) {
        self.scheduling = took;
        self.longest_scheduling = self.longest_scheduling.max(took);
    }

    /// Notes that an answer has started after it waited so long.
    pub fn waited(&mut self, waited: Duration) {
        self.queued.record(0.0, waited.as_secs_f64() * 1e3);
    }

    /// Notes that so many answers run.
    pub fn runs(&mut self, running: usize) {
        self.counts.running_peak = self.counts.running_peak.max(running);
    }

    fn delivered(&self) -> Delivered {
        let Counts { tokens, decoded_tokens, decode_ms, finished, running_peak, .. } = self.counts;
        let queued = self.queued.run();
        let (queued_ms_p50, queued_ms_p99) = (queued.p50, queued.p99);
        Delivered { tokens, decoded_tokens, decode_ms, finished, running_peak, queued_ms_p50, queued_ms_p99 }
    }

    /// Who runs and who waits among the lane's sequences, where it is time to say or `now` is wanted.
    pub fn queue<'a>(
        &mut self,
        bound: usize,
        sequences: impl Iterator<Item = (SessionId, &'a Sequence)>,
        now: bool,
    ) -> Option<EventKind> {
        if !due(&mut self.queue_reported, now) {
            return None;
        }
        let (mut running, mut waiting, mut preempted, mut idle) = (0, 0, 0, 0);
        let (mut running_tokens, mut idle_tokens) = (0, 0);
        let mut next = Vec::new();
        for (id, sequence) in sequences {
            match sequence.stage() {
                Some(Stage::Running) => {
                    running += 1;
                    running_tokens += sequence.total();
                }
                Some(Stage::Waiting) => waiting += 1,
                Some(Stage::Preempted) => preempted += 1,
                None if sequence.cache.capacity() > 0 => {
                    idle += 1;
                    idle_tokens += sequence.known();
                }
                None => {}
            }
            next.extend(sequence.turn_to_start().map(|turn| (turn, id)));
        }
        next.sort_unstable();
        let mean_tokens = running_tokens.checked_div(running).or_else(|| idle_tokens.checked_div(idle));
        let (device, host) = self.cache.resident_block();
        let blocks = |tier: &MemoryPool, bytes: u64| tier.free().filter(|_| bytes > 0).map(|free| free / bytes);
        let free = blocks(self.cache.device(), device).into_iter().chain(blocks(self.cache.host(), host)).min();
        let more = mean_tokens.and_then(|tokens| {
            let pages = tokens.div_ceil(PAGE_TOKENS) as u64;
            let ours = blocks(self.cache.device(), pages * device + self.cache.sum_bytes());
            ours.into_iter().chain(blocks(self.cache.host(), pages * host)).min()
        });
        let Counts { preemptions, freed, recomputed_tokens, prefix_hit_tokens, refused, .. } = self.counts;
        let longest = std::mem::take(&mut self.longest_scheduling);
        Some(EventKind::Queue(Queue {
            lane: self.lane,
            step: self.steps,
            running,
            waiting,
            preempted,
            bound,
            idle,
            preemptions,
            freed,
            recomputed_tokens,
            prefix_hit_tokens,
            refused,
            next: next.into_iter().map(|(_, id)| id).collect(),
            mean_tokens: mean_tokens.map(|tokens| tokens as u64),
            sessions_until_full: more,
            tokens_until_full: free.map(|blocks| blocks * PAGE_TOKENS as u64),
            device_peak_bytes: self.cache.device().peak(),
            host_peak_bytes: self.cache.host().peak(),
            schedule_ms: longest.as_secs_f64() * 1e3,
            delivered: Some(self.delivered()),
        }))
    }

    /// The account of the lane's bytes, where it is time for one or `now` is wanted.
    pub fn ledger<'a>(
        &mut self,
        weights: u64,
        sequences: impl Iterator<Item = &'a SequenceCache>,
        now: bool,
    ) -> Option<EventKind> {
        if !due(&mut self.ledger_reported, now) {
            return None;
        }
        let (mut tokens, mut count) = (0, 0);
        for sequence in sequences.filter(|sequence| sequence.capacity() > 0) {
            tokens += sequence.len();
            count += 1;
        }
        let ghost = self.cache.shape().kv_bytes(self.cache.device_blocks() * PAGE_TOKENS);
        let device = TierBytes { weights, ..bytes(self.cache.device()) };
        Some(EventKind::Ledger(Ledger {
            lane: self.lane,
            step: self.steps,
            device,
            host: bytes(self.cache.host()),
            budget_bytes: self.cache.device().cap(),
            kv_equivalent_bytes: ghost,
            tokens,
            sequences: count,
        }))
    }

    /// Where the selected rows lay since the last report, where it is time for one or `now` is wanted.
    pub fn hits(&mut self, now: bool) -> Option<EventKind> {
        if self.hits.tokens == 0 || !due(&mut self.hits_reported, now) {
            return None;
        }
        let selected = self.hits.selected.max(1) as f64;
        let event = EventKind::Hits(Hits {
            lane: self.lane,
            step: self.steps,
            tokens: self.hits.tokens,
            distance: self.hits.distance.iter().map(|counts| counts.to_vec()).collect(),
            sink_share: self.hits.sink as f64 / selected,
            recent_share: self.hits.recent as f64 / selected,
            kept_mass: self.hits.kept_mass(),
        });
        self.hits.clear();
        Some(event)
    }
}

fn due(last: &mut Option<Instant>, now: bool) -> bool {
    let due = now || last.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
    if due {
        *last = Some(Instant::now());
    }
    due
}

fn bytes(tier: &MemoryPool) -> TierBytes {
    TierBytes {
        weights: 0,
        k: tier.held(MemoryKind::K),
        v: tier.held(MemoryKind::V),
        tail: tier.held(MemoryKind::Tail),
        workspace: tier.fixed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::Policy,
        engine::{GenerationOptions, Priority, SessionId},
    };

    #[test]
    fn the_queue_tells_who_goes_next_and_how_many_more_fit() {
        let shape = CacheShape { layers: 2, kv_heads: 1, head_dim: 32 };
        let block = shape.kv_bytes(PAGE_TOKENS);
        let device_budget = Some(10 * block);
        let options = LaneOptions { lane: Lane::Kv, policy: Policy::Kv, device_budget, host_budget: None };
        let mut state = LaneState::new(&options, GuardOptions::OFF, shape);
        let asked = |state: &LaneState, tokens: usize, order: u64, priority: Priority| {
            let mut sequence = Sequence::new(Lane::Kv, state.cache.vacant(), None);
            sequence.begin(
                None,
                &vec![7; tokens],
                GenerationOptions { priority, ..GenerationOptions::default() },
                order,
                false,
            );
            sequence
        };
        let mut running = asked(&state, 100, 1, Priority::Background);
        state.cache.grow(&mut running.cache, 101).unwrap();
        running.start();
        let waiting = asked(&state, 900, 2, Priority::Background);
        let mut preempt = asked(&state, 900, 3, Priority::Background);
        preempt.answer.as_mut().unwrap().stage = Stage::Preempted;
        let typed = asked(&state, 900, 4, Priority::Typed);
        let all = [&running, &waiting, &preempt, &typed];
        let event = state.queue(256, (1..).map(SessionId).zip(all), true);
        let Some(EventKind::Queue(queue)) = event else { panic!("{event:?}") };
        assert_eq!((queue.running, queue.waiting, queue.preempted), (1, 2, 1));
        assert_eq!(queue.next, [4, 3, 2].map(SessionId), "what was typed, then who was set back, then who waits");
        // Two of ten pages are taken, and one of 100 tokens takes two.
        assert_eq!((queue.tokens_until_full, queue.mean_tokens), (Some(8 * 64), Some(100)));
        assert_eq!(queue.sessions_until_full, Some(4));

        let nobody = state.queue(256, std::iter::empty(), true);
        let Some(EventKind::Queue(queue)) = nobody else { panic!("{nobody:?}") };
        assert_eq!((queue.mean_tokens, queue.sessions_until_full), (None, None));
        state.cache.close(running.cache);
    }
}

pub(crate) mod guard;
