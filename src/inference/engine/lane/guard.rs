//! What the guard of a session is told of each decoded token, and what follows from its verdict.

use super::LaneState;
use crate::engine::{EventKind, Guarded, Lane, Probe, SessionId, session::sequence::Sequence};
use crate::{
    cache::LaneCache,
    model::Device,
    quality::{GuardOptions, GuardState, Observed, Verdict, compare_logits},
};

/// What a step found out about the tokens it decoded.
pub(super) struct Findings {
    lane: Lane,
    /// The step in which it was found.
    step: u64,
    pub probes: Vec<Probe>,
    pub verdicts: Vec<Guarded>,
    /// A buffer, `[vocab]`.
    weights: Vec<f32>,
}

impl Findings {
    pub fn new(lane: Lane, step: u64) -> Self {
        Self { lane, step, probes: Vec::new(), verdicts: Vec::new(), weights: Vec::new() }
    }

    /// Takes in a token that `sequence` decoded in the running step of its lane, the `row`-th of it, with the `logits`
    /// that came of it. Where it was probed, `probe` says which of the step's probes is its.
    pub fn take(
        &mut self,
        (cache, guard): (&mut LaneCache, &GuardOptions),
        (session, sequence): (SessionId, &mut Sequence),
        (device, row, logits): (&dyn Device, usize, &[f32]),
        probe: Option<usize>,
    ) {
        let (lane, step) = (self.lane, self.step);
        let full = sequence.guard.state() == GuardState::Full;
        let mut observed = Observed { kept_mass: device.kept_mass(row).map(f64::from), kl: None };
        if let Some(at) = probe {
            let other = &device.probe_logits()[at * logits.len()..][..logits.len()];
            let (exact, policy) = if full { (logits, other) } else { (other, logits) };
            let (kl, agree) = compare_logits(exact, policy, &mut self.weights);
            let kept_mass = if full { device.probe_kept_mass(at) } else { device.kept_mass(row) };
            observed = Observed { kept_mass: kept_mass.map(f64::from), kl: Some(kl) };
            let position = sequence.cache.len() - 1;
            self.probes.push(Probe { lane, session, step, position, kl, agree, kept_mass, full });
        }
        if let Some(verdict) = sequence.guard.observe(guard, observed) {
            self.verdicts.push(obey((lane, step), cache, (session, sequence), verdict));
        }
    }
}

impl LaneState {
    /// Has every guard of the lane begin anew.
    pub(super) fn reset_guards(&mut self, reason: &str) {
        let mut changes = Vec::new();
        for (&id, sequence) in &mut self.sequences {
            if let Some(verdict) = sequence.guard.reset(reason) {
                changes.push(obey((self.lane, self.steps), &mut self.cache, (id, sequence), verdict));
            }
        }
        changes.into_iter().for_each(|change| self.publisher.publish(EventKind::Guard(change)));
    }
}

/// Has a verdict come true from the lane's next step on. V of a session that reads every row comes to the device where
/// the budget has room for it; else it is read on the host, which is as right.
fn obey(
    (lane, step): (Lane, u64),
    cache: &mut LaneCache,
    (session, sequence): (SessionId, &mut Sequence),
    verdict: Verdict,
) -> Guarded {
    let Verdict { state, reason, kl, kept_mass } = verdict;
    let v_on_device = match state {
        GuardState::Full => cache.promote(&mut sequence.cache).is_ok(),
        GuardState::TopN | GuardState::Warned => {
            cache.demote(&mut sequence.cache);
            false
        }
    };
    Guarded { lane, session, step, state, reason, kl, kept_mass, v_on_device }
}
