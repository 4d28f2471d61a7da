//! Draws the state. No side effects: the same state gives the same screen.

mod attention;
mod charts;
mod chat;
mod composer;
mod figures;
mod header;
mod kpis;
mod overlay;
mod queue;
mod sessions;
mod status;
mod workload;

use ratatui::{Frame, buffer::Buffer, style::Color};

use super::{
    layout,
    state::{Focus, Overlay, State},
    theme::Theme,
    widgets::ascii,
};
use crate::engine::Lane;

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
    let cursor = composer::draw(state, theme, panes.composer, buf);
    for (chart, area) in &panes.charts {
        charts::draw(state, theme, *chart, *area, buf);
    }
    figures::draw(state, theme, panes.figures, buf);
    attention::draw(state, theme, panes.attention, buf);
    status::draw(state, theme, panes.footer, buf);
    let over = overlay::draw(state, theme, area, buf);
    finish(theme, buf);
    let typed = match state.overlay {
        Overlay::None => cursor.filter(|_| state.focus == Focus::Composer),
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
