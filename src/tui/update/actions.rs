//! What each action changes. Keys, the help and the mouse come here; the work is done in the files beside this one.

use crate::{
    config::ThemeName,
    tui::{
        command::Command,
        input::action::Action,
        state::{Focus, Overlay, Preset, State},
    },
};

use super::{
    attention, compare, copy, export, knobs,
    messages::{edit, interrupt, stop},
    navigation::{
        freeze, move_cursor, scroll_focused, scroll_page, show, show_help, step_chart, step_focus, step_session, zoom,
    },
    send::send,
    sessions::{ask_to_close, open_next},
    workload,
};

/// The step of the cursor, as a share of the window.
const CURSOR_STEP: f64 = 1.0 / 120.0;

const CURSOR_FAR: f64 = 0.1;

/// Does what an action says.
pub fn act(state: &mut State, action: Action) -> Vec<Command> {
    match action {
        Action::Send => return send(state),
        Action::Newline => state.composer_mut().newline(),
        Action::HistoryPrevious => state.composer_mut().previous(),
        Action::HistoryNext => state.composer_mut().next(),
        Action::LeaveComposer => state.focus = Focus::Charts,
        // The attention view has no composer.
        Action::FocusComposer if state.preset == Preset::Attention => {
            show(state, Preset::Both);
            state.focus = Focus::Composer;
        }
        Action::FocusComposer | Action::SessionEnter => state.focus = Focus::Composer,
        Action::SlashCommand => {
            state.focus = Focus::Composer;
            state.composer_mut().paste("/");
        }
        Action::Stop => return stop(state),
        Action::Copy => return copy::copy(state),
        Action::Export => return export::ask(state, None),
        Action::Edit => return edit(state),
        Action::Compare => return compare::switch(state),
        Action::PageUp if state.preset == Preset::Attention => attention::scroll(state, -1),
        Action::PageDown if state.preset == Preset::Attention => attention::scroll(state, 1),
        Action::PageUp => scroll_page(state, -1),
        Action::PageDown => scroll_page(state, 1),
        Action::ScrollUp => scroll_focused(state, -1),
        Action::ScrollDown => scroll_focused(state, 1),
        Action::ScrollTop => scroll_focused(state, isize::MIN),
        Action::Follow => scroll_focused(state, isize::MAX),
        Action::NewSession => return open_next(state),
        Action::NextSession | Action::SessionDown => step_session(state, 1),
        Action::PreviousSession | Action::SessionUp => step_session(state, -1),
        Action::RenameSession => {
            if let Some(session) = state.session() {
                state.overlay = Overlay::Rename(session.name.clone());
            }
        }
        Action::CloseSession => return ask_to_close(state),
        Action::NDouble
        | Action::NHalve
        | Action::NUp
        | Action::NDown
        | Action::TailCycle
        | Action::DenseUp
        | Action::DenseDown
        | Action::SelectCycle => return knobs::change(state, action),
        Action::KeepSettings => return knobs::keep(state),
        Action::BudgetDown | Action::BudgetUp | Action::BudgetNone => return knobs::budget(state, action),
        Action::Workload => workload::open(state),
        Action::Freeze => freeze(state),
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
        Action::LayoutAttention => show(state, Preset::Attention),
        Action::TokenPrevious => state.attention.step_token(-1),
        Action::TokenNext => state.attention.step_token(1),
        Action::TokenLast => state.attention.follow(),
        Action::LayerPrevious => attention::step_head(state, [-1, 0]),
        Action::LayerNext => attention::step_head(state, [1, 0]),
        Action::HeadPrevious => attention::step_head(state, [0, -1]),
        Action::HeadNext => attention::step_head(state, [0, 1]),
        Action::HeadsAll => state.attention.head = None,
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
        Action::Help => show_help(state),
        Action::Interrupt => return interrupt(state),
        Action::Suspend => return vec![Command::Suspend],
        Action::Quit => return vec![Command::Quit],
    }
    Vec::new()
}
