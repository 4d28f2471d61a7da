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

use super::{
    paint,
    panel::{LegendEntry, Panel},
};
use crate::{
    engine::DISTANCE_BUCKETS,
    tui::theme::{Heat, Pattern, SeriesLook},
};

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
    since: &'a str,
    rows: &'a str,
}

impl<'a> HeatMap<'a> {
    /// A map of `hits`, as far as a context of `context` tokens reaches.
    pub fn new(panel: Panel<'a>, hits: &'a [Vec<u64>], context: usize) -> Self {
        let reached = usize::BITS - context.saturating_sub(1).leading_zeros();
        let buckets = (reached as usize + 1).clamp(2, DISTANCE_BUCKETS);
        Self { panel, hits, buckets, sink_share: None, recent_share: None, since: "yet", rows: "L" }
    }

    /// The shares among the first four and the last 64 positions, for the line below.
    pub fn shares(self, sink: Option<f64>, recent: Option<f64>) -> Self {
        Self { sink_share: sink, recent_share: recent, ..self }
    }

    /// What a row stands for, as a letter before its number: `L` for a layer, `H` for a head.
    pub fn rows(self, rows: &'a str) -> Self {
        Self { rows, ..self }
    }

    /// Since when nothing was selected, where that is so: `since n=64`.
    pub fn since(self, since: &'a str) -> Self {
        Self { since, ..self }
    }

    /// The share of each bucket in the rows of some layers together; `None` where they selected nothing.
    fn shares_of(&self, layers: &[Vec<u64>]) -> Option<Vec<f64>> {
        let sum = |counts: &mut dyn Iterator<Item = &u64>| counts.map(|&count| count as f64).sum::<f64>();
        let total = sum(&mut layers.iter().flatten());
        let share = |bucket: usize| sum(&mut layers.iter().filter_map(|layer| layer.get(bucket))) / total;
        (total > 0.0).then(|| (0..self.buckets).map(share).collect())
    }

    /// `sink  3 %  recent 49 %`, in a width that does not change.
    fn figures(&self) -> String {
        let recent = format!("recent {}", whole(self.recent_share));
        if self.of_heads() { recent } else { format!("sink {}  {recent}", whole(self.sink_share)) }
    }

    /// Whether its rows are heads: where the first positions lie is known of layers alone.
    fn of_heads(&self) -> bool {
        self.rows == "H"
    }

    /// The scale of the colours; the shares in figures where the frame has no room for them.
    fn footer(&self, row: Rect, figures: bool, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let steps = theme.heat.steps();
        let scale_width = 2 + (steps as u16 - 1) * 2 + 7;
        let text = self.figures();
        if figures {
            paint::text(buf, row, row.x, row.y, &paint::clip(&text, row.width), theme.text);
        } else if row.width >= scale_width {
            let mut x = paint::text(buf, row, row.x, row.y, "0 ", theme.dim);
            for step in 1..steps {
                for _ in 0..2 {
                    let (symbol, style) = one(&theme.heat, step);
                    paint::cell(buf, row, x, row.y, symbol, style);
                    x += 1;
                }
            }
            x = paint::text(buf, row, x, row.y, &format!(" ≥{:.0} %", HOTTEST * 100.0), theme.dim);
            let what = if self.of_heads() { " of a head's rows" } else { " of a layer's rows" };
            if x + paint::width(what) <= row.right() {
                paint::text(buf, row, x, row.y, what, theme.dim);
            }
        }
    }

    /// The column at which a bucket begins. All columns are used, so that buckets may differ by one in width.
    fn column(&self, bucket: usize, map: Rect) -> u16 {
        let (width, buckets) = (usize::from(map.width), self.buckets);
        map.x + (bucket * width / buckets) as u16
    }

    /// `now 1 4 16 64 256 1k 4k` under the buckets, as many as fit.
    fn distance_axis(&self, map: Rect, row: Rect, buf: &mut Buffer) {
        let mut free_from = row.x;
        for bucket in (0..1).chain((1..self.buckets).step_by(2)) {
            let x = self.column(bucket, map);
            let label = distance_label(bucket);
            if x >= free_from && x + paint::width(&label) <= row.right() {
                free_from = paint::text(buf, row, x, row.y, &label, self.panel.theme().dim) + 1;
            }
        }
    }

    fn draw(&self, map: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let layers = self.hits.len();
        // Two layers in one row of cells take two colours and a half block, which shades and ASCII do not have.
        let halves = match theme.heat {
            Heat::Colours(_) if !theme.ascii => 2,
            _ => 1,
        };
        // Lanes are (half) rows: each shows the layers that fall to it, at least one.
        let lanes = usize::from(map.height) * halves;
        let layers_of = |lane: usize| {
            let from = lane * layers / lanes;
            from..((lane + 1) * layers / lanes).max(from + 1).min(layers)
        };
        let gutter = Rect { x: map.x - GUTTER, width: GUTTER, ..map };
        let mut label_free_from = map.y;
        for (row, y) in (map.top()..map.bottom()).enumerate() {
            let bands: Vec<_> =
                (0..halves).map(|half| self.shares_of(&self.hits[layers_of(row * halves + half)])).collect();
            let first = layers_of(row * halves).start;
            let is_last = y + 1 == map.bottom();
            if y == map.top() || is_last || (y >= label_free_from && y + 2 < map.bottom()) {
                let layer = if is_last && y > map.top() { layers - 1 } else { first };
                paint::right(buf, gutter, map.x - 1, y, &format!("{}{layer}", self.rows), theme.dim);
                label_free_from = y + 3;
            }
            for bucket in 0..self.buckets {
                let step = |half: usize| {
                    let share = bands[half].as_ref().map_or(0.0, |shares| shares[bucket]);
                    theme.heat.step((share / HOTTEST).sqrt())
                };
                let (symbol, style) = match halves {
                    1 => one(&theme.heat, step(0)),
                    _ => two(&theme.heat, step(0), step(1)),
                };
                for x in self.column(bucket, map)..self.column(bucket + 1, map) {
                    paint::cell(buf, map, x, y, symbol, style);
                }
            }
            if bands.iter().all(Option::is_none) {
                paint::text(buf, map, map.x, y, &paint::clip("every row is read", map.width), theme.dim);
            }
        }
    }
}

/// A share in whole percent.
fn whole(share: Option<f64>) -> String {
    share.filter(|share| share.is_finite()).map_or("n/a".into(), |share| format!("{:>2.0} %", share * 100.0))
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
            (upper, lower) if upper == lower => (" ", Style::new().bg(upper)),
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
        let share = |name, share| {
            let look = SeriesLook { symbol: name, style: theme.text, pattern: Pattern::Solid };
            LegendEntry { name: "", look, value: whole(share) }
        };
        let figures = [share("sink", self.sink_share), share("recent", self.recent_share)];
        let figures = if self.of_heads() { &figures[1..] } else { &figures[..] };
        let any = self.hits.iter().flatten().any(|&count| count > 0);
        // The figures are on the frame; a frame too narrow for both leaves them to the row below the map.
        let on_frame = any && (area.height <= 2 || area.width >= paint::width(&self.figures()) + 8);
        let inner = self.panel.render(area, buf, if on_frame || area.height == 1 { figures } else { &[] });
        if inner.is_empty() {
            return;
        }
        let last = Rect { y: inner.bottom() - 1, height: 1, ..inner };
        if !any {
            let y = inner.y + inner.height / 2;
            let mut why = format!("n/a: no row was selected {}", self.since);
            if paint::width(&why) > inner.width {
                why = format!("n/a: none {}", self.since);
            }
            paint::text(buf, inner, inner.x, y, &paint::clip(&why, inner.width), theme.dim);
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
            if !on_frame {
                paint::text(buf, last, last.x, last.y, &paint::clip(&self.figures(), last.width), theme.text);
            }
            return;
        }
        let below = if inner.height >= 6 || (!on_frame && inner.height >= 4) { 2 } else { 1 };
        let map = Rect { x: inner.x + GUTTER, width: inner.width - GUTTER, height: inner.height - below, ..inner };
        self.draw(map, buf);
        self.distance_axis(map, Rect { y: map.bottom(), height: 1, ..map }, buf);
        if below == 2 {
            self.footer(Rect { x: inner.x + 1, width: inner.width - 1, ..last }, !on_frame, buf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{
        theme::{ColorDepth, Theme},
        widgets::samples::{drawn, text},
    };

    #[test]
    fn buckets_are_labelled_by_their_least_distance() {
        let labels: Vec<_> = (0..DISTANCE_BUCKETS).map(distance_label).collect();
        assert_eq!(labels[..6], ["now", "1", "2", "4", "8", "16"]);
        assert_eq!((labels[9].as_str(), labels[11].as_str(), labels[17].as_str()), ("256", "1k", "64k"));
    }

    #[test]
    fn the_context_bounds_the_buckets() {
        let theme = Theme::mono();
        let buckets = |context| HeatMap::new(Panel::new(&theme, ""), &[], context).buckets;
        // The farthest row of 8,192 is 8,191 away, which is in bucket 13: 4,096 to 8,191.
        assert_eq!([0, 2, 8192, 8193, usize::MAX].map(buckets), [2, 2, 14, 15, DISTANCE_BUCKETS]);
    }

    #[test]
    fn colour_follows_the_share_in_the_layer() {
        let theme = Theme::dark(ColorDepth::Rgb);
        let Heat::Colours(ramp) = &theme.heat else { panic!("dark has colours") };
        // All rows of the first layer at distance 0, those of the second one half at 2..4 and half at 4..8.
        let mut hits = vec![vec![0; DISTANCE_BUCKETS]; 2];
        hits[0][0] = 9;
        (hits[1][2], hits[1][3]) = (500, 500);
        let buf = drawn(&HeatMap::new(Panel::new(&theme, "x").bare(), &hits, 64), 40, 4);
        // Two rows: a layer each; seven buckets of five columns.
        let hottest = *ramp.last().unwrap();
        assert_eq!((buf[(4, 1)].bg, buf[(9, 1)].bg), (hottest, Color::Reset));
        assert_eq!((buf[(4, 2)].bg, buf[(15, 2)].bg, buf[(20, 2)].bg), (Color::Reset, hottest, hottest));
    }

    #[test]
    fn two_layers_share_a_row_where_rows_are_few() {
        let theme = Theme::dark(ColorDepth::Rgb);
        let Heat::Colours(ramp) = &theme.heat else { panic!("dark has colours") };
        let mut hits = vec![vec![0; DISTANCE_BUCKETS]; 4];
        (hits[0][1], hits[1][2], hits[2][3], hits[3][3]) = (1, 1, 1, 1);
        let buf = drawn(&HeatMap::new(Panel::new(&theme, "x").bare(), &hits, 64), 40, 4);
        assert_eq!((buf[(9, 1)].symbol(), buf[(14, 1)].symbol()), ("▀", "▄"));
        assert_eq!((buf[(19, 2)].symbol(), buf[(19, 2)].bg), (" ", *ramp.last().unwrap()));
    }

    #[test]
    fn nothing_selected_is_said() {
        let theme = Theme::mono();
        let hits = vec![vec![0; DISTANCE_BUCKETS]; 3];
        assert!(text(&drawn(&HeatMap::new(Panel::new(&theme, "x"), &hits, 64), 40, 8)).contains("n/a: no row"));
    }
}
