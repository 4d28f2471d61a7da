//! Messages on their way to the engine, and what stops their answers.

use crate::{
    document::Opened,
    engine::{GenerationOptions, Priority, Request, SessionId},
    tui::{
        command::{Command, FilePurpose},
        state::{Focus, Preset, State, TOAST_MS, session::Outgoing},
    },
};

use super::sessions::{open, select};

/// A second ctrl-c within this many milliseconds quits: as long as the notice that says so is on the screen.
const AGAIN_MS: f64 = TOAST_MS;

/// A message that the user wrote: it goes at once, or as soon as the session has answered what came before. The user
/// takes a demo session over with it.
pub fn submit(state: &mut State, id: SessionId, message: Outgoing) -> Vec<Command> {
    let Some(session) = state.by_id(id) else { return Vec::new() };
    let was_demo = std::mem::replace(&mut session.demo, false);
    if !session.busy() {
        return say(state, id, message, Priority::Typed);
    }
    session.queued = Some(match session.queued.take() {
        Some(before) => Outgoing {
            text: format!("{}\n{}", before.text, message.text),
            document: message.document.or(before.document),
        },
        None => message,
    });
    if was_demo { vec![Command::Engine(Request::Stop { session: id, lane: None })] } else { Vec::new() }
}

/// Hands a message to the engine.
pub fn say(state: &mut State, id: SessionId, message: Outgoing, priority: Priority) -> Vec<Command> {
    if state.stopped.is_some() {
        state.toast("the engine has ended; nothing can be asked any more", true);
        return Vec::new();
    }
    let options = GenerationOptions {
        sampling: state.sampling,
        max_tokens: state.max_tokens,
        ignore_eos: false,
        stop: state.stop.clone(),
        priority,
    };
    let Some(session) = state.by_id(id) else { return Vec::new() };
    let Outgoing { text, document } = message;
    session.send(text.clone(), document.as_ref());
    vec![Command::Engine(Request::SubmitMessage { session: id, document, text, options })]
}

pub fn file_read(state: &mut State, purpose: FilePurpose, result: Result<Opened, String>) -> Vec<Command> {
    let Opened { document, notice } = match result {
        Ok(opened) => opened,
        Err(error) => {
            state.toast(error, true);
            return Vec::new();
        }
    };
    let mut commands = Vec::new();
    let existing = purpose.session.and_then(|id| state.sessions.iter().position(|session| session.id == id));
    match existing {
        Some(at) => state.selected = at,
        None => {
            let (id, command) = open(state, document.name.clone());
            commands.push(command);
            select(state, id);
        }
    }
    let Some(session) = state.sessions.get_mut(state.selected) else { return commands };
    let id = session.id;
    let said = match purpose.question {
        Some(text) => {
            commands.extend(submit(state, id, Outgoing { text, document: Some(document) }));
            None
        }
        None => {
            let name = document.name.clone();
            session.composer.document = Some(document);
            Some(format!("{name} goes with your next message here"))
        }
    };
    // That it goes with the message stands beside the composer as well.
    if let Some(said) = notice.or(said) {
        state.toast(said, false);
    }
    commands
}

/// A message comes back from the editor, into the session that it was taken from.
pub fn edited(state: &mut State, session: Option<SessionId>, result: Result<String, String>) {
    match result {
        Ok(text) => {
            let composer = match session.and_then(|id| state.by_id(id)) {
                Some(session) => &mut session.composer,
                None => state.composer_mut(),
            };
            composer.set("");
            composer.paste(&text);
            if matches!(state.preset, Preset::Both | Preset::Chat) {
                state.focus = Focus::Composer;
            }
        }
        Err(error) => state.toast(format!("{error}; the message is as it was"), true),
    }
}

/// Opens the message being written in the user's editor.
pub fn edit(state: &State) -> Vec<Command> {
    let (session, text) = (state.session().map(|session| session.id), state.composer().text());
    vec![Command::Edit { session, text }]
}

/// Stops the answers of the session on show, and takes back what waits.
pub fn stop(state: &mut State) -> Vec<Command> {
    let Some(session) = state.session_mut() else { return Vec::new() };
    session.demo = false;
    if let Some(queued) = session.queued.take() {
        session.composer.restore(&queued.text, queued.document);
    }
    if !session.busy() {
        return Vec::new();
    }
    vec![Command::Engine(Request::Stop { session: session.id, lane: None })]
}

/// Ctrl-c: stops the answers on show, or asks where only others are under way. A second time, or with nothing under
/// way, it quits.
pub fn interrupt(state: &mut State) -> Vec<Command> {
    let again = state.interrupted_ms.is_some_and(|at| state.clock_ms - at <= AGAIN_MS);
    state.interrupted_ms = Some(state.clock_ms);
    if again || state.stopped.is_some() {
        return vec![Command::Quit];
    }
    let commands = stop(state);
    if !commands.is_empty() {
        state.toast("stopped; ctrl-c again quits", false);
        return commands;
    }
    let answering = state.sessions.iter().filter(|session| session.busy()).count();
    let under_way = match answering {
        _ if state.workload.load.is_active() => "a load is under way".to_owned(),
        0 => return vec![Command::Quit],
        1 => "another session still answers".to_owned(),
        _ => format!("{answering} other sessions still answer"),
    };
    state.toast(format!("{under_way}; ctrl-c again quits"), false);
    Vec::new()
}
