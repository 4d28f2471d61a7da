//! The message being written.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use super::text;
use crate::tui::{
    action::Action,
    state::{Focus, State},
    theme::Theme,
    widgets::Panel,
};

/// Draws the input; returns where its cursor stands.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) -> Option<Position> {
    if area.is_empty() {
        return None;
    }
    let input = state.input();
    let session = state.session();
    let title = session.map_or_else(|| "New session".to_owned(), |session| format!("To {}", session.name));
    let note = match (&input.document, session.and_then(|session| session.queued.as_ref())) {
        (Some(document), _) => Some(format!("▸ {} attached", document.name)),
        (None, Some(_)) => Some("your last message waits for the answers before it".to_owned()),
        (None, None) => None,
    };
    let mut panel = Panel::new(theme, &title).focused(state.focus == Focus::Input);
    if let Some(note) = &note {
        panel = panel.note(note);
    }
    // In a single row the text is what counts.
    let inner = if area.height == 1 { area } else { panel.render(area, buf, &[]) };
    if inner.is_empty() {
        return None;
    }
    if input.is_empty() {
        placeholder(state, theme, inner, buf);
        return Some(Position::new(inner.x, inner.y));
    }
    let (line, character) = input.cursor();
    let (height, width) = (usize::from(inner.height), usize::from(inner.width));
    let top = (line + 1).saturating_sub(height);
    let before: String = input.lines().get(line)?.chars().take(character).collect();
    // The row of the cursor moves sideways so that the cursor stays on it.
    let column = before.width();
    let shift = (column + 1).saturating_sub(width);
    for ((at, content), row) in input.lines().iter().enumerate().skip(top).zip(inner.rows()) {
        let shown = if at == line { cut(content, shift) } else { content.clone() };
        buf.set_stringn(row.x, row.y, shown, width, theme.text);
    }
    Some(Position::new(inner.x + (column - shift).min(width - 1) as u16, inner.y + (line - top) as u16))
}

/// The text without its first `cells` cells.
fn cut(content: &str, cells: usize) -> String {
    let mut left = cells;
    let kept = content.graphemes(true).skip_while(|grapheme| {
        let gone = left > 0;
        left = left.saturating_sub(grapheme.width());
        gone
    });
    kept.collect()
}

/// What an empty input says: on a first start what there is to see, later what can be written.
fn placeholder(state: &State, theme: &Theme, inner: Rect, buf: &mut Buffer) {
    let help =
        state.keymap.hint(state.focus.scope(), Action::Help).map_or(String::new(), |key| format!("{key} for help"));
    let hints = if state.greeted {
        ["ask something, or /file PATH to ask about a document".to_owned(), "ask, or /file PATH".to_owned()]
    } else {
        [
            format!("type to ask, {help} · ● KCache left, ○ ordinary KV cache right, one model"),
            format!("type to ask, {help}"),
        ]
    };
    let [long, short] = &hints;
    let hint = if inner.height == 1 && long.width() + 1 > usize::from(inner.width) { short } else { long };
    // The first cell is the cursor's.
    let at = Rect { x: inner.x + 1, width: inner.width.saturating_sub(1), height: 1, ..inner };
    if inner.height == 1 {
        text(buf, at, hint, theme.dim);
        return;
    }
    for (line, row) in crate::tui::wrap::wrap_text(hint, theme.dim, usize::from(at.width)).iter().zip(inner.rows()) {
        buf.set_line(at.x, row.y, line, at.width);
    }
}
