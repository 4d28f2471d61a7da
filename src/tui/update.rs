//! The one place where the state changes: a message comes in, commands for the outside world go out. No I/O here.

use crossterm::event::KeyEventKind;

use crate::engine::{Lane, Request, SessionId};

use super::{
    command::{Command, FilePurpose},
    io::saved,
    message::Message,
    state::{
        Focus, Overlay, Preset, State, TOAST_MS, attention,
        session::{self, Session},
        workload,
    },
};
use crate::document::Opened;

/// A second ctrl-c within this many milliseconds quits: as long as the notice that says so is on the screen.
const AGAIN_MS: f64 = TOAST_MS;

/// Takes in a message.
pub fn update(state: &mut State, message: Message) -> Vec<Command> {
    let mut commands = take_in(state, message);
    commands.extend(attention::sync(state));
    commands
}

fn take_in(state: &mut State, message: Message) -> Vec<Command> {
    // Time alone changes little: `tick` says whether it did.
    state.changed |= !matches!(message, Message::Tick(_));
    match message {
        Message::Key(event) if event.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(event) => keys::key(state, event),
        Message::Paste(text) => {
            keys::paste(state, &text);
            Vec::new()
        }
        Message::Mouse(event) => {
            mouse::mouse(state, event);
            Vec::new()
        }
        Message::Resized(columns, rows) => {
            state.size = (columns, rows);
            Vec::new()
        }
        Message::Engine(event) => engine_events::apply(state, event),
        Message::SessionsRead(result) => match result {
            Ok(sessions) => saved::reopen(state, sessions),
            Err(error) => {
                state.toast(error, true);
                Vec::new()
            }
        },
        Message::SessionsSaved(result) => {
            if let Err(error) = result {
                state.toast(error, true);
            }
            Vec::new()
        }
        Message::EngineGone => {
            engine_events::ended(state, Some("the engine went away without a word".into()));
            Vec::new()
        }
        Message::Tick(now_ms) => tick(state, now_ms),
        Message::FileRead { purpose, result } => file_read(state, purpose, result),
        Message::Copied(result) => {
            match result {
                Ok(notice) => state.toast(notice, false),
                Err(error) => state.toast(format!("nothing was copied: {error}"), true),
            }
            Vec::new()
        }
        Message::Exported(result) => {
            match result {
                Ok(path) => state.toast(format!("session written to {}", path.display()), false),
                Err(error) => state.toast(format!("no export: {error}"), true),
            }
            Vec::new()
        }
        Message::Edited { session, result } => {
            edited(state, session, result);
            Vec::new()
        }
        Message::PictureWritten(result) => {
            match result {
                Ok(path) => state.toast(format!("picture written to {}", path.display()), false),
                Err(error) => state.toast(format!("no picture: {error}"), true),
            }
            Vec::new()
        }
        Message::SettingsKept(result) => {
            match result {
                Ok(line) => state.toast(line, false),
                Err(line) => state.toast(line, true),
            }
            Vec::new()
        }
        Message::Drawn { ms, bytes } => {
            state.changed = false;
            state.observer.drawn(ms, bytes);
            Vec::new()
        }
        Message::Terminated => vec![Command::Quit],
    }
}

fn tick(state: &mut State, now_ms: f64) -> Vec<Command> {
    let held = state.toasts.len();
    state.clock_ms = now_ms;
    state.toasts.retain(|toast| toast.until_ms > now_ms);
    let shown = state.observer;
    state.observer.tick(now_ms);
    state.changed |= held != state.toasts.len() || (shown.share.is_none() && state.observer.share.is_some());
    if state.frozen.is_none() {
        let span = state.span();
        state.axes.follow(&state.metrics, span);
    }
    let mut commands = open_demo(state);
    commands.extend(workload::tick(state));
    for (id, message) in state.demo.next(now_ms, &state.sessions) {
        state.changed = true;
        commands.extend(say(state, id, message, crate::engine::Priority::Background));
    }
    commands
}

/// A message comes back from the editor, into the session that it was taken from.
fn edited(state: &mut State, session: Option<SessionId>, result: Result<String, String>) {
    match result {
        Ok(text) => {
            let input = match session.and_then(|id| state.by_id(id)) {
                Some(session) => &mut session.input,
                None => state.input_mut(),
            };
            input.set("");
            input.paste(&text);
            if matches!(state.preset, Preset::Both | Preset::Chat) {
                state.focus = Focus::Input;
            }
        }
        Err(error) => state.toast(format!("{error}; the message is as it was"), true),
    }
}

fn open_demo(state: &mut State) -> Vec<Command> {
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

fn file_read(state: &mut State, purpose: FilePurpose, result: Result<Opened, String>) -> Vec<Command> {
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
            commands.extend(submit(state, id, session::Message { text, document: Some(document) }));
            None
        }
        None => {
            let name = document.name.clone();
            session.input.document = Some(document);
            Some(format!("{name} goes with your next message here"))
        }
    };
    // That it goes with the message stands beside the input as well.
    if let Some(said) = notice.or(said) {
        state.toast(said, false);
    }
    commands
}

/// Opens a session in both lanes; it is not put on show.
pub(super) fn open(state: &mut State, name: String) -> (SessionId, Command) {
    open_with(state, name, None)
}

/// The same with a system message.
pub(super) fn open_with(state: &mut State, name: String, system: Option<String>) -> (SessionId, Command) {
    let id = SessionId(state.next_id);
    state.next_id += 1;
    let lanes = Lane::ALL.to_vec();
    let mut session = Session::new(id, name.clone(), lanes.clone());
    session.system.clone_from(&system);
    state.sessions.push(session);
    (id, Command::Engine(Request::Open { session: id, name, system, lanes }))
}

/// Puts a session on show.
pub(super) fn select(state: &mut State, id: SessionId) {
    if let Some(at) = state.sessions.iter().position(|session| session.id == id) {
        state.selected = at;
    }
}

/// A message that the user wrote: it goes at once, or as soon as the session has answered what came before. The user
/// takes a demo session over with it.
pub(super) fn submit(state: &mut State, id: SessionId, message: session::Message) -> Vec<Command> {
    let Some(session) = state.by_id(id) else { return Vec::new() };
    let was_demo = std::mem::replace(&mut session.demo, false);
    if !session.busy() {
        return say(state, id, message, crate::engine::Priority::Typed);
    }
    session.queued = Some(match session.queued.take() {
        Some(before) => session::Message {
            text: format!("{}\n{}", before.text, message.text),
            document: message.document.or(before.document),
        },
        None => message,
    });
    if was_demo { vec![Command::Engine(Request::Stop { session: id, lane: None })] } else { Vec::new() }
}

/// Hands a message to the engine.
pub(super) fn say(
    state: &mut State,
    id: SessionId,
    message: session::Message,
    priority: crate::engine::Priority,
) -> Vec<Command> {
    if state.stopped.is_some() {
        state.toast("the engine has ended; nothing can be asked any more", true);
        return Vec::new();
    }
    let turn = crate::engine::GenerationOptions {
        sampling: state.sampling,
        max_tokens: state.max_tokens,
        ignore_eos: false,
        stop: state.stop.clone(),
        priority,
    };
    let Some(session) = state.by_id(id) else { return Vec::new() };
    let session::Message { text, document } = message;
    session.send(text.clone(), document.as_ref());
    vec![Command::Engine(Request::SubmitMessage { session: id, document, text, options: turn })]
}

/// Stops the answers of the session on show, and takes back what waits.
pub(super) fn stop(state: &mut State) -> Vec<Command> {
    let Some(session) = state.session_mut() else { return Vec::new() };
    session.demo = false;
    if let Some(queued) = session.queued.take() {
        session.input.restore(&queued.text, queued.document);
    }
    if !session.busy() {
        return Vec::new();
    }
    vec![Command::Engine(Request::Stop { session: session.id, lane: None })]
}

/// Closes the session on show.
pub(super) fn close(state: &mut State) -> Vec<Command> {
    state.overlay = Overlay::None;
    if state.selected >= state.sessions.len() {
        return Vec::new();
    }
    let session = state.sessions.remove(state.selected);
    state.selected = state.selected.min(state.sessions.len().saturating_sub(1));
    state.closed.insert(session.id);
    vec![Command::Engine(Request::Close { session: session.id })]
}

/// Ctrl-c: stops the answers on show, or asks where only others are under way. A second time, or with nothing under
/// way, it quits.
pub(super) fn interrupt(state: &mut State) -> Vec<Command> {
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
        _ if state.loads.load.is_active() => "a load is under way".to_owned(),
        0 => return vec![Command::Quit],
        1 => "another session still answers".to_owned(),
        _ => format!("{answering} other sessions still answer"),
    };
    state.toast(format!("{under_way}; ctrl-c again quits"), false);
    Vec::new()
}

pub(crate) mod copy;
pub(crate) mod engine_events;
pub(crate) mod export;
pub(crate) mod keys;
pub(crate) mod knobs;
pub(crate) mod mouse;
pub(crate) mod navigation;
