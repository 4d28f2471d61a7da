//! Compare mode: both lanes of a session are fed the same tokens, those that `kv` chooses, and with every token it is told
//! how far the predictions of the lanes are apart.
//!
//! The pair moves on token by token. A lane that has its prediction keeps it and takes no part in steps until the other
//! lane has its own; then both are given the token. Who goes first is the same in both lanes, so a pair that waits is
//! served by and by, whatever their budgets. Where that fails (nobody can do anything, and somebody waits for the other
//! lane), the youngest pair is unlocked: each lane goes on by itself, from the prediction it holds, and no token is lost.

use super::Worker;
use crate::engine::{
    Compare, EventKind, FinishReason, Lane, Otherwise, SessionId,
    lane::choices::{Choice, Choices},
    session::{answer::Held, sequence::Sequence},
};
use crate::{
    model::{Detokenizer, LanguageModel},
    quality::{Distribution, kl_divergence},
};

impl Worker {
    /// Switches a session to compare mode from its next answer on, or out of it at once.
    pub(super) fn set_compare(&mut self, id: SessionId, on: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.unknown(id) };
        if on && self.lanes.pair(id).is_none() {
            let message = "comparing needs a session in both lanes, kcache and kv".to_owned();
            return self.error(None, Some(id), message);
        }
        session.compare = on;
        self.publisher.publish(EventKind::CompareMode { session: id, on });
        if !on {
            self.unlock(id, "comparing was switched off");
        }
    }

    /// Has the kcache lane of a compared session hold the conversation of the kv lane, before an answer: where they were
    /// not fed the same so far, it is computed again.
    pub(super) fn align(&mut self, id: SessionId) {
        if !self.compares(id) || self.lanes.is_answering(id) {
            return;
        }
        let Some((ours, theirs)) = self.lanes.pair(id) else { return };
        if ours.known_tokens().eq(theirs.known_tokens()) && ours.messages == theirs.messages {
            return;
        }
        if let Some(state) = self.lanes.get_mut(Lane::KCache) {
            state.forget(id);
        }
        let Some((ours, theirs)) = self.lanes.pair_mut(id) else { return };
        ours.messages.clone_from(&theirs.messages);
        ours.pending.extend(theirs.known_tokens());
    }

    /// Locks the answers of a compared session that have just begun; says why where that cannot be.
    pub(super) fn lock(&mut self, id: SessionId) {
        if !self.compares(id) {
            return;
        }
        let missing = self.lanes.sequences(id).find(|(_, sequence)| sequence.answer.is_none()).map(|(lane, _)| lane);
        let Some((ours, theirs)) = self.lanes.pair_mut(id) else { return };
        let same = ours.known_tokens().eq(theirs.known_tokens());
        let reason = match missing {
            None if same && ours.lock() && theirs.lock() => return,
            None => "the lanes' prompts differ".to_owned(),
            Some(lane) => format!("{lane} does not answer"),
        };
        self.publisher.publish(EventKind::Unlocked { session: id, index: 0, reason });
    }

    fn compares(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.compare)
    }

    /// Gives the next token to every pair of which both lanes have their prediction. False where there is none.
    pub(super) fn advance_pairs(&mut self) -> bool {
        let both_hold = |id| self.lanes.pair(id).is_some_and(|(ours, theirs)| ours.holds() && theirs.holds());
        let ready: Vec<SessionId> = self.sessions.keys().copied().filter(|&id| both_hold(id)).collect();
        ready.iter().for_each(|&id| self.give_token(id));
        !ready.is_empty()
    }

    fn give_token(&mut self, id: SessionId) {
        let step = self.lanes.steps(Lane::KCache);
        let Some((ours, theirs)) = self.lanes.pair_mut(id) else { return };
        let (Some(mine), Some(base)) = (ours.take_held(), theirs.take_held()) else { return };
        let (own, said) = match (ours.sample(&mine.logits), theirs.sample(&base.logits)) {
            (Ok(Some(own)), Ok(Some(said))) => (own, said),
            // One of them is no prediction: each lane goes its own way, and that one fails.
            _ => {
                ours.hold_again(mine);
                theirs.hold_again(base);
                return self.unlock(id, "a prediction is no number");
            }
        };
        let [baseline, policy] = [&base, &mine].map(|held| Distribution::from_logits(&held.logits));
        let model = &self.machine.model;
        let (Some(mine_chosen), Some(base_chosen)) = (ours.take(said, model), theirs.take(said, model)) else {
            return;
        };
        let index = base_chosen.index;
        if base_chosen.finish.is_some() {
            ours.unlock();
            theirs.unlock();
        }
        self.publisher.publish(EventKind::Compare(Compare {
            session: id,
            step,
            index,
            token_id: said,
            kl: kl_divergence(&baseline, &policy),
            same: baseline.top() == policy.top(),
            otherwise: (own != said).then(|| Otherwise { token_id: own, text: text_of(model, own) }),
        }));
        let choice = |lane, chosen, kept_mass| Choice { session: id, lane, chosen, kept_mass };
        let made =
            vec![choice(Lane::Kv, base_chosen, base.kept_mass), choice(Lane::KCache, mine_chosen, mine.kept_mass)];
        self.publish(Choices { made, failures: Vec::new() });
    }

    /// Has each lane of a pair go on by itself, from the prediction it may hold. Nothing where there is no lock.
    pub(super) fn unlock(&mut self, id: SessionId, reason: &str) {
        let mut index = None;
        let mut choices = Choices::default();
        for (lane, sequence) in self.lanes.sequences_mut(id).filter(|(_, sequence)| sequence.is_locked()) {
            index = index.or(Some(sequence.generated()));
            let held = sequence.take_held();
            sequence.unlock();
            if let Some(Held { logits, kept_mass }) = held {
                choices.choose(&self.machine.model, (id, lane), sequence, (&logits, kept_mass));
            }
        }
        let Some(index) = index else { return };
        self.publisher.publish(EventKind::Unlocked { session: id, index, reason: reason.to_owned() });
        self.publish(choices);
    }

    /// Drops the lock of a session whose answers are all about to end.
    pub(super) fn drop_lock(&mut self, id: SessionId) {
        self.lanes.sequences_mut(id).for_each(|(_, sequence)| sequence.unlock());
    }

    /// An answer of a session has ended in `lane`: what becomes of a partner it was locked to.
    pub(super) fn partner_of_ended(&mut self, id: SessionId, lane: Lane, reason: FinishReason) {
        let partner = lane.other();
        if !self.lanes.sequence(id, partner).is_some_and(Sequence::is_locked) {
            return;
        }
        match reason {
            // The same number of tokens, so the context is full there too.
            FinishReason::Context => {
                self.drop_lock(id);
                self.finish(id, partner, reason);
            }
            _ => self.unlock(id, &format!("{lane} has ended: {reason}")),
        }
    }

    /// Nobody has anything to do: where somebody waits for the other lane, the youngest pair is unlocked. False where
    /// nobody does.
    pub(super) fn resolve_deadlock(&mut self) -> bool {
        let sequences = |id| self.lanes.sequences(id);
        let stuck = self.sessions.keys().copied().filter(|&id| sequences(id).any(|(_, each)| each.holds()));
        let stuck = stuck.filter_map(|id| Some((sequences(id).filter_map(|(_, each)| each.rank()).max()?, id)));
        let Some((_, id)) = stuck.max() else { return false };
        let lane = sequences(id).find(|(_, each)| !each.holds()).map_or(Lane::Kv, |(lane, _)| lane);
        self.unlock(id, &format!("{lane} cannot go on, its memory is taken by others"));
        true
    }
}

/// The text of a single token; empty where it ends an answer.
fn text_of(model: &LanguageModel, token: u32) -> String {
    if model.tokenizer.is_end(token) {
        return String::new();
    }
    let mut detokenizer = Detokenizer::default();
    let mut text = detokenizer.push(&model.tokenizer, token);
    text.push_str(&detokenizer.finish());
    text
}
