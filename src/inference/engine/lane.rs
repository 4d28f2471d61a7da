//! A lane: one policy, its cache with its budgets, and the sequences that it serves.
//!
//! A lane decides by itself who runs in it, makes room, takes its steps and tells its own events. What concerns a whole
//! session (its other lane, a prompt computed for several lanes, its end) it leaves to the worker.

pub(crate) mod answers;
pub(crate) mod choices;
mod guard;
mod knobs;
pub(crate) mod machine;
mod preempt;
mod prefix;
mod report;
pub(crate) mod schedule;
pub(crate) mod step;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    EngineOptions, EventKind, Lane, LaneOptions, Priority, Publisher, Scheduling, SessionId,
    session::sequence::Sequence,
};
use crate::{
    attention::HitCounts,
    cache::{CacheShape, LaneCache},
    quality::GuardOptions,
    telemetry::Latency,
};

pub(crate) struct LaneState {
    pub lane: Lane,
    pub cache: LaneCache,
    /// Those of all sessions that run in this lane.
    pub sequences: BTreeMap<SessionId, Sequence>,
    /// How its answers are probed and guarded.
    guard: GuardOptions,
    /// Steps taken.
    pub steps: u64,
    hits: HitCounts,
    /// Sequences for which the buffers of the step are reserved.
    rows: usize,
    /// Answers that may wait.
    bound: usize,
    share_prefixes: bool,
    /// What scheduling did so far.
    pub counts: Counts,
    /// How long answers waited before they started, since the start.
    queued: Latency,
    /// The time that scheduling the next step took.
    scheduling: Duration,
    longest_scheduling: Duration,
    reported: Reported,
    publisher: Publisher,
}

/// What scheduling did since the start: see [`Queue`](super::Queue).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub preemptions: u64,
    pub evicted: u64,
    pub recomputed_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub refused: u64,
    pub tokens: u64,
    pub decoded_tokens: u64,
    pub decode_ms: f64,
    pub finished: u64,
    pub running_peak: usize,
}

/// When each report was made last.
#[derive(Debug, Default)]
struct Reported {
    ledger: Option<Instant>,
    hits: Option<Instant>,
    queue: Option<Instant>,
}

impl LaneState {
    pub fn new(options: &LaneOptions, engine: &EngineOptions, shape: CacheShape, publisher: Publisher) -> Self {
        Self {
            lane: options.lane,
            cache: LaneCache::new(shape, options.policy, options.device_budget, options.host_budget),
            sequences: BTreeMap::new(),
            // A lane that reads every row has nothing to guard.
            guard: if options.policy.knobs().is_some() { engine.guard } else { GuardOptions::OFF },
            steps: 0,
            hits: HitCounts::new(shape.layers),
            rows: 0,
            bound: engine.queue,
            share_prefixes: engine.share_prefixes,
            counts: Counts::default(),
            // The whole run alone is asked for.
            queued: Latency::new(0.0, 1),
            scheduling: Duration::ZERO,
            longest_scheduling: Duration::ZERO,
            reported: Reported::default(),
            publisher,
        }
    }

    /// Opens a sequence for a session. It holds nothing before its first answer starts.
    pub fn open(&mut self, id: SessionId, system: Option<&str>) {
        self.sequences.insert(id, Sequence::new(self.cache.vacant(), system));
    }

    /// Removes the sequence of a session and takes its pages back.
    pub fn close(&mut self, id: SessionId) {
        if let Some(sequence) = self.sequences.remove(&id) {
            self.cache.close(sequence.cache);
        }
    }

    /// Empties the sequence of a session, whose conversation is computed anew when it goes on.
    pub fn forget(&mut self, id: SessionId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            self.cache.vacate(&mut sequence.cache);
            sequence.forget();
        }
    }

    /// How many answers take part in the steps.
    pub fn running(&self) -> usize {
        self.sequences.values().filter(|sequence| sequence.runs()).count()
    }

    /// How many answers have not started.
    pub fn waiting(&self) -> usize {
        self.sequences.values().filter(|sequence| sequence.waits()).count()
    }

    /// Whether it answers something that a person typed. What waits for room does not count: it may be that of a prompt
    /// which must then go on.
    pub fn answers_what_was_typed(&self) -> bool {
        let running = self.sequences.values().filter(|sequence| sequence.runs());
        running.filter_map(Sequence::priority).any(|priority| priority == Priority::Typed)
    }

    /// Bytes that it holds on both tiers.
    pub fn held(&self) -> u64 {
        self.cache.device().used() + self.cache.host().used()
    }

    /// What is wrong with the account of its bytes, if anything.
    pub fn check_ledger(&self) {
        if let Err(error) = self.cache.check(self.sequences.values().map(|sequence| &sequence.cache)) {
            self.error(None, error.to_string());
        }
    }

    /// Tells what an answer does from now on.
    pub fn tell(&self, session: SessionId, state: Scheduling) {
        self.publisher.publish(EventKind::Scheduled { lane: self.lane, session, step: self.steps + 1, state });
    }

    pub fn error(&self, session: Option<SessionId>, message: String) {
        self.publisher.publish(EventKind::Error { lane: Some(self.lane), session, message });
    }
}
