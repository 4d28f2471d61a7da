//! What becomes of an answer in all lanes of its session: it begins, and it ends.

use super::Worker;
use crate::engine::session::sequence::Sequence;
use crate::engine::{
    EventKind, FinishReason, Finished, GenerationOptions, Lane, Prefilled, Scheduling, SessionId, Usage,
};
use crate::model::ChatMessage;

/// The tokens that an answer follows.
#[derive(Clone)]
pub(super) struct Prompt {
    pub tokens: Vec<u32>,
    /// Tokens before them that were computed elsewhere.
    pub before: usize,
    /// Whether they are the whole conversation, and what is cached is of no use.
    pub anew: bool,
}

impl Worker {
    /// Whether one computation of the next prompt can serve all lanes: nothing was computed yet in any, all have the same
    /// conversation (one of an earlier run may differ), and all store the same. Exact attention reads rows as they are
    /// stored, so with other formats the lanes' results differ.
    pub(super) fn can_share_prompt(&self, id: SessionId) -> bool {
        let mut sequences = self.lanes.sequences(id).map(|(_, sequence)| sequence);
        let Some(first) = sequences.next() else { return false };
        let empty = |each: &Sequence| each.cache.is_empty() && each.pending.is_empty();
        let same = |each: &Sequence| each.cache.formats() == first.cache.formats() && each.messages == first.messages;
        let mut others = sequences.peekable();
        others.peek().is_some() && empty(first) && others.all(|each| empty(each) && same(each))
    }

    /// Has an answer wait in every lane of a session in which it can ever fit, and refuses it in the others.
    pub(super) fn begin(
        &mut self,
        id: SessionId,
        message: Option<ChatMessage>,
        prompts: &[Prompt],
        options: GenerationOptions,
        prefilled: Option<Prefilled>,
    ) {
        self.orders += 1;
        let Some(lanes) = self.sessions.get(&id).map(|session| session.lanes.clone()) else { return };
        let shares_prompt = prefilled.is_none() && self.can_share_prompt(id);
        let mut refusals = Vec::new();
        for (lane, prompt) in lanes.into_iter().zip(prompts) {
            let Some(state) = self.lanes.get_mut(lane) else { continue };
            let Some(sequence) = state.sequences.get(&id) else { continue };
            let held = if prompt.anew { 0 } else { sequence.known() };
            // With one token of answer: as a start needs it.
            let total = held + prompt.before + prompt.tokens.len() + 1;
            if let Some(message) = state.too_large(&self.machine, total) {
                state.counts.refused += 1;
                refusals.push((lane, message));
                continue;
            }
            if prompt.anew {
                state.forget(id);
            }
            if let Some(sequence) = state.sequences.get_mut(&id) {
                sequence.begin(message.clone(), &prompt.tokens, options.clone(), self.orders);
                if let Some(prefilled) = &prefilled {
                    sequence.begin_with(prefilled.clone());
                }
            }
            state.tell(id, Scheduling::Waiting);
        }
        self.lock(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.shares_prompt = shares_prompt && refusals.is_empty();
        }
        self.tell_prompts(id);
        for (lane, message) in refusals {
            self.error(Some(lane), Some(id), message);
            let step = self.lanes.steps(lane);
            let (reason, usage) = (FinishReason::Budget, Usage::default());
            self.publisher.publish(EventKind::Finished(Finished { lane, session: id, step, reason, usage }));
        }
    }

    /// Tells that prompts are to be computed: one for all lanes, or one for each.
    fn tell_prompts(&self, id: SessionId) {
        let tell = |lane, sequence: &Sequence| {
            let total = sequence.progress().1;
            self.publisher.publish(EventKind::Prefill { session: id, lane, step: 0, done: 0, total });
        };
        let mut answering = self.lanes.sequences(id).filter(|(_, sequence)| sequence.answer.is_some());
        if self.sessions.get(&id).is_some_and(|session| session.shares_prompt) {
            answering.next().into_iter().for_each(|(_, sequence)| tell(None, sequence));
        } else {
            answering.for_each(|(lane, sequence)| tell(Some(lane), sequence));
        }
    }

    /// Ends the answer of a session in a lane, if there is one.
    pub(super) fn finish(&mut self, id: SessionId, lane: Lane, reason: FinishReason) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(state) = self.lanes.get_mut(lane) else { return };
        if !state.finish(id, reason, session.once) {
            return;
        }
        session.shares_prompt = false;
        self.partner_of_ended(id, lane, reason);
        self.close_if_done(id);
    }

    /// Closes a session that was only opened for answers that have ended.
    pub(super) fn close_if_done(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|session| session.once) && !self.lanes.is_answering(id) {
            self.close(id);
        }
    }
}
