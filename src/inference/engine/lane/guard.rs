//! What the guard of a session is told of each decoded token, and what follows from its verdict.

use super::LaneState;
use crate::engine::{Guarded, Lane, Probe, SessionId, session::sequence::Sequence};
use crate::{
    model::Forward,
    quality::{GuardState, Observed, Verdict, compare_logits},
};

/// What a step found out about the tokens it decoded.
#[derive(Default)]
pub(crate) struct Findings {
    pub probes: Vec<Probe>,
    pub verdicts: Vec<Guarded>,
    /// A buffer, `[vocab]`.
    weights: Vec<f32>,
}

impl Findings {
    /// Takes in a token that `sequence` decoded in the running step of its lane, the `row`-th of it, with the `logits`
    /// that came of it. Where it was probed, `probe` says which of the step's probes is its.
    pub fn take(
        &mut self,
        state: &mut LaneState,
        id: SessionId,
        sequence: &mut Sequence,
        (forward, row, logits): (&Forward, usize, &[f32]),
        probe: Option<usize>,
    ) {
        let full = sequence.guard.state() == GuardState::Full;
        let mut observed = Observed { kept_mass: forward.kept_mass(row).map(f64::from), kl: None };
        if let Some(at) = probe {
            let other = &forward.probe_logits()[at * logits.len()..][..logits.len()];
            let (exact, policy) = if full { (logits, other) } else { (other, logits) };
            let (kl, agree) = compare_logits(exact, policy, &mut self.weights);
            let kept_mass = if full { forward.probe_kept_mass(at) } else { forward.kept_mass(row) };
            observed = Observed { kept_mass: kept_mass.map(f64::from), kl: Some(kl) };
            let (lane, step, position) = (state.lane, state.steps + 1, sequence.cache.len() - 1);
            self.probes.push(Probe { lane, session: id, step, position, kl, agree, kept_mass, full });
        }
        if let Some(verdict) = sequence.guard.observe(&state.guard, observed) {
            let found = guarded(state, id, sequence, verdict);
            self.verdicts.push(Guarded { step: state.steps + 1, ..found });
        }
    }
}

/// Has a verdict come true from the lane's next step on. V of a session that reads every row comes to the device where
/// the budget has room for it; else it is read on the host, which is as right.
pub(crate) fn guarded(state: &mut LaneState, id: SessionId, sequence: &mut Sequence, verdict: Verdict) -> Guarded {
    let Verdict { state: reads, reason, kl, kept_mass } = verdict;
    let v_on_device = match reads {
        GuardState::Full => state.cache.promote(&mut sequence.cache).is_ok(),
        GuardState::TopN | GuardState::Warned => {
            state.cache.demote(&mut sequence.cache);
            false
        }
    };
    let (lane, step): (Lane, u64) = (state.lane, state.steps);
    Guarded { lane, session: id, step, state: reads, reason, kl, kept_mass, v_on_device }
}
