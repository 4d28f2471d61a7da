//! Text in the rows of a pane: cut or wrapped to the room there is.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{width, wrap::wrap_text};

/// Pieces of text in one row, from the left; cut with `…` after a word where they do not fit.
pub fn spans(buf: &mut Buffer, area: Rect, mut spans: Vec<Span<'_>>) {
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
pub fn right_spans(buf: &mut Buffer, area: Rect, spans: Vec<Span<'_>>) -> u16 {
    let width = width::of_spans(&spans) as u16;
    let line = Line::from(spans);
    if area.is_empty() || width > area.width {
        return 0;
    }
    width::put_line(buf, area.right() - width, area.y, &line, width);
    width
}

/// A text in one row, cut with `…` where it does not fit.
pub fn text(buf: &mut Buffer, area: Rect, text: &str, style: Style) {
    if !area.is_empty() {
        let text = width::clip_words(text, usize::from(area.width));
        width::put(buf, area.x, area.y, &text, usize::from(area.width), style);
    }
}

/// A text in as many rows as there are, cut with `…` after a word where they do not suffice.
pub fn paragraph(buf: &mut Buffer, area: Rect, words: &str, style: Style) {
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

/// `height` rows of an area, from row `from` on.
pub fn band(area: Rect, from: u16, height: u16) -> Rect {
    let from = from.min(area.height);
    Rect { y: area.y + from, height: height.min(area.height - from), ..area }
}
