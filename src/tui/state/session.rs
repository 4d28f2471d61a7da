//! A conversation as the user sees it: name, turns, what each lane is doing, and what waits to be sent.

use crate::{
    engine::{Compare, Document, FinishReason, Finished, Lane, Probe, Scheduling, SessionId, Token},
    quality::GuardState,
};

use super::{composer::Composer, transcript::Turn};

#[derive(Debug, Clone)]
pub struct Session {
    /// The id that the engine knows.
    pub id: SessionId,
    /// What the user calls it.
    pub name: String,
    /// The lanes that run it.
    pub lanes: Vec<Lane>,
    /// Its system message; `None` leaves it to the model's chat template.
    pub system: Option<String>,
    /// Whether the program itself asks the questions here. Ends when the user takes over.
    pub demo: bool,
    /// What was said, oldest first.
    pub turns: Vec<Turn>,
    /// What each lane is doing, in the order of [`Lane::ALL`].
    pub phases: [Phase; 2],
    /// What the guard of the KCache lane has found, and why, where something is wrong.
    pub guard: Option<(GuardState, String)>,
    /// Whether both lanes are fed the same tokens, from the next turn on.
    pub compare: bool,
    /// What is being written here.
    pub composer: Composer,
    /// A message that is sent as soon as the answers before it have ended.
    pub queued: Option<Outgoing>,
    /// The first line on show in each transcript; `None` follows the end.
    pub top: [Option<usize>; 2],
    /// Messages shown at once that the engine has not confirmed yet.
    unconfirmed: usize,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub text: String,
    /// A document it is about.
    pub document: Option<Document>,
}

/// What a lane is doing in a session.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Phase {
    #[default]
    Idle,
    /// Asked, and waiting for its turn.
    Waiting,
    /// It has its pages, and nothing has come of it yet.
    Started {
        /// Whether it was preempted before.
        again: bool,
    },
    /// The prompt is being computed.
    Prefill(PrefillProgress),
    Answering,
    /// It was preempted: it made room for another answer.
    Preempted {
        /// Whether its pages wait in the host tier; else its tokens will be computed again.
        kept: bool,
    },
    /// The last answer has ended.
    Ended(FinishReason),
}

/// How far a prefill is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefillProgress {
    /// When it began, in engine milliseconds, and with how many tokens done.
    pub began: (f64, usize),
    /// When it was last heard of, in engine milliseconds.
    pub t_ms: f64,
    pub done: usize,
    pub total: usize,
}

impl PrefillProgress {
    /// Share done, in 0..=1.
    pub fn share(&self) -> f64 {
        if self.total == 0 { 1.0 } else { (self.done as f64 / self.total as f64).clamp(0.0, 1.0) }
    }

    /// Tokens per second since it began, waits for other sessions included.
    pub fn rate(&self) -> Option<f64> {
        let seconds = (self.t_ms - self.began.0) / 1000.0;
        let tokens = self.done.saturating_sub(self.began.1);
        (seconds > 0.0 && tokens > 0).then(|| tokens as f64 / seconds)
    }

    /// Seconds left at that rate.
    pub fn seconds_left(&self) -> Option<f64> {
        Some(self.total.saturating_sub(self.done) as f64 / self.rate()?)
    }
}

impl Phase {
    /// Whether the lane has something to do here.
    pub fn busy(&self) -> bool {
        !matches!(self, Self::Idle | Self::Ended(_))
    }
}

impl Session {
    /// A new session in `lanes`.
    pub fn new(id: SessionId, name: String, lanes: Vec<Lane>) -> Self {
        Self {
            id,
            name,
            lanes,
            system: None,
            demo: false,
            turns: Vec::new(),
            phases: [Phase::Idle; 2],
            guard: None,
            compare: false,
            composer: Composer::default(),
            queued: None,
            top: [None; 2],
            unconfirmed: 0,
        }
    }

    /// What a lane is doing here.
    pub fn phase(&self, lane: Lane) -> Phase {
        self.phases[lane as usize]
    }

    /// Whether any lane has something to do here.
    pub fn busy(&self) -> bool {
        self.phases.iter().any(Phase::busy)
    }

    /// The phase to name first: that of the lane that is furthest from done.
    pub fn leading_phase(&self) -> Phase {
        let rank = |phase: &Phase| match phase {
            Phase::Answering => 6,
            Phase::Prefill(_) => 5,
            Phase::Started { .. } => 4,
            Phase::Preempted { .. } => 3,
            Phase::Waiting => 2,
            Phase::Ended(_) => 1,
            Phase::Idle => 0,
        };
        self.phases.into_iter().max_by_key(rank).unwrap_or_default()
    }

    /// A message goes to the engine: it is shown at once, whatever the engine is busy with.
    pub fn send(&mut self, text: String, document: Option<&Document>) {
        self.unconfirmed += 1;
        self.begin(text, document.map(|document| document.name.clone()));
        if let Some(turn) = self.turns.last_mut() {
            turn.source = document.map(|document| document.text.clone());
        }
    }

    /// The engine accepted a message.
    pub fn said(&mut self, text: String, document: Option<String>) {
        match self.unconfirmed.checked_sub(1) {
            Some(left) => self.unconfirmed = left,
            None => self.begin(text, document),
        }
    }

    /// Every lane of the session has to answer.
    fn begin(&mut self, text: String, document: Option<String>) {
        self.turns.push(Turn::new(text, document));
        for &lane in &self.lanes {
            self.phases[lane as usize] = Phase::Waiting;
        }
        self.top = [None; 2];
    }

    /// A prefill got on, in one lane or in all of the session.
    pub fn prefill(&mut self, lane: Option<Lane>, t_ms: f64, done: usize, total: usize) {
        if let Some(turn) = self.turns.last_mut() {
            turn.prompt_tokens = Some(total);
        }
        for &each in self.lanes.iter().filter(|&&each| lane.is_none_or(|lane| lane == each)) {
            let phase = &mut self.phases[each as usize];
            *phase = match *phase {
                // Telemetry may come late: a lane that already answers does not go back.
                Phase::Answering | Phase::Preempted { .. } | Phase::Ended(_) => *phase,
                Phase::Idle if done == 0 => Phase::Waiting,
                // The turn has only been queued.
                _ if done == 0 => *phase,
                Phase::Prefill(progress) => Phase::Prefill(PrefillProgress { t_ms, done, total, ..progress }),
                Phase::Idle | Phase::Waiting | Phase::Started { .. } => {
                    Phase::Prefill(PrefillProgress { began: (t_ms, done), t_ms, done, total })
                }
            };
        }
    }

    /// A lane decided when to go on with the answer here.
    pub fn scheduled(&mut self, lane: Lane, state: Scheduling) {
        let phase = &mut self.phases[lane as usize];
        *phase = match state {
            Scheduling::Waiting => Phase::Waiting,
            Scheduling::Running => Phase::Started { again: matches!(phase, Phase::Preempted { .. }) },
            Scheduling::Preempted => Phase::Preempted { kept: true },
            Scheduling::Freed => Phase::Preempted { kept: false },
        };
    }

    pub fn token(&mut self, token: &Token) {
        if let Some(turn) = self.turns.last_mut() {
            turn.token(token);
            self.phases[token.lane as usize] = Phase::Answering;
        }
    }

    pub fn probe(&mut self, probe: &Probe) {
        if let Some(turn) = self.turns.last_mut() {
            turn.probe(probe);
        }
    }

    /// The lanes' predictions of a token were compared.
    pub fn compared(&mut self, compare: &Compare) {
        if let Some(turn) = self.turns.last_mut() {
            turn.compared(compare);
        }
    }

    /// The lanes of a compared answer go on apart.
    pub fn unlocked(&mut self, index: usize, reason: String) {
        if let Some(turn) = self.turns.last_mut() {
            turn.comparison.get_or_insert_default().unlocked = Some((index, reason));
        }
    }

    pub fn finished(&mut self, finished: &Finished) {
        self.phases[finished.lane as usize] = Phase::Ended(finished.reason);
        if let Some(turn) = self.turns.last_mut() {
            turn.finish(finished.lane, finished.reason, finished.usage);
        }
    }

    /// Something went wrong: what waits for an answer in that lane, or in all, waits no longer. A message that the
    /// engine has not accepted was refused as a whole, whichever lane could not take it.
    pub fn failed(&mut self, lane: Option<Lane>, message: &str) {
        let lane = lane.filter(|_| self.unconfirmed == 0);
        self.unconfirmed = 0;
        let Some(turn) = self.turns.last_mut() else { return };
        for each in Lane::ALL.into_iter().filter(|&each| lane.is_none_or(|lane| lane == each)) {
            let phase = &mut self.phases[each as usize];
            if phase.busy() {
                *phase = Phase::Idle;
                turn.errors[each as usize] = Some(message.to_owned());
            }
        }
    }

    /// Whether the last message was refused in a lane.
    pub fn refused(&self, lane: Lane) -> bool {
        let refused = |turn: &Turn| turn.errors[lane as usize].is_some() && turn.answer(lane).tokens.is_empty();
        !self.phase(lane).busy() && self.turns.last().is_some_and(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefill_tells_rate_and_time_left() {
        let mut session = Session::new(SessionId(1), "a".into(), Lane::ALL.to_vec());
        session.said("hi".into(), Some("minutes.md".into()));
        session.prefill(None, 0.0, 0, 1000);
        assert_eq!(session.leading_phase(), Phase::Waiting);
        session.prefill(None, 1000.0, 100, 1000);
        session.prefill(None, 3000.0, 500, 1000);
        let Phase::Prefill(progress) = session.phase(Lane::Kv) else { panic!("{:?}", session.phases) };
        assert_eq!((progress.share(), progress.rate(), progress.seconds_left()), (0.5, Some(200.0), Some(2.5)));
        assert_eq!(session.turns[0].prompt_tokens, Some(1000));
        session.prefill(Some(Lane::Kv), 4000.0, 1000, 1000);
        assert!(matches!(session.phase(Lane::KCache), Phase::Prefill(PrefillProgress { done: 500, .. })));
    }

    #[test]
    fn a_lane_that_was_preempted_waits_and_goes_on() {
        let mut session = Session::new(SessionId(1), "a".into(), Lane::ALL.to_vec());
        let token = |index| Token {
            lane: Lane::Kv,
            session: SessionId(1),
            step: 1,
            index,
            token_id: 7,
            text: "a".into(),
            itl_ms: None,
            kept_mass: None,
        };
        session.said("hi".into(), None);
        let kv = |session: &Session| session.phase(Lane::Kv);
        session.scheduled(Lane::Kv, Scheduling::Waiting);
        session.prefill(Some(Lane::Kv), 0.0, 0, 300);
        assert_eq!(kv(&session), Phase::Waiting);
        session.scheduled(Lane::Kv, Scheduling::Running);
        assert_eq!(kv(&session), Phase::Started { again: false });
        session.prefill(Some(Lane::Kv), 1.0, 128, 300);
        session.token(&token(0));
        session.scheduled(Lane::Kv, Scheduling::Preempted);
        assert_eq!((kv(&session), session.phase(Lane::KCache)), (Phase::Preempted { kept: true }, Phase::Waiting));
        session.scheduled(Lane::Kv, Scheduling::Freed);
        // What was on its way when it was preempted changes nothing.
        session.prefill(Some(Lane::Kv), 2.0, 128, 301);
        assert_eq!(kv(&session), Phase::Preempted { kept: false });
        session.scheduled(Lane::Kv, Scheduling::Running);
        assert_eq!(kv(&session), Phase::Started { again: true });
        session.prefill(Some(Lane::Kv), 3.0, 128, 301);
        assert!(matches!(kv(&session), Phase::Prefill(PrefillProgress { done: 128, .. })));
        session.token(&token(1));
        assert_eq!(kv(&session), Phase::Answering);
    }

    #[test]
    fn a_message_that_was_never_accepted_is_refused_in_every_lane() {
        let mut session = Session::new(SessionId(1), "a".into(), Lane::ALL.to_vec());
        session.send("hi".into(), None);
        session.failed(Some(Lane::KCache), "the queue is full");
        assert!(Lane::ALL.iter().all(|&lane| session.refused(lane)) && !session.busy());
        session.send("again".into(), None);
        session.said("again".into(), None);
        session.failed(Some(Lane::Kv), "the lane's budget fits 64");
        assert!(session.refused(Lane::Kv) && !session.refused(Lane::KCache) && session.busy());
    }

    #[test]
    fn a_session_of_one_lane_waits_for_that_lane_only() {
        let mut session = Session::new(SessionId(1), "a".into(), vec![Lane::Kv]);
        session.said("hi".into(), None);
        assert_eq!(session.phases, [Phase::Idle, Phase::Waiting]);
    }
}
