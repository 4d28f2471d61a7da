//! The system message of a session: instructions that stand before the conversation, the same in every lane.

use super::Worker;
use crate::engine::{EventKind, SessionId};
use crate::model::{ChatMessage, Role};

impl Worker {
    /// Gives a session in which nothing was said yet another system message.
    pub(crate) fn set_system(&mut self, id: SessionId, system: &str) {
        let takes = self.takes_system();
        let Some(session) = self.sessions.get_mut(&id) else { return self.unknown(id) };
        let spoken = |message: &ChatMessage| message.role != Role::System;
        if session.sequences.iter().any(|each| each.known() > 0 || each.messages.iter().any(spoken)) {
            let message = "a system message stands before the conversation: open a new session for it".to_owned();
            return self.error(None, Some(id), message);
        }
        if takes {
            for sequence in &mut session.sequences {
                sequence.messages = vec![ChatMessage::new(Role::System, system)];
            }
        }
        self.tell_session(id);
    }

    /// Tells a session's name, lanes and system message.
    pub(crate) fn tell_session(&self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id) {
            let (name, lanes, system) = (session.name.clone(), session.lanes(), session.system());
            self.publisher.publish(EventKind::Session { session: id, name, lanes, system });
        }
    }

    /// Whether the model's chat template has a place for a system message; says so where it has none. That is no error of
    /// the session, which goes on without one.
    pub(crate) fn takes_system(&self) -> bool {
        let takes = self.model.chat.takes_system();
        if !takes {
            let message =
                "the model's chat template has no place for a system message: write it into the first message";
            self.error(None, None, message.to_owned());
        }
        takes
    }
}
