//! The one stream of events: tokens are never lost, telemetry is bounded and its losses are counted.
//!
//! A queue with two rules. What the conversation is made of (tokens, ends, errors, knobs) is always kept: there is no
//! more of it than the sessions' contexts hold. Telemetry (steps, ledgers, hits, progress, samples) is dropped while
//! [`TELEMETRY_BOUND`] of it waits, so that a reader who sleeps costs a bounded amount of memory, and is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::engine::{Event, EventKind};

/// Telemetry events that may wait to be read.
pub const TELEMETRY_BOUND: usize = 1024;

#[derive(Debug, Default)]
struct EventQueue {
    waiting: VecDeque<Event>,
    telemetry: usize,
    dropped: u64,
    /// What `dropped` was when the reader was last told.
    reported: u64,
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<EventQueue>,
    arrived: Condvar,
    started: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, EventQueue> {
        // The queue is whole between any two statements, also after a panic elsewhere.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing end; clones write to the same stream with the same clock.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Shared>);

/// The reading end.
#[derive(Debug)]
pub struct Events(Arc<Shared>);

/// A new stream, whose clock starts now.
pub fn stream() -> (Publisher, Events) {
    let queue = Mutex::new(EventQueue::default());
    let shared = Arc::new(Shared { queue, arrived: Condvar::new(), started: Instant::now() });
    (Publisher(Arc::clone(&shared)), Events(shared))
}

impl Publisher {
    /// Adds an event, stamped with the time since the stream began. Never blocks.
    pub fn publish(&self, kind: EventKind) {
        let t_ms = self.0.started.elapsed().as_secs_f64() * 1e3;
        let telemetry = is_telemetry(&kind);
        let ends = matches!(kind, EventKind::Stopped { .. });
        let mut queue = self.0.lock();
        if queue.ended {
            return;
        }
        if telemetry && queue.telemetry >= TELEMETRY_BOUND {
            queue.dropped += 1;
            return;
        }
        if queue.dropped > queue.reported && queue.telemetry < TELEMETRY_BOUND {
            queue.reported = queue.dropped;
            let count = queue.dropped;
            queue.waiting.push_back(Event { t_ms, kind: EventKind::Dropped { count } });
        }
        queue.telemetry += usize::from(telemetry);
        queue.ended = ends;
        queue.waiting.push_back(Event { t_ms, kind });
        drop(queue);
        self.0.arrived.notify_one();
    }
}

impl Events {
    /// The next event; waits for it. `None` once [`EventKind::Stopped`] has been read.
    pub fn recv(&self) -> Option<Event> {
        let mut queue = self.0.lock();
        loop {
            if let Some(event) = take(&mut queue) {
                return Some(event);
            }
            if queue.ended {
                return None;
            }
            queue = self.0.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next event, waiting for it no longer than `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now() + timeout;
        let mut queue = self.0.lock();
        loop {
            if let Some(event) = take(&mut queue) {
                return Some(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if queue.ended || left.is_zero() {
                return None;
            }
            queue = self.0.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next event if one waits.
    pub fn try_recv(&self) -> Option<Event> {
        take(&mut self.0.lock())
    }

    /// Whether the stream has ended and everything was read.
    pub fn is_finished(&self) -> bool {
        let queue = self.0.lock();
        queue.ended && queue.waiting.is_empty()
    }
}

fn take(queue: &mut EventQueue) -> Option<Event> {
    let event = queue.waiting.pop_front()?;
    queue.telemetry -= usize::from(is_telemetry(&event.kind));
    Some(event)
}

/// Whether an event may be lost: the next one of its kind says it again.
fn is_telemetry(kind: &EventKind) -> bool {
    match kind {
        EventKind::Prefill { .. }
        | EventKind::Step(_)
        | EventKind::Ledger(_)
        | EventKind::Queue(_)
        | EventKind::Hits(_)
        | EventKind::Read(_)
        | EventKind::Coverage(_)
        | EventKind::Probe(_)
        | EventKind::Host(_)
        | EventKind::Gpu(_) => true,
        EventKind::Started(_)
        | EventKind::Session { .. }
        | EventKind::Closed { .. }
        | EventKind::Said { .. }
        | EventKind::Token(_)
        | EventKind::CompareMode { .. }
        | EventKind::Text { .. }
        | EventKind::Compare(_)
        | EventKind::Unlocked { .. }
        | EventKind::Scheduled { .. }
        | EventKind::Knob { .. }
        | EventKind::Guard(_)
        | EventKind::Finished(_)
        | EventKind::Error { .. }
        | EventKind::Dropped { .. }
        | EventKind::Stopped { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Lane, SessionId};

    fn progress(done: usize) -> EventKind {
        EventKind::Prefill { session: SessionId(1), lane: Some(Lane::Kv), step: 1, done, total: 9 }
    }

    #[test]
    fn telemetry_is_bounded_and_losses_are_told_while_the_rest_is_kept() {
        let (publisher, events) = stream();
        for done in 0..TELEMETRY_BOUND + 5 {
            publisher.publish(progress(done));
            publisher.publish(EventKind::Closed { session: SessionId(done as u32) });
        }
        let mut kinds = Vec::new();
        while let Some(event) = events.try_recv() {
            kinds.push(event.kind);
        }
        let count = |wanted: fn(&EventKind) -> bool| kinds.iter().filter(|kind| wanted(kind)).count();
        assert_eq!(count(|kind| matches!(kind, EventKind::Closed { .. })), TELEMETRY_BOUND + 5);
        assert_eq!(count(|kind| matches!(kind, EventKind::Prefill { .. })), TELEMETRY_BOUND);
        publisher.publish(progress(0));
        assert_eq!(events.try_recv().map(|event| event.kind), Some(EventKind::Dropped { count: 5 }));
    }

    #[test]
    fn a_waiting_reader_is_woken_and_the_end_is_the_end() {
        let (publisher, events) = stream();
        let reader = std::thread::spawn(move || std::iter::from_fn(|| events.recv()).count());
        publisher.publish(progress(1));
        publisher.publish(EventKind::Stopped { error: None });
        publisher.publish(progress(2));
        assert_eq!(reader.join().unwrap(), 2);
    }
}
