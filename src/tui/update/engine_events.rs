//! What the events of the engine change.

use crate::{
    bench::is_workload,
    engine::{Event, EventKind, Lane, Priority, Started},
    quality::GuardState,
};

use super::{messages::say, workload};
use crate::tui::{
    command::Command,
    state::{State, session::Session},
};

pub fn apply(state: &mut State, event: Event) -> Vec<Command> {
    let t_ms = event.t_ms;
    if t_ms.is_finite() {
        state.engine_ms = state.engine_ms.max(t_ms);
    }
    // The first session of a load is the first sign of it, also in a recorded run.
    if matches!(event.kind, EventKind::Session { session, .. } if is_workload(session))
        && state.workload.load.arrived() == 0
    {
        state.metrics.load_begins();
    }
    state.metrics.answers(t_ms, &event.kind);
    if let Some(commands) = workload::note(state, &event.kind) {
        return commands;
    }
    let mut commands = Vec::new();
    match event.kind {
        EventKind::Started(started) => begin(state, started),
        EventKind::Session { session, .. } if state.closed.contains(&session) => {}
        EventKind::Session { session, name, lanes, system } => match state.by_id(session) {
            Some(known) => {
                known.name = name;
                known.lanes = lanes;
                known.system = system;
            }
            None => {
                state.next_id = state.next_id.max(session.0.saturating_add(1));
                let mut opened = Session::new(session, name, lanes);
                opened.system = system;
                state.sessions.push(opened);
            }
        },
        EventKind::Closed { session } => {
            if let Some(at) = state.sessions.iter().position(|known| known.id == session) {
                state.sessions.remove(at);
                if at < state.selected || state.selected == state.sessions.len() {
                    state.selected = state.selected.saturating_sub(1);
                }
            }
        }
        EventKind::Said { session, document, text } => {
            if let Some(session) = state.by_id(session) {
                session.said(text, document);
            }
        }
        EventKind::Prefill { session, lane, done, total, .. } => {
            if let Some(session) = state.by_id(session) {
                session.prefill(lane, t_ms, done, total);
            }
        }
        EventKind::Token(token) => {
            state.metrics.lanes[token.lane as usize].token(t_ms, &token);
            if let Some(session) = state.by_id(token.session) {
                session.token(&token);
            }
        }
        EventKind::Step(step) => state.metrics.step(t_ms, &step),
        EventKind::Ledger(ledger) => {
            let wanted = &mut state.wanted_budgets[ledger.lane as usize];
            if *wanted == Some(ledger.budget_bytes) {
                *wanted = None;
            }
            state.metrics.lanes[ledger.lane as usize].ledger(t_ms, &ledger);
        }
        EventKind::Queue(queue) => state.metrics.lanes[queue.lane as usize].queue(t_ms, queue),
        EventKind::Scheduled { lane, session, state: scheduling, .. } => {
            if let Some(session) = state.by_id(session) {
                session.scheduled(lane, scheduling);
            }
        }
        EventKind::Probe(probe) => {
            state.metrics.probed(t_ms, &probe);
            if let Some(session) = state.by_id(probe.session) {
                session.probe(&probe);
            }
        }
        EventKind::Guard(guarded) => {
            if let Some(session) = state.by_id(guarded.session) {
                session.guard = (guarded.state != GuardState::TopN).then_some((guarded.state, guarded.reason));
            }
        }
        EventKind::Read(read) if read.lane == Lane::KCache => state.attention.read(read),
        EventKind::Coverage(coverage) if coverage.lane == Lane::KCache => state.attention.coverage(coverage),
        EventKind::Text { session, lane: Lane::KCache, from, texts } => state.attention.text(session, from, texts),
        // Nothing looks at the other lane, which reads every row.
        EventKind::Read(_) | EventKind::Coverage(_) | EventKind::Text { .. } => {}
        EventKind::CompareMode { session, on } => {
            if let Some(session) = state.by_id(session) {
                session.compare = on;
            }
        }
        EventKind::Compare(compare) => {
            state.metrics.compared(t_ms, &compare);
            if let Some(session) = state.by_id(compare.session) {
                session.compared(&compare);
            }
        }
        EventKind::Unlocked { session, index, reason } => {
            if let Some(session) = state.by_id(session) {
                session.unlocked(index, reason);
            }
        }
        EventKind::Hits(hits) => state.metrics.lanes[hits.lane as usize].hits(t_ms, hits),
        EventKind::Knob { lane, change, policy, .. } => {
            state.metrics.lanes[lane as usize].policy = Some(policy);
            state.metrics.knob_changed(t_ms, lane, change);
            if lane == Lane::KCache && state.wanted == Some(policy) {
                state.wanted = None;
            }
        }
        EventKind::Finished(finished) => {
            let id = finished.session;
            let next = state.by_id(id).and_then(|session| {
                session.finished(&finished);
                if session.busy() { None } else { session.queued.take() }
            });
            if let Some(message) = next {
                commands.extend(say(state, id, message, Priority::Typed));
            }
        }
        EventKind::Error { lane, session, message } => error(state, lane, session, &message),
        EventKind::Host(sample) => state.metrics.host(t_ms, sample),
        EventKind::Gpu(sample) => state.metrics.gpu(t_ms, sample),
        EventKind::Dropped { count } => state.dropped = count,
        EventKind::Stopped { error } => ended(state, error),
    }
    commands
}

/// The engine has ended: nothing waits for it any longer, everything stays to be read.
pub(crate) fn ended(state: &mut State, error: Option<String>) {
    state.sessions.iter_mut().for_each(|session| session.failed(None, "the engine has ended"));
    state.wanted = None;
    state.wanted_budgets = [None; 2];
    state.stopped.get_or_insert(error);
}

fn begin(state: &mut State, started: Started) {
    for card in &started.lanes {
        state.metrics.lanes[card.lane as usize].card(card);
    }
    state.started = Some(started);
}

fn error(state: &mut State, lane: Option<Lane>, session: Option<crate::engine::SessionId>, message: &str) {
    let mut place = Vec::new();
    if let Some(session) = session.and_then(|id| state.by_id(id)) {
        session.failed(lane, message);
        place.push(session.name.clone());
    }
    place.extend(lane.map(|lane| lane.to_string()));
    state.wanted = None;
    let place = if place.is_empty() { String::new() } else { format!("{}: ", place.join(", ")) };
    state.toast(format!("{place}{message}"), true);
}
