//! How latencies are spread: a small histogram per lane with the median and the 99th percentile marked.

use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget};

use super::{
    axis::Axis,
    paint,
    panel::{LegendEntry, Panel},
    units::Unit,
};
use crate::{
    telemetry::{Latency, Summary},
    tui::theme::SeriesLook,
};

/// The latencies of one lane.
#[derive(Debug, Clone, Copy)]
pub struct LatencyLane<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its look.
    pub look: SeriesLook,
    /// Its latencies.
    pub latency: &'a Latency,
}

/// One histogram per lane over one scale, and a line of figures for each.
#[derive(Debug, Clone)]
pub struct LatencyHistogram<'a> {
    panel: Panel<'a>,
    axis: &'a Axis,
    now_ms: f64,
    lanes: Vec<LatencyLane<'a>>,
}

impl<'a> LatencyHistogram<'a> {
    /// Histograms of the window that ends at `now_ms`, from 0 to the top of `axis`; the last column counts all above.
    pub fn new(panel: Panel<'a>, axis: &'a Axis, now_ms: f64) -> Self {
        Self { panel, axis, now_ms, lanes: Vec::new() }
    }

    /// Adds a lane.
    pub fn lane(mut self, name: &'a str, look: SeriesLook, latency: &'a Latency) -> Self {
        self.lanes.push(LatencyLane { name, look, latency });
        self
    }

    fn median(&self, lane: &LatencyLane<'a>) -> LegendEntry<'a> {
        let median = lane.latency.window(self.now_ms).p50;
        LegendEntry { name: "p50", look: lane.look, value: self.axis.unit().fixed(median) }
    }

    /// `● kcache  p50 12.3 ms  p99 45.6 ms  max …  n …`, as much as fits.
    fn figures(&self, row: Rect, lane: &LatencyLane<'_>, summary: &Summary, name_width: usize, buf: &mut Buffer) {
        let (theme, unit) = (self.panel.theme(), self.axis.unit());
        let mut x = paint::text(buf, row, row.x, row.y, lane.look.symbol, lane.look.style) + 1;
        x = paint::text(buf, row, x, row.y, &format!("{:<name_width$}", lane.name), theme.text);
        let count = Unit::Count.fixed(Some(summary.count as f64));
        let figures = [
            ("p50", unit.fixed(summary.p50)),
            ("p99", unit.fixed(summary.p99)),
            ("max", unit.fixed(summary.max)),
            ("n", count),
        ];
        for (name, value) in figures {
            if x + 2 + paint::width(name) + 1 + paint::width(&value) > row.right() {
                break;
            }
            x = paint::text(buf, row, x + 2, row.y, name, theme.dim);
            x = paint::text(buf, row, x + 1, row.y, &value, lane.look.style);
        }
    }

    /// Columns, and below them a line on which the percentiles stand.
    fn columns(&self, area: Rect, lane: &LatencyLane<'_>, summary: &Summary, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let bars = Rect { height: area.height - 1, ..area };
        let bins = lane.latency.bins(self.now_ms, self.axis.top(), usize::from(area.width));
        let most = bins.iter().copied().max().unwrap_or(0).max(1);
        let full = u64::from(bars.height) * 8;
        for (at, &count) in bins.iter().enumerate().filter(|&(_, &count)| count > 0) {
            // What is there at all is seen: at least one eighth.
            let mut eighths = (count * full / most).max(1);
            for y in bars.rows().rev().map(|row| row.y) {
                let part = eighths.min(8) as usize;
                paint::cell(buf, bars, bars.x + at as u16, y, paint::LOWER_EIGHTHS[part], lane.look.style);
                eighths -= part as u64;
                if eighths == 0 {
                    break;
                }
            }
        }
        let line = Rect { y: bars.bottom(), height: 1, ..area };
        for x in line.left()..line.right() {
            paint::cell(buf, line, x, line.y, "─", theme.dim);
        }
        // The median is named at the left of its place and the 99th percentile at the right, so that they never cover
        // each other, whatever the distance; at an edge the name changes sides.
        for (name, value, to_the_left) in [("p99", summary.p99, false), ("p50", summary.p50, true)] {
            let Some(value) = value else { continue };
            let share = (value / self.axis.top()).clamp(0.0, 1.0);
            let x = line.x + ((share * f64::from(line.width)) as u16).min(line.width - 1);
            let width = paint::width(name);
            let left_fits = x >= line.x + width;
            if (to_the_left && left_fits) || x + 1 + width > line.right() {
                paint::right(buf, line, x, line.y, name, lane.look.style);
            } else {
                paint::text(buf, line, x + 1, line.y, name, lane.look.style);
            }
            paint::cell(buf, line, x, line.y, "┴", lane.look.style);
        }
    }

    /// Ticks in one row below all.
    fn scale(&self, row: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let mut free_from = row.x;
        for tick in self.axis.ticks() {
            let label = self.axis.unit().tick(tick);
            let at = row.x + (tick / self.axis.top() * f64::from(row.width - 1)).round() as u16;
            let width = paint::width(&label);
            let x = at.saturating_sub(width / 2).clamp(row.x, row.right().saturating_sub(width).max(row.x));
            if x >= free_from {
                free_from = paint::text(buf, row, x, row.y, &label, theme.dim) + 2;
            }
        }
    }
}

impl Widget for &LatencyHistogram<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let medians: Vec<_> = self.lanes.iter().map(|lane| self.median(lane)).collect();
        // In a single row the medians are all there is.
        let inner = self.panel.render(area, buf, if area.height == 1 { &medians } else { &[] });
        let lanes = self.lanes.len() as u16;
        if inner.is_empty() || lanes == 0 {
            return;
        }
        let name_width = self.lanes.iter().map(|lane| usize::from(paint::width(lane.name))).max().unwrap_or(0);
        let scale = u16::from(inner.height > lanes * 3);
        let band = (inner.height - scale) / lanes;
        for (lane, at) in self.lanes.iter().zip(0u16..) {
            let top = inner.y + at * band.max(1);
            if top >= inner.bottom() {
                break;
            }
            let summary = lane.latency.window(self.now_ms);
            self.figures(Rect { y: top, height: 1, ..inner }, lane, &summary, name_width, buf);
            if band >= 3 {
                self.columns(Rect { y: top + 1, height: band - 1, ..inner }, lane, &summary, buf);
            }
        }
        if scale == 1 && band >= 3 {
            self.scale(Rect { y: inner.y + band * lanes, height: 1, ..inner }, buf);
        }
    }
}
