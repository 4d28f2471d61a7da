//! Where one policy begins to win over another: in sessions that ask, and in tokens of context.

use super::Planner;
use crate::cache::{PAGE_TOKENS, Policy};

/// At which contexts one policy is faster than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WinsByCtx {
    /// The longest context at which either has a session; 0 without any.
    pub up_to: usize,
    /// From this context on at every one up to there.
    pub from: Option<usize>,
    /// The longest context at which it is faster; beyond it, and perhaps before, it is not.
    pub longest: Option<usize>,
}

impl Planner {
    /// The number of sessions from which on, for all larger ones too, `policy` gives more tokens per second than
    /// `baseline`, if as many ask: while both have room they run the same sessions, beyond it each runs what fits and
    /// the others wait. `None` where there is no such number.
    pub fn wins_from_sessions(&self, policy: &Policy, baseline: &Policy, ctx: usize) -> Option<usize> {
        let (fit, other) = (self.sessions(policy, ctx), self.sessions(baseline, ctx));
        let wins = |asked: usize| {
            let rate = |policy, fit: usize| self.tok_s(policy, ctx, asked.min(fit));
            faster(rate(policy, fit), rate(baseline, other))
        };
        if !wins(fit.max(other)) {
            return None;
        }
        // While both run the same sessions they differ by a time that grows with each, so 1 decides for all of them.
        // Above, the rate of the one that has room grows, and the other's stays.
        if wins(1) {
            return Some(1);
        }
        let (mut loses, mut known) = (other.min(fit), fit.max(other));
        while known - loses > 1 {
            let middle = loses + (known - loses) / 2;
            if wins(middle) { known = middle } else { loses = middle }
        }
        Some(known)
    }

    /// At which contexts, in whole pages and up to `last`, a saturated lane under `policy` gives more tokens per second
    /// than one under `baseline`.
    pub fn wins_by_ctx(&self, policy: &Policy, baseline: &Policy, last: usize) -> WinsByCtx {
        let rates = |ctx| [policy, baseline].map(|policy| self.tok_s(policy, ctx, self.sessions(policy, ctx)));
        let mut found = WinsByCtx { up_to: 0, from: None, longest: None };
        for ctx in (PAGE_TOKENS..=last).step_by(PAGE_TOKENS) {
            let [rate, other] = rates(ctx);
            // Where neither has a session there is nothing to compare.
            if rate == 0.0 && other == 0.0 {
                continue;
            }
            found.up_to = ctx;
            if faster(rate, other) {
                found.from.get_or_insert(ctx);
                found.longest = Some(ctx);
            } else {
                found.from = None;
            }
        }
        found
    }
}

/// Whether one rate is above another by more than rounding.
pub(super) fn faster(rate: f64, other: f64) -> bool {
    rate > other * (1.0 + 1e-9)
}
