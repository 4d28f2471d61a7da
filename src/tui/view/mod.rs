//! Draws the state. No side effects: the same state gives the same screen.

pub mod attention;
pub mod charts;
pub mod chat;
pub mod composer;
pub mod figures;
pub mod header;
pub mod kpis;
pub mod overlay;
pub mod queue;
pub mod sessions;
pub mod status;
pub mod workload;

use super::layout;
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    text::{Line, Span},
};

use super::{
    state::{Focus, Overlay, State},
    theme::Theme,
    widgets::{ascii, width, wrap::wrap_text},
};
use crate::engine::Lane;

/// Draws one frame.
pub fn view(state: &State, theme: &Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.is_empty() {
        return;
    }
    let panes = layout::panes(state, area);
    let buf = frame.buffer_mut();
    buf.set_style(area, theme.text);
    header::draw(state, theme, panes.header, buf);
    kpis::draw(state, theme, panes.kpis, buf);
    if panes.sessions_in_a_row {
        sessions::row(state, theme, panes.sessions, buf);
    } else {
        sessions::list(state, theme, panes.sessions, buf);
    }
    for lane in Lane::ALL {
        chat::draw(state, theme, lane, panes.transcripts[lane as usize], buf);
    }
    let cursor = composer::draw(state, theme, panes.input, buf);
    for (chart, area) in &panes.charts {
        charts::draw(state, theme, *chart, *area, buf);
    }
    figures::draw(state, theme, panes.figures, buf);
    attention::draw(state, theme, panes.hits, buf);
    status::draw(state, theme, panes.footer, buf);
    let over = overlay::draw(state, theme, area, buf);
    finish(theme, buf);
    let typed = match state.overlay {
        Overlay::None => cursor.filter(|_| state.focus == Focus::Input),
        _ => over,
    };
    if let Some(position) = typed {
        frame.set_cursor_position(position);
    }
}

/// What holds for every cell of a frame: the theme's own background and letters, and ASCII where it is wanted.
fn finish(theme: &Theme, buf: &mut Buffer) {
    if theme.background != Color::Reset {
        for cell in &mut buf.content {
            if cell.fg == Color::Reset {
                cell.fg = theme.foreground;
            }
            if cell.bg == Color::Reset {
                cell.bg = theme.background;
            }
        }
    }
    if theme.ascii {
        ascii::plain(buf);
    }
}

/// Pieces of text in one row, from the left; cut with `…` after a word where they do not fit.
fn spans(buf: &mut Buffer, area: Rect, mut spans: Vec<Span<'_>>) {
    if !area.is_empty() {
        let room = usize::from(area.width);
        // Blanks at the end need no room.
        if let Some(last) = spans.last_mut() {
            last.content = last.content.trim_end().to_owned().into();
        }
        let mut used = 0;
        let over = spans.iter().position(|span| {
            used += width::width(&span.content);
            used > room
        });
        if let Some(at) = over {
            let left = room + width::width(&spans[at].content) - used;
            let cut = width::clip_words(&spans[at].content, left);
            spans[at].content = cut.into();
            spans.truncate(at + 1);
        }
        width::put_line(buf, area.x, area.y, &Line::from(spans), area.width);
    }
}

/// Pieces of text in one row, at its right end; nothing where they do not fit. Returns the columns they take.
fn right_spans(buf: &mut Buffer, area: Rect, spans: Vec<Span<'_>>) -> u16 {
    let width = width::of_spans(&spans) as u16;
    let line = Line::from(spans);
    if area.is_empty() || width > area.width {
        return 0;
    }
    width::put_line(buf, area.right() - width, area.y, &line, width);
    width
}

/// A text in one row, cut with `…` where it does not fit.
fn text(buf: &mut Buffer, area: Rect, text: &str, style: Style) {
    if !area.is_empty() {
        let text = width::clip_words(text, usize::from(area.width));
        width::put(buf, area.x, area.y, &text, usize::from(area.width), style);
    }
}

/// A text in as many rows as there are, cut with `…` after a word where they do not suffice.
fn paragraph(buf: &mut Buffer, area: Rect, words: &str, style: Style) {
    let room = usize::from(area.width);
    let lines = wrap_text(words, style, room);
    let more = lines.len() > usize::from(area.height);
    for (at, (line, row)) in lines.iter().zip(area.rows()).enumerate() {
        if more && at + 1 == usize::from(area.height) {
            let line = line.to_string();
            let whole = format!("{}…", line.trim_end());
            let cut =
                if width::width(&whole) <= room { whole } else { width::clip_words(&format!("{line} …"), room) };
            text(buf, row, &cut, style);
        } else {
            width::put_line(buf, row.x, row.y, line, row.width);
        }
    }
}

/// The first `height` rows of an area.
fn rows(area: Rect, from: u16, height: u16) -> Rect {
    let from = from.min(area.height);
    Rect { y: area.y + from, height: height.min(area.height - from), ..area }
}
