//! The figures of the top line and of the large view, each with where it comes from.

use std::fmt;

use crate::{
    cache::{Format, Policy},
    engine::{Lane, Started},
    telemetry::{Series, Sums},
};

use super::metrics::{Delivery, LaneMetrics, Metrics, percentiles};

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// A clock or a counter read on this machine.
    Measured,
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
///
/// Everything on the screen that is a figure of a stretch of time is one of these, whether in the top line, on a frame of a
/// chart or in large: so no two places can contradict each other. Rates and shares are sums divided by sums.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Device bytes that the KCache lane does not need and an ordinary KV cache would.
    pub saved_bytes: Option<f64>,
    /// The same as a share of the ordinary KV cache, in 0..=1.
    pub saved_share: Option<f64>,
    /// Bytes of V in host memory, KCache lane.
    pub host_v_bytes: Option<f64>,
    /// Tokens per second of each lane's own decode steps: their tokens over their time.
    pub tok_s: [Option<f64>; 2],
    /// What each lane delivers by the clock on the wall.
    pub delivered: [Delivery; 2],
    /// Prompt tokens per second of the steps that did nothing else.
    pub prefill_tok_s: Option<f64>,
    /// Median and 99th percentile of each lane's own decode step, in milliseconds.
    pub step_ms: [Option<(f64, f64)>; 2],
    /// Median and 99th percentile between tokens as a reader sees them, in milliseconds.
    pub itl_ms: [Option<(f64, f64)>; 2],
    /// Mean kept mass, in 0..=1.
    pub kept: Option<f64>,
    /// Rows that a query head of the KCache lane reads for a token.
    pub rows: Option<f64>,
    /// What is known of the quality of predictions.
    pub quality: Option<Quality>,
    /// Tokens that still fit each lane's device budget.
    pub until_full: [Room; 2],
    /// Sessions that still fit each lane, and their length in tokens: that of those it has.
    pub more_sessions: [Option<(u64, u64)>; 2],
}

/// How the quality of predictions was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Both lanes were fed the same tokens, and every prediction was compared.
    Compare,
    /// Now and then exact attention was asked for its prediction over the same cache.
    Probes,
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compare => "compare",
            Self::Probes => "probes",
        })
    }
}

/// How far the predictions of the KCache lane agree with those of full attention over the same tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// How it was found. Figures of different judges are never mixed.
    pub judge: Judge,
    /// Predictions in which both found the same token the likeliest.
    pub agreed: u64,
    pub of: u64,
    /// Mean KL in nats.
    pub kl: Option<f64>,
    /// Its 99th percentile.
    pub kl_p99: Option<f64>,
}

impl Quality {
    /// The share that agrees, in 0..=1.
    pub fn share(&self) -> f64 {
        self.agreed as f64 / self.of as f64
    }

    fn new(judge: Judge, agreed: &Sums<2>, kl: &Series, (from_ms, to_ms): (f64, f64)) -> Option<Self> {
        let [same, of] = agreed.between(from_ms, to_ms);
        (of > 0.0).then(|| Self {
            judge,
            agreed: same as u64,
            of: of as u64,
            kl: kl.mean(from_ms, to_ms),
            kl_p99: percentiles(kl, from_ms, to_ms).map(|(_, p99)| p99),
        })
    }
}

/// How much still fits a lane's device budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    #[default]
    Unknown,
    Unlimited,
    /// So many tokens.
    Tokens(u64),
}

impl Figures {
    /// The figures of the stretch `from_ms..=to_ms`; bytes as of its end. Those of a lane begin no earlier than knobs were
    /// changed last; see [`Metrics::last_change`].
    pub fn new(metrics: &Metrics, started: Option<&Started>, from_ms: f64, to_ms: f64) -> Self {
        let [kcache, _] = &metrics.lanes;
        let (device, kv_equivalent) = (kcache.device.at(to_ms), kcache.kv_equivalent.at(to_ms));
        let saved_bytes = device.zip(kv_equivalent).map(|(device, kv_equivalent)| kv_equivalent - device);
        let stretches = Lane::ALL.map(|lane| metrics.stretch(lane, from_ms, to_ms));
        let ours = stretches[Lane::KCache as usize];
        let each = |of: fn(&LaneMetrics) -> &Series| {
            Lane::ALL.map(|lane| {
                let (from_ms, to_ms) = stretches[lane as usize];
                percentiles(of(&metrics.lanes[lane as usize]), from_ms, to_ms)
            })
        };
        let compared = Quality::new(Judge::Compare, &metrics.agreed, &metrics.kl, ours);
        let probed = || Quality::new(Judge::Probes, &metrics.probe_agreed, &metrics.probe_kl, ours);
        Self {
            saved_bytes,
            saved_share: saved_bytes
                .zip(kv_equivalent)
                .and_then(|(saved, kv_equivalent)| (kv_equivalent > 0.0).then(|| saved / kv_equivalent)),
            host_v_bytes: kcache.host_v.at(to_ms),
            tok_s: Lane::ALL.map(|lane| {
                let (from_ms, to_ms) = stretches[lane as usize];
                metrics.lanes[lane as usize].own_tok_s(from_ms, to_ms)
            }),
            delivered: Lane::ALL.map(|lane| {
                let changed_ms = metrics.last_change(lane, to_ms).map(|mark| mark.t_ms);
                metrics.lanes[lane as usize].answers.delivered(changed_ms, to_ms)
            }),
            // Prefill is the same under every setting.
            prefill_tok_s: metrics.prefill_tok_s(from_ms, to_ms),
            step_ms: each(|lane| &lane.step_ms),
            itl_ms: each(|lane| &lane.itl_ms),
            kept: kcache.kept.ratio(ours.0, ours.1),
            rows: kcache.rows.ratio(ours.0, ours.1),
            quality: compared.or_else(probed),
            until_full: Lane::ALL.map(|lane| room(&metrics.lanes[lane as usize], started, to_ms)),
            more_sessions: metrics.lanes.each_ref().map(|lane| {
                let queue = lane.queue_at(to_ms)?;
                queue.sessions_until_full.zip(queue.mean_tokens)
            }),
        }
    }
}

/// Device bytes that one more token costs a lane with `policy`.
pub fn device_bytes_per_token(policy: &Policy, model: &Started) -> u64 {
    let row = |format: Format| (model.kv_heads as u64).saturating_mul(format.row_bytes(model.head_dim));
    let [k, v] = policy.formats().map(row);
    let device_v = policy.device_v_layers(model.layers) as u64;
    k.saturating_mul(model.layers as u64).saturating_add(v.saturating_mul(device_v))
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
        cache::Knobs,
        engine::{Compare, Ledger, Probe, SessionId, Stages, Step, TierBytes},
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
        let figures = Figures::new(&Metrics::default(), None, 0.0, 1.0);
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
                kv_equivalent_bytes: 23_040 * 100,
                tokens: 100,
                sequences: 1,
            },
        );
        let figures = Figures::new(&metrics, Some(&smollm2()), 0.0, 10.0);
        assert_eq!(figures.saved_share, Some(0.5));
        assert_eq!(figures.until_full, [Room::Tokens(50), Room::Unknown]);
    }

    fn step(lane: Lane, decode_rows: usize, total_ms: f64, rows: f64) -> Step {
        Step {
            lane: Some(lane),
            step: 1,
            decode_rows,
            prefill_rows: 0,
            total_ms,
            stages: Stages::default(),
            context: 10,
            rows_per_head: Some(rows),
            host_v_read_bytes: 1,
            device_read_bytes: 1,
            probes: 0,
            probe_read_bytes: 0,
            rows_chosen: 0,
            rows_fetched: 0,
        }
    }

    #[test]
    fn rates_are_sums_over_sums() {
        let mut metrics = Metrics::default();
        // A minute in which one answer runs, and a second in which fifty do.
        for second in 0..60 {
            metrics.step(f64::from(second) * 1e3, &step(Lane::KCache, 1, 10.0, 8.0));
        }
        for at in 0..10 {
            metrics.step(60_000.0 + f64::from(at) * 100.0, &step(Lane::KCache, 50, 100.0, 108.0));
        }
        let figures = Figures::new(&metrics, None, 0.0, 61_000.0);
        assert_eq!(figures.tok_s[0], Some(560.0 * 1e3 / 1_600.0));
        assert_eq!(figures.rows, Some((60.0 * 8.0 + 500.0 * 108.0) / 560.0));
    }

    #[test]
    fn a_knob_of_one_lane_leaves_the_others_figures() {
        let mut metrics = Metrics::default();
        Lane::ALL.iter().for_each(|&lane| metrics.step(1_000.0, &step(lane, 1, 10.0, 8.0)));
        metrics.knob_changed(2_000.0, Lane::KCache, "n=256".into());
        let figures = Figures::new(&metrics, None, 0.0, 3_000.0);
        assert_eq!((figures.tok_s, figures.step_ms), ([None, Some(100.0)], [None, Some((10.0, 10.0))]));
        // As soon as both go on, both are of the time since then.
        metrics.step(4_000.0, &step(Lane::KCache, 1, 20.0, 8.0));
        metrics.step(4_000.0, &step(Lane::Kv, 1, 40.0, 8.0));
        assert_eq!(Figures::new(&metrics, None, 0.0, 5_000.0).tok_s, [Some(50.0), Some(25.0)]);
        // The cursor may stand before.
        assert_eq!(Figures::new(&metrics, None, 0.0, 1_500.0).tok_s, [Some(100.0), Some(100.0)]);
    }

    #[test]
    fn probes_judge_where_nothing_was_compared_and_are_never_mixed_with_it() {
        let mut metrics = Metrics::default();
        let probe = |lane, agree, kl| Probe {
            lane,
            session: SessionId(1),
            step: 1,
            position: 16,
            kl,
            agree,
            kept_mass: None,
            full: false,
        };
        let quality = |metrics: &Metrics| Figures::new(metrics, None, 0.0, 9.0).quality;
        metrics.probed(0.5, &probe(Lane::Kv, true, 0.0));
        assert_eq!(quality(&metrics), None);
        [(true, 0.1), (false, 0.3)]
            .iter()
            .for_each(|&(agree, kl)| metrics.probed(1.0, &probe(Lane::KCache, agree, kl)));
        let probed = Quality { judge: Judge::Probes, agreed: 1, of: 2, kl: Some(0.2), kl_p99: Some(0.3) };
        assert_eq!((quality(&metrics), probed.share()), (Some(probed), 0.5));
        let session = SessionId(1);
        metrics
            .compared(2.0, &Compare { session, step: 1, index: 0, token_id: 1, kl: 0.5, same: true, otherwise: None });
        let compared = Quality { judge: Judge::Compare, agreed: 1, of: 1, kl: Some(0.5), kl_p99: Some(0.5) };
        assert_eq!(quality(&metrics), Some(compared));
    }
}
