//! Kept mass against N: how much of the softmax the N heaviest rows hold, from 1 row to all of them.

use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget};

use super::{
    braille::Grid,
    paint,
    panel::{LegendEntry, Panel},
    units::Unit,
};
use crate::tui::theme::SeriesLook;

/// Columns left of the chart: `100 %` and the axis.
const GUTTER: u16 = 7;

/// Curves over N on a scale that doubles.
#[derive(Debug, Clone)]
pub struct CoverageCurve<'a> {
    panel: Panel<'a>,
    n: &'a [usize],
    lines: Vec<(String, Vec<f64>, SeriesLook)>,
    today: Option<(f64, f64)>,
    why: &'a str,
}

impl<'a> CoverageCurve<'a> {
    /// A chart over these N, which ascend.
    pub fn new(panel: Panel<'a>, n: &'a [usize]) -> Self {
        Self { panel, n, lines: Vec::new(), today: None, why: "n/a" }
    }

    /// Adds a curve, one value in 0..=1 for every N.
    pub fn line(mut self, name: String, curve: Vec<f64>, look: SeriesLook) -> Self {
        self.lines.push((name, curve, look));
        self
    }

    /// Marks the rows that are read now, and the mass that they hold.
    pub fn today(self, today: Option<(f64, f64)>) -> Self {
        Self { today, ..self }
    }

    /// Why there is no curve.
    pub fn why(self, why: &'a str) -> Self {
        Self { why, ..self }
    }

    /// Where N lies, in 0..=1.
    fn place(&self, n: f64) -> f64 {
        let last = self.n.last().map_or(1.0, |&n| n as f64);
        if last <= 1.0 { 0.0 } else { (n.max(1.0).ln() / last.ln()).clamp(0.0, 1.0) }
    }

    /// A curve at any N, straight between its points on the scale of the chart.
    fn at(&self, curve: &[f64], n: f64) -> Option<f64> {
        let after = self.n.partition_point(|&each| (each as f64) < n);
        let (&right, right_n) = (curve.get(after)?, *self.n.get(after)?);
        let Some(left) = after.checked_sub(1) else { return Some(right) };
        let (from, to) = (self.place(self.n[left] as f64), self.place(right_n as f64));
        let share = if to > from { (self.place(n) - from) / (to - from) } else { 1.0 };
        Some(curve[left] + (right - curve[left]) * share)
    }

    fn axis(&self, plot: Rect, row: Rect, buf: &mut Buffer) {
        let mut free_from = row.x;
        for (at, &n) in self.n.iter().enumerate() {
            let text = Unit::Count.text(Some(n as f64));
            let last = at + 1 == self.n.len();
            let x = plot.x + (self.place(n as f64) * f64::from(plot.width - 1)).round() as u16;
            let x = if last { row.right().saturating_sub(paint::width(&text)) } else { x };
            // The last is the context's length, and has its place kept.
            let room = if last { 0 } else { paint::width(&Unit::Count.text(self.n.last().map(|&n| n as f64))) + 1 };
            if x >= free_from && x + paint::width(&text) + room <= row.right() {
                free_from = paint::text(buf, row, x, row.y, &text, self.panel.theme().dim) + 1;
            }
        }
    }
}

impl Widget for &CoverageCurve<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let n = self.today.map(|(n, _)| n);
        let value = |curve: &[f64]| n.and_then(|n| self.at(curve, n));
        let mut legend = Vec::with_capacity(self.lines.len());
        for (name, curve, look) in &self.lines {
            legend.push(LegendEntry { name, look: *look, value: Unit::Percent.fixed(value(curve)) });
        }
        let inner = self.panel.render(area, buf, &legend);
        if inner.is_empty() {
            return;
        }
        if self.lines.is_empty() || self.n.len() < 2 || inner.width < GUTTER + 8 || inner.height < 3 {
            let text = if self.lines.is_empty() { self.why.to_owned() } else { legend[0].value.clone() };
            paint::text(buf, inner, inner.x, inner.y + inner.height / 2, &paint::clip(&text, inner.width), theme.dim);
            return;
        }
        let plot = Rect { x: inner.x + GUTTER, width: inner.width - GUTTER, height: inner.height - 1, ..inner };
        for (row, y) in (plot.top()..plot.bottom()).enumerate() {
            let label = match row {
                0 => "100 % ┤",
                _ if y + 1 == plot.bottom() => "0 % ┤",
                _ if plot.height >= 7 && row == usize::from(plot.height / 2) => "50 % ┤",
                _ => "│",
            };
            paint::right(buf, Rect { x: inner.x, width: GUTTER, ..plot }, plot.x, y, label, theme.dim);
        }
        self.axis(plot, Rect { y: plot.bottom(), height: 1, ..plot }, buf);
        let dots = (i64::from(plot.width) * 2 - 1, i64::from(plot.height) * 4 - 1);
        let dot = |n: f64, mass: f64| {
            let x = (self.place(n) * dots.0 as f64).round() as i64;
            (x, dots.1 - (mass.clamp(0.0, 1.0) * dots.1 as f64).round() as i64)
        };
        let mark = n.map(|n| (plot.x + (dot(n, 0.0).0 / 2) as u16, n));
        if let Some((x, _)) = mark {
            (plot.top()..plot.bottom()).for_each(|y| paint::cell(buf, plot, x, y, "┊", theme.mark));
        }
        let mut grid = Grid::new(plot);
        for (at, (_, curve, look)) in self.lines.iter().enumerate().rev() {
            let points: Vec<_> = self.n.iter().zip(curve).map(|(&n, &mass)| dot(n as f64, mass)).collect();
            points.windows(2).for_each(|pair| grid.line(pair[0], pair[1], at, look.pattern, 0));
        }
        let styles: Vec<_> = self.lines.iter().map(|(.., look)| look.style).collect();
        grid.render(buf, &styles);
        if let (Some((x, n)), Some((_, kept))) = (mark, self.today) {
            let y = plot.y + (dot(n, kept).1 / 4) as u16;
            paint::cell(buf, plot, x, y, theme.kcache.symbol, theme.kcache.style);
            // Low down, where a curve that rises to the right leaves room on that side of the mark.
            let label = format!(" N {} keeps {} ", Unit::Plain.text(Some(n)), Unit::Percent.text(Some(kept)));
            let width = paint::width(&label);
            let at = if x + 1 + width <= plot.right() { x + 1 } else { x.saturating_sub(width).max(plot.x) };
            paint::text(buf, plot, at, plot.bottom() - 1, &label, theme.mark);
        }
    }
}
