//! The workload: its form, its start, and the sessions that are due.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    bench::WorkloadSpec,
    engine::EventKind,
    tui::{
        command::Command,
        input::{
            action::{Action, Scope},
            keymap::Key,
        },
        state::{Overlay, State, workload::Form},
    },
};

/// Shows the form, or what becomes of the load that runs.
pub fn open(state: &mut State) {
    if state.stopped.is_some() {
        state.toast("the engine has ended; nothing can be asked any more", true);
    } else if state.started.is_none() || !state.workload.ready {
        state.toast("there is no engine yet to put a load on", true);
    } else {
        state.overlay = Overlay::Workload;
    }
}

/// Takes in a key while that is shown.
pub fn key(state: &mut State, event: KeyEvent) -> Vec<Command> {
    // The key that opened it, also the plain letter: there are none to be typed here.
    let same = state.keymap.action(Scope::Charts, Key::from_event(&event)) == Some(Action::Workload);
    if state.workload.load.is_active() {
        match event.code {
            KeyCode::Esc | KeyCode::Enter => state.overlay = Overlay::None,
            _ if same && state.workload.load.is_coming() => state.workload.load.stop(),
            _ if same => return state.workload.load.cancel().into_iter().map(Command::Engine).collect(),
            _ => {}
        }
        return Vec::new();
    }
    match event.code {
        KeyCode::Esc => state.overlay = Overlay::None,
        _ if same => state.overlay = Overlay::None,
        KeyCode::Enter => match state.workload.form.spec().and_then(|spec| start(state, spec)) {
            Ok(commands) => {
                state.overlay = Overlay::None;
                return commands;
            }
            Err(error) => state.workload.form.error = Some(error),
        },
        KeyCode::Char('u') if event.modifiers.contains(KeyModifiers::CONTROL) => state.workload.form.clear(),
        code => state.workload.form.key(code),
    }
    Vec::new()
}

/// Starts a load.
///
/// # Errors
///
/// One line: another one runs, or the model's context is too short.
pub fn start(state: &mut State, spec: WorkloadSpec) -> Result<Vec<Command>, String> {
    let Some(started) = state.started.as_ref().filter(|_| state.workload.ready && state.stopped.is_none()) else {
        return Err("there is no engine to put a load on".into());
    };
    if state.workload.load.is_active() {
        return Err("a load runs already: stop it first".into());
    }
    spec.check(started.context).map_err(|error| error.to_string())?;
    state.workload.form = Form { selected: state.workload.form.selected, ..Form::of(&spec) };
    state.workload.load.start(spec);
    state.greeted = true;
    Ok(tick(state))
}

/// The sessions that are due.
pub fn tick(state: &mut State) -> Vec<Command> {
    let mut commands = Vec::new();
    if state.started.is_some()
        && let Some(spec) = state.workload.wanted.take()
    {
        match start(state, spec) {
            Ok(first) => commands.extend(first),
            Err(error) => state.toast(error, true),
        }
    }
    let due = state.workload.load.due(state.clock_ms);
    state.changed |= !due.is_empty();
    commands.extend(due.into_iter().map(Command::Engine));
    commands
}

/// Takes in an event; `None` where it is about no load.
pub fn note(state: &mut State, event: &EventKind) -> Option<Vec<Command>> {
    let active = state.workload.load.is_active();
    let ops = state.workload.load.note(event)?;
    if active && !state.workload.load.is_active() {
        state.toast(state.workload.load.summary(), false);
    }
    Some(ops.into_iter().map(Command::Engine).collect())
}
