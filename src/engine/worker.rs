//! The engine thread: carries out ops between steps, and gives every lane its turn.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
};

use super::{
    Document, EngineOptions, EventKind, FinishReason, Finished, Lane, LaneCard, Op, Publisher, SessionId, Started,
    Turn, lane::LaneState, sequence::Sequence, session::Session,
};
use crate::{
    cache::{Knobs, Policy, SequenceCache},
    kernels::Pool,
    model::{Forward, LanguageModel, Message, ModelError, Role},
};

/// Rows beyond a prefill chunk that the buffers are made for at start: sequences that decode in the same step.
const DECODE_ROWS: usize = 16;

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
    turns: u64,
}

impl Worker {
    pub(super) fn new(model: Arc<LanguageModel>, options: EngineOptions, publisher: Publisher) -> Self {
        let mut forward = Forward::new();
        forward.reserve(&model, options.prefill_chunk + DECODE_ROWS, DECODE_ROWS);
        let shape = model.cache_shape();
        let mut worker = Self {
            pool: Pool::new(options.threads),
            forward,
            lanes: options.lanes.iter().map(|lane| LaneState::new(lane, shape)).collect(),
            sessions: BTreeMap::new(),
            publisher,
            chunk: options.prefill_chunk,
            shared_steps: 0,
            weight_bytes: model.weights.bytes(),
            turns: 0,
            model,
        };
        worker.account_workspace();
        worker
    }

    /// Works until [`Op::Shutdown`] comes or nobody can send ops any more.
    pub(super) fn run(&mut self, ops: &Receiver<Op>) {
        self.publisher.publish(EventKind::Started(self.started()));
        self.report(true);
        loop {
            loop {
                match ops.try_recv() {
                    Ok(Op::Shutdown) | Err(TryRecvError::Disconnected) => return self.shutdown(),
                    Ok(op) => self.carry_out(op),
                    Err(TryRecvError::Empty) => break,
                }
            }
            if self.turn() {
                self.report(false);
                continue;
            }
            self.report(true);
            self.check_ledger();
            match ops.recv() {
                Ok(Op::Shutdown) | Err(_) => return self.shutdown(),
                Ok(op) => self.carry_out(op),
            }
        }
    }

    fn started(&self) -> Started {
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
        let mut worked = self.shared_step();
        for lane in 0..self.lanes.len() {
            worked |= self.lane_step(lane);
        }
        worked
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Open { session, name, system, lanes } => self.open(session, name, system, &lanes),
            Op::Rename { session, name } => match self.sessions.get_mut(&session) {
                Some(known) => {
                    known.name.clone_from(&name);
                    let lanes = known.lanes();
                    self.publisher.publish(EventKind::Session { session, name, lanes });
                }
                None => self.unknown(session),
            },
            Op::Say { session, document, text, turn } => self.say(session, document, text, turn),
            Op::Stop { session, lane } => match self.sessions.get(&session) {
                Some(known) => {
                    let lanes = known.lanes().into_iter().filter(|&each| lane.is_none_or(|lane| lane == each));
                    for lane in lanes.collect::<Vec<_>>() {
                        self.finish(session, lane, FinishReason::Cancelled);
                    }
                }
                None => self.unknown(session),
            },
            Op::Close { session } => self.close(session),
            Op::SetPolicy { lane, policy } => self.set_policy(lane, policy),
            Op::SetBudget { lane, bytes } => self.set_budget(lane, bytes),
            Op::Shutdown => {}
        }
    }

    fn open(&mut self, session: SessionId, name: String, system: Option<String>, lanes: &[Lane]) {
        if self.sessions.contains_key(&session) {
            return self.error(None, Some(session), format!("session {} is open already", session.0));
        }
        let mut sequences = Vec::new();
        let mut refused = lanes.is_empty().then(|| "a session needs a lane".to_owned());
        for state in self.lanes.iter_mut().filter(|state| lanes.contains(&state.lane)) {
            match state.cache.open() {
                Ok(cache) => sequences.push(Sequence::new(state.lane, cache, system.as_deref())),
                Err(full) => {
                    refused = Some(format!("{full}; close a session or raise the budget"));
                    break;
                }
            }
        }
        if let Some(message) = refused {
            self.give_back(sequences);
            return self.error(None, Some(session), message);
        }
        let opened = Session { name: name.clone(), sequences };
        let lanes = opened.lanes();
        self.sessions.insert(session, opened);
        self.publisher.publish(EventKind::Session { session, name, lanes });
    }

    fn close(&mut self, session: SessionId) {
        let Some(known) = self.sessions.get(&session) else { return self.unknown(session) };
        for lane in known.lanes() {
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

    fn say(&mut self, id: SessionId, document: Option<Document>, text: String, turn: Turn) {
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
        let shared = session.is_fresh() && session.sequences.len() > 1;
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
            let (reason, usage) = (FinishReason::Budget, Default::default());
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

    fn set_policy(&mut self, lane: Lane, policy: Policy) {
        let Some(state) = self.lanes.iter_mut().find(|state| state.lane == lane) else { return };
        let step = state.steps + 1;
        let sequences = self.sessions.values_mut().filter_map(|session| session.sequence_mut(lane));
        let change = match (state.cache.policy(), policy) {
            (Policy::KCache(old), Policy::KCache(new)) if old != new => {
                match state.cache.set_knobs(new, sequences.map(|sequence| &mut sequence.cache)) {
                    Ok(()) => change(&old, &new),
                    Err(full) => return self.error(Some(lane), None, format!("the policy stays as it was: {full}")),
                }
            }
            (old, new) if old == new => return,
            (old, new) => {
                let message = format!("a lane keeps its kind of cache: {old} cannot become {new} while it runs");
                return self.error(Some(lane), None, message);
            }
        };
        self.publisher.publish(EventKind::Knob { lane, step, change, policy });
    }

    fn set_budget(&mut self, lane: Lane, bytes: Option<u64>) {
        let Some(state) = self.lanes.iter_mut().find(|state| state.lane == lane) else { return };
        if state.cache.device().cap() == bytes {
            return;
        }
        state.cache.device_mut().set_cap(bytes);
        let (step, policy) = (state.steps + 1, state.cache.policy());
        let change = match bytes {
            Some(bytes) => format!("budget={:.0}MiB", bytes as f64 / f64::from(1 << 20)),
            None => "budget=none".to_owned(),
        };
        self.publisher.publish(EventKind::Knob { lane, step, change, policy });
    }

    fn shutdown(&mut self) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.close(session);
        }
        self.report(true);
        self.check_ledger();
    }

    /// Reports every lane's ledger and hits where it is time, or `now`.
    fn report(&mut self, now: bool) {
        for state in &mut self.lanes {
            let caches = caches_of(&self.sessions, state.lane);
            let ledger = state.ledger(self.weight_bytes, caches, now);
            for event in ledger.into_iter().chain(state.hits(now)) {
                self.publisher.publish(event);
            }
        }
    }

    fn check_ledger(&self) {
        for state in &self.lanes {
            if let Err(error) = state.cache.check(caches_of(&self.sessions, state.lane)) {
                self.error(Some(state.lane), None, error.to_string());
            }
        }
    }

    /// Books the buffers of the step on every lane's device tier: lanes take turns in the same ones.
    pub(super) fn account_workspace(&mut self) {
        let bytes = self.forward.bytes();
        for state in &mut self.lanes {
            state.cache.device_mut().set_fixed(bytes);
        }
    }

    fn steps(&self, lane: Lane) -> u64 {
        self.lanes.iter().find(|state| state.lane == lane).map_or(0, |state| state.steps)
    }

    pub(super) fn error(&self, lane: Option<Lane>, session: Option<SessionId>, message: String) {
        self.publisher.publish(EventKind::Error { lane, session, message });
    }

    fn unknown(&self, session: SessionId) {
        self.error(None, Some(session), format!("there is no session {}", session.0));
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

fn caches_of(sessions: &BTreeMap<SessionId, Session>, lane: Lane) -> impl Iterator<Item = &SequenceCache> {
    let sequences = sessions.values().flat_map(|session| &session.sequences);
    sequences.filter(move |sequence| sequence.lane == lane).map(|sequence| &sequence.cache)
}

/// What differs between two settings of the knobs, as it is written in a policy.
fn change(old: &Knobs, new: &Knobs) -> String {
    let mut changes = Vec::new();
    if old.n != new.n {
        changes.push(format!("n={}", new.n));
    }
    if old.tail != new.tail {
        changes.push(format!("tail={}", new.tail));
    }
    if old.dense != new.dense {
        changes.push(format!("dense={}", new.dense));
    }
    if old.select != new.select {
        changes.push(format!("select={}", new.select));
    }
    changes.join(",")
}
