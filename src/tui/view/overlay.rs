//! What lies over the panes: help, the name of a session, a question.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text::Span,
    widgets::{Clear, Widget},
};
use unicode_width::UnicodeWidthStr;

use super::{load, rows, spans, text};
use crate::tui::{
    action::Group,
    help,
    state::{Overlay, State},
    theme::Theme,
    widgets::Panel,
    wrap::clip,
};

/// Draws what lies over the panes; returns where its cursor stands.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) -> Option<Position> {
    match &state.overlay {
        Overlay::None => None,
        Overlay::Help { query, selected } => draw_help(state, theme, query, *selected, area, buf),
        Overlay::Rename(name) => {
            let inner = popup(theme, "Rename · enter keeps it, esc does not", 50, 3, area, buf);
            text(buf, rows(inner, 0, 1), name, theme.text);
            let column = (name.width() as u16).min(inner.width.saturating_sub(1));
            (!inner.is_empty()).then(|| Position::new(inner.x + column, inner.y))
        }
        Overlay::Load => {
            let inner = popup(theme, &load::title(state), load::WIDTH, load::HEIGHT, area, buf);
            load::draw(state, theme, inner, buf)
        }
        Overlay::ConfirmClose => {
            let name = state.session().map_or("", |session| &session.name);
            let inner = popup(theme, "Close", 56, 3, area, buf);
            text(buf, rows(inner, 0, 1), &format!("Close \"{name}\" and what was said in it? y / n"), theme.warn);
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

enum Row<'a> {
    Heading(Group),
    Entry(usize, &'a help::Entry),
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
    spans(buf, rows(inner, 0, 1), vec![Span::styled(prompt, theme.dim), Span::styled(query.to_owned(), theme.text)]);
    let entries = help::entries(&state.keymap, query);
    let mut table = Vec::new();
    let mut group = None;
    for (at, entry) in entries.iter().enumerate() {
        if group != Some(entry.action.group()) {
            group = Some(entry.action.group());
            table.push(Row::Heading(entry.action.group()));
        }
        table.push(Row::Entry(at, entry));
    }
    let list = rows(inner, 1, inner.height);
    if table.is_empty() {
        text(buf, list, " nothing of that name", theme.dim);
    }
    let chosen = table.iter().position(|row| matches!(row, Row::Entry(at, _) if *at == selected)).unwrap_or(0);
    let first = (chosen + 1).saturating_sub(usize::from(list.height));
    let keys_width = 22;
    for (row, at) in table.iter().skip(first).zip(list.rows()) {
        match row {
            Row::Heading(group) => text(buf, at, &format!(" {group}"), theme.title),
            Row::Entry(index, entry) => {
                let keys = format!("   {:<keys_width$}", entry.keys);
                let room = usize::from(at.width).saturating_sub(keys.width());
                spans(
                    buf,
                    at,
                    vec![
                        Span::styled(keys, theme.key),
                        Span::styled(clip(&format!("  {}", entry.action.help()), room), theme.text),
                    ],
                );
                let name = format!(" {} ", entry.action.name());
                let used = 3 + keys_width.max(entry.keys.width()) + 2 + entry.action.help().width();
                if used + name.width() < usize::from(at.width) {
                    super::right_spans(buf, at, vec![Span::styled(name, theme.dim)]);
                }
                if *index == selected {
                    buf.set_style(at, theme.selection);
                }
            }
        }
    }
    let column = ((prompt.width() + query.width()) as u16).min(inner.width - 1);
    Some(Position::new(inner.x + column, inner.y))
}
