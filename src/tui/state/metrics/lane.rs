//! What was measured of one lane, over time.

use std::collections::VecDeque;

use super::{MARKS, SAMPLES, STEPS, answers::Answers};
use crate::{
    cache::Policy,
    engine::{Hits, LaneCard, Ledger, Queue, SessionId, Stages, Step, Token},
    telemetry::{Marks, Series, Sums},
};

/// `hits` events kept for scrubbing back.
const HITS: usize = 512;
/// Ledgers kept for scrubbing back.
const LEDGERS: usize = 4_096;
/// States of the queue kept for scrubbing back.
const QUEUES: usize = 4_096;
/// A point of the lines of throughput is tokens over time of this many milliseconds.
const RATE_MS: f64 = 2_000.0;
/// Throughput is noted this often.
const RATE_EVERY_MS: f64 = 250.0;
/// Without a decode step for this long the lines of speed are broken.
const QUIET_MS: f64 = 5_000.0;

#[derive(Debug, Clone)]
pub struct LaneMetrics {
    pub policy: Option<Policy>,
    pub budget_bytes: Option<u64>,
    /// Bytes of the cache on the device: K, V, tail and workspace.
    pub device: Series,
    /// Bytes that an ordinary KV cache would hold on the device for the same tokens.
    pub kv_equivalent: Series,
    /// Bytes of V in host memory.
    pub host_v: Series,
    /// Tokens in the cache.
    pub tokens: Series,
    /// Milliseconds of the lane's own decode steps, those that carry a piece of a prompt left out: what a token takes
    /// is not what a prompt takes. [`LaneMetrics::itl_ms`] has them all.
    pub step_ms: Series,
    /// Milliseconds between tokens as the reader sees them, the other lane's turns included.
    pub itl_ms: Series,
    /// Tokens per second of the lane's own steps, for the line on the chart. A figure comes of [`LaneMetrics::decoded`].
    pub tok_s: Series,
    /// Tokens that decode steps made, and the milliseconds of these steps.
    pub decoded: Sums<2>,
    /// Rows that a query head read, added over these tokens, and the tokens.
    pub rows: Sums<2>,
    /// Kept mass added over the tokens that have one, and these tokens.
    pub kept: Sums<2>,
    /// Its answers: what the lane delivers.
    pub answers: Answers,
    /// Its own knobs, when they were changed.
    pub changes: Marks,
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
    last_decode_ms: Option<f64>,
    last_rate_ms: f64,
}

impl Default for LaneMetrics {
    fn default() -> Self {
        Self {
            policy: None,
            budget_bytes: None,
            device: Series::new(STEPS),
            kv_equivalent: Series::new(STEPS),
            host_v: Series::new(STEPS),
            tokens: Series::new(STEPS),
            step_ms: Series::new(STEPS),
            itl_ms: Series::new(STEPS),
            tok_s: Series::new(SAMPLES),
            decoded: Sums::new(STEPS),
            rows: Sums::new(STEPS),
            kept: Sums::new(STEPS),
            answers: Answers::default(),
            changes: Marks::new(MARKS),
            stages: std::array::from_fn(|_| Series::new(SAMPLES)),
            host_read: Series::new(SAMPLES),
            ledgers: VecDeque::new(),
            queues: VecDeque::new(),
            next: Vec::new(),
            hits: VecDeque::new(),
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
        let tokens = step.decode_rows as f64;
        self.decoded.push(t_ms, [tokens, step.total_ms]);
        if let Some(rows) = step.rows_per_head {
            self.rows.push(t_ms, [rows * tokens, tokens]);
        }
        self.host_read.push(t_ms, step.host_v_read_bytes as f64);
        if step.prefill_rows == 0 {
            self.step_ms.push(t_ms, step.total_ms);
            for (series, (_, ms)) in self.stages.iter_mut().zip(Stages::named(&step.stages)) {
                series.push(t_ms, ms);
            }
        }
        if t_ms - self.last_rate_ms >= RATE_EVERY_MS {
            self.tok_s.push(t_ms, self.own_tok_s(t_ms - RATE_MS, t_ms));
            self.last_rate_ms = t_ms;
        }
    }

    /// Tokens per second of the lane's own decode steps in `from_ms..=to_ms`: all their tokens over all their time.
    pub fn own_tok_s(&self, from_ms: f64, to_ms: f64) -> Option<f64> {
        self.decoded.ratio(from_ms, to_ms).map(|per_ms| per_ms * 1000.0)
    }

    /// A token of this lane.
    pub fn token(&mut self, t_ms: f64, token: &Token) {
        if token.itl_ms.is_some() {
            self.itl_ms.push(t_ms, token.itl_ms);
        }
        if let Some(kept) = token.kept_mass {
            self.kept.push(t_ms, [f64::from(kept), 1.0]);
        }
    }

    pub fn ledger(&mut self, t_ms: f64, ledger: &Ledger) {
        self.device.push(t_ms, ledger.device.cache() as f64);
        self.kv_equivalent.push(t_ms, as_kv(ledger) as f64);
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
        self.last_rate_ms = f64::NEG_INFINITY;
        for series in [&mut self.step_ms, &mut self.itl_ms, &mut self.tok_s] {
            series.gap(last + 1.0);
        }
        for series in self.stages.iter_mut().chain([&mut self.host_read]) {
            series.gap(last + 1.0);
        }
    }

    /// The `hits` events of a span of time.
    pub fn hits_in(&self, from_ms: f64, to_ms: f64) -> impl Iterator<Item = &Hits> {
        self.hits.iter().filter(move |(t, _)| (from_ms..=to_ms).contains(t)).map(|(_, hits)| hits)
    }
}

/// What an ordinary KV cache would hold on the device in this lane's place: its pages, and the same buffers.
fn as_kv(ledger: &Ledger) -> u64 {
    ledger.kv_equivalent_bytes.saturating_add(ledger.device.workspace)
}
