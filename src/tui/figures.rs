//! The figures of the top line and of the large view, each with where it comes from.

use std::fmt;

use crate::{
    cache::Policy,
    engine::{Lane, Started},
};

use super::{
    metrics::{LaneMetrics, Metrics, percentiles},
    session::Session,
};

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// A clock or a counter read on this machine.
    Measured,
    /// Arithmetic on measured values.
    Derived,
    /// An account of what a device would hold; there is none here.
    Simulated,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Derived => "derived",
            Self::Simulated => "simulated",
        })
    }
}

/// The figures at one moment. Unknown is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Device bytes that the KCache lane does not need and an ordinary KV cache would.
    pub saved_bytes: Option<f64>,
    /// The same as a share of the ordinary KV cache, in 0..=1.
    pub saved_share: Option<f64>,
    /// Bytes of V in host memory, KCache lane.
    pub host_v_bytes: Option<f64>,
    /// Tokens per second of each lane's own time.
    pub tok_s: [Option<f64>; 2],
    /// Median and 99th percentile of each lane's own decode step, in milliseconds.
    pub step_ms: [Option<(f64, f64)>; 2],
    /// Median and 99th percentile between tokens as a reader sees them, in milliseconds.
    pub itl_ms: [Option<(f64, f64)>; 2],
    /// Mean kept mass, in 0..=1.
    pub kept: Option<f64>,
    /// Tokens compared and the same, over all sessions.
    pub agreement: (usize, usize),
    /// Tokens that still fit each lane's device budget.
    pub until_full: [Room; 2],
    /// Sessions that still fit each lane, and their length in tokens: that of those it has.
    pub more_sessions: [Option<(u64, u64)>; 2],
}

/// How much still fits a lane's device budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// Not known yet.
    #[default]
    Unknown,
    /// There is no budget.
    Unlimited,
    /// So many tokens.
    Tokens(u64),
}

impl Figures {
    /// The figures of the stretch `from_ms..=to_ms`; bytes as of its end.
    pub fn new(metrics: &Metrics, started: Option<&Started>, sessions: &[Session], from_ms: f64, to_ms: f64) -> Self {
        let [kcache, _] = &metrics.lanes;
        let (device, ghost) = (kcache.device.at(to_ms), kcache.ghost.at(to_ms));
        let saved_bytes = device.zip(ghost).map(|(device, ghost)| ghost - device);
        let each = |of: &dyn Fn(&LaneMetrics) -> Option<(f64, f64)>| metrics.lanes.each_ref().map(of);
        Self {
            saved_bytes,
            saved_share: saved_bytes.zip(ghost).and_then(|(saved, ghost)| (ghost > 0.0).then(|| saved / ghost)),
            host_v_bytes: kcache.host_v.at(to_ms),
            tok_s: metrics.lanes.each_ref().map(|lane| lane.tok_s.mean(from_ms, to_ms)),
            step_ms: each(&|lane| percentiles(&lane.step_ms, from_ms, to_ms)),
            itl_ms: each(&|lane| percentiles(&lane.itl_ms, from_ms, to_ms)),
            kept: kcache.kept.mean(from_ms, to_ms),
            agreement: sessions.iter().map(Session::agreement).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
            until_full: Lane::ALL.map(|lane| room(&metrics.lanes[lane as usize], started, to_ms)),
            more_sessions: metrics.lanes.each_ref().map(|lane| {
                let queue = lane.queue_at(to_ms)?;
                queue.sessions_until_full.zip(queue.mean_tokens)
            }),
        }
    }

    /// The share of compared tokens that are the same, in 0..=1.
    pub fn agreement_share(&self) -> Option<f64> {
        let (same, compared) = self.agreement;
        (compared > 0).then(|| same as f64 / compared as f64)
    }
}

/// Device bytes that one more token costs a lane with `policy`.
pub fn device_bytes_per_token(policy: &Policy, model: &Started) -> u64 {
    let [k, v] = policy.formats().map(|format| model.kv_heads as u64 * format.row_bytes(model.head_dim));
    k * model.layers as u64 + v * policy.device_v_layers(model.layers) as u64
}

fn room(lane: &LaneMetrics, started: Option<&Started>, at_ms: f64) -> Room {
    let (Some(policy), Some(model)) = (&lane.policy, started) else { return Room::Unknown };
    // The engine knows both tiers; a recording of an earlier version may have the account alone.
    if let Some(queue) = lane.queue_at(at_ms) {
        return queue.tokens_until_full.map_or(Room::Unlimited, Room::Tokens);
    }
    let Some(budget) = lane.budget_bytes else { return Room::Unlimited };
    let held = lane.device.at(at_ms).unwrap_or(0.0) as u64;
    match device_bytes_per_token(policy, model) {
        0 => Room::Unknown,
        per_token => Room::Tokens(budget.saturating_sub(held) / per_token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{Format, Knobs},
        engine::{Ledger, TierBytes},
    };

    fn smollm2() -> Started {
        Started {
            model: "SmolLM2".into(),
            architecture: "llama".into(),
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            context: 8192,
            weight_bytes: 98_000_000,
            threads: 2,
            simulated: true,
            lanes: Vec::new(),
        }
    }

    #[test]
    fn a_token_costs_what_the_model_card_says() {
        // 23,040 bytes of KV in f16, half of it K; one dense layer keeps its V as well.
        assert_eq!(device_bytes_per_token(&Policy::Kv, &smollm2()), 23_040);
        assert_eq!(device_bytes_per_token(&Policy::KCache(Knobs::PAPER), &smollm2()), 11_520);
        assert_eq!(device_bytes_per_token(&Policy::KCache(Knobs::default()), &smollm2()), 11_520 + 384);
        assert_eq!(device_bytes_per_token(&Policy::KvQ8, &smollm2()), 23_040 * 34 / 64);
        let q8 = Policy::KCache(Knobs { k: Format::Q8, ..Knobs::default() });
        assert_eq!(device_bytes_per_token(&q8, &smollm2()), 11_520 * 34 / 64 + 384);
    }

    #[test]
    fn nothing_measured_is_unknown() {
        let figures = Figures::new(&Metrics::default(), None, &[], 0.0, 1.0);
        assert_eq!(figures, Figures::default());
    }

    #[test]
    fn savings_and_room_follow_the_ledger() {
        let mut metrics = Metrics::default();
        metrics.lanes[0].policy = Some(Policy::KCache(Knobs::PAPER));
        metrics.lanes[0].ledger(
            5.0,
            &Ledger {
                lane: Lane::KCache,
                step: 1,
                device: TierBytes { k: 11_520 * 100, ..TierBytes::default() },
                host: TierBytes { v: 11_520 * 100, ..TierBytes::default() },
                budget_bytes: Some(11_520 * 150),
                ghost_kv_bytes: 23_040 * 100,
                tokens: 100,
                sequences: 1,
            },
        );
        let figures = Figures::new(&metrics, Some(&smollm2()), &[], 0.0, 10.0);
        assert_eq!(figures.saved_share, Some(0.5));
        assert_eq!(figures.until_full, [Room::Tokens(50), Room::Unknown]);
    }
}
