//! The kept mass of each layer as columns from 0 to 1, with the worst layer named.

use ratatui::{buffer::Buffer, layout::Rect, style::Modifier, widgets::Widget};

use super::{
    paint,
    panel::{LegendEntry, Panel},
    units::Unit,
};
use crate::tui::theme::SeriesLook;

/// Columns left of the chart: `100 %` and the axis.
const GUTTER: u16 = 7;

#[derive(Debug, Clone)]
pub struct KeptMass<'a> {
    panel: Panel<'a>,
    mass: &'a [f32],
    look: SeriesLook,
    mean: Option<f64>,
    since: &'a str,
}

impl<'a> KeptMass<'a> {
    /// A chart of `mass`, one value in 0..=1 per layer; empty while nothing is known.
    pub fn new(panel: Panel<'a>, mass: &'a [f32], look: SeriesLook) -> Self {
        Self { panel, mass, look, mean: None, since: "yet" }
    }

    /// The mean that the legend names: of the layers that choose rows, those that read every row not counted.
    pub fn mean(self, mean: Option<f64>) -> Self {
        Self { mean, ..self }
    }

    /// What follows on "no token" where there is none: `since n=256`.
    pub fn since(self, since: &'a str) -> Self {
        Self { since, ..self }
    }

    /// The layer that keeps least, and how much that is.
    fn worst(&self) -> Option<(usize, f64)> {
        let masses = self.mass.iter().map(|&mass| f64::from(mass)).enumerate().filter(|(_, mass)| mass.is_finite());
        masses.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Layers that share a column of the screen where there are more layers than columns.
    fn group(&self, plot: Rect) -> usize {
        self.mass.len().div_ceil(usize::from(plot.width)).max(1)
    }

    /// The column at which a group of layers begins. Groups are equally wide where columns are plenty; where they are
    /// few all are used, so that groups may differ by one.
    fn column(&self, at: usize, plot: Rect) -> u16 {
        let groups = self.mass.len().div_ceil(self.group(plot)).max(1);
        let width = usize::from(plot.width);
        plot.x + if width / groups >= 3 { at * (width / groups).min(6) } else { at * width / groups } as u16
    }

    fn draw(&self, plot: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let group = self.group(plot);
        let worst = self.worst().map(|(layer, _)| layer / group);
        for (at, layers) in self.mass.chunks(group).enumerate() {
            // Where several layers share a column the worst of them is shown.
            let Some(least) = layers.iter().copied().filter(|mass| mass.is_finite()).reduce(f32::min) else { continue };
            let style = if worst == Some(at) { theme.warn } else { self.look.style };
            let (left, next) = (self.column(at, plot), self.column(at + 1, plot));
            let right = if next - left >= 3 { next - 1 } else { next };
            let mut eighths = eighths(f64::from(least), plot.height);
            for row in plot.rows().rev() {
                let part = eighths.min(8);
                eighths -= part;
                // What matters is the top of a column; the rest is dimmed, so that the chart is not a wall of colour.
                let body = eighths > 0 && plot.height >= 3;
                let style = if body { style.add_modifier(Modifier::DIM) } else { style };
                for x in (left..right).filter(|_| part > 0) {
                    paint::cell(buf, plot, x, row.y, paint::LOWER_EIGHTHS[part], style);
                }
            }
        }
    }

    /// Layer numbers, with the worst one named in their row.
    fn layer_axis(&self, plot: Rect, row: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let group = self.group(plot);
        let column = |layer: usize| self.column(layer / group, plot);
        let worst = self.worst().map(|(layer, _)| {
            let at = column(layer);
            let after = format!("▲L{layer}");
            let width = paint::width(&after);
            let (x, label) = match at + width <= row.right() {
                true => (at, after),
                false => ((at + 1).saturating_sub(width).max(row.x), format!("L{layer}▲")),
            };
            paint::text(buf, row, x, row.y, &label, theme.warn);
            (x.saturating_sub(1), x + width + 1)
        });
        let apart = |every: usize| column(every.min(self.mass.len())).saturating_sub(plot.x) >= 4;
        let every = [1, 2, 5, 10, 20, 50].into_iter().find(|&every| apart(every)).unwrap_or(100);
        for layer in (0..self.mass.len()).step_by(every) {
            let label = layer.to_string();
            let (x, end) = (column(layer), column(layer) + paint::width(&label));
            let free = worst.is_none_or(|(from, to)| end <= from || x >= to);
            if free && end <= row.right() {
                paint::text(buf, row, x, row.y, &label, theme.dim);
            }
        }
    }
}

/// Eighths of a row up to the top of a column. A tick lies in the middle of its row, so nothing kept reaches the middle of
/// the lowest row, and everything the middle of the highest.
fn eighths(mass: f64, rows: u16) -> usize {
    let mass = mass.clamp(0.0, 1.0);
    match rows {
        // There is no room for ticks.
        0 | 1 => (mass * 8.0).round() as usize,
        _ => 4 + (mass * f64::from(rows - 1) * 8.0).round() as usize,
    }
}

impl Widget for &KeptMass<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let plain = SeriesLook { symbol: "mean", style: theme.text, pattern: self.look.pattern };
        let mean = LegendEntry { name: "", look: plain, value: Unit::Percent.fixed(self.mean) };
        let worst = self.worst().map(|(layer, mass)| LegendEntry {
            name: "",
            look: SeriesLook { symbol: "worst", style: theme.warn, pattern: self.look.pattern },
            value: format!("L{layer} {}", Unit::Percent.fixed(Some(mass))),
        });
        let legend: Vec<_> = std::iter::once(mean).chain(worst).collect();
        let inner = self.panel.render(area, buf, &legend);
        if inner.is_empty() {
            return;
        }
        if self.mass.is_empty() {
            paint::text(
                buf,
                inner,
                inner.x,
                inner.y + inner.height / 2,
                &paint::clip(&format!("n/a: no token {}", self.since), inner.width),
                theme.dim,
            );
            return;
        }
        let gutter = if inner.width >= GUTTER + 10 && inner.height >= 3 { GUTTER } else { 0 };
        let below = u16::from(inner.height >= 3);
        let plot = Rect { x: inner.x + gutter, width: inner.width - gutter, height: inner.height - below, ..inner };
        if gutter > 0 {
            let axis = Rect { x: inner.x, width: gutter, ..plot };
            let mut labels = vec![(plot.y, "100 % "), (plot.bottom() - 1, "0 % ")];
            if plot.height >= 5 && plot.height % 2 == 1 {
                labels.push((plot.y + plot.height / 2, "50 % "));
            }
            for y in plot.top()..plot.bottom() {
                paint::cell(buf, axis, axis.right() - 1, y, "│", theme.dim);
            }
            for (y, label) in labels {
                paint::right(buf, axis, axis.right() - 1, y, label, theme.dim);
                paint::cell(buf, axis, axis.right() - 1, y, "┤", theme.dim);
            }
        }
        self.draw(plot, buf);
        if below == 1 {
            self.layer_axis(plot, Rect { y: plot.bottom(), height: 1, x: plot.x, width: plot.width }, buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{theme::Theme, widgets::samples};

    #[test]
    fn a_column_ends_at_the_tick_of_its_value() {
        let theme = Theme::mono();
        // Nothing, half and all of it, in a plot of nine rows with its ticks in the first, the middle and the last.
        let mass = [0.0, 0.5, 1.0];
        let buf = samples::drawn(&KeptMass::new(Panel::new(&theme, "x"), &mass, theme.kcache), 40, 12);
        let screen = samples::text(&buf);
        let rows: Vec<&str> = screen.lines().collect();
        let tick = |label: &str| rows.iter().position(|row| row.contains(label)).unwrap();
        for (column, label) in [(0, "│  0 %"), (1, " 50 %"), (2, "100 %")] {
            let x = 1 + GUTTER + column * 6;
            let top = (0..12).find(|&y| paint::LOWER_EIGHTHS[1..].contains(&buf[(x, y)].symbol())).unwrap();
            assert_eq!((usize::from(top), buf[(x, top)].symbol()), (tick(label), paint::LOWER_EIGHTHS[4]), "{screen}");
        }
    }
}
