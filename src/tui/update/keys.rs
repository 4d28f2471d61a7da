//! From keys to actions: the key map, and what keys do in what lies over the panes.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    actions::act,
    messages::interrupt,
    sessions::{close, rename},
    workload,
};
use crate::tui::{
    command::Command,
    input::{action::Action, help, keymap::Key},
    state::{Focus, Overlay, State, composer},
};

pub fn key(state: &mut State, event: KeyEvent) -> Vec<Command> {
    let key = Key::from_event(&event);
    let bound = state.keymap.action(state.focus.scope(), key);
    if bound == Some(Action::Interrupt) {
        return interrupt(state);
    }
    match &state.overlay {
        Overlay::None => {}
        Overlay::Help { .. } => return help_key(state, event),
        Overlay::Rename(_) => return rename_key(state, event),
        Overlay::ConfirmClose => return confirm_key(state, event),
        Overlay::Workload => return workload::key(state, event),
    }
    match bound {
        Some(action) => {
            // Who gives commands by plain letters is not writing: the next letter must not land in the message.
            if key.types() {
                state.was_writing = false;
            }
            act(state, action)
        }
        None => {
            if state.focus == Focus::Composer {
                state.composer_mut().key(event);
            }
            Vec::new()
        }
    }
}

/// Takes in pasted text: it belongs to what is being written.
pub fn paste(state: &mut State, text: &str) {
    match &mut state.overlay {
        Overlay::None => {
            state.focus = Focus::Composer;
            state.composer_mut().paste(text);
        }
        Overlay::Rename(name) | Overlay::Help { query: name, .. } => {
            name.extend(text.chars().filter(|c| !c.is_control()));
        }
        Overlay::ConfirmClose | Overlay::Workload => {}
    }
}

fn help_key(state: &mut State, event: KeyEvent) -> Vec<Command> {
    let Overlay::Help { query, selected } = &mut state.overlay else { return Vec::new() };
    let entries = help::entries(&state.keymap, query);
    let typed = !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    match event.code {
        KeyCode::Esc | KeyCode::F(1) => state.overlay = Overlay::None,
        KeyCode::Up => *selected = selected.saturating_sub(1),
        KeyCode::Down => *selected = (*selected + 1).min(entries.len().saturating_sub(1)),
        KeyCode::PageUp => *selected = selected.saturating_sub(10),
        KeyCode::PageDown => *selected = (*selected + 10).min(entries.len().saturating_sub(1)),
        KeyCode::Backspace => {
            composer::pop(query);
            *selected = 0;
        }
        KeyCode::Char('u') if event.modifiers.contains(KeyModifiers::CONTROL) => {
            query.clear();
            *selected = 0;
        }
        KeyCode::Enter => {
            // A word is only explained.
            if let Some(action) = entries.get(*selected).and_then(|entry| entry.action) {
                state.overlay = Overlay::None;
                return act(state, action);
            }
        }
        // A second `?` closes what the first one opened.
        KeyCode::Char('?') if query.is_empty() => state.overlay = Overlay::None,
        KeyCode::Char(c) if typed && !c.is_control() => {
            query.push(c);
            *selected = 0;
        }
        _ => {}
    }
    Vec::new()
}

fn rename_key(state: &mut State, event: KeyEvent) -> Vec<Command> {
    let Overlay::Rename(name) = &mut state.overlay else { return Vec::new() };
    match event.code {
        KeyCode::Esc => state.overlay = Overlay::None,
        KeyCode::Backspace => composer::pop(name),
        KeyCode::Char('u') if event.modifiers.contains(KeyModifiers::CONTROL) => name.clear(),
        KeyCode::Char(c) if !event.modifiers.contains(KeyModifiers::CONTROL) && !c.is_control() => name.push(c),
        KeyCode::Enter => {
            let name = name.trim().to_owned();
            state.overlay = Overlay::None;
            return rename(state, name);
        }
        _ => {}
    }
    Vec::new()
}

fn confirm_key(state: &mut State, event: KeyEvent) -> Vec<Command> {
    match event.code {
        KeyCode::Char('y' | 'Y') | KeyCode::Enter => return close(state),
        KeyCode::Char('n' | 'N') | KeyCode::Esc => state.overlay = Overlay::None,
        _ => {}
    }
    Vec::new()
}
