//! The demo: on a first start the program itself opens sessions about documents that it brings along, and asks.
//!
//! One after the other: the next session begins when the ones before it have begun to answer, so that the first words
//! come soon. A session stops being a demo as soon as the user does anything in it.

use std::collections::VecDeque;

use crate::{
    demo::{Script, scripts},
    engine::{Document, SessionId},
};

use super::session::{Outgoing, Phase, Session};

pub use crate::demo::DemoError;

/// The pause between an answer and the next question, in milliseconds.
const PAUSE_MS: f64 = 4_000.0;

/// What the demo still has to ask.
#[derive(Debug, Clone, Default)]
pub struct Demo {
    waiting: VecDeque<Script>,
    running: Vec<Run>,
}

#[derive(Debug, Clone)]
struct Run {
    session: SessionId,
    questions: VecDeque<String>,
    document: Option<Document>,
    due_ms: Option<f64>,
}

impl Demo {
    /// The sessions that the program brings along.
    ///
    /// # Errors
    ///
    /// When the list cannot be read or names a document that is not there; a test sees to it that it can.
    pub fn bundled() -> Result<Self, DemoError> {
        Ok(Self { waiting: scripts()?.into(), running: Vec::new() })
    }

    /// The sessions still to be opened, in order; from now on they run under these ids.
    pub fn open(&mut self, mut id: impl FnMut(&str) -> SessionId) {
        for script in self.waiting.drain(..) {
            self.running.push(Run {
                session: id(&script.name),
                questions: script.questions,
                document: Some(script.document),
                due_ms: Some(0.0),
            });
        }
    }

    /// Whether sessions are still to be opened.
    pub fn waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is to be asked now.
    pub fn next(&mut self, now_ms: f64, sessions: &[Session]) -> Vec<(SessionId, Outgoing)> {
        let session = |id: SessionId| sessions.iter().find(|session| session.id == id && session.demo);
        self.running.retain(|run| session(run.session).is_some() && !run.questions.is_empty());
        let mut asked = Vec::new();
        for run in &mut self.running {
            let Some(session) = session(run.session) else { continue };
            let beginning = session.turns.is_empty();
            if session.busy() {
                run.due_ms = None;
                continue;
            }
            let due = *run.due_ms.get_or_insert(now_ms + PAUSE_MS);
            // Nobody begins while another document is still being read.
            let reading = |other: &Session| {
                matches!(other.leading_phase(), Phase::Waiting | Phase::Started { .. } | Phase::Prefill(_))
            };
            if now_ms < due || (beginning && (sessions.iter().any(reading) || !asked.is_empty())) {
                continue;
            }
            if let Some(text) = run.questions.pop_front() {
                asked.push((run.session, Outgoing { text, document: run.document.take() }));
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{FinishReason, Lane};

    fn opened() -> (Demo, Vec<Session>) {
        let mut demo = Demo::bundled().expect("the bundled demo can be read");
        let mut sessions = Vec::new();
        demo.open(|name| {
            let id = SessionId(sessions.len() as u32 + 1);
            let mut session = Session::new(id, name.to_owned(), Lane::ALL.to_vec());
            session.demo = true;
            sessions.push(session);
            id
        });
        (demo, sessions)
    }

    fn say(sessions: &mut [Session], id: SessionId, phase: Phase) {
        let session = sessions.iter_mut().find(|session| session.id == id).unwrap();
        session.send("?".into(), None);
        session.phases = [phase; 2];
    }

    #[test]
    fn sessions_begin_one_after_the_other() {
        let (mut demo, mut sessions) = opened();
        assert!(sessions.len() >= 3);
        let asked = demo.next(0.0, &sessions);
        assert_eq!(asked.len(), 1);
        assert!(asked[0].1.document.is_some());
        say(&mut sessions, asked[0].0, Phase::Waiting);
        assert!(demo.next(1.0, &sessions).is_empty());
        sessions[0].phases = [Phase::Answering; 2];
        assert_eq!(demo.next(2.0, &sessions)[0].0, sessions[1].id);
    }

    #[test]
    fn the_next_question_waits_for_a_pause_and_ends_with_the_users_first_word() {
        let (mut demo, mut sessions) = opened();
        sessions.truncate(1);
        let (id, _) = demo.next(0.0, &sessions).remove(0);
        say(&mut sessions, id, Phase::Answering);
        assert!(demo.next(1.0, &sessions).is_empty());
        sessions[0].phases = [Phase::Ended(FinishReason::Stop); 2];
        assert!(demo.next(2.0, &sessions).is_empty());
        let asked = demo.next(2.0 + PAUSE_MS, &sessions);
        assert_eq!((asked.len(), asked[0].1.document.is_none()), (1, true));
        sessions[0].demo = false;
        assert!(demo.next(99_999.0, &sessions).is_empty());
    }
}
