//! Turns: what a user's message becomes in each lane, and how an answer ends.

use super::Worker;
use crate::engine::{
    Document, EventKind, FinishReason, Finished, GenerationOptions, Lane, Prefilled, Scheduling, SessionId, Usage,
    session::{
        Session,
        sequence::{Sequence, Stage},
    },
};
use crate::model::{ChatMessage, LanguageModel, ModelError, Role};

impl Worker {
    /// Adds a message to a session and has its lanes answer. What cannot be answered is refused with the numbers.
    pub(crate) fn say(&mut self, id: SessionId, document: Option<Document>, text: String, turn: GenerationOptions) {
        self.align(id);
        let Some(session) = self.free_session(id) else { return };
        let content = Document::before(document.as_ref(), &text);
        let message = ChatMessage::new(Role::User, content);
        let shared = session.can_share();
        let mut prompts: Vec<Prompt> = Vec::new();
        for sequence in &session.sequences {
            let prompt = match prompts.first() {
                Some(first) if shared => Ok(first.clone()),
                _ => prompt(&self.model, sequence, &message),
            };
            match prompt {
                Ok(prompt) => prompts.push(prompt),
                Err(error) => return self.error(None, Some(id), error.to_string()),
            }
        }
        if let Some((lane, message)) = self.no_room(id, &prompts) {
            return self.error(Some(lane), Some(id), message);
        }
        let name = document.map(|document| document.name);
        self.publisher.publish(EventKind::Said { session: id, document: name, text });
        self.begin(id, Some(message), &prompts, turn, None);
    }

    /// Gives a lane its side of an earlier conversation.
    pub(crate) fn recall(&mut self, id: SessionId, lane: Lane, messages: Vec<ChatMessage>) {
        let said = |sequence: &Sequence| sequence.known() > 0 || sequence.answer.is_some();
        let spoken = |message: &ChatMessage| message.role != Role::System;
        match self.sessions.get_mut(&id).and_then(|session| session.sequence_mut(lane)) {
            None => self.unknown(id),
            Some(sequence) if said(sequence) || sequence.messages.iter().any(spoken) => {
                let message = "an earlier conversation can only be the beginning of a session".to_owned();
                self.error(Some(lane), Some(id), message);
            }
            Some(sequence) => sequence.messages.extend(messages),
        }
    }

    /// Has the lanes of a session go on from tokens.
    pub(crate) fn feed(
        &mut self,
        id: SessionId,
        prefilled: Option<Prefilled>,
        tokens: &[u32],
        turn: GenerationOptions,
        once: bool,
    ) {
        self.align(id);
        let Some(session) = self.free_session(id) else { return };
        let empty = session.sequences.iter().all(|sequence| sequence.known() == 0);
        let mistake = match &prefilled {
            _ if tokens.is_empty() => Some("a turn needs a token"),
            Some(_) if !empty => Some("a computed prompt can only be the beginning of a session"),
            Some(prefilled) if prefilled.cache().shape() != self.model.cache_shape() => {
                Some("the computed prompt is another model's")
            }
            _ => None,
        };
        if let Some(mistake) = mistake {
            return self.error(None, Some(id), mistake.to_owned());
        }
        let before = prefilled.as_ref().map_or(0, |prefilled| prefilled.tokens().len());
        let prompt = Prompt { tokens: tokens.to_vec(), before, anew: false };
        let prompts = vec![prompt; session.sequences.len()];
        if let Some((lane, message)) = self.no_room(id, &prompts) {
            return self.error(Some(lane), Some(id), message);
        }
        let text = format!("{} tokens", before + tokens.len());
        self.publisher.publish(EventKind::Said { session: id, document: None, text });
        if let Some(session) = self.sessions.get_mut(&id) {
            session.once = once;
        }
        self.begin(id, None, &prompts, turn, prefilled);
        self.close_if_done(id);
    }

    /// Closes a session that was only opened for answers that have ended.
    fn close_if_done(&mut self, id: SessionId) {
        if self.sessions.get(&id).is_some_and(|session| session.once && !session.is_answering()) {
            self.close(id);
        }
    }

    /// A session that is not answering; says so where there is none.
    fn free_session(&self, id: SessionId) -> Option<&Session> {
        match self.sessions.get(&id) {
            None => self.unknown(id),
            Some(session) if session.is_answering() => {
                let message = "the session is still answering: stop the answer first".to_owned();
                self.error(None, Some(id), message);
            }
            Some(session) => return Some(session),
        }
        None
    }

    /// Why a turn is refused as a whole, and by which lane: the model's context is too short for it, or too many wait
    /// already.
    fn no_room(&mut self, id: SessionId, prompts: &[Prompt]) -> Option<(Lane, String)> {
        let context = self.model.context();
        let session = self.sessions.get(&id)?;
        for (sequence, prompt) in session.sequences.iter().zip(prompts) {
            let held = if prompt.anew { 0 } else { sequence.known() } + prompt.before;
            // One more than the prompt: a turn without room for a token of answer is no turn.
            let (needed, left) = (prompt.tokens.len() + 1, context.saturating_sub(held));
            if needed > left {
                let message = format!(
                    "the message needs {needed} tokens, and {left} of the context's {context} are left: shorten it or \
                     start a new session"
                );
                return Some((sequence.lane, message));
            }
        }
        let lanes = session.lanes();
        for lane in lanes {
            let waits = |sequence: &Sequence| sequence.stage() == Some(Stage::Waiting);
            if self.in_lane(lane).filter(|(_, sequence)| waits(sequence)).count() >= self.queue {
                // Some may only wait for the next step.
                self.schedule();
            }
            let waiting = self.in_lane(lane).filter(|(_, sequence)| waits(sequence)).count();
            if waiting >= self.queue {
                if let Some(state) = self.lanes.iter_mut().find(|state| state.lane == lane) {
                    state.counts.refused += 1;
                }
                let message =
                    format!("the queue is full, {waiting} answers wait in it: try again when one has started");
                return Some((lane, message));
            }
        }
        None
    }

    /// Has a turn wait in every lane of a session in which it can ever fit, and refuses it in the others.
    fn begin(
        &mut self,
        id: SessionId,
        message: Option<ChatMessage>,
        prompts: &[Prompt],
        turn: GenerationOptions,
        prefilled: Option<Prefilled>,
    ) {
        self.turns += 1;
        let mut refusals = Vec::new();
        let Some(session) = self.sessions.get(&id) else { return };
        let shared = prefilled.is_none() && session.can_share();
        for (lane, prompt) in session.lanes().into_iter().zip(prompts) {
            let Some(index) = self.lanes.iter().position(|state| state.lane == lane) else { continue };
            let held = self.sequence(id, lane).filter(|_| !prompt.anew).map_or(0, Sequence::known);
            // With one token of answer: as a start needs it.
            let total = held + prompt.before + prompt.tokens.len() + 1;
            let too_large = self.too_large(index, total);
            let state = &mut self.lanes[index];
            let session = self.sessions.get_mut(&id);
            let Some(sequence) = session.and_then(|session| session.sequence_mut(lane)) else { continue };
            if let Some(message) = too_large {
                state.counts.refused += 1;
                refusals.push((lane, message));
                continue;
            }
            if prompt.anew {
                state.cache.vacate(&mut sequence.cache);
                sequence.forget();
            }
            sequence.begin(message.clone(), &prompt.tokens, turn.clone(), self.turns, shared);
            if let Some(prefilled) = &prefilled {
                sequence.begin_with(prefilled.clone());
            }
            self.tell(index, id, Scheduling::Waiting);
        }
        self.lock(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !refusals.is_empty() {
            session.unshare();
        }
        for event in prefill_events(id, session) {
            self.publisher.publish(event);
        }
        for (lane, message) in refusals {
            self.error(Some(lane), Some(id), message);
            let step = self.steps(lane);
            let (reason, usage) = (FinishReason::Budget, Usage::default());
            self.publisher.publish(EventKind::Finished(Finished { lane, session: id, step, reason, usage }));
        }
    }

    /// Ends the answer of a session in a lane, if there is one.
    pub(crate) fn finish(&mut self, id: SessionId, lane: Lane, reason: FinishReason) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let once = session.once;
        if let Some(sequence) = session.sequence_mut(lane) {
            // What waited for a stop sequence that did not come is part of the answer.
            sequence.conclude();
            while let Some(token) = sequence.next_told() {
                self.publisher.publish(EventKind::Token(token));
            }
            let overshot = sequence.overshot();
            let Some(usage) = sequence.finish() else { return };
            if let Some(state) = self.lanes.iter_mut().find(|state| state.lane == lane) {
                state.cache.trim(&mut sequence.cache);
                state.counts.finished += u64::from(matches!(reason, FinishReason::Stop | FinishReason::Length));
                // Nobody goes on from what is cached: the session ends here, however long the other lane still takes, or
                // the cache holds what the answer does not say. Pages that others share stay theirs.
                if once || overshot {
                    state.cache.vacate(&mut sequence.cache);
                    sequence.forget();
                }
            }
            session.unshare();
            let step = self.steps(lane);
            self.publisher.publish(EventKind::Finished(Finished { lane, session: id, step, reason, usage }));
            self.partner_of_ended(id, lane, reason);
            self.close_if_done(id);
        }
    }
}

/// The tokens of a turn.
#[derive(Clone)]
struct Prompt {
    tokens: Vec<u32>,
    /// Tokens before them that were computed elsewhere.
    before: usize,
    /// Whether they are the whole conversation, and what is cached is of no use.
    anew: bool,
}

/// The tokens that `message` adds to a sequence.
fn prompt(model: &LanguageModel, sequence: &Sequence, message: &ChatMessage) -> Result<Prompt, ModelError> {
    let mut messages = sequence.messages.clone();
    messages.push(message.clone());
    if !(sequence.tokens.is_empty() && sequence.pending.is_empty()) {
        match model.chat.continuation(&model.tokenizer, &messages) {
            // The template rewrites earlier turns: there is no way around computing them again.
            Err(ModelError::NoContinuation) => {}
            tokens => return Ok(Prompt { tokens: tokens?, before: 0, anew: false }),
        }
    }
    Ok(Prompt { tokens: model.chat.prompt(&model.tokenizer, &messages)?, before: 0, anew: true })
}

fn prefill_events(id: SessionId, session: &Session) -> Vec<EventKind> {
    let event = |lane, sequence: &Sequence| EventKind::Prefill {
        session: id,
        lane,
        step: 0,
        done: 0,
        total: sequence.progress().1,
    };
    if session.is_shared() {
        session.sequences.first().map(|sequence| event(None, sequence)).into_iter().collect()
    } else {
        let answering = session.sequences.iter().filter(|sequence| sequence.answer.is_some());
        answering.map(|sequence| event(Some(sequence.lane), sequence)).collect()
    }
}
