//! The keys that work now, in the last row.

use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget};

use super::paint;
use crate::tui::theme::Theme;

/// Hints made from (key, what it does), the most important first; those at the end are dropped where room is short.
#[derive(Debug, Clone)]
pub struct Footer<'a> {
    theme: &'a Theme,
    keys: &'a [(&'a str, &'a str)],
    status: Option<&'a str>,
}

impl<'a> Footer<'a> {
    /// A footer of those keys.
    pub fn new(theme: &'a Theme, keys: &'a [(&'a str, &'a str)]) -> Self {
        Self { theme, keys, status: None }
    }

    /// A word at the right end, which goes before the hints: `FROZEN`.
    pub fn status(self, status: Option<&'a str>) -> Self {
        Self { status, ..self }
    }
}

impl Widget for &Footer<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(buf.area);
        if area.is_empty() {
            return;
        }
        let mut row = Rect { height: 1, ..area };
        if let Some(status) = self.status {
            paint::right(buf, row, row.right(), row.y, status, self.theme.warn);
            row.width = row.width.saturating_sub(paint::width(status) + 2);
        }
        let mut x = row.x + 1;
        for (at, (key, what)) in self.keys.iter().enumerate() {
            let more = if at + 1 < self.keys.len() { 2 } else { 0 };
            if x + paint::width(key) + 1 + paint::width(what) + more > row.right() {
                paint::text(buf, row, x, row.y, "…", self.theme.dim);
                break;
            }
            x = paint::text(buf, row, x, row.y, key, self.theme.key);
            x = paint::text(buf, row, x + 1, row.y, what, self.theme.dim) + 2;
        }
    }
}
