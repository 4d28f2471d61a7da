//! Opening, showing, naming and closing sessions.

use crate::{
    engine::{Lane, Request, SessionId},
    tui::{
        command::Command,
        state::{Focus, Overlay, State, session::Session},
    },
};

/// Opens a session in both lanes; it is not put on show.
pub fn open(state: &mut State, name: String) -> (SessionId, Command) {
    open_with(state, name, None)
}

/// The same with a system message.
pub fn open_with(state: &mut State, name: String, system: Option<String>) -> (SessionId, Command) {
    let id = SessionId(state.next_id);
    state.next_id += 1;
    let lanes = Lane::ALL.to_vec();
    let mut session = Session::new(id, name.clone(), lanes.clone());
    session.system.clone_from(&system);
    state.sessions.push(session);
    (id, Command::Engine(Request::Open { session: id, name, system, lanes }))
}

/// Puts a session on show.
pub fn select(state: &mut State, id: SessionId) {
    if let Some(at) = state.sessions.iter().position(|session| session.id == id) {
        state.selected = at;
    }
}

/// Opens a session under the next free name and puts it on show.
pub fn open_next(state: &mut State) -> Vec<Command> {
    let name = format!("session {}", state.next_id);
    new_session(state, name)
}

pub fn new_session(state: &mut State, name: String) -> Vec<Command> {
    let (id, command) = open(state, name);
    select(state, id);
    state.focus = Focus::Composer;
    vec![command]
}

pub fn rename(state: &mut State, name: String) -> Vec<Command> {
    let Some(session) = state.session_mut().filter(|_| !name.is_empty()) else { return Vec::new() };
    session.name.clone_from(&name);
    vec![Command::Engine(Request::Rename { session: session.id, name })]
}

/// Closes the session on show; asks first where something was said in it.
pub fn ask_to_close(state: &mut State) -> Vec<Command> {
    match state.session() {
        Some(session) if !session.turns.is_empty() => {
            state.overlay = Overlay::ConfirmClose;
            Vec::new()
        }
        Some(_) => close(state),
        None => Vec::new(),
    }
}

/// Closes the session on show.
pub fn close(state: &mut State) -> Vec<Command> {
    state.overlay = Overlay::None;
    if state.selected >= state.sessions.len() {
        return Vec::new();
    }
    let session = state.sessions.remove(state.selected);
    state.selected = state.selected.min(state.sessions.len().saturating_sub(1));
    state.closed.insert(session.id);
    vec![Command::Engine(Request::Close { session: session.id })]
}

pub fn open_demo(state: &mut State) -> Vec<Command> {
    if !state.demo.waiting() || state.started.is_none() || state.stopped.is_some() {
        return Vec::new();
    }
    let mut demo = std::mem::take(&mut state.demo);
    let mut commands = Vec::new();
    demo.open(|name| {
        let (id, command) = open(state, name.to_owned());
        if let Some(session) = state.by_id(id) {
            session.demo = true;
        }
        commands.push(command);
        id
    });
    state.demo = demo;
    state.changed = true;
    commands
}
