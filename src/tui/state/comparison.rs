//! What a compared answer has shown: how far the two predictions of each token are apart, and what `kcache` would have
//! chosen where that is another token.

use crate::engine::{Compare, Lane, Request};

use super::State;
use crate::tui::{command::Command, input::action::Action};

/// A turn in which both lanes are fed the same tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Comparison {
    /// KL of each token in nats, the one that ends the answer included.
    pub kl: Vec<f64>,
    /// Of these tokens those that both lanes find the likeliest.
    pub same: usize,
    /// Where `kcache` would have chosen another token.
    pub otherwise: Vec<Otherwise>,
    /// From which token on the lanes went on apart, and why.
    pub unlocked: Option<(usize, String)>,
}

/// A token that `kcache` would have chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otherwise {
    /// The index of the token in the answer.
    pub index: usize,
    /// The text it would have had; empty where it would have ended the answer.
    pub text: String,
}

impl Comparison {
    /// Takes in a token, unless it is known (a replay).
    pub fn add(&mut self, compare: &Compare) {
        if compare.index != self.kl.len() {
            return;
        }
        self.kl.push(compare.kl);
        self.same += usize::from(compare.same);
        if let Some(otherwise) = &compare.otherwise {
            self.otherwise.push(Otherwise { index: compare.index, text: otherwise.text.clone() });
        }
    }

    /// The share of the tokens that both lanes find the likeliest, in 0..=1.
    pub fn share(&self) -> Option<f64> {
        (!self.kl.is_empty()).then(|| self.same as f64 / self.kl.len() as f64)
    }

    /// Whether token `index` was given to both lanes rather than chosen by each.
    pub fn covers(&self, index: usize) -> bool {
        self.unlocked.as_ref().is_none_or(|(at, _)| index < *at)
    }

    /// Mean and 99th percentile (nearest rank) of the KL, in nats.
    pub fn kl_figures(&self) -> Option<(f64, f64)> {
        let mut sorted = self.kl.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = ((sorted.len() as f64 * 0.99).ceil() as usize).checked_sub(1)?;
        Some((sorted.iter().sum::<f64>() / sorted.len() as f64, sorted[rank]))
    }
}

/// Switches compare mode of the session on show; without one a session is opened for it.
pub fn switch(state: &mut State) -> Vec<Command> {
    if state.stopped.is_some() {
        state.toast("the engine has ended; nothing can be compared any more", true);
        return Vec::new();
    }
    let mut commands = Vec::new();
    if state.session().is_none() {
        commands = crate::tui::update::keys::act(state, Action::NewSession);
    }
    let Some(session) = state.session() else { return commands };
    if session.lanes.len() < Lane::ALL.len() {
        state.toast("this session runs in one lane: there is nothing to compare it with", true);
        return commands;
    }
    let (id, on, busy) = (session.id, !session.compare, session.busy());
    let text = match (on, busy) {
        (true, false) => "comparing: both lanes are fed what KV says, from the next message on",
        (true, true) => "comparing from the next message on; this answer goes on as it is",
        (false, _) => "no longer comparing: each lane goes its own way",
    };
    state.toast(text, false);
    commands.push(Command::Engine(Request::Compare { session: id, on }));
    commands
}

/// A KL in nats, in as many digits as tell small ones apart: `0.0013`, `0.021`, `0.57`, `6.1`.
pub fn nats(kl: f64) -> String {
    match kl {
        ..0.000_05 => "0".into(),
        ..0.009_95 => format!("{kl:.4}"),
        ..0.0995 => format!("{kl:.3}"),
        ..0.995 => format!("{kl:.2}"),
        _ => format!("{kl:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_divergences_are_told_apart() {
        let texts = [0.0, 0.0013, 0.021, 0.57, 6.13].map(nats);
        assert_eq!(texts, ["0", "0.0013", "0.021", "0.57", "6.1"]);
    }
}
