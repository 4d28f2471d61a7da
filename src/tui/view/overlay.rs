//! What lies over the panes: help, the name of a session, a question.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text::{Line, Span},
    widgets::{Clear, Widget},
};

use super::workload;
use crate::tui::{
    input::help,
    state::{Overlay, State},
    theme::Theme,
    widgets::{
        Panel,
        text::{band, right_spans, spans, text},
        width,
        wrap::wrap_text,
    },
};

/// Draws what lies over the panes; returns where its cursor stands.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) -> Option<Position> {
    match &state.overlay {
        Overlay::None => None,
        Overlay::Help { query, selected } => draw_help(state, theme, query, *selected, area, buf),
        Overlay::Rename(name) => {
            let inner = popup(theme, "Rename · enter keeps it, esc does not", 50, 3, area, buf);
            text(buf, band(inner, 0, 1), name, theme.text);
            let column = (width::width(name) as u16).min(inner.width.saturating_sub(1));
            (!inner.is_empty()).then(|| Position::new(inner.x + column, inner.y))
        }
        Overlay::Workload => {
            let inner = popup(theme, &workload::title(state), workload::WIDTH, workload::HEIGHT, area, buf);
            workload::draw(state, theme, inner, buf)
        }
        Overlay::ConfirmClose => {
            let name = state.session().map_or("", |session| &session.name);
            let inner = popup(theme, "Close", 56, 3, area, buf);
            text(buf, band(inner, 0, 1), &format!("Close \"{name}\" and what was said in it? y / n"), theme.warn);
            None
        }
    }
}

/// A pane in the middle.
fn popup(theme: &Theme, title: &str, width: u16, height: u16, area: Rect, buf: &mut Buffer) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    let at = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(at, buf);
    buf.set_style(at, theme.text);
    Panel::new(theme, title).focused(true).render(at, buf, &[])
}

/// A row of the help.
enum Row {
    Heading(String),
    /// A line of the entry of that number, and which of its lines it is: its keys or word, and what it says.
    Line(usize, usize, String, Line<'static>),
}

fn draw_help(
    state: &State,
    theme: &Theme,
    query: &str,
    selected: usize,
    area: Rect,
    buf: &mut Buffer,
) -> Option<Position> {
    let inner =
        popup(theme, "Help · type to search, enter does it, esc closes", 100, area.height.saturating_sub(2), area, buf);
    if inner.is_empty() {
        return None;
    }
    let prompt = " search: ";
    spans(buf, band(inner, 0, 1), vec![Span::styled(prompt, theme.dim), Span::styled(query.to_owned(), theme.text)]);
    let entries = help::entries(&state.keymap, query);
    // Left of the sentences, and right of the keys, stand blanks.
    let keys_width = if inner.width < 70 { 14 } else { 22 };
    let room = usize::from(inner.width).saturating_sub(3 + keys_width + 2 + 1);
    let mut table = Vec::new();
    let mut group = "";
    for (at, entry) in entries.iter().enumerate() {
        if group != entry.group {
            group = &entry.group;
            table.push(Row::Heading(entry.group.clone()));
        }
        let names = wrap_text(&entry.name, theme.key, keys_width);
        let texts = wrap_text(entry.text, theme.text, room);
        for line in 0..names.len().max(texts.len()) {
            let name = names.get(line).map_or(String::new(), ToString::to_string);
            table.push(Row::Line(at, line, name, texts.get(line).cloned().unwrap_or_default()));
        }
    }
    let list = band(inner, 1, inner.height);
    if table.is_empty() {
        text(buf, list, " nothing of that name", theme.dim);
    }
    // All lines of what is chosen are on show.
    let chosen = table.iter().rposition(|row| matches!(row, Row::Line(at, ..) if *at == selected)).unwrap_or(0);
    let first = (chosen + 1).saturating_sub(usize::from(list.height));
    for (row, at) in table.iter().skip(first).zip(list.rows()) {
        match row {
            Row::Heading(group) => text(buf, at, &format!(" {group}"), theme.title),
            Row::Line(index, line, name, sentence) => {
                let blanks = " ".repeat(keys_width.saturating_sub(width::width(name)) + 2);
                let mut pieces = vec![Span::styled(format!("   {name}{blanks}"), theme.key)];
                pieces.extend(sentence.spans.iter().cloned());
                let used = width::of_spans(&pieces);
                spans(buf, at, pieces);
                let action = entries[*index].action.filter(|_| *line == 0);
                let action = action.map_or(String::new(), |action| format!(" {action} "));
                if used + width::width(&action) < usize::from(at.width) {
                    right_spans(buf, at, vec![Span::styled(action, theme.dim)]);
                }
                if *index == selected {
                    buf.set_style(at, theme.selection);
                }
            }
        }
    }
    let column = ((width::width(prompt) + width::width(query)) as u16).min(inner.width - 1);
    Some(Position::new(inner.x + column, inner.y))
}
