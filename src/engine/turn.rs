//! Turns: what a user's message becomes in each lane, and how an answer ends.

use super::{
    Document, EventKind, FinishReason, Finished, Lane, SessionId, Turn, Usage, sequence::Sequence, session::Session,
    worker::Worker,
};
use crate::model::{LanguageModel, Message, ModelError, Role};

impl Worker {
    /// Adds a message to a session and has its lanes answer. What cannot be answered is refused with the numbers.
    pub(super) fn say(&mut self, id: SessionId, document: Option<Document>, text: String, turn: Turn) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.unknown(id) };
        if session.is_answering() {
            let message = "the session is still answering: stop the answer first".to_owned();
            return self.error(None, Some(id), message);
        }
        let content = match &document {
            Some(document) => format!("{}\n\n{text}", document.text.trim_end()),
            None => text.clone(),
        };
        let message = Message::new(Role::User, content);
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
        let context = self.model.context();
        let too_long = session.sequences.iter().zip(&prompts).find_map(|(sequence, Prompt { tokens, anew })| {
            let held = if *anew { 0 } else { sequence.cache.len() + sequence.pending.len() };
            // One more than the prompt: a turn without room for a token of answer is no turn.
            let (needed, left) = (tokens.len() + 1, context.saturating_sub(held));
            (needed > left).then(|| {
                let message = format!(
                    "the message needs {needed} tokens, and {left} of the context's {context} are left: shorten it or \
                     start a new session"
                );
                (sequence.lane, message)
            })
        });
        if let Some((lane, message)) = too_long {
            return self.error(Some(lane), Some(id), message);
        }
        let name = document.map(|document| document.name);
        self.publisher.publish(EventKind::Said { session: id, document: name, text });
        self.turns += 1;
        let mut refusals = Vec::new();
        for (sequence, Prompt { tokens, anew }) in session.sequences.iter_mut().zip(&prompts) {
            let Some(state) = self.lanes.iter_mut().find(|state| state.lane == sequence.lane) else { continue };
            if *anew {
                state.cache.empty(&mut sequence.cache);
                sequence.tokens.clear();
                sequence.pending.clear();
            }
            // All pages of the prompt at once: a turn that starts is a turn that fits.
            match state.cache.grow(&mut sequence.cache, sequence.pending.len() + tokens.len()) {
                Ok(()) => sequence.begin(message.clone(), tokens, turn, self.turns, shared),
                Err(full) => refusals.push((sequence.lane, full)),
            }
        }
        if !refusals.is_empty() {
            unshare(session);
        }
        let progress = prefill_events(id, session);
        for event in progress {
            self.publisher.publish(event);
        }
        for (lane, full) in refusals {
            self.error(Some(lane), Some(id), format!("{full}; close a session or raise the budget"));
            let step = self.steps(lane);
            let (reason, usage) = (FinishReason::Budget, Usage::default());
            self.publisher.publish(EventKind::Finished(Finished { lane, session: id, step, reason, usage }));
        }
    }

    /// Ends the answer of a session in a lane, if there is one.
    pub(super) fn finish(&mut self, id: SessionId, lane: Lane, reason: FinishReason) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(sequence) = session.sequence_mut(lane)
            && let Some(usage) = sequence.finish()
        {
            if let Some(state) = self.lanes.iter_mut().find(|state| state.lane == lane) {
                state.cache.trim(&mut sequence.cache);
            }
            unshare(session);
            let step = self.steps(lane);
            self.publisher.publish(EventKind::Finished(Finished { lane, session: id, step, reason, usage }));
        }
    }
}

/// The tokens of a turn.
#[derive(Clone)]
struct Prompt {
    tokens: Vec<u32>,
    /// Whether they are the whole conversation, and what is cached is of no use.
    anew: bool,
}

/// The tokens that `message` adds to a sequence.
fn prompt(model: &LanguageModel, sequence: &Sequence, message: &Message) -> Result<Prompt, ModelError> {
    let mut messages = sequence.messages.clone();
    messages.push(message.clone());
    if !(sequence.tokens.is_empty() && sequence.pending.is_empty()) {
        match model.chat.continuation(&model.tokenizer, &messages) {
            // The template rewrites earlier turns: there is no way around computing them again.
            Err(ModelError::NoContinuation) => {}
            tokens => return Ok(Prompt { tokens: tokens?, anew: false }),
        }
    }
    Ok(Prompt { tokens: model.chat.prompt(&model.tokenizer, &messages)?, anew: true })
}

/// Once one lane has left a shared prompt, the others go on alone.
fn unshare(session: &mut Session) {
    for sequence in &mut session.sequences {
        if let Some(answer) = &mut sequence.answer {
            answer.shared = false;
        }
    }
}

fn prefill_events(id: SessionId, session: &Session) -> Vec<EventKind> {
    let event = |lane, sequence: &Sequence| EventKind::Prefill {
        session: id,
        lane,
        step: 0,
        done: 0,
        total: sequence.answer.as_ref().map_or(0, |answer| answer.prompt),
    };
    if session.prefills_shared() {
        session.sequences.first().map(|sequence| event(None, sequence)).into_iter().collect()
    } else {
        let answering = session.sequences.iter().filter(|sequence| sequence.answer.is_some());
        answering.map(|sequence| event(Some(sequence.lane), sequence)).collect()
    }
}
