//! Several series over time, with a budget, marks where knobs were changed, and a cursor.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    widgets::Widget,
};

use super::{
    axis::Axis,
    braille::Grid,
    paint,
    panel::{LegendEntry, Panel},
    time_range::{Columns, TimeRange, short_time},
    units::{Unit, millis},
};
use crate::{
    telemetry::{Marks, Series},
    tui::theme::SeriesLook,
};

/// One series on a chart.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    pub series: &'a Series,
    pub look: SeriesLook,
}

/// A chart of several series over time. Lines given first lie on top.
#[derive(Debug, Clone)]
pub struct TimeChart<'a> {
    panel: Panel<'a>,
    axis: &'a Axis,
    span: TimeRange,
    lines: Vec<Line<'a>>,
    budgets: Vec<(f64, &'a str)>,
    marks: Option<&'a Marks>,
    cursor_ms: Option<f64>,
    bare: bool,
    figures: Option<Vec<Option<f64>>>,
}

impl<'a> TimeChart<'a> {
    /// An empty chart. `axis` is kept by the caller, who has it follow the values on show.
    pub fn new(panel: Panel<'a>, axis: &'a Axis, span: TimeRange) -> Self {
        Self {
            panel,
            axis,
            span,
            lines: Vec::new(),
            budgets: Vec::new(),
            marks: None,
            cursor_ms: None,
            bare: false,
            figures: None,
        }
    }

    pub fn line(mut self, name: &'a str, series: &'a Series, look: SeriesLook) -> Self {
        self.lines.push(Line { name, series, look });
        self
    }

    /// A limit, drawn across the chart. Above the axis it is named at the top.
    pub fn budget(mut self, value: Option<f64>, label: &'a str) -> Self {
        self.budgets.extend(value.map(|value| (value, label)));
        self
    }

    pub fn marks(self, marks: &'a Marks) -> Self {
        Self { marks: Some(marks), ..self }
    }

    /// A moment to read values at; the legend shows them instead of the newest.
    pub fn cursor(self, t_ms: Option<f64>) -> Self {
        Self { cursor_ms: t_ms, ..self }
    }

    /// Values in the legend go without their unit: the title names it.
    pub fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    /// What the legend shows of each line in place of its newest value: a figure of the whole stretch.
    pub fn figures(self, figures: impl Into<Vec<Option<f64>>>) -> Self {
        Self { figures: Some(figures.into()), ..self }
    }

    /// A value as the legend shows it; one width for each chart.
    fn figure(&self, value: Option<f64>) -> String {
        match (self.bare, self.axis.unit(), value.filter(|value| value.is_finite())) {
            (false, unit, _) => unit.fixed(value),
            (true, Unit::Ms, Some(ms)) => format!("{:>4}", millis(ms)),
            (true, unit, _) => format!("{:>4}", unit.parts(value).0),
        }
    }

    fn legend(&self) -> Vec<LegendEntry<'a>> {
        self.lines
            .iter()
            .enumerate()
            .map(|(at, line)| {
                let value = match &self.figures {
                    Some(figures) => figures.get(at).copied().flatten(),
                    None => line.series.at(self.cursor_ms.unwrap_or(self.span.to_ms)),
                };
                LegendEntry { name: line.name, look: line.look, value: self.figure(value) }
            })
            .collect()
    }

    /// One row per series: sign, sparkline, value.
    fn sparklines(&self, area: Rect, buf: &mut Buffer) {
        for (line, y) in self.lines.iter().zip(area.top()..area.bottom()) {
            let x = paint::text(buf, area, area.x, y, line.look.symbol, line.look.style) + 1;
            let plot = Rect { x, y, width: area.right().saturating_sub(x), height: 1 };
            if plot.width == 0 {
                continue;
            }
            let time = Columns::new(self.span, usize::from(plot.width));
            for column in line.series.columns(time.first, time.width_ms, time.count) {
                let eighths = (column.max / self.axis.top() * 8.0).round().clamp(1.0, 8.0) as usize;
                paint::cell(buf, plot, plot.x + column.index as u16, y, paint::LOWER_EIGHTHS[eighths], line.look.style);
            }
        }
    }

    /// Labels of the value axis, each in the row of its height; as many as leave a free row between two.
    fn value_axis(&self, plot: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        for y in plot.top()..plot.bottom() {
            paint::cell(buf, Rect { x: plot.x - 1, width: 1, ..plot }, plot.x - 1, y, "│", theme.dim);
        }
        let area = Rect { x: plot.x - 1 - self.gutter(), width: self.gutter() + 1, ..plot };
        let ticks: Vec<f64> = self.axis.ticks().collect();
        // Keep every k-th tick, with k dividing the number of steps so that 0 and the top are among them.
        let steps = ticks.len() - 1;
        let room = (usize::from(plot.height).saturating_sub(1) / 2).max(1);
        let every = (1..=steps).find(|every| steps.is_multiple_of(*every) && steps / every <= room).unwrap_or(steps);
        for tick in ticks.iter().step_by(every) {
            let y = plot.y + (self.height(*tick, plot) / 4) as u16;
            paint::right(buf, area, plot.x - 1, y, &format!("{} ", self.axis.unit().tick(*tick)), theme.dim);
            paint::cell(buf, area, plot.x - 1, y, "┤", theme.dim);
        }
    }

    /// Columns left of the axis; one width for each unit, so that charts line up and do not jump.
    fn gutter(&self) -> u16 {
        // A tick without a unit has a blank after it.
        self.axis.unit().width().max(5) as u16
    }

    /// The row of dots at which a value lies; what is above the axis lies at its top.
    fn height(&self, value: f64, plot: Rect) -> i64 {
        let rows = i64::from(plot.height) * 4 - 1;
        let share = (value / self.axis.top()).clamp(0.0, 1.0);
        rows - (share * rows as f64).round() as i64
    }

    fn draw_mark_lines(&self, plot: Rect, buf: &mut Buffer, time: &Columns) {
        let style = self.panel.theme().mark.add_modifier(Modifier::DIM);
        for mark in self.marks.iter().flat_map(|marks| marks.window(time.start_ms(), time.end_ms())) {
            let x = time.cell(mark.t_ms, plot);
            for y in plot.top()..plot.bottom() {
                paint::cell(buf, plot, x, y, "┊", style);
            }
        }
    }

    /// The newest mark is named first; an older one where room is left before it.
    fn draw_mark_labels(&self, plot: Rect, buf: &mut Buffer, time: &Columns) {
        let Some(marks) = self.marks else { return };
        let style = self.panel.theme().mark;
        // A sign of a series is drawn later; a label in its way would lose a letter.
        let signs: Vec<u16> = self.signs(plot, time).filter(|(_, y, _)| *y == plot.y).map(|(x, ..)| x).collect();
        let clear = |start: u16, width: u16| !signs.iter().any(|x| (start..start + width).contains(x));
        let mut free_until = plot.right();
        for mark in marks.window(time.start_ms(), time.end_ms()).rev() {
            let (x, width) = (time.cell(mark.t_ms, plot), paint::width(&mark.label));
            let gap = u16::from(free_until < plot.right());
            let start = if x + 1 + width + gap <= free_until && clear(x + 1, width) {
                Some(x + 1)
            } else if x >= plot.x + width && x < free_until && clear(x - width, width) {
                Some(x - width)
            } else {
                None
            };
            if let Some(start) = start {
                paint::text(buf, plot, start, plot.y, &mark.label, style);
            }
            free_until = free_until.min(start.unwrap_or(x)).min(x);
        }
    }

    fn draw_budget_line(&self, plot: Rect, buf: &mut Buffer) {
        for &(value, _) in self.budgets.iter().filter(|(value, _)| *value <= self.axis.top()) {
            let y = plot.y + (self.height(value, plot) / 4) as u16;
            for x in plot.left()..plot.right() {
                paint::cell(buf, plot, x, y, "╌", self.panel.theme().budget);
            }
        }
    }

    /// Names the budget beside its line, where no series is in the way.
    fn draw_budget_label(&self, plot: Rect, buf: &mut Buffer, (value, label): (f64, &str)) {
        let theme = self.panel.theme();
        let text = format!("{label} {}", self.axis.unit().text(Some(value)));
        let (text, rows) = if value > self.axis.top() {
            (format!(" ↑ {text} "), vec![plot.y + u16::from(plot.height > 3), plot.y])
        } else {
            let y = plot.y + (self.height(value, plot) / 4) as u16;
            (format!(" {text} "), vec![y, y.saturating_sub(1).max(plot.y), (y + 1).min(plot.bottom() - 1)])
        };
        let width = paint::width(&text);
        if width + 2 > plot.width {
            return;
        }
        let columns = [plot.x + 2, plot.right() - width - 2, plot.x + (plot.width - width) / 2];
        let free = |x: u16, y: u16| {
            (x..x + width).all(|x| matches!(buf.cell((x, y)).map_or("", |cell| cell.symbol()), " " | "╌" | "┊"))
        };
        let mut places = rows.iter().flat_map(|&y| columns.map(|x| (x, y)));
        // Where everything is taken the label covers a piece of a line, unless rows are few.
        let covering = (plot.height >= 6).then_some((columns[0], rows[0]));
        if let Some((x, y)) = places.find(|&(x, y)| free(x, y)).or(covering) {
            paint::text(buf, plot, x, y, &text, theme.budget);
        }
    }

    fn draw_cursor(&self, plot: Rect, row: Option<Rect>, buf: &mut Buffer, time: &Columns) {
        let Some(cursor) = self.cursor_ms else { return };
        let theme = self.panel.theme();
        let x = time.cell(cursor, plot);
        for y in plot.top()..plot.bottom() {
            paint::cell(buf, plot, x, y, "│", theme.text);
        }
        if let Some(row) = row {
            let label = format!(" {} ", short_time((self.span.now_ms - cursor).max(0.0) / 1000.0));
            let width = paint::width(&label);
            let x = x.saturating_sub(width / 2).clamp(row.x, row.right().saturating_sub(width).max(row.x));
            paint::text(buf, row, x, row.y, &label, theme.cursor);
        }
    }

    fn draw_lines(&self, plot: Rect, buf: &mut Buffer, time: &Columns) {
        let mut grid = Grid::new(plot);
        for (at, line) in self.lines.iter().enumerate().rev() {
            let mut before: Option<(i64, i64)> = None;
            for column in line.series.columns(time.first, time.width_ms, time.count) {
                let x = column.index as i64;
                let [first, last, top, bottom] =
                    [column.first, column.last, column.max, column.min].map(|value| self.height(value, plot));
                if let Some(before) = before.filter(|_| column.joined) {
                    grid.line(before, (x, first), at, line.look.pattern, time.first);
                }
                grid.line((x, top), (x, bottom), at, line.look.pattern, time.first);
                before = Some((x, last));
            }
        }
        let styles: Vec<Style> = self.lines.iter().map(|line| line.look.style).collect();
        grid.render(buf, &styles);
    }

    /// The sign of each series at the end of its line, or where the cursor crosses it.
    fn draw_signs(&self, plot: Rect, buf: &mut Buffer, time: &Columns) {
        for (x, y, look) in self.signs(plot, time) {
            paint::cell(buf, plot, x, y, look.symbol, look.style);
        }
    }

    /// Where the signs are, the ones below first.
    fn signs(&self, plot: Rect, time: &Columns) -> impl Iterator<Item = (u16, u16, SeriesLook)> {
        let t_ms = self.cursor_ms.unwrap_or(self.span.to_ms);
        let x = time.cell(t_ms, plot);
        self.lines.iter().rev().filter_map(move |line| {
            let value = line.series.at(t_ms)?;
            Some((x, plot.y + (self.height(value, plot) / 4) as u16, line.look))
        })
    }
}

impl Widget for &TimeChart<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let inner = self.panel.render(area, buf, &self.legend());
        let gutter = self.gutter() + 1;
        if inner.height < 3 || inner.width < gutter + 12 || !self.span.is_valid() {
            return self.sparklines(inner, buf);
        }
        let axis_rows = u16::from(inner.height >= 5);
        let plot = Rect { x: inner.x + gutter, width: inner.width - gutter, height: inner.height - axis_rows, ..inner };
        let time = Columns::new(self.span, usize::from(plot.width) * 2);
        let row = (axis_rows > 0).then_some(Rect { y: plot.bottom(), height: 1, ..inner });
        self.value_axis(plot, buf);
        self.draw_budget_line(plot, buf);
        self.draw_mark_lines(plot, buf, &time);
        self.draw_lines(plot, buf, &time);
        if let Some(row) = row {
            self.span.draw_axis(plot, row, self.panel.theme().dim, buf);
        }
        self.draw_cursor(plot, row, buf, &time);
        self.draw_mark_labels(plot, buf, &time);
        for &budget in &self.budgets {
            self.draw_budget_label(plot, buf, budget);
        }
        self.draw_signs(plot, buf, &time);
    }
}

#[cfg(test)]
mod tests;
