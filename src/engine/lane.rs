//! A lane: one policy, its cache with its budgets, and what it has to report.

use std::time::{Duration, Instant};

use super::{EventKind, Hits, Lane, LaneOptions, Ledger, TierBytes};
use crate::{
    attention::HitCounts,
    cache::{CacheShape, LaneCache, Owner, SequenceCache, Tier},
};

/// The least time between two reports of the same kind from one lane: faster than a reader can see helps nobody.
const REPORT_EVERY: Duration = Duration::from_millis(100);

pub(super) struct LaneState {
    pub lane: Lane,
    pub cache: LaneCache,
    /// Steps taken.
    pub steps: u64,
    pub hits: HitCounts,
    ledger_reported: Option<Instant>,
    hits_reported: Option<Instant>,
}

impl LaneState {
    pub fn new(options: &LaneOptions, shape: CacheShape) -> Self {
        Self {
            lane: options.lane,
            cache: LaneCache::new(shape, options.policy, options.device_budget, options.host_budget),
            steps: 0,
            hits: HitCounts::new(shape.layers),
            ledger_reported: None,
            hits_reported: None,
        }
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
        let (mut tokens, mut count, mut ghost) = (0, 0, 0);
        for sequence in sequences.filter(|sequence| sequence.capacity() > 0) {
            tokens += sequence.len();
            ghost += self.cache.shape().kv_bytes(sequence.capacity());
            count += 1;
        }
        let device = TierBytes { weights, ..bytes(self.cache.device()) };
        Some(EventKind::Ledger(Ledger {
            lane: self.lane,
            step: self.steps,
            device,
            host: bytes(self.cache.host()),
            budget_bytes: self.cache.device().cap(),
            ghost_kv_bytes: ghost,
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

fn bytes(tier: &Tier) -> TierBytes {
    TierBytes {
        weights: 0,
        k: tier.held(Owner::K),
        v: tier.held(Owner::V),
        tail: tier.held(Owner::Tail),
        workspace: tier.fixed(),
    }
}
