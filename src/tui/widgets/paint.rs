//! Writing into a buffer without ever leaving the area.

use ratatui::{
    buffer::{Buffer, CellDiffOption},
    layout::Rect,
    style::Style,
};

use super::width;

/// Eighths of a column, from the left.
pub(super) const LEFT_EIGHTHS: [&str; 9] = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

/// Eighths of a row, from below.
pub(super) const LOWER_EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

pub(super) fn width(text: &str) -> u16 {
    u16::try_from(width::width(text)).unwrap_or(u16::MAX)
}

/// The text cut to `width` columns, with `…` where something was cut.
pub(super) fn clip(text: &str, width: u16) -> String {
    width::clip_words(text, usize::from(width))
}

/// Writes at (x, y), clipped to `area`; returns the column after the text.
pub(super) fn text(buf: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) -> u16 {
    let area = area.intersection(buf.area);
    if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() {
        return x;
    }
    width::put(buf, x, y, text, usize::from(area.right() - x), over(style))
}

/// Writes so that the text ends before column `end`; its beginning is cut where it does not fit.
pub(super) fn right(buf: &mut Buffer, area: Rect, end: u16, y: u16, text: &str, style: Style) {
    let end = end.min(area.right());
    let text = clip(text, end.saturating_sub(area.left()));
    self::text(buf, area, end - width(&text), y, &text, style);
}

/// Puts one symbol into one cell, where that is inside `area`.
pub(super) fn cell(buf: &mut Buffer, area: Rect, x: u16, y: u16, symbol: &str, style: Style) {
    if area.contains((x, y).into())
        && let Some(cell) = buf.cell_mut((x, y))
    {
        cell.set_symbol(symbol).set_style(over(style)).set_diff_option(CellDiffOption::None);
    }
}

/// The style alone, with nothing left of what was in the cell before.
fn over(style: Style) -> Style {
    Style::reset().patch(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_graphemes() {
        assert_eq!(clip("device", 6), "device");
        assert_eq!(clip("device", 4), "dev…");
        assert_eq!(clip("你好吗", 4), "你…");
        assert_eq!(clip("你好吗", 5), "你好…");
        assert_eq!((clip("device", 1), clip("device", 0)), ("…".into(), String::new()));
    }

    #[test]
    fn nothing_is_written_outside() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 6, 2));
        let area = Rect::new(1, 0, 3, 1);
        text(&mut buf, area, 2, 0, "abcdef", Style::new());
        text(&mut buf, area, 1, 1, "x", Style::new());
        right(&mut buf, area, 99, 0, "z", Style::new());
        cell(&mut buf, area, 5, 0, "!", Style::new());
        assert_eq!(buf, Buffer::with_lines(["  az  ", "      "]));
    }
}
