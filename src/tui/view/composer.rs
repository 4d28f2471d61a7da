//! The message being written.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};

use crate::tui::{
    input::action::Action,
    state::{Focus, State},
    theme::Theme,
    widgets::{
        Panel,
        text::{paragraph, text},
        width::{glyphs, put, width},
    },
};

/// Draws the composer; returns where its cursor stands.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) -> Option<Position> {
    if area.is_empty() {
        return None;
    }
    let composer = state.composer();
    let session = state.session();
    let title = session.map_or_else(|| "New session".to_owned(), |session| format!("To {}", session.name));
    let note = match (&composer.document, session.and_then(|session| session.queued.as_ref())) {
        (Some(document), _) => Some(format!("▸ {} attached", document.name)),
        (None, Some(_)) => {
            let words = ["your last message waits for the answers before it", "your last message waits", "waits"];
            let room = usize::from(area.width.saturating_sub(4));
            words.into_iter().find(|words| width(&title) + width(words) + 5 <= room).map(str::to_owned)
        }
        (None, None) => None,
    };
    let mut panel = Panel::new(theme, &title).focused(state.focus == Focus::Composer);
    if let Some(note) = &note {
        panel = panel.note(note);
    }
    // In a single row the text is what counts.
    let inner = if area.height == 1 { area } else { panel.render(area, buf, &[]) };
    if inner.is_empty() {
        return None;
    }
    if composer.is_empty() {
        placeholder(state, theme, inner, buf);
        return Some(Position::new(inner.x, inner.y));
    }
    let (line, character) = composer.cursor();
    let (height, room) = (usize::from(inner.height), usize::from(inner.width));
    let top = (line + 1).saturating_sub(height);
    let before: String = composer.lines().get(line)?.chars().take(character).collect();
    // The row of the cursor moves sideways so that the cursor stays on it.
    let column = width(&before);
    let shift = (column + 1).saturating_sub(room);
    for ((at, content), row) in composer.lines().iter().enumerate().skip(top).zip(inner.rows()) {
        let shown = cut(content, if at == line { shift } else { 0 }, room);
        put(buf, row.x, row.y, &shown, room, theme.text);
    }
    Some(Position::new(inner.x + (column - shift).min(room - 1) as u16, inner.y + (line - top) as u16))
}

/// The part of a text from cell `from` on that fits into `room` cells.
fn cut(content: &str, from: usize, room: usize) -> String {
    let mut end = 0;
    let placed = glyphs(content).map(|glyph| {
        end += glyph.cells;
        (end - glyph.cells, end, glyph.symbol)
    });
    let shown = placed.skip_while(|(start, ..)| *start < from).take_while(|(_, end, _)| *end <= from + room);
    let mut kept = String::new();
    for (start, _, symbol) in shown {
        // The rest of a wide character that is half outside is a blank.
        if kept.is_empty() && start > from {
            kept.push(' ');
        }
        kept.push_str(&symbol);
    }
    kept
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
    let hint = if inner.height == 1 && width(long) + 1 > usize::from(inner.width) { short } else { long };
    // The first cell is the cursor's.
    let at = Rect { x: inner.x + 1, width: inner.width.saturating_sub(1), height: 1, ..inner };
    if inner.height == 1 {
        text(buf, at, hint, theme.dim);
        return;
    }
    paragraph(buf, Rect { height: inner.height, ..at }, hint, theme.dim);
}
