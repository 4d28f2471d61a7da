//! Starting and stopping the engine: one OS thread owns the device, the lanes and the sessions.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{EngineOptions, EventKind, Events, Lane, Publisher, Request, api::event_queue::stream, worker::Worker};
use crate::{
    cache::ProfileError,
    model::{CpuDevice, LanguageModel},
};

/// Requests that may wait to be handled.
const REQUESTS_BOUND: usize = 64;

/// Why an engine did not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// No lane, or one twice.
    #[error("an engine runs one or two different lanes, not {0:?}")]
    Lanes(Vec<Lane>),
    /// A count that must not be 0.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A policy's profile cannot be used with the model.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The operating system gave no thread.
    #[error("the engine thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The pause between two looks at an engine that is to end.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running engine. Dropping it stops it and waits for that; [`Engine::stop_within`] waits no longer than it is told.
#[derive(Debug)]
pub struct Engine {
    ops: SyncSender<Request>,
    publisher: Publisher,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts an engine on `model`. Its first event is [`EventKind::Started`], its last [`EventKind::Stopped`].
    pub fn start(model: Arc<LanguageModel>, mut options: EngineOptions) -> Result<(Self, Events), EngineError> {
        let lanes: Vec<Lane> = options.lanes.iter().map(|lane| lane.lane).collect();
        if lanes.is_empty() || lanes.iter().enumerate().any(|(index, lane)| lanes[..index].contains(lane)) {
            return Err(EngineError::Lanes(lanes));
        }
        let counts = [("threads", options.threads), ("prefill_chunk", options.prefill_chunk), ("queue", options.queue)];
        for (name, count) in counts {
            if count == 0 {
                return Err(EngineError::Zero(name));
            }
        }
        if options.guard.window == 0 {
            return Err(EngineError::Zero("the guard's window"));
        }
        for lane in &mut options.lanes {
            lane.policy = lane.policy.on(model.id())?;
        }
        let (ops, requests) = sync_channel(REQUESTS_BOUND);
        let (publisher, events) = stream();
        let output = publisher.clone();
        let (starting, started) = sync_channel::<()>(0);
        let thread = thread::Builder::new().name("engine".into()).spawn(move || {
            // A panic ends the engine, not the program: whoever reads the events still has a screen to say so on.
            let run = AssertUnwindSafe(|| {
                let device = CpuDevice::new(Arc::clone(&model), options.threads);
                let mut worker = Worker::new(model, Box::new(device), options, output.clone());
                output.publish(EventKind::Started(worker.started()));
                drop(starting);
                worker.run(&requests);
            });
            let error = panic::catch_unwind(run).err().map(|payload| {
                let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                format!("the engine stopped: {}", text.as_deref().unwrap_or("a panic without a message"))
            });
            output.publish(EventKind::Stopped { error });
        })?;
        // Whoever is given the publisher, a sampler for one, comes after the first event. Nothing is ever sent: the
        // wait ends when the other end has gone, also in a panic.
        let _ = started.recv();
        Ok((Self { ops, publisher, thread: Some(thread) }, events))
    }

    /// Where requests go. Sending blocks while 64 of them wait; after the engine's end it fails.
    pub fn ops(&self) -> SyncSender<Request> {
        self.ops.clone()
    }

    /// A writer to the engine's stream of events, for samplers.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Stops it. Whether it has ended within `limit`: a step, a template or a table that takes longer is not waited for,
    /// and its thread ends when that is done, or with the process.
    pub fn stop_within(mut self, limit: Duration) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        let began = Instant::now();
        // The channel may be full.
        while matches!(self.ops.try_send(Request::Shutdown), Err(TrySendError::Full(_))) && began.elapsed() < limit {
            thread::sleep(LOOK_EVERY);
        }
        while !thread.is_finished() && began.elapsed() < limit {
            thread::sleep(LOOK_EVERY);
        }
        let ended = thread.is_finished();
        if ended {
            let _ = thread.join();
        }
        ended
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Both fail only where the engine has ended by itself.
            let _ = self.ops.send(Request::Shutdown);
            let _ = thread.join();
        }
    }
}
