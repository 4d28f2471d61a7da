//! The engine thread: carries out ops between steps, and gives every lane its turn.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
};

use super::{
    EngineOptions, EventKind, FinishReason, Lane, LaneCard, Publisher, Request, SessionId, Started,
    lane::LaneState,
    session::{Session, inspect::Inspection, sequence::Sequence},
};
use crate::{
    kernels::{Pool, heap},
    model::{Forward, LanguageModel, StepSize},
};

/// Rows beyond a prefill chunk that the buffers of an idle lane are made for: sequences that decode in the same step.
/// For more sequences the buffers grow by as many.
pub(super) const DECODE_ROWS: usize = 16;

/// Bytes of pages given up since the last time, from where on an idle engine gives memory back to the system.
const WORTH_TRIMMING: u64 = 64 << 20;

/// Everything the engine thread owns.
pub(super) struct Worker {
    pub(super) model: Arc<LanguageModel>,
    pub(super) pool: Pool,
    pub(super) forward: Forward,
    pub(super) lanes: Vec<LaneState>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) publisher: Publisher,
    pub(super) chunk: usize,
    /// Steps that served several lanes at once.
    pub(super) shared_steps: u64,
    pub(super) weight_bytes: u64,
    pub(super) turns: u64,
    /// Answers that may wait in a lane.
    pub(super) queue: usize,
    pub(super) share_prefixes: bool,
    /// The sequence that is looked at.
    pub(super) inspected: Option<Inspection>,
    /// What the step's buffers were made for.
    made: Option<StepSize>,
    /// The most bytes that the lanes held since memory was given back to the system.
    most_held: u64,
}

impl Worker {
    pub(super) fn new(model: Arc<LanguageModel>, options: EngineOptions, publisher: Publisher) -> Self {
        let shape = model.cache_shape();
        let mut worker = Self {
            pool: Pool::new(options.threads),
            forward: Forward::new(),
            lanes: options.lanes.iter().map(|lane| LaneState::new(lane, options.guard, shape)).collect(),
            sessions: BTreeMap::new(),
            publisher,
            chunk: options.prefill_chunk,
            shared_steps: 0,
            weight_bytes: model.weights.bytes(),
            turns: 0,
            queue: options.queue,
            share_prefixes: options.share_prefixes,
            inspected: None,
            made: None,
            most_held: 0,
            model,
        };
        for index in 0..worker.lanes.len() {
            worker.reserve_rows(index, DECODE_ROWS);
        }
        worker
    }

    /// Works until [`Request::Shutdown`] comes or nobody can send ops any more.
    pub(super) fn run(&mut self, ops: &Receiver<Request>) {
        self.report(true);
        loop {
            loop {
                match ops.try_recv() {
                    Ok(Request::Shutdown) | Err(TryRecvError::Disconnected) => return self.shutdown(),
                    Ok(op) => self.handle(op),
                    Err(TryRecvError::Empty) => break,
                }
            }
            if self.turn() {
                self.report(false);
                continue;
            }
            self.report(true);
            self.check_ledger();
            self.trim();
            match ops.recv() {
                Ok(Request::Shutdown) | Err(_) => return self.shutdown(),
                Ok(op) => self.handle(op),
            }
        }
    }

    /// What runs, for the first event.
    pub(super) fn started(&self) -> Started {
        let shape = &self.model.shape;
        let lanes = self.lanes.iter().map(|state| LaneCard {
            lane: state.lane,
            policy: state.cache.policy(),
            budget_bytes: state.cache.device().cap(),
        });
        Started {
            model: shape.name.clone(),
            architecture: shape.architecture.clone(),
            layers: shape.layers,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            context: self.model.context(),
            weight_bytes: self.weight_bytes,
            threads: self.pool.threads(),
            simulated: true,
            lanes: lanes.collect(),
        }
    }

    /// One round: a chunk of a shared prompt if one waits, then one step of every lane that has work. False when
    /// there was nothing to do.
    fn turn(&mut self) -> bool {
        self.schedule();
        self.most_held = self.most_held.max(self.held());
        let mut worked = self.shared_step();
        for lane in 0..self.lanes.len() {
            worked |= self.lane_step(lane);
        }
        // Outside of the steps, so that comparing is no part of what a lane takes for a token.
        worked |= self.advance_pairs();
        worked || self.resolve_deadlock()
    }

    fn handle(&mut self, op: Request) {
        match op {
            Request::Open { session, name, system, lanes } => self.open(session, name, system, &lanes),
            Request::Rename { session, name } => match self.sessions.get_mut(&session) {
                Some(known) => {
                    known.name = name;
                    self.tell_session(session);
                }
                None => self.unknown(session),
            },
            Request::SetSystem { session, system } => self.set_system(session, &system),
            Request::SubmitMessage { session, document, text, turn } => self.say(session, document, text, turn),
            Request::SubmitTokens { session, prefilled, tokens, turn, once } => {
                self.feed(session, prefilled, &tokens, turn, once)
            }
            Request::RestoreHistory { session, lane, messages } => self.recall(session, lane, messages),
            Request::Stop { session, lane } => match self.sessions.get(&session) {
                Some(known) => {
                    let known_lanes = known.lanes();
                    if lane.is_none() {
                        self.drop_lock(session);
                    }
                    let lanes = known_lanes.into_iter().filter(|&each| lane.is_none_or(|lane| lane == each));
                    for lane in lanes.collect::<Vec<_>>() {
                        self.finish(session, lane, FinishReason::Cancelled);
                    }
                }
                None => self.unknown(session),
            },
            Request::Close { session } => self.close(session),
            Request::Inspect(asked) => self.inspect(asked),
            Request::Compare { session, on } => self.set_compare(session, on),
            Request::SetPolicy { lane, policy } => self.set_policy(lane, policy),
            Request::SetBudget { lane, bytes } => self.set_budget(lane, bytes),
            Request::SetGuard { lane, mode } => self.set_guard(lane, mode),
            Request::Shutdown => {}
        }
    }

    fn open(&mut self, session: SessionId, name: String, system: Option<String>, lanes: &[Lane]) {
        if self.sessions.contains_key(&session) {
            return self.error(None, Some(session), format!("session {} is open already", session.0));
        }
        if lanes.is_empty() {
            return self.error(None, Some(session), "a session needs a lane".to_owned());
        }
        let system = system.filter(|_| self.takes_system());
        // It holds nothing before its first answer starts.
        let sequence = |state: &LaneState| Sequence::new(state.lane, state.cache.vacant(), system.as_deref());
        let states = self.lanes.iter().filter(|state| lanes.contains(&state.lane));
        let opened = Session { name, once: false, compare: false, sequences: states.map(sequence).collect() };
        self.sessions.insert(session, opened);
        self.tell_session(session);
    }

    pub(super) fn close(&mut self, session: SessionId) {
        let Some(known) = self.sessions.get_mut(&session) else { return self.unknown(session) };
        known.once = false;
        let lanes = known.lanes();
        self.drop_lock(session);
        for lane in lanes {
            self.finish(session, lane, FinishReason::Cancelled);
        }
        if let Some(closed) = self.sessions.remove(&session) {
            self.give_back(closed.sequences);
            self.publisher.publish(EventKind::Closed { session });
        }
    }

    fn give_back(&mut self, sequences: Vec<Sequence>) {
        for sequence in sequences {
            if let Some(state) = self.lanes.iter_mut().find(|state| state.lane == sequence.lane) {
                state.cache.close(sequence.cache);
            }
        }
    }

    fn shutdown(&mut self) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.close(session);
        }
        self.report(true);
        self.check_ledger();
    }

    /// Reports every lane's ledger, queue and hits where it is time, or `now`.
    fn report(&mut self, now: bool) {
        for state in &mut self.lanes {
            let lane = state.lane;
            let sequences =
                || self.sessions.iter().filter_map(move |(&id, session)| Some((id, session.sequence(lane)?)));
            let ledger = state.ledger(self.weight_bytes, sequences().map(|(_, sequence)| &sequence.cache), now);
            let queue = state.queue(self.queue, sequences(), now);
            for event in ledger.into_iter().chain(queue).chain(state.hits(now)) {
                self.publisher.publish(event);
            }
        }
    }

    /// Bytes that the lanes hold.
    fn held(&self) -> u64 {
        self.lanes.iter().map(|state| state.cache.device().used() + state.cache.host().used()).sum()
    }

    /// Gives memory back to the system once enough of it was given up. A busy engine keeps it for the next sequences.
    fn trim(&mut self) {
        let held = self.held();
        if self.most_held >= held + WORTH_TRIMMING {
            self.most_held = held;
            heap::trim();
        }
    }

    fn check_ledger(&self) {
        for state in &self.lanes {
            if let Err(error) = state.cache.check(self.in_lane(state.lane).map(|(_, sequence)| &sequence.cache)) {
                self.error(Some(state.lane), None, error.to_string());
            }
        }
        let (used, booked) = (self.forward.bytes(), self.made.map_or(0, |size| size.bytes(&self.model)));
        if used > booked {
            self.error(None, None, format!("the step's buffers take {used} bytes, {booked} were booked for them"));
        }
    }

    /// Bytes of the buffers of a step in which `rows` sequences of a lane decode beside a chunk of a prompt.
    pub(super) fn workspace(&self, index: usize, rows: usize) -> u64 {
        self.step_size(index, rows).bytes(&self.model)
    }

    fn step_size(&self, index: usize, rows: usize) -> StepSize {
        let state = &self.lanes[index];
        let (context, threads) = (self.model.context(), self.pool.threads());
        // A sequence never outgrows the budget.
        let longest = state.cache.most_tokens(0).map_or(context, |most| most.min(context));
        StepSize { prompt_rows: self.chunk, decode_rows: state.step_rows(rows), longest, threads }
    }

    /// Books the buffers for steps in which `rows` sequences of a lane decode. Lanes take turns in the same ones, made
    /// for the one that needs the most; each books what it would need alone.
    pub(super) fn reserve_rows(&mut self, index: usize, rows: usize) {
        let size = self.step_size(index, rows);
        if self.lanes[index].booked == Some(size) {
            return;
        }
        self.lanes[index].rows = rows;
        self.lanes[index].booked = Some(size);
        let booked = || self.lanes.iter().filter_map(|state| state.booked);
        let most = StepSize {
            decode_rows: booked().map(|size| size.decode_rows).max().unwrap_or(0),
            longest: booked().map(|size| size.longest).max().unwrap_or(0),
            ..size
        };
        if self.made != Some(most) {
            self.made = Some(most);
            self.forward = Forward::new();
            self.forward.reserve(&self.model, most);
        }
        self.lanes[index].cache.device_mut().set_fixed(size.bytes(&self.model));
    }

    pub(super) fn steps(&self, lane: Lane) -> u64 {
        self.lanes.iter().find(|state| state.lane == lane).map_or(0, |state| state.steps)
    }

    pub(super) fn error(&self, lane: Option<Lane>, session: Option<SessionId>, message: String) {
        self.publisher.publish(EventKind::Error { lane, session, message });
    }

    pub(super) fn unknown(&self, session: SessionId) {
        self.error(None, Some(session), format!("there is no session {}", session.0));
    }
}

/// Bytes of the step's buffers that a lane without probes books when so many sequences run in it, unless its budget is too
/// small for a whole context.
pub fn workspace_bytes(model: &LanguageModel, threads: usize, prefill_chunk: usize, sequences: usize) -> u64 {
    let decode_rows = sequences.max(1).next_multiple_of(DECODE_ROWS);
    StepSize { prompt_rows: prefill_chunk, decode_rows, longest: model.context(), threads }.bytes(model)
}

pub(crate) mod compare;
#[cfg(debug_assertions)]
pub(crate) mod fault;
pub(crate) mod knobs;
pub(crate) mod preempt;
pub(crate) mod requests;
pub(crate) mod schedule;
pub(crate) mod step;
pub(crate) mod system;
