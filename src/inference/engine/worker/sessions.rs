//! Sessions as a whole: opened, renamed, given a system message, looked at, closed.

use super::Worker;
use crate::engine::{
    EventKind, FinishReason, Lane, SessionId,
    session::{Session, inspect::Inspection},
};
use crate::model::{ChatMessage, Role};

impl Worker {
    pub(super) fn open(&mut self, id: SessionId, name: String, system: Option<&str>, lanes: &[Lane]) {
        if self.sessions.contains_key(&id) {
            return self.error(None, Some(id), format!("session {} is open already", id.0));
        }
        if lanes.is_empty() {
            return self.error(None, Some(id), "a session needs a lane".to_owned());
        }
        let system = system.filter(|_| self.takes_system());
        let mut opened = Session { name, lanes: Vec::new(), once: false, compare: false, shares_prompt: false };
        for state in self.lanes.iter_mut().filter(|state| lanes.contains(&state.lane)) {
            state.open(id, system);
            opened.lanes.push(state.lane);
        }
        self.sessions.insert(id, opened);
        self.tell_session(id);
    }

    pub(super) fn rename(&mut self, id: SessionId, name: String) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.unknown(id) };
        session.name = name;
        self.tell_session(id);
    }

    pub(super) fn close(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.unknown(id) };
        session.once = false;
        self.drop_lock(id);
        for lane in self.lanes.names() {
            self.finish(id, lane, FinishReason::Cancelled);
        }
        self.lanes.iter_mut().for_each(|state| state.close(id));
        self.sessions.remove(&id);
        self.publisher.publish(EventKind::Closed { session: id });
    }

    /// Ends the answer of a session in a lane, or in all.
    pub(super) fn stop(&mut self, id: SessionId, lane: Option<Lane>) {
        if !self.sessions.contains_key(&id) {
            return self.unknown(id);
        }
        if lane.is_none() {
            self.drop_lock(id);
        }
        let names = self.lanes.names().into_iter();
        for lane in names.filter(|&each| lane.is_none_or(|lane| lane == each)) {
            self.finish(id, lane, FinishReason::Cancelled);
        }
    }

    /// Gives a session in which nothing was said yet another system message.
    pub(super) fn set_system(&mut self, id: SessionId, system: &str) {
        let takes = self.takes_system();
        if !self.sessions.contains_key(&id) {
            return self.unknown(id);
        }
        let spoken = |message: &ChatMessage| message.role != Role::System;
        if self.lanes.sequences(id).any(|(_, each)| each.known() > 0 || each.messages.iter().any(spoken)) {
            let message = "a system message stands before the conversation: open a new session for it".to_owned();
            return self.error(None, Some(id), message);
        }
        if takes {
            for (_, sequence) in self.lanes.sequences_mut(id) {
                sequence.messages = vec![ChatMessage::new(Role::System, system)];
            }
        }
        self.tell_session(id);
    }

    /// Tells a session's name, lanes and system message. The system message is the same in every lane: the first one is
    /// asked for it.
    fn tell_session(&self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let first = self.lanes.sequences(id).next().and_then(|(_, sequence)| sequence.messages.first());
        let system = first.filter(|first| first.role == Role::System).map(|first| first.content.clone());
        let (name, lanes) = (session.name.clone(), session.lanes.clone());
        self.publisher.publish(EventKind::Session { session: id, name, lanes, system });
    }

    /// Whether the model's chat template has a place for a system message; says so where it has none. That is no error of
    /// the session, which goes on without one.
    fn takes_system(&self) -> bool {
        let takes = self.machine.model.chat.takes_system();
        if !takes {
            let message =
                "the model's chat template has no place for a system message: write it into the first message";
            self.error(None, None, message.to_owned());
        }
        takes
    }

    /// Looks at a session in a lane from its next token on, or at nothing.
    pub(super) fn inspect(&mut self, asked: Option<(SessionId, Lane)>) {
        self.inspected = None;
        let Some((id, lane)) = asked else { return };
        let Some(sequence) = self.lanes.sequence(id, lane) else { return self.unknown(id) };
        let mut inspection = Inspection::of(id, lane);
        let texts = inspection.texts(&self.machine.model, sequence);
        texts.into_iter().for_each(|event| self.publisher.publish(event));
        self.inspected = Some(inspection);
    }
}
