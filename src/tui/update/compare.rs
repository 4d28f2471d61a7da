//! Compare mode on and off.

use super::sessions::open_next;
use crate::{
    engine::{Lane, Request},
    tui::{command::Command, state::State},
};

/// Switches compare mode of the session on show; without one a session is opened for it.
pub fn switch(state: &mut State) -> Vec<Command> {
    if state.stopped.is_some() {
        state.toast("the engine has ended; nothing can be compared any more", true);
        return Vec::new();
    }
    let mut commands = Vec::new();
    if state.session().is_none() {
        commands = open_next(state);
    }
    let Some(session) = state.session() else { return commands };
    if session.lanes.len() < Lane::ALL.len() {
        state.toast("this session runs in one lane: there is nothing to compare it with", true);
        return commands;
    }
    let (id, on, busy) = (session.id, !session.compare, session.busy());
    let text = match (on, busy) {
        (true, false) => "comparing: both lanes are fed what KV says, from the next message on",
        (true, true) => "comparing from the next message on; this answer goes on as it is",
        (false, _) => "no longer comparing: each lane goes its own way",
    };
    state.toast(text, false);
    commands.push(Command::Engine(Request::Compare { session: id, on }));
    commands
}
