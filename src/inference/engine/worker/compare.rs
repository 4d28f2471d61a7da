//! Compare mode: both lanes of a session are fed the same tokens, those that `kv` chooses, and with every token it is told
//! how far the predictions of the lanes are apart.
//!
//! The pair moves on token by token. A lane that has its prediction keeps it and takes no part in steps until the other
//! lane has its own; then both are given the token. Who goes first is the same in both lanes, so a pair that waits is
//! served by and by, whatever their budgets. Where that fails (nobody can do anything, and somebody waits for the other
//! lane), the youngest pair is unlocked: each lane goes on by itself, from the prediction it holds, and no token is lost.

use super::{
    Worker,
    step::{Outcome, choose},
};
use crate::engine::{
    Compare, EventKind, FinishReason, Lane, Otherwise, SessionId,
    session::{Session, sequence::Sequence},
};
use crate::{
    model::{Detokenizer, LanguageModel},
    quality::{Distribution, kl_divergence},
};

/// A prediction that waits for the other lane's.
pub(crate) struct Held {
    /// Logits of the next token, `[vocab]`.
    pub logits: Vec<f32>,
    /// The mass that the rows read for it held.
    pub kept_mass: Option<f32>,
}

impl Worker {
    /// Switches a session to compare mode from its next turn on, or out of it at once.
    pub(crate) fn set_compare(&mut self, id: SessionId, on: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.unknown(id) };
        if on && session.pair().is_none() {
            let message = "comparing needs a session in both lanes, kcache and kv".to_owned();
            return self.error(None, Some(id), message);
        }
        session.compare = on;
        self.publisher.publish(EventKind::CompareMode { session: id, on });
        if !on {
            self.unlock(id, "comparing was switched off");
        }
    }

    /// Has the kcache lane of a compared session hold the conversation of the kv lane, before a turn: where they were
    /// not fed the same so far, it is computed again.
    pub(crate) fn align(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.compare || session.is_answering() {
            return;
        }
        let Some((ours, theirs)) = session.pair_mut() else { return };
        if ours.known_tokens().eq(theirs.known_tokens()) && ours.messages == theirs.messages {
            return;
        }
        if let Some(state) = self.lanes.iter_mut().find(|state| state.lane == ours.lane) {
            state.cache.vacate(&mut ours.cache);
        }
        ours.forget();
        ours.messages.clone_from(&theirs.messages);
        ours.pending.extend(theirs.known_tokens());
    }

    /// Locks the answers of a compared session that have just begun; says why where that cannot be.
    pub(crate) fn lock(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.compare) else { return };
        let Some((ours, theirs)) = session.pair_mut() else { return };
        let same = ours.known_tokens().eq(theirs.known_tokens());
        let missing = [&*ours, &*theirs].into_iter().find(|sequence| sequence.answer.is_none()).map(|each| each.lane);
        let reason = match (missing, &mut ours.answer, &mut theirs.answer) {
            (None, Some(ours), Some(theirs)) if same => {
                (ours.locked, theirs.locked) = (true, true);
                return;
            }
            (Some(lane), ..) => format!("{lane} does not answer"),
            _ => "the lanes' prompts differ".to_owned(),
        };
        self.publisher.publish(EventKind::Unlocked { session: id, index: 0, reason });
    }

    /// Gives the next token to every pair of which both lanes have their prediction. False where there is none.
    pub(crate) fn advance_pairs(&mut self) -> bool {
        let ready = self.sessions.iter().filter(|(_, session)| session.both_hold());
        let ready: Vec<SessionId> = ready.map(|(id, _)| *id).collect();
        ready.iter().for_each(|&id| self.give_token(id));
        !ready.is_empty()
    }

    fn give_token(&mut self, id: SessionId) {
        let step = self.steps(Lane::KCache);
        let Some((ours, theirs)) = self.sessions.get_mut(&id).and_then(Session::pair_mut) else { return };
        let (Some(mine), Some(base)) = (ours.take_held(), theirs.take_held()) else { return };
        let (own, said) = match (ours.sample(&mine.logits), theirs.sample(&base.logits)) {
            (Ok(Some(own)), Ok(Some(said))) => (own, said),
            // One of them is no prediction: each lane goes its own way, and that one fails.
            _ => {
                ours.held_again(mine);
                theirs.held_again(base);
                return self.unlock(id, "a prediction is no number");
            }
        };
        let [baseline, policy] = [&base, &mine].map(|held| Distribution::from_logits(&held.logits));
        let model = &self.model;
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
        let outcome = |lane, chosen, kept_mass| Outcome { session: id, lane, chosen, kept_mass };
        let outcomes =
            vec![outcome(Lane::Kv, base_chosen, base.kept_mass), outcome(Lane::KCache, mine_chosen, mine.kept_mass)];
        self.publish(outcomes, Vec::new());
    }

    /// Has each lane of a pair go on by itself, from the prediction it may hold. Nothing where there is no lock.
    pub(crate) fn unlock(&mut self, id: SessionId, reason: &str) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut index = None;
        let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
        for sequence in session.sequences.iter_mut().filter(|sequence| sequence.is_locked()) {
            index = index.or(sequence.answer.as_ref().map(|answer| answer.generated));
            let held = sequence.take_held();
            sequence.unlock();
            if let Some(Held { logits, kept_mass }) = held {
                match choose(&self.model, id, sequence, &logits, kept_mass) {
                    Ok(outcome) => outcomes.extend(outcome),
                    Err(message) => failures.push((id, sequence.lane, message)),
                }
            }
        }
        let Some(index) = index else { return };
        self.publisher.publish(EventKind::Unlocked { session: id, index, reason: reason.to_owned() });
        self.publish(outcomes, failures);
    }

    /// Drops the lock of a session whose answers are all about to end.
    pub(crate) fn drop_lock(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.sequences.iter_mut().for_each(Sequence::unlock);
    }

    /// An answer of a session has ended in `lane`: what becomes of a partner it was locked to.
    pub(crate) fn partner_of_ended(&mut self, id: SessionId, lane: Lane, reason: FinishReason) {
        let Some(partner) = self.sequence(id, lane.other()).filter(|sequence| sequence.is_locked()) else { return };
        let partner = partner.lane;
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
    pub(crate) fn resolve_deadlock(&mut self) -> bool {
        let stuck = self.sessions.iter().filter(|(_, session)| session.sequences.iter().any(Sequence::holds));
        let stuck =
            stuck.filter_map(|(id, session)| Some((session.sequences.iter().filter_map(Sequence::rank).max()?, id)));
        let Some((_, &id)) = stuck.max() else { return false };
        let waiting = self.sessions.get(&id).and_then(|session| session.sequences.iter().find(|each| !each.holds()));
        let lane = waiting.map_or(Lane::Kv, |sequence| sequence.lane);
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
