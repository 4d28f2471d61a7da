//! Where the selected rows lie: layers down, distance from now across in powers of two.
//!
//! A cell's intensity is the share of its layer's rows that lie at that distance, on a square-root scale from 0 to half
//! of them. The scale is fixed, so colours can be compared over time and between runs.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    widgets::Widget,
};

use super::{paint, panel::Panel, units::Unit};
use crate::{engine::DISTANCE_BUCKETS, tui::theme::Heat};

/// The share that is shown as the hottest step.
const HOTTEST: f64 = 0.5;

/// Columns left of the map: `L29` and a blank.
const GUTTER: u16 = 4;

/// A heat map of hits, `[layers][DISTANCE_BUCKETS]`.
#[derive(Debug, Clone)]
pub struct HeatMap<'a> {
    panel: Panel<'a>,
    hits: &'a [Vec<u64>],
    buckets: usize,
    sink_share: Option<f64>,
    recent_share: Option<f64>,
}

impl<'a> HeatMap<'a> {
    /// A map of `hits`, as far as a context of `context` tokens reaches.
    pub fn new(panel: Panel<'a>, hits: &'a [Vec<u64>], context: usize) -> Self {
        let reached = usize::BITS - context.saturating_sub(1).leading_zeros();
        let buckets = (reached as usize + 1).clamp(2, DISTANCE_BUCKETS);
        Self { panel, hits, buckets, sink_share: None, recent_share: None }
    }

    /// The shares among the first four and the last 64 positions, for the line below.
    pub fn shares(self, sink: Option<f64>, recent: Option<f64>) -> Self {
        Self { sink_share: sink, recent_share: recent, ..self }
    }

    /// The share of each bucket in the rows of some layers together; `None` where they selected nothing.
    fn shares_of(&self, layers: &[Vec<u64>]) -> Option<Vec<f64>> {
        let total: u64 = layers.iter().flatten().sum();
        let share = |bucket: usize| {
            let count: u64 = layers.iter().filter_map(|layer| layer.get(bucket)).sum();
            count as f64 / total as f64
        };
        (total > 0).then(|| (0..self.buckets).map(share).collect())
    }

    fn figures(&self) -> String {
        let share = |share| Unit::Percent.fixed(share);
        format!("sink {}  recent {}", share(self.sink_share), share(self.recent_share))
    }

    /// The scale, and where room is left the shares in figures.
    fn footer(&self, row: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let steps = theme.heat.steps();
        let scale_width = 2 + steps as u16 * 2 + 7;
        let figures = self.figures();
        let figures_width = paint::width(&figures);
        if row.width >= scale_width {
            let mut x = paint::text(buf, row, row.x, row.y, "0 ", theme.dim);
            for step in 0..steps {
                for _ in 0..2 {
                    let (symbol, style) = one(&theme.heat, step);
                    paint::cell(buf, row, x, row.y, symbol, style);
                    x += 1;
                }
            }
            paint::text(buf, row, x, row.y, &format!(" ≥{:.0} %", HOTTEST * 100.0), theme.dim);
            if row.width >= scale_width + 2 + figures_width {
                paint::right(buf, row, row.right(), row.y, &figures, theme.text);
            }
        } else {
            paint::text(buf, row, row.x, row.y, &paint::clip(&figures, row.width), theme.text);
        }
    }

    /// `now 1 4 16 64 256 1k 4k` under the buckets, as many as fit.
    fn distance_axis(&self, map: Rect, row: Rect, cell: u16, buf: &mut Buffer) {
        let mut free_from = row.x;
        for bucket in (0..1).chain((1..self.buckets).step_by(2)) {
            let x = map.x + bucket as u16 * cell;
            let label = distance_label(bucket);
            if x >= free_from && x + paint::width(&label) <= row.right() {
                free_from = paint::text(buf, row, x, row.y, &label, self.panel.theme().dim) + 1;
            }
        }
    }

    fn draw(&self, map: Rect, cell: u16, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let layers = self.hits.len();
        // Two layers in one row of cells take two colours, which shading characters do not have.
        let halves = match theme.heat {
            Heat::Colours(_) if layers > usize::from(map.height) => 2,
            _ => 1,
        };
        let lanes = usize::from(map.height) * halves;
        let group = layers.div_ceil(lanes.max(1)).max(1);
        let bands: Vec<_> = self.hits.chunks(group).map(|layers| self.shares_of(layers)).collect();
        // Where rows are plenty every layer gets the same number of them.
        let tall = if halves == 1 { (map.height / bands.len().max(1) as u16).max(1) } else { 1 };
        let mut label_free_from = map.y;
        for (at, band) in bands.chunks(halves).enumerate() {
            for y in (0..tall).map(|y| map.y + at as u16 * tall + y).filter(|&y| y < map.bottom()) {
                let layer = at * halves * group;
                if y >= label_free_from && y == map.y + at as u16 * tall {
                    let gutter = Rect { x: map.x - GUTTER, width: GUTTER, ..map };
                    paint::right(buf, gutter, map.x - 1, y, &format!("L{layer}"), theme.dim);
                    label_free_from = y + if tall == 1 { 3 } else { tall };
                }
                for bucket in 0..self.buckets {
                    let step = |half: usize| {
                        let share = band.get(half).and_then(Option::as_ref).map_or(0.0, |shares| shares[bucket]);
                        theme.heat.step((share / HOTTEST).sqrt())
                    };
                    let (symbol, style) = match halves {
                        1 => one(&theme.heat, step(0)),
                        _ => two(&theme.heat, step(0), step(1)),
                    };
                    let left = map.x + bucket as u16 * cell;
                    for x in left..left + cell {
                        paint::cell(buf, map, x, y, symbol, style);
                    }
                }
                if halves == 1 && band[0].is_none() && tall == 1 {
                    let note = paint::clip("every row read", map.width);
                    paint::text(buf, map, map.x, y, &note, theme.dim);
                }
            }
        }
    }
}

/// One step in one cell.
fn one(heat: &Heat, step: usize) -> (&'static str, Style) {
    match heat {
        Heat::Colours(colours) => (" ", Style::new().bg(colours[step])),
        Heat::Shades(shades) => (shades[step], Style::new()),
    }
}

/// Two steps in one cell, one above the other.
fn two(heat: &Heat, upper: usize, lower: usize) -> (&'static str, Style) {
    match heat {
        Heat::Colours(colours) => match (colours[upper], colours[lower]) {
            (Color::Reset, Color::Reset) => (" ", Style::new()),
            // The terminal's own background cannot be had as a foreground.
            (Color::Reset, lower) => ("▄", Style::new().fg(lower)),
            (upper, lower) => ("▀", Style::new().fg(upper).bg(lower)),
        },
        Heat::Shades(shades) => (shades[upper.max(lower)], Style::new()),
    }
}

/// The least distance in a bucket, as a label.
fn distance_label(bucket: usize) -> String {
    match bucket {
        0 => "now".into(),
        b if b > 10 => format!("{}k", 1usize << (b - 11)),
        b => (1usize << (b - 1)).to_string(),
    }
}

impl Widget for &HeatMap<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let inner = self.panel.render(area, buf, &[]);
        if inner.is_empty() {
            return;
        }
        let last = Rect { y: inner.bottom() - 1, height: 1, ..inner };
        if self.hits.iter().flatten().all(|&count| count == 0) {
            let y = inner.y + inner.height / 2;
            paint::text(buf, inner, inner.x, y, &paint::clip("n/a: no row was selected yet", inner.width), theme.dim);
            return;
        }
        let cell = inner.width.saturating_sub(GUTTER) / self.buckets as u16;
        if cell == 0 || inner.height < 3 {
            // No room for a map: all layers in one row, or the figures alone.
            if inner.height >= 2 && usize::from(inner.width) >= self.buckets {
                let cell = (inner.width / self.buckets as u16).max(1);
                for (bucket, share) in self.shares_of(self.hits).unwrap_or_default().into_iter().enumerate() {
                    let (symbol, style) = one(&theme.heat, theme.heat.step((share / HOTTEST).sqrt()));
                    for x in 0..cell {
                        paint::cell(buf, inner, inner.x + bucket as u16 * cell + x, inner.y, symbol, style);
                    }
                }
            }
            paint::text(buf, last, last.x, last.y, &paint::clip(&self.figures(), last.width), theme.text);
            return;
        }
        let below = if inner.height >= 5 { 2 } else { 1 };
        let width = cell * self.buckets as u16;
        let map = Rect { x: inner.x + GUTTER, width, height: inner.height - below, ..inner };
        self.draw(map, cell, buf);
        self.distance_axis(map, Rect { y: map.bottom(), height: 1, x: map.x, width: inner.right() - map.x }, cell, buf);
        if below == 2 {
            self.footer(Rect { x: inner.x + 1, width: inner.width - 1, ..last }, buf);
        }
    }
}
