//! The engine thread: handles requests between steps, and has every lane take its turn.

mod answers;
mod compare;
#[cfg(debug_assertions)]
pub(crate) mod fault;
mod lanes;
mod requests;
mod round;
mod sessions;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
};

use self::lanes::Lanes;
use super::{
    EngineOptions, EventKind, Lane, LaneCard, Publisher, Request, SessionId, Started,
    lane::{
        LaneState,
        machine::{DECODE_ROWS, Machine},
    },
    session::{Session, inspect::Inspection},
};
use crate::{
    kernels::heap,
    model::{Device, LanguageModel},
};

/// Bytes of pages dropped since the last time, from where on an idle engine gives memory back to the system.
const WORTH_TRIMMING: u64 = 64 << 20;

/// Everything the engine thread owns.
pub(super) struct Worker {
    machine: Machine,
    lanes: Lanes,
    sessions: BTreeMap<SessionId, Session>,
    publisher: Publisher,
    /// Steps that served several lanes at once.
    shared_steps: u64,
    /// How many answers were asked for.
    orders: u64,
    /// Answers that may wait in a lane.
    queue: usize,
    /// The sequence that is looked at.
    inspected: Option<Inspection>,
    /// The most bytes that the lanes held since memory was given back to the system.
    most_held: u64,
}

impl Worker {
    pub(super) fn new(
        model: Arc<LanguageModel>,
        device: Box<dyn Device>,
        options: EngineOptions,
        publisher: Publisher,
    ) -> Self {
        let shape = model.cache_shape();
        let mut machine = Machine::new(model, device, options.prefill_chunk);
        let lanes = options.lanes.iter().map(|lane| LaneState::new(lane, &options, shape, publisher.clone()));
        let mut lanes = Lanes::new(lanes.collect());
        lanes.iter_mut().for_each(|state| state.reserve_rows(&mut machine, DECODE_ROWS));
        Self {
            machine,
            lanes,
            sessions: BTreeMap::new(),
            publisher,
            shared_steps: 0,
            orders: 0,
            queue: options.queue,
            inspected: None,
            most_held: 0,
        }
    }

    /// Works until [`Request::Shutdown`] comes or nobody can send requests any more.
    pub(super) fn run(&mut self, requests: &Receiver<Request>) {
        self.report(true);
        loop {
            loop {
                match requests.try_recv() {
                    Ok(Request::Shutdown) | Err(TryRecvError::Disconnected) => return self.shutdown(),
                    Ok(request) => self.handle(request),
                    Err(TryRecvError::Empty) => break,
                }
            }
            if self.round() {
                self.report(false);
                continue;
            }
            self.report(true);
            self.check_ledger();
            self.trim();
            match requests.recv() {
                Ok(Request::Shutdown) | Err(_) => return self.shutdown(),
                Ok(request) => self.handle(request),
            }
        }
    }

    /// What runs, for the first event.
    pub(super) fn started(&self) -> Started {
        let Machine { model, device, .. } = &self.machine;
        let shape = &model.shape;
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
            context: model.context(),
            weight_bytes: device.weight_bytes(),
            threads: device.threads(),
            simulated: device.is_simulated(),
            lanes: lanes.collect(),
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
        let weight_bytes = self.machine.device.weight_bytes();
        self.lanes.iter_mut().for_each(|state| state.report(weight_bytes, now));
    }

    /// Bytes that the lanes hold.
    fn held(&self) -> u64 {
        self.lanes.iter().map(LaneState::held).sum()
    }

    /// Gives memory back to the system once enough pages were dropped. A busy engine keeps it for the next sequences.
    fn trim(&mut self) {
        let held = self.held();
        if self.most_held >= held + WORTH_TRIMMING {
            self.most_held = held;
            heap::trim();
        }
    }

    fn check_ledger(&self) {
        self.lanes.iter().for_each(LaneState::check_ledger);
        if let Err(message) = self.machine.check() {
            self.error(None, None, message);
        }
    }

    fn error(&self, lane: Option<Lane>, session: Option<SessionId>, message: String) {
        self.publisher.publish(EventKind::Error { lane, session, message });
    }

    fn unknown(&self, session: SessionId) {
        self.error(None, Some(session), format!("there is no session {}", session.0));
    }
}
