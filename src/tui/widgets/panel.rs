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
    ///
    /// Room is given up in this order: names in the legend; then the legend moves to the lower edge of the frame; then
    /// the note goes, then entries of the legend from the end. Without a frame the title gives way to the last entry.
    pub fn render(&self, area: Rect, buf: &mut Buffer, legend: &[LegendEntry<'_>]) -> Rect {
        let area = area.intersection(buf.area);
        if area.is_empty() {
            return area;
        }
        let framed = self.framed && area.height >= 3 && area.width >= 10;
        if !framed {
            let head = Rect { height: 1, ..area };
            let title = self.title_width(0);
            let (note, all) = (self.note_width(), legend.len());
            let fits = |taken: u16, count: usize, named: bool| {
                let gap = if count == 0 || taken == 0 { 0 } else { 2 };
                taken + gap + legend_width(&legend[..count], named) <= area.width
            };
            if fits(title + note, all, true) || fits(title + note, all, false) {
                self.draw_title(head, buf, 0, true);
                self.draw_legend(head, buf, legend, fits(title + note, all, true), 0);
            } else if let Some(count) = (1..=all).rev().find(|&count| fits(title, count, false)) {
                self.draw_title(head, buf, 0, false);
                self.draw_legend(head, buf, &legend[..count], false, 0);
            } else if let Some(count) = (1..=all).rev().find(|&count| fits(0, count, false)) {
                self.draw_legend(head, buf, &legend[..count], false, 0);
            } else {
                self.draw_title(head, buf, 0, false);
            }
            return Rect { y: area.y + 1, height: area.height - 1, ..area };
        }
        let (style, border) = match self.focused {
            true => (self.theme.focus, self.theme.focus_border),
            false => (self.theme.frame, BorderType::Rounded),
        };
        Block::bordered().border_type(border).border_style(style).render(area, buf);
        let upper = Rect { x: area.x + 2, width: area.width - 4, height: 1, ..area };
        let lower = Rect { y: area.bottom() - 1, ..upper };
        let title = self.title_width(1);
        let note = if title + self.note_width() <= upper.width { self.note_width() } else { 0 };
        // A piece of the frame between the title and the legend, and blanks around the legend.
        let fits = |taken: u16, count: usize, named: bool| {
            count == 0 || taken + legend_width(&legend[..count], named) + 3 <= upper.width
        };
        self.draw_title(upper, buf, 1, note > 0);
        let all = legend.len();
        let above = [true, false].into_iter().find(|&named| fits(title + note, all, named));
        // A legend that has the lower edge to itself may take all of it.
        let whole = Rect { x: area.x + 1, width: area.width - 2, ..lower };
        let below =
            (1..=all).rev().flat_map(|count| [(count, true, lower), (count, false, lower), (count, false, whole)]);
        let fits_below = |count: usize, named: bool, row: Rect| {
            if row == whole { legend_width(&legend[..count], false) + 2 <= row.width } else { fits(0, count, named) }
        };
        if let Some(named) = above {
            self.draw_legend(upper, buf, legend, named, 1);
        } else if let Some((count, named, row)) =
            below.into_iter().find(|&(count, named, row)| fits_below(count, named, row))
        {
            self.draw_legend(row, buf, &legend[..count], named, 1);
        }
        Rect { x: area.x + 1, y: area.y + 1, width: area.width - 2, height: area.height - 2 }
    }

    fn title_width(&self, pad: u16) -> u16 {
        if self.title.is_empty() { 0 } else { paint::width(self.title) + 2 * pad }
    }

    /// Columns of ` · note`.
    fn note_width(&self) -> u16 {
        self.note.map_or(0, |note| paint::width(note) + 3)
    }

    /// The title at the left of a row, with `pad` blanks around it.
    fn draw_title(&self, row: Rect, buf: &mut Buffer, pad: u16, noted: bool) {
        if self.title.is_empty() {
            return;
        }
        let blank = " ".repeat(usize::from(pad));
        let title = paint::clip(self.title, row.width.saturating_sub(2 * pad));
        let mut x = paint::text(buf, row, row.x, row.y, &blank, Style::new());
        x = paint::text(buf, row, x, row.y, &title, self.theme.title);
        if let Some(note) = self.note.filter(|_| noted) {
            x = paint::text(buf, row, x, row.y, " · ", self.theme.dim);
            x = paint::text(buf, row, x, row.y, note, self.theme.mark);
        }
        paint::text(buf, row, x, row.y, &blank, Style::new());
    }

    /// The legend at the right of a row, with `pad` blanks around it.
    fn draw_legend(&self, row: Rect, buf: &mut Buffer, legend: &[LegendEntry<'_>], named: bool, pad: u16) {
        if legend.is_empty() {
            return;
        }
        let blank = " ".repeat(usize::from(pad));
        let mut x = row.right().saturating_sub(legend_width(legend, named) + 2 * pad).max(row.x);
        x = paint::text(buf, row, x, row.y, &blank, Style::new());
        for (at, entry) in legend.iter().enumerate() {
            let gap = if at > 0 { "  " } else { "" };
            x = paint::text(buf, row, x, row.y, gap, Style::new());
            x = paint::text(buf, row, x, row.y, entry.look.symbol, entry.look.style);
            x = paint::text(buf, row, x, row.y, " ", Style::new());
            if named && !entry.name.is_empty() {
                x = paint::text(buf, row, x, row.y, entry.name, self.theme.dim);
                x = paint::text(buf, row, x, row.y, " ", Style::new());
            }
            x = paint::text(buf, row, x, row.y, &entry.value, entry.look.style);
        }
        paint::text(buf, row, x, row.y, &blank, Style::new());
    }
}

/// Columns of a legend, entries two apart.
fn legend_width(legend: &[LegendEntry<'_>], named: bool) -> u16 {
    let entry = |entry: &LegendEntry<'_>| {
        let name = if named && !entry.name.is_empty() { paint::width(entry.name) + 1 } else { 0 };
        paint::width(entry.look.symbol) + 1 + name + paint::width(&entry.value) + 2
    };
    legend.iter().map(entry).sum::<u16>().saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{theme::ColorDepth, widgets::samples::text};

    fn drawn(panel: Panel<'_>, width: u16, height: u16) -> Buffer {
        let theme = panel.theme();
        let entry = |name, look, value: &str| LegendEntry { name, look, value: value.into() };
        let legend = [entry("kcache", theme.kcache, "12.3 MiB"), entry("kv", theme.kv, "24.5 MiB")];
        let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
        panel.render(buf.area, &mut buf, &legend);
        buf
    }

    #[test]
    fn room_is_given_up_in_order() {
        let theme = Theme::mono();
        let panel = Panel::new(&theme, "Memory").note("simulated");
        let rows = |panel, width, height| text(&drawn(panel, width, height));
        assert_eq!(
            rows(panel, 64, 3).lines().next().unwrap(),
            "╭─ Memory · simulated ────── ● kcache 12.3 MiB  ○ kv 24.5 MiB ─╮"
        );
        assert_eq!(rows(panel, 52, 3).lines().next().unwrap(), "╭─ Memory · simulated ──── ● 12.3 MiB  ○ 24.5 MiB ─╮");
        let narrow = rows(panel, 40, 3);
        assert_eq!(narrow.lines().next().unwrap(), "╭─ Memory · simulated ─────────────────╮");
        assert_eq!(narrow.lines().last().unwrap(), "╰─── ● kcache 12.3 MiB  ○ kv 24.5 MiB ─╯");
        assert_eq!(rows(panel.bare(), 40, 1), "Memory            ● 12.3 MiB  ○ 24.5 MiB");
        assert_eq!(rows(panel.bare(), 16, 1), "      ● 12.3 MiB");
        assert_eq!(rows(panel.bare(), 4, 1), "Mem…");
    }

    #[test]
    fn focus_shows_with_and_without_colour() {
        for theme in [Theme::mono(), Theme::dark(ColorDepth::Ansi16)] {
            let panel = Panel::new(&theme, "Memory");
            assert_ne!(drawn(panel.focused(true), 40, 3)[(0, 0)], drawn(panel, 40, 3)[(0, 0)]);
        }
        let mono = Theme::mono();
        assert!(text(&drawn(Panel::new(&mono, "Memory").focused(true), 40, 3)).starts_with('┏'));
    }
}
