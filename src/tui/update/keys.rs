//! From keys to actions, and from actions to changes.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    cache::Policy,
    config::ThemeName,
    engine::{Request, StopSequences},
};

use super::{
    close, copy, export, interrupt, knobs,
    navigation::{
        focus_charts, move_cursor, scroll_focused, scroll_page, show, step_chart, step_focus, step_session, zoom,
    },
    open, open_with, select, stop, submit,
};
use crate::tui::{
    command::{Command, FilePurpose},
    input::{
        action::Action,
        help,
        keymap::Key,
        slash::{self, Slash},
    },
    state::{Focus, Frozen, Overlay, Preset, State, attention, comparison, composer, session::Message, workload},
};

/// The step of the cursor, as a share of the window.
const CURSOR_STEP: f64 = 1.0 / 120.0;
const CURSOR_FAR: f64 = 0.1;

/// Takes in a key.
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
        Overlay::Load => return workload::key(state, event),
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
            if state.focus == Focus::Input {
                state.input_mut().key(event);
            }
            Vec::new()
        }
    }
}

/// Takes in pasted text: it belongs to what is being written.
pub fn paste(state: &mut State, text: &str) {
    match &mut state.overlay {
        Overlay::None => {
            state.focus = Focus::Input;
            state.input_mut().paste(text);
        }
        Overlay::Rename(name) | Overlay::Help { query: name, .. } => {
            name.extend(text.chars().filter(|c| !c.is_control()));
        }
        Overlay::ConfirmClose | Overlay::Load => {}
    }
}

/// Does what an action says.
pub fn act(state: &mut State, action: Action) -> Vec<Command> {
    match action {
        Action::Send => return send(state),
        Action::Newline => state.input_mut().newline(),
        Action::HistoryPrevious => state.input_mut().previous(),
        Action::HistoryNext => state.input_mut().next(),
        Action::LeaveInput => state.focus = Focus::Charts,
        // The hit screen has no input to go to.
        Action::FocusInput if state.preset == Preset::Hits => {
            show(state, Preset::Both);
            state.focus = Focus::Input;
        }
        Action::FocusInput | Action::SessionEnter => state.focus = Focus::Input,
        Action::SlashCommand => {
            state.focus = Focus::Input;
            state.input_mut().paste("/");
        }
        Action::Stop => return stop(state),
        Action::Copy => return copy::copy(state),
        Action::Export => return export::ask(state, None),
        Action::Edit => {
            let (session, text) = (state.session().map(|session| session.id), state.input().text());
            return vec![Command::Edit { session, text }];
        }
        Action::Compare => return comparison::switch(state),
        Action::PageUp if state.preset == Preset::Hits => attention::scroll(state, -1),
        Action::PageDown if state.preset == Preset::Hits => attention::scroll(state, 1),
        Action::PageUp => scroll_page(state, -1),
        Action::PageDown => scroll_page(state, 1),
        Action::ScrollUp => scroll_focused(state, -1),
        Action::ScrollDown => scroll_focused(state, 1),
        Action::ScrollTop => scroll_focused(state, isize::MIN),
        Action::Follow => scroll_focused(state, isize::MAX),
        Action::NewSession => {
            let name = format!("session {}", state.next_id);
            return new_session(state, name);
        }
        Action::NextSession | Action::SessionDown => step_session(state, 1),
        Action::PreviousSession | Action::SessionUp => step_session(state, -1),
        Action::RenameSession => {
            if let Some(session) = state.session() {
                state.overlay = Overlay::Rename(session.name.clone());
            }
        }
        Action::CloseSession => match state.session() {
            Some(session) if !session.turns.is_empty() => state.overlay = Overlay::ConfirmClose,
            Some(_) => return close(state),
            None => {}
        },
        Action::NDouble
        | Action::NHalve
        | Action::NUp
        | Action::NDown
        | Action::TailCycle
        | Action::DenseUp
        | Action::DenseDown
        | Action::SelectCycle => return knobs::turn(state, action),
        Action::KeepSettings => return knobs::keep(state),
        Action::BudgetDown | Action::BudgetUp | Action::BudgetNone => return knobs::budget(state, action),
        Action::Load => workload::open(state),
        Action::Freeze => {
            let now = state.engine_ms;
            let was_writing = state.focus == Focus::Input;
            match state.frozen.take() {
                // Who was writing goes on.
                Some(frozen) if frozen.was_writing && state.focus == Focus::Charts => state.focus = Focus::Input,
                Some(_) => {}
                None => {
                    state.frozen = Some(Frozen { end_ms: now, cursor_ms: now, was_writing });
                    // The next keys that a frozen screen invites are those of the cursor.
                    focus_charts(state);
                }
            }
        }
        Action::CursorLeft => move_cursor(state, -CURSOR_STEP),
        Action::CursorRight => move_cursor(state, CURSOR_STEP),
        Action::CursorFarLeft => move_cursor(state, -CURSOR_FAR),
        Action::CursorFarRight => move_cursor(state, CURSOR_FAR),
        Action::ChartNext => step_chart(state, 1),
        Action::ChartPrevious => step_chart(state, -1),
        Action::ZoomIn => zoom(state, state.shown_ms() / 2.0),
        Action::ZoomOut => zoom(state, state.shown_ms() * 2.0),
        Action::ZoomReset => {
            state.window_ms = state.configured_window_ms;
            state.zoomed = false;
        }
        Action::LayoutChat => show(state, Preset::Chat),
        Action::LayoutCharts => show(state, Preset::Charts),
        Action::LayoutBoth => show(state, Preset::Both),
        Action::LayoutFigures => show(state, Preset::Figures),
        Action::LayoutHits => show(state, Preset::Hits),
        Action::TokenPrevious => state.hits.step_token(-1),
        Action::TokenNext => state.hits.step_token(1),
        Action::TokenLast => state.hits.follow(),
        Action::LayerPrevious => state.hits.step_head(attention::sizes(state), [-1, 0]),
        Action::LayerNext => state.hits.step_head(attention::sizes(state), [1, 0]),
        Action::HeadPrevious => state.hits.step_head(attention::sizes(state), [0, -1]),
        Action::HeadNext => state.hits.step_head(attention::sizes(state), [0, 1]),
        Action::HeadsAll => state.hits.head = None,
        Action::Expand => state.expanded = !state.expanded,
        Action::FocusNext => step_focus(state, 1),
        Action::FocusPrevious => step_focus(state, -1),
        Action::ThemeCycle => {
            state.theme = match state.theme {
                ThemeName::Auto | ThemeName::Dark => ThemeName::Light,
                ThemeName::Light => ThemeName::ColourBlind,
                ThemeName::ColourBlind => ThemeName::Mono,
                ThemeName::Mono => ThemeName::Dark,
            }
        }
        Action::Dump => return vec![Command::WritePicture],
        Action::Help => state.overlay = Overlay::Help { query: String::new(), selected: 0 },
        Action::Interrupt => return interrupt(state),
        Action::Suspend => return vec![Command::Suspend],
        Action::Quit => return vec![Command::Quit],
    }
    Vec::new()
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

fn rename(state: &mut State, name: String) -> Vec<Command> {
    let Some(session) = state.session_mut().filter(|_| !name.is_empty()) else { return Vec::new() };
    session.name.clone_from(&name);
    vec![Command::Engine(Request::Rename { session: session.id, name })]
}

fn confirm_key(state: &mut State, event: KeyEvent) -> Vec<Command> {
    match event.code {
        KeyCode::Char('y' | 'Y') | KeyCode::Enter => return close(state),
        KeyCode::Char('n' | 'N') | KeyCode::Esc => state.overlay = Overlay::None,
        _ => {}
    }
    Vec::new()
}

fn new_session(state: &mut State, name: String) -> Vec<Command> {
    let (id, command) = open(state, name);
    select(state, id);
    state.focus = Focus::Input;
    vec![command]
}

/// Gives the session on show a system message while nothing was said in it; else opens a new one with it.
fn system(state: &mut State, text: String) -> Vec<Command> {
    state.focus = Focus::Input;
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

fn send(state: &mut State) -> Vec<Command> {
    let input = state.input();
    let text = input.text();
    if let Some(command) = slash::parse(&text) {
        // Also a wrong one: it would swallow what is written next. The history has it, to be mended.
        state.input_mut().take();
        return match command {
            Ok(command) => run(state, command),
            Err(error) => {
                state.toast(error, true);
                Vec::new()
            }
        };
    }
    if text.trim().is_empty() {
        if let Some(document) = &input.document {
            let hint = format!("{} is attached: ask something about it", document.name);
            state.toast(hint, false);
        }
        return Vec::new();
    }
    let mut commands = Vec::new();
    let text = state.input_mut().take();
    let document = state.input_mut().document.take();
    if state.session().is_none() {
        let name = text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        let (id, command) = open(state, name);
        commands.push(command);
        select(state, id);
    }
    state.greeted = true;
    let text = text.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(&text).to_owned();
    if let Some(id) = state.session().map(|session| session.id) {
        commands.extend(submit(state, id, Message { text, document }));
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
        Slash::Close => act(state, Action::CloseSession),
        Slash::Stop => stop(state),
        Slash::Copy => copy::copy(state),
        Slash::Export(path) => export::ask(state, path),
        Slash::Edit => act(state, Action::Edit),
        Slash::System(text) => system(state, text),
        Slash::StopAt(text) => {
            stop_at(state, text);
            Vec::new()
        }
        Slash::Load(None) => act(state, Action::Load),
        Slash::Load(Some(spec)) => workload::start(state, spec).unwrap_or_else(|error| {
            state.toast(error, true);
            Vec::new()
        }),
        Slash::N(n) => match state.policy() {
            Some(Policy::KCache(turned)) => knobs::set(state, crate::cache::Knobs { n, ..turned }),
            _ => knobs::turn(state, Action::NUp),
        },
        Slash::Policy(Policy::KCache(turned)) => knobs::set(state, turned),
        Slash::Policy(Policy::Kv | Policy::KvQ8) => {
            state.toast("a lane keeps its kind: this one stays kcache; the other runs beside it", true);
            Vec::new()
        }
        Slash::Guard(mode) => knobs::guard(state, mode),
        Slash::Keep => knobs::keep(state),
        Slash::Help => act(state, Action::Help),
        Slash::Quit => vec![Command::Quit],
    }
}
