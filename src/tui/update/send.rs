//! What is written in the composer is sent, or carried out where it is a command.

use crate::{
    cache::{Knobs, Policy},
    engine::{Request, StopSequences},
    tui::{
        command::{Command, FilePurpose},
        input::{
            action::Action,
            slash::{self, Slash},
        },
        state::{Focus, State, session::Outgoing},
    },
};

use super::{
    copy, export, knobs,
    messages::{edit, stop, submit},
    navigation::show_help,
    sessions::{ask_to_close, new_session, open, open_with, rename, select},
    workload,
};

pub fn send(state: &mut State) -> Vec<Command> {
    let composer = state.composer();
    let text = composer.text();
    if let Some(command) = slash::parse(&text) {
        // Also a wrong one: it would swallow what is written next. The history has it, to be mended.
        state.composer_mut().take();
        return match command {
            Ok(command) => run(state, command),
            Err(error) => {
                state.toast(error, true);
                Vec::new()
            }
        };
    }
    if text.trim().is_empty() {
        if let Some(document) = &composer.document {
            let hint = format!("{} is attached: ask something about it", document.name);
            state.toast(hint, false);
        }
        return Vec::new();
    }
    let mut commands = Vec::new();
    let text = state.composer_mut().take();
    let document = state.composer_mut().document.take();
    if state.session().is_none() {
        let name = text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        let (id, command) = open(state, name);
        commands.push(command);
        select(state, id);
    }
    state.greeted = true;
    let text = text.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(&text).to_owned();
    if let Some(id) = state.session().map(|session| session.id) {
        commands.extend(submit(state, id, Outgoing { text, document }));
    }
    commands
}

fn run(state: &mut State, command: Slash) -> Vec<Command> {
    match command {
        Slash::File { path, question } => {
            // The demo's sessions are about their own documents: a file of the user's begins a session of its own.
            let here = state.session().filter(|session| !session.demo).map(|session| session.id);
            vec![Command::ReadFile { path, purpose: FilePurpose { session: here, question } }]
        }
        Slash::Open { path, question } => {
            vec![Command::ReadFile { path, purpose: FilePurpose { session: None, question } }]
        }
        Slash::New(name) => {
            let name = name.unwrap_or_else(|| format!("session {}", state.next_id));
            new_session(state, name)
        }
        Slash::Rename(name) => rename(state, name),
        Slash::Close => ask_to_close(state),
        Slash::Stop => stop(state),
        Slash::Copy => copy::copy(state),
        Slash::Export(path) => export::ask(state, path),
        Slash::Edit => edit(state),
        Slash::System(text) => system(state, text),
        Slash::StopAt(text) => {
            stop_at(state, text);
            Vec::new()
        }
        Slash::Load(None) => {
            workload::open(state);
            Vec::new()
        }
        Slash::Load(Some(spec)) => workload::start(state, spec).unwrap_or_else(|error| {
            state.toast(error, true);
            Vec::new()
        }),
        Slash::N(n) => match state.policy() {
            Some(Policy::KCache(knobs)) => knobs::set(state, Knobs { n, ..knobs }),
            _ => knobs::change(state, Action::NUp),
        },
        Slash::Policy(Policy::KCache(knobs)) => knobs::set(state, knobs),
        Slash::Policy(Policy::Kv | Policy::KvQ8) => {
            state.toast("a lane keeps its kind: this one stays kcache; the other runs beside it", true);
            Vec::new()
        }
        Slash::Guard(mode) => knobs::guard(state, mode),
        Slash::Keep => knobs::keep(state),
        Slash::Help => {
            show_help(state);
            Vec::new()
        }
        Slash::Quit => vec![Command::Quit],
    }
}

/// Gives the session on show a system message while nothing was said in it; else opens a new one with it.
fn system(state: &mut State, text: String) -> Vec<Command> {
    state.focus = Focus::Composer;
    if let Some(session) = state.session_mut().filter(|session| session.turns.is_empty() && !session.demo) {
        session.system = Some(text.clone());
        return vec![Command::Engine(Request::SetSystem { session: session.id, system: text })];
    }
    let name = format!("session {}", state.next_id);
    let (id, command) = open_with(state, name, Some(text));
    select(state, id);
    state.toast("a new session begins with this system message", false);
    vec![command]
}

/// Adds a stop sequence for the answers to come, or takes all away.
fn stop_at(state: &mut State, text: Option<String>) {
    let mut texts = Vec::from(state.stop.clone());
    match text {
        Some(text) if texts.contains(&text) => {}
        Some(text) => texts.push(text),
        None => texts.clear(),
    }
    match StopSequences::try_from(texts) {
        Ok(stop) => {
            let quoted: Vec<String> = stop.texts().iter().map(|text| format!("{text:?}")).collect();
            let notice = match &quoted[..] {
                [] => "from the next message on, no text ends an answer".to_owned(),
                all => format!("from the next message on, answers end before {}", all.join(" or ")),
            };
            state.stop = stop;
            state.toast(notice, false);
        }
        Err(error) => state.toast(format!("/stop-at: {error}; /stop-at alone takes all away"), true),
    }
}
