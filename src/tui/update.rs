//! The one place where the state changes: a message comes in, commands for the outside world go out. No I/O here.

use crossterm::event::KeyEventKind;

use crate::engine::Priority;

use super::{command::Command, message::Message, state::State};

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
            Ok(sessions) => reopen::reopen(state, sessions),
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
        Message::FileRead { purpose, result } => messages::file_read(state, purpose, result),
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
            messages::edited(state, session, result);
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
    let mut commands = sessions::open_demo(state);
    commands.extend(workload::tick(state));
    for (id, message) in state.demo.next(now_ms, &state.sessions) {
        state.changed = true;
        commands.extend(messages::say(state, id, message, Priority::Background));
    }
    commands
}

pub(crate) mod actions;
mod attention;
mod compare;
mod copy;
mod engine_events;
pub(crate) mod export;
mod keys;
mod knobs;
mod messages;
mod mouse;
mod navigation;
mod reopen;
mod send;
mod sessions;
mod workload;
