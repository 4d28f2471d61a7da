//! Draws the state. No side effects: the same state gives the same screen.

pub mod charts;
pub mod chat;
pub mod composer;
pub mod figures;
pub mod header;
pub mod hits;
pub mod kpis;
pub mod layout;
pub mod load;
pub mod overlay;
pub mod queue;
pub mod sessions;
pub mod status;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    state::{Focus, Overlay, State},
    theme::Theme,
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
    hits::draw(state, theme, panes.hits, buf);
    status::draw(state, theme, panes.footer, buf);
    let over = overlay::draw(state, theme, area, buf);
    let typed = match state.overlay {
        Overlay::None => cursor.filter(|_| state.focus == Focus::Input),
        _ => over,
    };
    if let Some(position) = typed {
        frame.set_cursor_position(position);
    }
}

/// Pieces of text in one row, from the left; what does not fit is cut.
fn spans(buf: &mut Buffer, area: Rect, spans: Vec<Span<'_>>) {
    if !area.is_empty() {
        buf.set_line(area.x, area.y, &Line::from(spans), area.width);
    }
}

/// Pieces of text in one row, at its right end; nothing where they do not fit. Returns the columns they take.
fn right_spans(buf: &mut Buffer, area: Rect, spans: Vec<Span<'_>>) -> u16 {
    let line = Line::from(spans);
    let width = line.width() as u16;
    if area.is_empty() || width > area.width {
        return 0;
    }
    buf.set_line(area.right() - width, area.y, &line, width);
    width
}

/// A text in one row, cut with `…` where it does not fit.
fn text(buf: &mut Buffer, area: Rect, text: &str, style: Style) {
    if !area.is_empty() {
        let text = super::wrap::clip(text, usize::from(area.width));
        buf.set_stringn(area.x, area.y, text, usize::from(area.width), style);
    }
}

/// The first `height` rows of an area.
fn rows(area: Rect, from: u16, height: u16) -> Rect {
    let from = from.min(area.height);
    Rect { y: area.y + from, height: height.min(area.height - from), ..area }
}
