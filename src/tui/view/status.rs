//! The last row: a notice while there is one, else the keys that work now.

use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget};

use crate::tui::{
    action::Action,
    slash,
    state::{Focus, Overlay, Preset, State},
    theme::Theme,
    widgets::Footer,
};

/// Draws the last row.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    if let Some(toast) = state.toasts.last() {
        let style = if toast.error { theme.bad } else { theme.warn };
        let more = state.toasts.len() - 1;
        let more = if more > 0 { format!("  (+{more})") } else { String::new() };
        super::text(buf, area, &format!(" {}{more}", toast.text), style);
        return;
    }
    if let Some(usage) = usage(state) {
        super::text(buf, area, &usage, theme.dim);
        return;
    }
    let scope = state.focus.scope();
    let hints: Vec<(String, &str)> = actions(state)
        .iter()
        .filter_map(|&action| Some((state.keymap.hint(scope, action)?.to_string(), action.short())))
        .collect();
    let hints: Vec<(&str, &str)> = hints.iter().map(|(key, what)| (key.as_str(), *what)).collect();
    Footer::new(theme, &hints).status(None).render(area, buf);
}

/// While a command is typed: the commands that begin like it.
fn usage(state: &State) -> Option<String> {
    let text = state.input().text();
    if state.focus != Focus::Input || !text.starts_with('/') || state.overlay != Overlay::None {
        return None;
    }
    let word = text.split_whitespace().next().unwrap_or("/");
    let fits: Vec<_> = slash::USAGE.iter().filter(|(usage, _)| usage.starts_with(word)).collect();
    Some(match fits.as_slice() {
        [] => " no such command; /help lists every key, a second / sends the text as it is".to_owned(),
        [(usage, what)] => format!(" {usage}: {what}"),
        several => format!(" {}", several.iter().map(|(usage, _)| *usage).collect::<Vec<_>>().join("   ")),
    })
}

/// What can be done now, the most important first.
fn actions(state: &State) -> Vec<Action> {
    let busy = state.session().is_some_and(|session| session.busy());
    let mut actions = Vec::new();
    let stop = if busy { Action::Stop } else { Action::Quit };
    match state.focus {
        Focus::Input => actions.extend([
            Action::Send,
            Action::Help,
            Action::FocusNext,
            Action::NDouble,
            Action::NHalve,
            Action::TailCycle,
            stop,
            Action::NewSession,
            Action::LayoutCharts,
            Action::Freeze,
            Action::Newline,
            Action::Interrupt,
        ]),
        Focus::Sessions => actions.extend([
            Action::SessionEnter,
            Action::SessionDown,
            Action::NewSession,
            Action::RenameSession,
            Action::CloseSession,
            stop,
            Action::FocusNext,
            Action::Help,
        ]),
        Focus::Transcript(_) => actions.extend([
            Action::ScrollUp,
            Action::ScrollDown,
            Action::Follow,
            Action::Expand,
            Action::FocusInput,
            stop,
            Action::FocusNext,
            Action::Help,
        ]),
        Focus::Charts => {
            if state.frozen.is_some() {
                actions.extend([Action::CursorLeft, Action::CursorRight, Action::CursorFarLeft]);
            }
            actions.extend([Action::NDouble, Action::NHalve, Action::TailCycle, Action::DenseUp, Action::SelectCycle]);
            actions.extend([Action::Freeze, Action::ZoomIn, Action::ZoomOut, Action::ChartNext, Action::Expand]);
            if state.preset != Preset::Charts {
                actions.push(Action::FocusInput);
            }
            actions.extend([Action::Help, Action::Quit, Action::Dump, Action::ThemeCycle]);
        }
    }
    actions
}
