//! Reading an engine's events for as long as something has yet to happen.

use std::time::{Duration, Instant};

use kcache::engine::{Event, EventKind, Events};

/// Longer than any test takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reads events up to the one that `found` is true of.
pub fn until(events: &Events, mut found: impl FnMut(&EventKind) -> bool) -> Vec<Event> {
    let deadline = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    loop {
        let event = events.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        read.push(event.expect("what is waited for comes within two minutes"));
        if read.last().is_some_and(|event| found(&event.kind)) {
            return read;
        }
    }
}

/// Reads events until `enough` answers have ended.
pub fn until_finished(events: &Events, mut enough: usize) -> Vec<Event> {
    assert!(enough > 0, "somebody answers");
    until(events, |kind| {
        enough -= usize::from(matches!(kind, EventKind::Finished(_)));
        enough == 0
    })
}
