//! A workload: sessions of one length that arrive over time, for demos and for monitoring.
//!
//! It has no clock and no engine. Times and events come in, and requests go out, so the dashboard, the JSON lines and the
//! tests run the same code. Its sessions have numbers of their own ([`is_workload`]), so a reader of events can tell them
//! from those of people, also in a recording. Each session is closed after its answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{WorkloadSpec, arrivals::Times};
use crate::engine::{EventKind, FinishReason, GenerationOptions, Lane, Priority, Request, Scheduling, SessionId};

/// The number of the first session of a load; those of people are below.
const FIRST: u32 = 1 << 31;
/// Sessions that may be on their way to the engine: it takes requests between steps, and prompts take memory.
const ON_THEIR_WAY: usize = 8;
/// How far apart in the text the prompts of two sessions begin, in tokens: a prime, so that they begin at many places.
const APART: usize = 997;

/// Whether a session belongs to a load.
pub fn is_workload(session: SessionId) -> bool {
    session.0 >= FIRST
}

/// How an answer of a load or of a soak ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It has all its tokens.
    Finished,
    Cancelled,
    /// It did not fit, or has outgrown its budget.
    Refused,
    /// The model ended it, its context was full, or it broke.
    Otherwise,
}

impl Ending {
    /// What a reason of the engine comes to where every answer has a length.
    pub fn of(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Length => Self::Finished,
            FinishReason::Cancelled => Self::Cancelled,
            FinishReason::Budget => Self::Refused,
            FinishReason::Stop | FinishReason::Context | FinishReason::Failed => Self::Otherwise,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Otherwise => "otherwise",
        })
    }
}

/// Opens a session that asks once and is closed when it has its answer of `max_tokens`.
pub(super) fn ask_once(
    session: SessionId,
    name: String,
    lanes: Vec<Lane>,
    tokens: Vec<u32>,
    max_tokens: usize,
    priority: Priority,
) -> [Request; 2] {
    let turn = GenerationOptions { max_tokens, ignore_eos: true, priority, ..GenerationOptions::default() };
    [
        Request::Open { session, name, system: None, lanes },
        Request::SubmitTokens { session, prefilled: None, tokens, options: turn, once: true },
    ]
}

/// Answers of a load in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkloadCounts {
    pub waiting: usize,
    pub running: usize,
    /// That were preempted and will go on.
    pub preempted: usize,
    /// With all their tokens.
    pub finished: usize,
    pub cancelled: usize,
    pub refused: usize,
    /// That ended in another way.
    pub otherwise: usize,
}

impl WorkloadCounts {
    /// Answers that have ended, however.
    pub fn ended(&self) -> usize {
        self.finished + self.cancelled + self.refused + self.otherwise
    }
}

/// A load that runs, has run, or was recorded.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    text: Arc<[u32]>,
    spec: Option<WorkloadSpec>,
    began_ms: Option<f64>,
    times: Times,
    /// Sessions sent to the engine, and of these opened there.
    sent: usize,
    arrived: usize,
    stopped: bool,
    /// Sessions of loads before this one.
    before: u32,
    /// Sessions that are not closed yet, with their lanes.
    open: BTreeMap<SessionId, Vec<Lane>>,
    accepted: BTreeSet<SessionId>,
    states: BTreeMap<(SessionId, Lane), Scheduling>,
    ended: [WorkloadCounts; 2],
    why: Option<String>,
}

impl Workload {
    /// None yet; prompts will be made of `text`, which must not be empty.
    pub fn new(text: Arc<[u32]>) -> Self {
        Self { text, ..Self::default() }
    }

    /// Begins with the next [`Workload::due`]. What an earlier load came to is forgotten.
    pub fn start(&mut self, spec: WorkloadSpec) {
        let before = self.before + self.sent as u32;
        let times = Times::new(spec.arrivals, spec.rate, spec.seed);
        *self = Self { before, times, spec: Some(spec), ..Self::new(Arc::clone(&self.text)) };
    }

    /// What it is to be; `None` before one was started, and in a recorded run.
    pub fn spec(&self) -> Option<&WorkloadSpec> {
        self.spec.as_ref()
    }

    /// Whether sessions are still to come, or have not ended.
    pub fn is_active(&self) -> bool {
        !self.open.is_empty() || self.is_coming()
    }

    /// Whether sessions are still to come.
    pub fn is_coming(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| !self.stopped && self.sent < spec.sessions)
    }

    pub fn arrived(&self) -> usize {
        self.arrived
    }

    /// What its answers do in a lane.
    pub fn counts(&self, lane: Lane) -> WorkloadCounts {
        let mut counts = self.ended[lane as usize];
        for (_, state) in self.states.iter().filter(|((_, each), _)| *each == lane) {
            match state {
                Scheduling::Waiting => counts.waiting += 1,
                Scheduling::Running => counts.running += 1,
                Scheduling::Preempted | Scheduling::Freed => counts.preempted += 1,
            }
        }
        counts
    }

    /// Why one was refused last.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Whether sessions were refused, or broke, and not one was answered. One that somebody stopped is neither.
    pub fn is_refused(&self) -> bool {
        let sum = |of: fn(&WorkloadCounts) -> usize| self.ended.iter().map(of).sum::<usize>();
        sum(|counts| counts.refused + counts.otherwise) > 0 && sum(|counts| counts.finished + counts.cancelled) == 0
    }

    /// The sessions that are due at `now_ms`, on any clock that does not go back. A late one comes as soon as the engine
    /// has taken those before it.
    pub fn due(&mut self, now_ms: f64) -> Vec<Request> {
        let mut requests = Vec::new();
        let began_ms = *self.began_ms.get_or_insert(now_ms);
        while self.is_coming() && self.sent - self.arrived < ON_THEIR_WAY {
            let Some(spec) = self.spec.as_ref().filter(|_| self.times.next_ms() <= now_ms - began_ms) else { break };
            let number = self.before + self.sent as u32;
            let session = SessionId(FIRST + number);
            let tokens = prompt(&self.text, number as usize, spec);
            let name = format!("load {}", number + 1);
            let lanes = spec.lanes.clone();
            self.open.insert(session, lanes.clone());
            requests.extend(ask_once(session, name, lanes, tokens, spec.tokens, Priority::Background));
            self.sent += 1;
            self.times.advance();
        }
        requests
    }

    /// No more sessions come; those that are here go on.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// The same, and those that are here are closed.
    pub fn cancel(&mut self) -> Vec<Request> {
        self.stop();
        self.open.keys().map(|&session| Request::Close { session }).collect()
    }

    /// Takes in an event; what it asks for in return, and `None` where it is about no load. Tokens and progress are
    /// left to those who count them for all sessions.
    pub fn note(&mut self, event: &EventKind) -> Option<Vec<Request>> {
        let mut requests = Vec::new();
        match event {
            EventKind::Session { session, lanes, .. } if is_workload(*session) => {
                self.arrived += 1;
                self.open.entry(*session).or_insert_with(|| lanes.clone());
            }
            EventKind::Said { session, .. } if is_workload(*session) => {
                self.accepted.insert(*session);
            }
            EventKind::Scheduled { session, lane, state, .. } if is_workload(*session) => {
                self.states.insert((*session, *lane), *state);
            }
            EventKind::Finished(finished) if is_workload(finished.session) => {
                self.states.remove(&(finished.session, finished.lane));
                self.end(finished.lane, Ending::of(finished.reason));
            }
            EventKind::Closed { session } if is_workload(*session) => {
                self.open.remove(session);
                self.accepted.remove(session);
            }
            EventKind::Error { session: Some(session), message, .. } if is_workload(*session) => {
                // One that has gone meanwhile was closed for its end and by hand.
                if let Some(lanes) = self.open.get(session).cloned() {
                    self.why = Some(message.clone());
                    if !self.accepted.contains(session) {
                        lanes.into_iter().for_each(|lane| self.end(lane, Ending::Refused));
                        requests.push(Request::Close { session: *session });
                    }
                }
            }
            EventKind::Stopped { .. } => {
                self.stopped = true;
                self.open.clear();
                self.states.clear();
                return None;
            }
            _ => return None,
        }
        Some(requests)
    }

    /// What it came to so far, in a line.
    pub fn summary(&self) -> String {
        let lanes = Lane::ALL.into_iter().filter_map(|lane| {
            let counts = self.counts(lane);
            let parts = [
                (counts.finished, "finished"),
                (counts.running, "running"),
                (counts.waiting, "waiting"),
                (counts.preempted, "preempted"),
                (counts.cancelled, "cancelled"),
                (counts.refused, "refused"),
                (counts.otherwise, "ended otherwise"),
            ];
            let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
            let parts = parts.collect::<Vec<_>>().join(", ");
            (!parts.is_empty()).then(|| format!("; {lane}: {parts}"))
        });
        format!("load: {} sessions came{}", self.arrived, lanes.collect::<String>())
    }

    fn end(&mut self, lane: Lane, ending: Ending) {
        let counts = &mut self.ended[lane as usize];
        *match ending {
            Ending::Finished => &mut counts.finished,
            Ending::Cancelled => &mut counts.cancelled,
            Ending::Refused => &mut counts.refused,
            Ending::Otherwise => &mut counts.otherwise,
        } += 1;
    }
}

/// The prompt of session `number`: the common beginning, then the text from a place of its own on, round and round.
fn prompt(text: &[u32], number: usize, spec: &WorkloadSpec) -> Vec<u32> {
    let shared = text.iter().cycle().take(spec.shared);
    let own = text.iter().cycle().skip((number + 1).wrapping_mul(APART) % text.len().max(1));
    shared.chain(own.take(spec.context - spec.shared)).copied().collect()
}

#[cfg(test)]
mod tests;
