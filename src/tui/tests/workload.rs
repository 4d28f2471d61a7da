//! A load from its form to its end, as the screen shows it.

use super::*;
use crate::{
    bench::is_workload,
    engine::{FinishReason, Finished, Scheduling, Usage},
};

/// Has the engine open and accept what these commands ask for, and let it wait.
fn take(state: &mut State, commands: &[Command]) -> Vec<SessionId> {
    let mut ids = Vec::new();
    for op in ops(commands) {
        if let Request::Open { session, name, lanes, .. } = op {
            let session = *session;
            ids.push(session);
            let opened = EventKind::Session { session, name: name.clone(), lanes: lanes.clone(), system: None };
            let said = EventKind::Said { session, document: None, text: "80 tokens".into() };
            let waits = Lane::ALL.map(|lane| scheduled(session, lane, Scheduling::Waiting));
            [opened, said].into_iter().chain(waits).for_each(|kind| engine(state, kind));
        }
    }
    ids
}

fn scheduled(session: SessionId, lane: Lane, state: Scheduling) -> EventKind {
    EventKind::Scheduled { lane, session, step: 1, state }
}

fn engine(state: &mut State, kind: EventKind) {
    let t_ms = state.engine_ms;
    update(state, Message::Engine(Event { t_ms, kind }));
}

fn end(state: &mut State, session: SessionId, reason: FinishReason) {
    for lane in Lane::ALL {
        engine(state, EventKind::Finished(Finished { lane, session, step: 1, reason, usage: Usage::default() }));
    }
    engine(state, EventKind::Closed { session });
}

#[test]
fn the_form_starts_a_load_that_is_one_entry_and_is_stopped_and_cancelled() {
    let mut state = fixture::state(80, 24);
    let sessions = state.sessions.len();
    press(&mut state, &["alt-w"]);
    insta::assert_snapshot!("workload_form_80x24", text(&state));
    // Three sessions of 80 tokens, one every second.
    for _ in 0..2 {
        press(&mut state, &["backspace"]);
    }
    typed(&mut state, "3");
    press(&mut state, &["down", "backspace", "backspace", "backspace", "backspace"]);
    typed(&mut state, "80");
    press(&mut state, &["down", "down"]);
    typed(&mut state, "60");
    press(&mut state, &["down", "right"]);
    let commands = press(&mut state, &["enter"]);
    assert_eq!(state.overlay, Overlay::None);
    assert!(
        matches!(&ops(&commands)[..], [Request::Open { .. }, Request::SubmitTokens { tokens, once: true, .. }] if tokens.len() == 80)
    );
    let first = take(&mut state, &commands);
    assert!(is_workload(first[0]));
    let now = state.clock_ms;
    assert!(ops(&update(&mut state, Message::Tick(now + 500.0))).is_empty());
    let commands = update(&mut state, Message::Tick(now + 1_000.0));
    let second = take(&mut state, &commands);
    // The session on show has nothing to stop: ctrl-c asks.
    press(&mut state, &["alt-j", "alt-j"]);
    assert_eq!(press(&mut state, &["ctrl-c"]), []);
    assert!(text(&state).contains("a load is under way; ctrl-c again quits"), "{}", text(&state));
    press(&mut state, &["alt-j"]);
    state.toasts.clear();
    engine(&mut state, scheduled(first[0], Lane::KCache, Scheduling::Running));
    assert_eq!(state.sessions.len(), sessions, "its sessions do not flood the list");
    assert!(state.next_id < 100);

    insta::assert_snapshot!("workload_list_80x24", text(&state));
    press(&mut state, &["alt-w"]);
    insta::assert_snapshot!("workload_table_80x24", text(&state));
    // The same key again: no more come.
    press(&mut state, &["w"]);
    assert!(ops(&update(&mut state, Message::Tick(now + 9_000.0))).is_empty());
    end(&mut state, first[0], FinishReason::Length);
    // And once more: what is left is closed.
    let commands = press(&mut state, &["w"]);
    assert_eq!(ops(&commands), [&Request::Close { session: second[0] }]);
    end(&mut state, second[0], FinishReason::Cancelled);
    press(&mut state, &["esc"]);
    let screen = text(&state);
    assert!(screen.contains("load: 2 sessions came; kcache: 1 finished, 1 cancelled"), "{screen}");
    assert!(screen.contains("● 2   ○ 2   done"), "{screen}");
    // The form is there for the next one, as it was written.
    press(&mut state, &["alt-w"]);
    let screen = text(&state);
    assert!(screen.contains("enter starts it") && state.workload.form.values[1] == "80", "{screen}");
}

#[test]
fn what_cannot_be_is_said_in_the_form() {
    let mut state = fixture::state(80, 24);
    press(&mut state, &["alt-w", "down"]);
    typed(&mut state, "99");
    let commands = press(&mut state, &["enter"]);
    assert!(ops(&commands).is_empty());
    let screen = text(&state);
    assert!(screen.contains("context=102499 and tokens=64 are more") && screen.contains("smaller"), "{screen}");
    press(&mut state, &["backspace", "backspace", "backspace", "backspace", "backspace", "backspace"]);
    press(&mut state, &["enter"]);
    let screen = text(&state);
    assert!(screen.contains("context is a whole number"), "{screen}");
    press(&mut state, &["left", "right", "right", "right", "esc"]);
    assert_eq!((state.workload.form.values[1].as_str(), &state.overlay), ("8", &Overlay::None));
}

#[test]
fn a_refusal_stands_beside_the_counts_and_is_no_notice() {
    let mut state = fixture::state(120, 40);
    typed(&mut state, "/load sessions=1,context=100");
    let commands = press(&mut state, &["enter"]);
    let Request::Open { session, lanes, .. } = ops(&commands)[0].clone() else { panic!("{commands:?}") };
    engine(&mut state, EventKind::Session { session, name: "load 1".into(), lanes, system: None });
    let message = "the queue is full, 256 answers wait in it: try again when one has started".to_owned();
    let error = EventKind::Error { lane: Some(Lane::KCache), session: Some(session), message };
    let t_ms = state.engine_ms;
    let commands = update(&mut state, Message::Engine(Event { t_ms, kind: error }));
    assert_eq!(ops(&commands), [&Request::Close { session }]);
    press(&mut state, &["alt-w"]);
    assert!(text(&state).contains("the queue is full, 256 answers"), "{}", text(&state));
    assert!(state.toasts.is_empty());
}

#[test]
fn a_load_of_the_command_line_begins_when_the_engine_is_up() {
    let mut state = fixture::empty(80, 24);
    state.workload.wanted = Some("sessions=2,context=64".parse().unwrap());
    assert!(update(&mut state, Message::Tick(100.0)).is_empty());
    for event in fixture::events().into_iter().take(1) {
        update(&mut state, Message::Engine(event));
    }
    assert_eq!(ops(&update(&mut state, Message::Tick(200.0))).len(), 4);
    assert!(update(&mut state, Message::Tick(300.0)).is_empty());
}
