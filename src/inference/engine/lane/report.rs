//! What a lane reports: its queue, its bytes, and where the rows that it chose lay.

use std::time::{Duration, Instant};

use super::{Counts, LaneState};
use crate::{
    cache::{MemoryKind, MemoryPool, PAGE_TOKENS},
    engine::{Delivered, EventKind, Hits, Ledger, Queue, TierBytes, session::answer::Stage},
};

/// The least time between two reports of the same kind from one lane: faster than a reader can see helps nobody.
const REPORT_EVERY: Duration = Duration::from_millis(100);

impl LaneState {
    /// Publishes the lane's ledger, queue and hits where it is time, or `now`.
    pub fn report(&mut self, weight_bytes: u64, now: bool) {
        let (ledger, queue, hits) = (self.ledger(weight_bytes, now), self.queue(now), self.hits(now));
        ledger.into_iter().chain(queue).chain(hits).for_each(|event| self.publisher.publish(event));
    }

    fn delivered(&self) -> Delivered {
        let Counts { tokens, decoded_tokens, decode_ms, finished, running_peak, .. } = self.counts;
        let queued = self.queued.run();
        let (queued_ms_p50, queued_ms_p99) = (queued.p50, queued.p99);
        Delivered { tokens, decoded_tokens, decode_ms, finished, running_peak, queued_ms_p50, queued_ms_p99 }
    }

    /// Who runs and who waits among the lane's sequences, where it is time to say or `now` is wanted.
    fn queue(&mut self, now: bool) -> Option<EventKind> {
        if !due(&mut self.reported.queue, now) {
            return None;
        }
        let (mut running, mut waiting, mut preempted, mut idle) = (0, 0, 0, 0);
        let (mut running_tokens, mut idle_tokens) = (0, 0);
        let mut next = Vec::new();
        for (&id, sequence) in &self.sequences {
            match sequence.stage() {
                Some(Stage::Running { .. }) => {
                    running += 1;
                    running_tokens += sequence.total();
                }
                Some(Stage::Waiting { .. }) => waiting += 1,
                Some(Stage::Preempted { .. }) => preempted += 1,
                None if sequence.cache.capacity() > 0 => {
                    idle += 1;
                    idle_tokens += sequence.known();
                }
                None => {}
            }
            next.extend(sequence.place_to_start().map(|place| (place, id)));
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
        let Counts { preemptions, evicted, recomputed_tokens, prefix_hit_tokens, refused, .. } = self.counts;
        let longest = std::mem::take(&mut self.longest_scheduling);
        Some(EventKind::Queue(Queue {
            lane: self.lane,
            step: self.steps,
            running,
            waiting,
            preempted,
            bound: self.bound,
            idle,
            preemptions,
            freed: evicted,
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
    fn ledger(&mut self, weights: u64, now: bool) -> Option<EventKind> {
        if !due(&mut self.reported.ledger, now) {
            return None;
        }
        let (mut tokens, mut count) = (0, 0);
        for cache in self.sequences.values().map(|each| &each.cache).filter(|cache| cache.capacity() > 0) {
            tokens += cache.len();
            count += 1;
        }
        let equivalent = self.cache.shape().kv_bytes(self.cache.device_blocks() * PAGE_TOKENS);
        let device = TierBytes { weights, ..bytes(self.cache.device()) };
        Some(EventKind::Ledger(Ledger {
            lane: self.lane,
            step: self.steps,
            device,
            host: bytes(self.cache.host()),
            budget_bytes: self.cache.device().cap(),
            kv_equivalent_bytes: equivalent,
            tokens,
            sequences: count,
        }))
    }

    /// Where the selected rows lay since the last report, where it is time for one or `now` is wanted.
    fn hits(&mut self, now: bool) -> Option<EventKind> {
        if self.hits.tokens == 0 || !due(&mut self.reported.hits, now) {
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
        cache::{CacheShape, Policy},
        engine::{
            EngineOptions, GenerationOptions, Lane, LaneOptions, Priority, SessionId, session::sequence::Sequence,
            stream,
        },
    };

    #[test]
    fn the_queue_tells_who_goes_next_and_how_many_more_fit() {
        let shape = CacheShape { layers: 2, kv_heads: 1, head_dim: 32 };
        let block = shape.kv_bytes(PAGE_TOKENS);
        let device_budget = Some(10 * block);
        let options = LaneOptions { lane: Lane::Kv, policy: Policy::Kv, device_budget, host_budget: None };
        let engine = EngineOptions::default();
        let mut state = LaneState::new(&options, &engine, shape, stream().0);
        let asked = |state: &LaneState, tokens: usize, order: u64, priority: Priority| {
            let mut sequence = Sequence::new(state.cache.vacant(), None);
            let options = GenerationOptions { priority, ..GenerationOptions::default() };
            sequence.begin(None, &vec![7; tokens], options, order);
            sequence
        };
        let mut running = asked(&state, 100, 1, Priority::Background);
        state.cache.grow(&mut running.cache, 101).unwrap();
        running.start();
        let waiting = asked(&state, 900, 2, Priority::Background);
        let mut preempted = asked(&state, 900, 3, Priority::Background);
        preempted.start();
        preempted.preempt();
        let typed = asked(&state, 900, 4, Priority::Typed);
        state.sequences.extend((1..).map(SessionId).zip([running, waiting, preempted, typed]));
        let event = state.queue(true);
        let Some(EventKind::Queue(queue)) = event else { panic!("{event:?}") };
        assert_eq!((queue.running, queue.waiting, queue.preempted), (1, 2, 1));
        assert_eq!(queue.next, [4, 3, 2].map(SessionId), "what was typed, then who was preempted, then who waits");
        // Two of ten pages are taken, and one of 100 tokens takes two.
        assert_eq!((queue.tokens_until_full, queue.mean_tokens), (Some(8 * 64), Some(100)));
        assert_eq!(queue.sessions_until_full, Some(4));

        for (_, sequence) in std::mem::take(&mut state.sequences) {
            state.cache.close(sequence.cache);
        }
        let nobody = state.queue(true);
        let Some(EventKind::Queue(queue)) = nobody else { panic!("{nobody:?}") };
        assert_eq!((queue.mean_tokens, queue.sessions_until_full), (None, None));
    }
}
