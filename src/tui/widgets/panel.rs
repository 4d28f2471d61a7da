//! The pane around a chart: frame, title and legend, in as much room as there is.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    widgets::{Block, BorderType, Widget},
};

use super::paint;
use crate::tui::theme::{SeriesLook, Theme};

/// One series in the legend, with its value now or at the cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct LegendEntry<'a> {
    /// Its name; left out first where room is short.
    pub name: &'a str,
    /// Its look.
    pub look: SeriesLook,
    /// Its value as text of constant width.
    pub value: String,
}

/// Title, note and frame of a pane. Without a frame the title takes the first row.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    theme: &'a Theme,
    title: &'a str,
    note: Option<&'a str>,
    framed: bool,
    focused: bool,
}

impl<'a> Panel<'a> {
    /// A framed pane of that title.
    pub fn new(theme: &'a Theme, title: &'a str) -> Self {
        Self { theme, title, note: None, framed: true, focused: false }
    }

    /// A word after the title that must not be missed: `simulated`, `FROZEN`.
    pub fn note(self, note: &'a str) -> Self {
        Self { note: Some(note), ..self }
    }

    /// Without a frame.
    pub fn bare(self) -> Self {
        Self { framed: false, ..self }
    }

    /// Whether it has the focus.
    pub fn focused(self, focused: bool) -> Self {
        Self { focused, ..self }
    }

    /// The theme it is drawn in.
    pub fn theme(&self) -> &'a Theme {
        self.theme
    }

    /// Draws frame and title with a legend at the right; returns the area inside. Where three rows or ten columns are
    /// not there the frame is left out; where there is a single row the legend is all there is.
    pub fn render(&self, area: Rect, buf: &mut Buffer, legend: &[LegendEntry<'_>]) -> Rect {
        let area = area.intersection(buf.area);
        if area.is_empty() {
            return area;
        }
        let framed = self.framed && area.height >= 3 && area.width >= 10;
        let head = Rect { height: 1, ..area };
        if framed {
            let (style, border) = match self.focused {
                true => (self.theme.focus, self.theme.focus_border),
                false => (self.theme.frame, BorderType::Rounded),
            };
            Block::bordered().border_type(border).border_style(style).render(area, buf);
            self.head(Rect { x: area.x + 2, width: area.width - 4, ..head }, buf, legend, 1);
            Rect { x: area.x + 1, y: area.y + 1, width: area.width - 2, height: area.height - 2 }
        } else {
            self.head(head, buf, legend, 0);
            Rect { y: area.y + 1, height: area.height - 1, ..area }
        }
    }

    /// Title, note and legend in one row, each with `pad` blanks around it, as far as they fit: names in the legend go
    /// first, then the note, then entries from the end, then the end of the title.
    fn head(&self, row: Rect, buf: &mut Buffer, legend: &[LegendEntry<'_>], pad: u16) {
        let title_width = paint::width(self.title) + 2 * pad;
        let note = self.note.map(|note| (note, paint::width(note) + 3));
        let note_width = note.map_or(0, |(_, width)| width);
        let entry_width = |entry: &LegendEntry<'_>, named: bool| {
            let name = if named && !entry.name.is_empty() { paint::width(entry.name) + 1 } else { 0 };
            paint::width(entry.look.symbol) + 1 + name + paint::width(&entry.value)
        };
        let legend_width = |count: usize, named: bool| match count {
            0 => 0,
            _ => legend[..count].iter().map(|entry| entry_width(entry, named) + 2).sum::<u16>() - 2 + 2 * pad + 1,
        };
        let all = legend.len();
        let shrunk = (1..=all).rev().map(|count| (count, false, false));
        let tries = [(all, true, true), (all, false, true)].into_iter().chain(shrunk);
        let (count, named, noted) = tries
            .filter(|&(count, named, noted)| {
                let title = if noted { title_width + note_width } else { title_width };
                title + legend_width(count, named) <= row.width
            })
            .next()
            // Nothing fits beside the title: figures matter more than a title in a single row of figures.
            .unwrap_or((0, false, note_width + title_width <= row.width));

        let blank = " ".repeat(usize::from(pad));
        let title_room = row.width.saturating_sub(2 * pad);
        let mut x = paint::text(buf, row, row.x, row.y, &blank, self.theme.title);
        x = paint::text(buf, row, x, row.y, &paint::clip(self.title, title_room), self.theme.title);
        if let Some((note, _)) = note.filter(|_| noted) {
            x = paint::text(buf, row, x, row.y, " · ", self.theme.dim);
            x = paint::text(buf, row, x, row.y, note, self.theme.warn);
        }
        paint::text(buf, row, x, row.y, &blank, Style::new());

        let mut x = row.right().saturating_sub(legend_width(count, named).saturating_sub(1));
        if count > 0 {
            x = paint::text(buf, row, x, row.y, &blank, Style::new());
        }
        for (at, entry) in legend[..count].iter().enumerate() {
            if at > 0 {
                x = paint::text(buf, row, x, row.y, "  ", Style::new());
            }
            x = paint::text(buf, row, x, row.y, entry.look.symbol, entry.look.style);
            x = paint::text(buf, row, x, row.y, " ", Style::new());
            if named && !entry.name.is_empty() {
                x = paint::text(buf, row, x, row.y, entry.name, self.theme.dim);
                x = paint::text(buf, row, x, row.y, " ", Style::new());
            }
            x = paint::text(buf, row, x, row.y, &entry.value, entry.look.style);
        }
        if count > 0 {
            paint::text(buf, row, x, row.y, &blank, Style::new());
        }
    }
}
