//! Requests: what is asked of the engine is done, or refused with the reason.

use super::{Worker, answers::Prompt};
use crate::cache::Policy;
use crate::engine::{
    Document, EventKind, GenerationOptions, Lane, Prefilled, Request, SessionId, lane::LaneState,
    session::sequence::Sequence,
};
use crate::model::{ChatMessage, LanguageModel, ModelError, Role};

impl Worker {
    pub(super) fn handle(&mut self, request: Request) {
        match request {
            Request::Open { session, name, system, lanes } => self.open(session, name, system.as_deref(), &lanes),
            Request::Rename { session, name } => self.rename(session, name),
            Request::SetSystem { session, system } => self.set_system(session, &system),
            Request::SubmitMessage { session, document, text, options } => {
                self.submit_message(session, document, text, options);
            }
            Request::SubmitTokens { session, prefilled, tokens, options, once } => {
                self.submit_tokens(session, prefilled, &tokens, options, once);
            }
            Request::RestoreHistory { session, lane, messages } => self.restore_history(session, lane, messages),
            Request::Stop { session, lane } => self.stop(session, lane),
            Request::Close { session } => self.close(session),
            Request::Inspect(asked) => self.inspect(asked),
            Request::Compare { session, on } => self.set_compare(session, on),
            Request::SetPolicy { lane, policy } => self.set_policy(lane, policy),
            Request::SetBudget { lane, bytes } => self.change(lane, |state| state.set_budget(bytes)),
            Request::SetGuard { lane, mode } => self.change(lane, |state| state.set_guard(mode)),
            Request::Shutdown => {}
        }
    }

    /// Changes a lane, if it runs.
    fn change(&mut self, lane: Lane, change: impl FnOnce(&mut LaneState)) {
        if let Some(state) = self.lanes.get_mut(lane) {
            change(state);
        }
    }

    fn set_policy(&mut self, lane: Lane, policy: Policy) {
        match policy.on(self.machine.model.id()) {
            Ok(policy) => self.change(lane, |state| state.set_policy(policy)),
            Err(error) => self.error(Some(lane), None, format!("the policy stays as it was: {error}")),
        }
    }

    /// Adds a message to a session and has its lanes answer. What cannot be answered is refused with the numbers.
    fn submit_message(&mut self, id: SessionId, document: Option<Document>, text: String, options: GenerationOptions) {
        self.align(id);
        if !self.can_answer(id) {
            return;
        }
        let content = Document::before(document.as_ref(), &text);
        let message = ChatMessage::new(Role::User, content);
        let shared = self.can_share_prompt(id);
        let mut prompts: Vec<Prompt> = Vec::new();
        for (_, sequence) in self.lanes.sequences(id) {
            let prompt = match prompts.first() {
                Some(first) if shared => Ok(first.clone()),
                _ => prompt(&self.machine.model, sequence, &message),
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
        self.begin(id, Some(message), &prompts, options, None);
    }

    /// Gives a lane its side of an earlier conversation.
    fn restore_history(&mut self, id: SessionId, lane: Lane, messages: Vec<ChatMessage>) {
        let said = |sequence: &Sequence| sequence.known() > 0 || sequence.answer.is_some();
        let spoken = |message: &ChatMessage| message.role != Role::System;
        match self.lanes.get_mut(lane).and_then(|state| state.sequences.get_mut(&id)) {
            None => self.unknown(id),
            Some(sequence) if said(sequence) || sequence.messages.iter().any(spoken) => {
                let message = "an earlier conversation can only be the beginning of a session".to_owned();
                self.error(Some(lane), Some(id), message);
            }
            Some(sequence) => sequence.messages.extend(messages),
        }
    }

    /// Has the lanes of a session go on from tokens.
    fn submit_tokens(
        &mut self,
        id: SessionId,
        prefilled: Option<Prefilled>,
        tokens: &[u32],
        options: GenerationOptions,
        once: bool,
    ) {
        self.align(id);
        if !self.can_answer(id) {
            return;
        }
        let empty = self.lanes.sequences(id).all(|(_, sequence)| sequence.known() == 0);
        let mistake = match &prefilled {
            _ if tokens.is_empty() => Some("a turn needs a token"),
            Some(_) if !empty => Some("a computed prompt can only be the beginning of a session"),
            Some(prefilled) if prefilled.cache().shape() != self.machine.model.cache_shape() => {
                Some("the computed prompt is another model's")
            }
            _ => None,
        };
        if let Some(mistake) = mistake {
            return self.error(None, Some(id), mistake.to_owned());
        }
        let before = prefilled.as_ref().map_or(0, |prefilled| prefilled.tokens().len());
        let prompt = Prompt { tokens: tokens.to_vec(), before, anew: false };
        let prompts = vec![prompt; self.lanes.sequences(id).count()];
        if let Some((lane, message)) = self.no_room(id, &prompts) {
            return self.error(Some(lane), Some(id), message);
        }
        let text = format!("{} tokens", before + tokens.len());
        self.publisher.publish(EventKind::Said { session: id, document: None, text });
        if let Some(session) = self.sessions.get_mut(&id) {
            session.once = once;
        }
        self.begin(id, None, &prompts, options, prefilled);
        self.close_if_done(id);
    }

    /// Whether there is such a session and it is not answering; says so where not.
    fn can_answer(&self, id: SessionId) -> bool {
        if !self.sessions.contains_key(&id) {
            self.unknown(id);
            return false;
        }
        let answering = self.lanes.is_answering(id);
        if answering {
            let message = "the session is still answering: stop the answer first".to_owned();
            self.error(None, Some(id), message);
        }
        !answering
    }

    /// Why a message is refused as a whole, and by which lane: the model's context is too short for it, or too many wait
    /// already.
    fn no_room(&mut self, id: SessionId, prompts: &[Prompt]) -> Option<(Lane, String)> {
        let context = self.machine.model.context();
        for ((lane, sequence), prompt) in self.lanes.sequences(id).zip(prompts) {
            let held = if prompt.anew { 0 } else { sequence.known() } + prompt.before;
            // One more than the prompt: without room for a token of answer there is no answer.
            let (needed, left) = (prompt.tokens.len() + 1, context.saturating_sub(held));
            if needed > left {
                let message = format!(
                    "the message needs {needed} tokens, and {left} of the context's {context} are left: shorten it or \
                     start a new session"
                );
                return Some((lane, message));
            }
        }
        let lanes = self.sessions.get(&id)?.lanes.clone();
        for lane in lanes {
            if self.lanes.get(lane)?.waiting() >= self.queue {
                // Some may only wait for the next step.
                self.schedule();
            }
            let state = self.lanes.get_mut(lane)?;
            let waiting = state.waiting();
            if waiting >= self.queue {
                state.counts.refused += 1;
                let message =
                    format!("the queue is full, {waiting} answers wait in it: try again when one has started");
                return Some((lane, message));
            }
        }
        None
    }
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
