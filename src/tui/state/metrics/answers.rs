//! The answers of a lane over time: what it delivers by the clock on the wall, how many run at once, and how long they
//! waited.
//!
//! How fast a lane's own steps are says nothing of what comes out of it: a lane in whose budget more answers fit makes
//! longer steps and delivers more. So these figures count tokens over time as it passes, whoever has the machine.

use std::collections::{BTreeMap, VecDeque};

use super::{STEPS, nearest_ranks};
use crate::{
    bench::is_workload,
    engine::{EventKind, FinishReason, Lane, Scheduling, SessionId},
    telemetry::{Series, Sums},
};

/// Answers of which the time in the queue is kept.
const WAITS: usize = 4_096;
/// Stretches of time in which something was asked that are kept.
const BUSY: usize = 4_096;

/// From when on what a lane delivers is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Since {
    /// The start of the run. Time in which the lane was asked nothing does not count.
    #[default]
    Start,
    /// The last turn of one of the lane's knobs. The same, unless a load is on.
    Knob,
    /// The first answer of the load; until now, or to the end of its last answer. Every second of it counts.
    Load,
}

/// What a lane has delivered in a stretch of time. Unknown is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Delivery {
    pub since: Since,
    /// Whether it ended with the last answer of a load, before the end of the stretch.
    pub over: bool,
    /// Tokens of answers.
    pub tokens: u64,
    /// Milliseconds by the clock on the wall.
    pub ms: f64,
    /// Answers with all their tokens.
    pub finished: u64,
    /// Answers that run at the end of the stretch.
    pub running: Option<u64>,
    /// The most that ran at once.
    pub peak: Option<u64>,
    /// Median and 99th percentile of the milliseconds that answers waited before they started. Those that still wait count
    /// with their time so far, else a lane that starts nobody would look quick.
    pub queued_ms: Option<(f64, f64)>,
}

impl Delivery {
    /// Tokens per second by the clock on the wall.
    pub fn tok_s(&self) -> Option<f64> {
        (self.ms > 0.0).then(|| self.tokens as f64 * 1000.0 / self.ms)
    }
}

/// An answer that has not ended.
#[derive(Debug, Clone, Copy)]
struct Open {
    asked_ms: f64,
    started: bool,
    running: bool,
}

/// The load in this lane.
#[derive(Debug, Clone, Copy)]
struct LoadSpan {
    began_ms: f64,
    /// When its last answer ended; `None` while one is open.
    ended_ms: Option<f64>,
}

/// The answers of one lane.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Tokens, and answers with all their tokens.
    made: Sums<2>,
    running: Series,
    /// When they were asked and when they started.
    waits: VecDeque<(f64, f64)>,
    open: BTreeMap<SessionId, Open>,
    /// The stretches in which anything was asked of the lane; the last one may be open.
    busy: VecDeque<(f64, Option<f64>)>,
    /// What lies before is known no more.
    known_from_ms: f64,
    load: Option<LoadSpan>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            made: Sums::new(STEPS),
            running: Series::new(STEPS),
            waits: VecDeque::new(),
            open: BTreeMap::new(),
            busy: VecDeque::new(),
            known_from_ms: 0.0,
            load: None,
        }
    }
}

impl Answers {
    /// Takes in an event, if it says something of the answers of `lane`.
    pub fn note(&mut self, lane: Lane, t_ms: f64, event: &EventKind) {
        if !t_ms.is_finite() {
            return;
        }
        match event {
            EventKind::Scheduled { lane: of, session, state, .. } if *of == lane => {
                self.scheduled(t_ms, *session, *state);
            }
            EventKind::Token(token) if token.lane == lane => self.made.push(t_ms, [1.0, 0.0]),
            EventKind::Stopped { .. } => self.stopped(t_ms),
            EventKind::Finished(finished) if finished.lane == lane => {
                if matches!(finished.reason, FinishReason::Stop | FinishReason::Length) {
                    self.made.push(t_ms, [0.0, 1.0]);
                }
                self.end(t_ms, finished.session);
            }
            _ => {}
        }
    }

    /// The engine has ended, and with it every answer.
    fn stopped(&mut self, t_ms: f64) {
        while let Some(&session) = self.open.keys().next() {
            self.end(t_ms, session);
        }
    }

    /// Another load begins with the next answer of one.
    pub fn load_begins(&mut self) {
        self.load = None;
    }

    fn scheduled(&mut self, t_ms: f64, session: SessionId, state: Scheduling) {
        if self.open.is_empty() {
            if self.busy.len() == BUSY
                && let Some((_, Some(end))) = self.busy.pop_front()
            {
                self.known_from_ms = end;
            }
            self.busy.push_back((t_ms, None));
        }
        if is_workload(session) {
            self.load.get_or_insert(LoadSpan { began_ms: t_ms, ended_ms: None }).ended_ms = None;
        }
        let open = self.open.entry(session).or_insert(Open { asked_ms: t_ms, started: false, running: false });
        open.running = state == Scheduling::Running;
        // What was preempted has started before.
        if state != Scheduling::Waiting && !std::mem::replace(&mut open.started, true) {
            let asked_ms = open.asked_ms;
            self.waited(asked_ms, t_ms);
        }
        self.count(t_ms);
    }

    fn end(&mut self, t_ms: f64, session: SessionId) {
        if self.open.remove(&session).is_none() {
            return;
        }
        self.count(t_ms);
        if self.open.is_empty()
            && let Some((_, end)) = self.busy.back_mut()
        {
            *end = Some(t_ms);
        }
        if let Some(load) = self.load.as_mut().filter(|_| !self.open.keys().any(|&session| is_workload(session))) {
            load.ended_ms.get_or_insert(t_ms);
        }
    }

    fn waited(&mut self, asked_ms: f64, started_ms: f64) {
        if self.waits.len() == WAITS {
            self.waits.pop_front();
        }
        self.waits.push_back((asked_ms, started_ms));
    }

    fn count(&mut self, t_ms: f64) {
        let running = self.open.values().filter(|open| open.running).count();
        if self.running.last() != Some(running as f64) {
            self.running.push(t_ms, running as f64);
        }
    }

    /// What came by `to_ms`, counted since the load began or else since the start, and never beyond `changed_ms`, when the
    /// lane's knobs were changed last.
    pub fn delivered(&self, changed_ms: Option<f64>, to_ms: f64) -> Delivery {
        let load = self.load.filter(|load| load.began_ms <= to_ms);
        // A load that was over when the knob was changed says nothing of what is set now.
        let load =
            load.filter(|load| changed_ms.is_none_or(|changed| load.ended_ms.is_none_or(|ended| changed < ended)));
        let began_ms = load.map_or(self.known_from_ms, |load| load.began_ms);
        let from_ms = changed_ms.map_or(began_ms, |changed| changed.max(began_ms));
        let since = match (changed_ms, load) {
            (Some(changed), _) if changed >= began_ms => Since::Knob,
            (_, Some(_)) => Since::Load,
            (_, None) => Since::Start,
        };
        let end_ms = load.and_then(|load| load.ended_ms).map_or(to_ms, |ended| ended.min(to_ms));
        let [tokens, finished] = self.made.between(from_ms, end_ms);
        let ms = if load.is_some() { (end_ms - from_ms).max(0.0) } else { self.asked_ms(from_ms, end_ms) };
        let ran = self.running.at(from_ms).into_iter().chain(self.running.max(from_ms, end_ms)).reduce(f64::max);
        Delivery {
            since,
            over: end_ms < to_ms,
            tokens: tokens as u64,
            ms,
            finished: finished as u64,
            running: self.running.at(end_ms).map(|count| count as u64),
            peak: ran.map(|count| count as u64),
            queued_ms: self.queued(from_ms, end_ms),
        }
    }

    /// Milliseconds of a stretch in which anything was asked of the lane.
    fn asked_ms(&self, from_ms: f64, to_ms: f64) -> f64 {
        let within =
            |&(from, to): &(f64, Option<f64>)| (to.map_or(to_ms, |to| to.min(to_ms)) - from.max(from_ms)).max(0.0);
        self.busy.iter().map(within).sum()
    }

    /// How long those waited that were asked in a stretch.
    fn queued(&self, from_ms: f64, to_ms: f64) -> Option<(f64, f64)> {
        let waiting = self.open.values().filter(|open| !open.started).map(|open| (open.asked_ms, f64::INFINITY));
        let waits = self.waits.iter().copied().chain(waiting);
        let asked = waits.filter(|(asked, _)| (from_ms..=to_ms).contains(asked));
        nearest_ranks(asked.map(|(asked, started)| started.min(to_ms) - asked).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Finished, Token, Usage};

    const LOAD: u32 = 1 << 31;

    fn scheduled(answers: &mut Answers, t_ms: f64, session: u32, state: Scheduling) {
        let session = SessionId(session);
        answers.note(Lane::Kv, t_ms, &EventKind::Scheduled { lane: Lane::Kv, session, step: 1, state });
    }

    fn tokens(answers: &mut Answers, t_ms: f64, count: usize) {
        let token = Token {
            lane: Lane::Kv,
            session: SessionId(1),
            step: 1,
            index: 0,
            token_id: 1,
            text: String::new(),
            itl_ms: None,
            kept_mass: None,
        };
        (0..count).for_each(|_| answers.note(Lane::Kv, t_ms, &EventKind::Token(token.clone())));
    }

    fn finish(answers: &mut Answers, t_ms: f64, session: u32, reason: FinishReason) {
        let (session, usage) = (SessionId(session), Usage::default());
        let finished = Finished { lane: Lane::Kv, session, step: 1, reason, usage };
        answers.note(Lane::Kv, t_ms, &EventKind::Finished(finished));
    }

    #[test]
    fn without_a_load_only_time_in_which_something_was_asked_counts() {
        let mut answers = Answers::default();
        assert_eq!(answers.delivered(None, 9.0).tok_s(), None);
        scheduled(&mut answers, 1_000.0, 1, Scheduling::Waiting);
        scheduled(&mut answers, 1_500.0, 1, Scheduling::Running);
        tokens(&mut answers, 2_000.0, 30);
        finish(&mut answers, 3_000.0, 1, FinishReason::Stop);
        let at = |to_ms| answers.delivered(None, to_ms);
        assert_eq!((at(2_000.0).tok_s(), at(2_000.0).running, at(2_000.0).finished), (Some(30.0), Some(1), 0));
        // Nobody asks for anything: the figure stays.
        let later = at(60_000.0);
        assert_eq!((later.tok_s(), later.running, later.peak, later.finished), (Some(15.0), Some(0), Some(1), 1));
        assert_eq!((later.queued_ms, later.since), (Some((500.0, 500.0)), Since::Start));
        // Nothing came since the knob was changed.
        let turned = answers.delivered(Some(5_000.0), 60_000.0);
        assert_eq!((turned.since, turned.tok_s(), turned.tokens), (Since::Knob, None, 0));
    }

    #[test]
    fn a_load_counts_every_second_from_its_first_answer_to_its_last() {
        let mut answers = Answers::default();
        scheduled(&mut answers, 0.0, 1, Scheduling::Waiting);
        tokens(&mut answers, 500.0, 7);
        finish(&mut answers, 900.0, 1, FinishReason::Stop);
        for (at, session) in [(1_000.0, LOAD), (1_000.0, LOAD + 1)] {
            scheduled(&mut answers, at, session, Scheduling::Waiting);
        }
        scheduled(&mut answers, 1_200.0, LOAD, Scheduling::Running);
        tokens(&mut answers, 1_500.0, 20);
        let now = answers.delivered(None, 2_000.0);
        assert_eq!((now.since, now.tokens, now.tok_s()), (Since::Load, 20, Some(20.0)));
        // The one that waits counts with its second so far.
        assert_eq!(now.queued_ms, Some((200.0, 1_000.0)));
        finish(&mut answers, 2_500.0, LOAD, FinishReason::Length);
        scheduled(&mut answers, 2_500.0, LOAD + 1, Scheduling::Running);
        scheduled(&mut answers, 3_000.0, LOAD + 1, Scheduling::Preempted);
        assert_eq!(answers.delivered(None, 3_000.0).running, Some(0));
        scheduled(&mut answers, 4_000.0, LOAD + 1, Scheduling::Running);
        finish(&mut answers, 5_000.0, LOAD + 1, FinishReason::Cancelled);
        tokens(&mut answers, 6_000.0, 100);
        let over = answers.delivered(None, 9_000.0);
        assert_eq!((over.tokens, over.ms, over.finished, over.peak), (20, 4_000.0, 1, Some(1)));
        // A knob changed afterwards begins anew, one changed before it does not.
        assert_eq!(answers.delivered(Some(7_000.0), 9_000.0).since, Since::Knob);
        assert_eq!(answers.delivered(Some(950.0), 9_000.0), over);
        answers.load_begins();
        assert_eq!(answers.delivered(None, 9_000.0).since, Since::Start);
    }

    #[test]
    fn an_engine_that_ends_ends_every_answer() {
        let mut answers = Answers::default();
        scheduled(&mut answers, 0.0, 1, Scheduling::Waiting);
        answers.note(Lane::Kv, 1_000.0, &EventKind::Stopped { error: None });
        assert_eq!(answers.delivered(None, 9_000.0).ms, 1_000.0);
    }
}
