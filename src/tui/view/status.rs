//! The last row: a notice while there is one, else the keys that work now.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    widgets::{Clear, Widget},
};

use crate::tui::{
    input::{action::Action, slash},
    state::{Focus, Overlay, Preset, State},
    theme::Theme,
    widgets::{
        Footer,
        text::{paragraph, text},
        width::width,
    },
};

pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    if let Some(toast) = state.toasts.last() {
        let style = if toast.error { theme.bad } else { theme.warn };
        let more = state.toasts.len() - 1;
        let more = if more > 0 { format!("  (+{more})") } else { String::new() };
        notice(buf, area, &format!("{}{more}", toast.text), style);
        return;
    }
    if let Some(usage) = usage(state) {
        text(buf, area, &usage, theme.dim);
        return;
    }
    let scope = state.focus.scope();
    let key = |action| state.keymap.hint(scope, action).map(|key| key.to_string());
    let hints: Vec<(String, &str)> = hints(state)
        .into_iter()
        .filter_map(|hint| match hint {
            Hint::One(action) => Some((key(action)?, action.short())),
            Hint::Named(action, what) => Some((key(action)?, what)),
            Hint::Pair(first, second, what) => Some((pair(&key(first)?, &key(second)?), what)),
        })
        .collect();
    let hints: Vec<(&str, &str)> = hints.iter().map(|(key, what)| (key.as_str(), *what)).collect();
    Footer::new(theme, &hints).status(None).render(area, buf);
}

/// A notice in the last row. What is too long for it takes the row above as well, where there are panes to spare it:
/// advice stands at the end of a notice and must not be cut off.
fn notice(buf: &mut Buffer, area: Rect, words: &str, style: Style) {
    let spare = area.y.saturating_sub(buf.area.y) >= 8;
    let at = if spare && 1 + width(words) > usize::from(area.width) {
        Rect { y: area.y - 1, height: area.height + 1, ..area }
    } else {
        area
    };
    Clear.render(at, buf);
    buf.set_style(at, style);
    paragraph(buf, Rect { x: at.x + 1, width: at.width.saturating_sub(1), ..at }, words, style);
}

/// While a command is typed: the commands that begin like it.
fn usage(state: &State) -> Option<String> {
    let text = state.composer().text();
    if state.focus != Focus::Composer || !text.starts_with('/') || state.overlay != Overlay::None {
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

/// A hint in the footer.
enum Hint {
    /// One key and its short word.
    One(Action),
    /// One key and another word for what it does now.
    Named(Action, &'static str),
    /// Two keys that belong together, and a word for both.
    Pair(Action, Action, &'static str),
}

/// Two keys as one text; what they share is said once: `alt-up/down`.
fn pair(first: &str, second: &str) -> String {
    let shared = first.rfind('-').map_or(0, |at| at + 1);
    match second.strip_prefix(&first[..shared]) {
        Some(rest) if shared < first.len() => format!("{first}/{rest}"),
        _ => format!("{first}/{second}"),
    }
}

/// What can be done now, the most important first.
fn hints(state: &State) -> Vec<Hint> {
    use Hint::{Named, One, Pair};
    let busy = state.session().is_some_and(|session| session.busy());
    let stop = if busy { Action::Stop } else { Action::Quit };
    let n = || Pair(Action::NDouble, Action::NHalve, "N×2 ÷2");
    let zoom = || Pair(Action::ZoomIn, Action::ZoomOut, "zoom");
    let one = |actions: &[Action]| actions.iter().copied().map(One).collect::<Vec<_>>();
    let mut hints = Vec::new();
    match state.focus {
        Focus::Composer => {
            hints.extend(one(&[Action::Send, Action::Help]));
            hints.push(n());
            hints.extend(one(&[Action::FocusNext, Action::LeaveComposer, stop, Action::NewSession, Action::TailCycle]));
            hints.extend(one(&[Action::LayoutFigures, Action::Compare, Action::Freeze, Action::Newline]));
            hints.push(One(Action::Interrupt));
        }
        Focus::Sessions => {
            hints.push(One(Action::SessionEnter));
            hints.push(Pair(Action::SessionUp, Action::SessionDown, "choose"));
            hints.extend(one(&[
                Action::NewSession,
                Action::RenameSession,
                Action::CloseSession,
                stop,
                Action::Workload,
            ]));
            hints.extend(one(&[Action::FocusNext, Action::Help]));
        }
        Focus::Transcript(_) => {
            hints.push(Pair(Action::ScrollUp, Action::ScrollDown, "scroll"));
            hints.extend(one(&[
                Action::Follow,
                Action::Copy,
                Action::Expand,
                Action::FocusComposer,
                stop,
                Action::FocusNext,
            ]));
            hints.extend(one(&[Action::Help, Action::Compare]));
        }
        Focus::Attention => {
            hints.push(Pair(Action::TokenPrevious, Action::TokenNext, "token"));
            hints.push(Pair(Action::LayerPrevious, Action::LayerNext, "layer"));
            hints.push(Pair(Action::HeadPrevious, Action::HeadNext, "head"));
            hints.extend(one(&[Action::HeadsAll, Action::TokenLast]));
            hints.push(Pair(Action::PageUp, Action::PageDown, "scroll"));
            hints.push(n());
            hints.extend(one(&[Action::LayoutBoth, Action::Help, Action::Quit, Action::Dump]));
        }
        Focus::Charts if state.preset == Preset::Figures => {
            hints.push(n());
            hints.extend(one(&[Action::TailCycle, Action::DenseUp, Action::SelectCycle, Action::LayoutBoth]));
            hints.extend(one(&[Action::Help, Action::Quit, Action::Dump, Action::ThemeCycle]));
        }
        Focus::Charts => {
            if state.frozen.is_some() {
                hints.push(Pair(Action::CursorLeft, Action::CursorRight, "cursor"));
                hints.push(Named(Action::Freeze, "go on"));
            }
            hints.push(n());
            hints.extend(one(&[Action::TailCycle, Action::DenseUp, Action::SelectCycle]));
            if state.frozen.is_none() {
                hints.push(One(Action::Freeze));
            }
            hints.push(zoom());
            hints.extend(one(&[Action::ChartNext, Action::Expand]));
            hints.push(One(if state.preset == Preset::Charts { Action::LayoutBoth } else { Action::FocusComposer }));
            hints.extend(one(&[Action::Help, Action::Quit, Action::Dump, Action::ThemeCycle]));
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_keys_share_is_said_once() {
        for (first, second, both) in [
            ("alt-up", "alt-down", "alt-up/down"),
            ("]", "[", "]/["),
            ("+", "-", "+/-"),
            ("-", "+", "-/+"),
            ("alt-=", "alt--", "alt-=/-"),
            ("f2", "ctrl-n", "f2/ctrl-n"),
        ] {
            assert_eq!(pair(first, second), both);
        }
    }
}
