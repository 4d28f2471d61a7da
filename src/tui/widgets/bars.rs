//! Stacked bars on one scale: the ledger of every byte, and the time of a token by stage.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Style},
    widgets::Widget,
};

use super::{
    axis::Axis,
    paint,
    panel::{LegendEntry, Panel},
};
use crate::{
    engine::{Ledger, Stages, TierBytes},
    tui::theme::{Fill, SeriesLook, Theme},
};

/// What has its figures in the legend first where there is no room for all: what the two caches differ in.
const FIRST: [&str; 5] = ["gather", "scores", "select", "linear", "head"];

/// One part of every bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Its name in the legend.
    pub name: &'static str,
    pub fill: Fill,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Bar<'a> {
    /// What it is of: `kcache device`.
    pub name: &'a str,
    pub look: SeriesLook,
    /// A value for each part; empty where nothing is known yet.
    pub values: Vec<f64>,
    /// A limit, marked on the bar.
    pub limit: Option<f64>,
    /// What it would be otherwise, drawn as an outline behind the bar.
    pub kv_equivalent: Option<f64>,
}

impl Bar<'_> {
    fn total(&self) -> Option<f64> {
        (!self.values.is_empty()).then(|| self.values.iter().sum())
    }
}

/// Horizontal stacked bars with a legend, or a table of all figures where there is room.
#[derive(Debug, Clone)]
pub struct StackedBars<'a> {
    panel: Panel<'a>,
    axis: &'a Axis,
    parts: Vec<Part>,
    bars: Vec<Bar<'a>>,
    limit_name: &'a str,
    kv_equivalent_name: &'a str,
    /// Whether the legend has the figures of every bar.
    figured: bool,
}

impl<'a> StackedBars<'a> {
    /// Bars of bytes by owner: weights, K, V, tail, workspace. Add one with [`StackedBars::tier`] for each lane and
    /// tier.
    pub fn ledger(panel: Panel<'a>, axis: &'a Axis) -> Self {
        let names = ["weights", "K", "V", "tail", "work"];
        let parts = names.into_iter().zip(panel.theme().owners).map(|(name, fill)| Part { name, fill }).collect();
        Self {
            panel,
            axis,
            parts,
            bars: Vec::new(),
            limit_name: "budget",
            kv_equivalent_name: "a KV cache",
            figured: false,
        }
    }

    /// Bars of milliseconds by stage. Add one with [`StackedBars::stage_times`] for each lane.
    pub fn stages(panel: Panel<'a>, axis: &'a Axis) -> Self {
        let names = Stages::default().named().map(|(name, _)| name);
        let parts = names.into_iter().zip(panel.theme().stages).map(|(name, fill)| Part { name, fill }).collect();
        Self { panel, axis, parts, bars: Vec::new(), limit_name: "limit", kv_equivalent_name: "", figured: true }
    }

    /// Adds any bar; it has a value for each part, or none.
    pub fn bar(mut self, bar: Bar<'a>) -> Self {
        self.bars.push(bar);
        self
    }

    /// Adds the bytes of one tier. With the device tier goes the budget, which bounds everything but the weights, and
    /// what an ordinary KV cache would hold on top of the weights.
    pub fn tier(self, name: &'a str, look: SeriesLook, bytes: Option<TierBytes>, device: Option<&Ledger>) -> Self {
        let values =
            bytes.map_or(Vec::new(), |b| [b.weights, b.k, b.v, b.tail, b.workspace].map(|b| b as f64).to_vec());
        let on_weights = |ledger: &Ledger, value: u64| ledger.device.weights.saturating_add(value) as f64;
        let limit = device.and_then(|ledger| ledger.budget_bytes.map(|budget| on_weights(ledger, budget)));
        let kv_equivalent = device.map(|ledger| on_weights(ledger, ledger.kv_equivalent_bytes));
        self.bar(Bar { name, look, values, limit, kv_equivalent })
    }

    /// Adds the times of one lane's step.
    pub fn stage_times(self, name: &'a str, look: SeriesLook, stages: Option<&Stages>) -> Self {
        let values = stages.map_or(Vec::new(), |stages| stages.named().map(|(_, ms)| ms).to_vec());
        self.bar(Bar { name, look, values, limit: None, kv_equivalent: None })
    }

    fn theme(&self) -> &'a Theme {
        self.panel.theme()
    }

    fn total(&self, bar: &Bar<'a>) -> LegendEntry<'a> {
        LegendEntry { name: bar.name, look: bar.look, value: self.axis.unit().fixed(bar.total()) }
    }

    fn name_width(&self) -> u16 {
        self.bars.iter().map(|bar| paint::width(bar.name)).max().unwrap_or(0) + 3
    }

    fn draw_name(&self, row: Rect, bar: &Bar<'_>, buf: &mut Buffer) -> u16 {
        let x = paint::text(buf, row, row.x, row.y, bar.look.symbol, bar.look.style);
        let x = paint::text(buf, row, x, row.y, " ", Style::new());
        paint::text(buf, row, x, row.y, bar.name, self.theme().text)
    }

    /// The bar itself, to an eighth of a column where there is colour.
    fn draw_bar(&self, row: Rect, bar: &Bar<'_>, buf: &mut Buffer) {
        let eighths = usize::from(row.width) * 8;
        let place = |value: f64| ((value / self.axis.top()).clamp(0.0, 1.0) * eighths as f64).round() as usize;
        let mut owners: Vec<Option<usize>> = vec![None; eighths];
        let mut sum = 0.0;
        for (part, value) in bar.values.iter().enumerate().take(self.parts.len()) {
            let from = place(sum);
            sum += value.max(0.0);
            owners[from..place(sum)].fill(Some(part));
        }
        let kv_equivalent = bar.kv_equivalent.map_or(0, place);
        for (at, cell) in owners.chunks(8).enumerate() {
            let first = cell[0];
            let run = cell.iter().take_while(|&&owner| owner == first).count();
            let rest = cell.get(run).copied().flatten();
            let (symbol, style) = match first.map(|part| self.parts[part].fill) {
                Some(fill) if fill.colour == Color::Reset => {
                    // Without colour a cell belongs to the part that has most of it.
                    let most = if run >= 4 { Some(fill) } else { rest.map(|part| self.parts[part].fill) };
                    (most.map_or(" ", |fill| fill.glyph), Style::new())
                }
                Some(fill) => {
                    let back = rest.map(|part| self.parts[part].fill.colour);
                    let style = Style::new().fg(fill.colour);
                    (paint::LEFT_EIGHTHS[run], back.map_or(style, |back| style.bg(back)))
                }
                None if at * 8 < kv_equivalent => ("┄", self.theme().kv_equivalent.style),
                None => continue,
            };
            paint::cell(buf, row, row.x + at as u16, row.y, symbol, style);
        }
        // Where the legend gives each part its figures, letters on the bar would only be in the way.
        if !self.figured {
            self.draw_names_inside(row, bar, &owners, buf);
        }
        let tick = |value: f64| row.x + (place(value) / 8).min(usize::from(row.width.saturating_sub(1))) as u16;
        if let Some(kv_equivalent) = bar.kv_equivalent.filter(|&kv_equivalent| kv_equivalent > sum) {
            paint::cell(buf, row, tick(kv_equivalent), row.y, "┤", self.theme().kv_equivalent.style);
        }
        if let Some(limit) = bar.limit {
            let symbol = if limit > self.axis.top() { "→" } else { "┃" };
            paint::cell(buf, row, tick(limit), row.y, symbol, self.theme().budget);
        }
    }

    /// The names of the parts on the bar, where they fit: a part is then known by more than its hue. Without colour the
    /// pattern says it already, and letters would only break it.
    fn draw_names_inside(&self, row: Rect, bar: &Bar<'_>, owners: &[Option<usize>], buf: &mut Buffer) {
        let parts = self.parts.iter().enumerate().take(bar.values.len());
        for (at, part) in parts.filter(|(_, part)| part.fill.colour != Color::Reset) {
            let mut whole = owners
                .chunks(8)
                .enumerate()
                .filter(|(_, cell)| cell.iter().all(|&owner| owner == Some(at)))
                .map(|(x, _)| x as u16);
            let Some(first) = whole.next() else { continue };
            let name = format!(" {} ", part.name);
            let (room, width) = (whole.count() as u16 + 1, paint::width(&name));
            if room >= width + 2 {
                let style = Style::new().fg(part.fill.ink).bg(part.fill.colour);
                paint::text(buf, row, row.x + first + (room - width) / 2, row.y, &name, style);
            }
        }
    }

    /// What the legend names: sign, style and name.
    fn legend(&self) -> Vec<(&'static str, Style, &'a str)> {
        // What is nothing in every bar is not looked for.
        let any = |part: usize| self.bars.iter().any(|bar| bar.values.get(part).is_none_or(|&value| value > 0.0));
        let parts = self.parts.iter().enumerate().filter(|&(at, _)| any(at)).map(|(_, part)| part);
        let parts = parts.map(|part| (part.swatch(), Style::new().fg(part.fill.colour), part.name));
        let kv_equivalent = self.bars.iter().any(|bar| bar.kv_equivalent.is_some()).then_some((
            "┄",
            self.theme().kv_equivalent.style,
            self.kv_equivalent_name,
        ));
        let limit =
            self.bars.iter().any(|bar| bar.limit.is_some()).then_some(("┃", self.theme().budget, self.limit_name));
        parts.chain(limit).chain(kv_equivalent).collect()
    }

    /// The legend as running text, in as many rows as there are.
    fn draw_legend(&self, area: Rect, buf: &mut Buffer) {
        let (mut x, mut y) = (area.x, area.y);
        for (symbol, style, name) in self.legend() {
            let width = 2 + paint::width(name);
            if x > area.x && x + width > area.right() {
                (x, y) = (area.x, y + 1);
            }
            if y >= area.bottom() {
                break;
            }
            let after = paint::text(buf, area, x, y, symbol, style);
            x = paint::text(buf, area, after + 1, y, name, self.theme().dim) + 2;
        }
    }

    /// The legend with a figure for each bar, in aligned columns and in the order of the work; what has no room is one
    /// entry at the end. Returns false where there is no room for that.
    fn draw_figures(&self, area: Rect, buf: &mut Buffer) -> bool {
        let value = |bar: &Bar<'_>, part: usize| bar.values.get(part).copied();
        let greatest = |part: usize| self.bars.iter().filter_map(|bar| value(bar, part)).fold(0.0, f64::max);
        let mut shown: Vec<usize> = (0..self.parts.len()).filter(|&part| greatest(part) >= 0.005).collect();
        let name_width = self.parts.iter().map(|part| paint::width(part.name)).max().unwrap_or(0);
        let cell = 2 + name_width + 5 * self.bars.len() as u16;
        let columns = (area.width + 2) / (cell + 2);
        let room = usize::from(columns * area.height);
        if room < 3 || shown.is_empty() {
            return false;
        }
        let mut rest = Vec::new();
        if shown.len() > room {
            let rank = |part: &usize| FIRST.iter().position(|&name| name == self.parts[*part].name);
            let mut by_rank = shown.clone();
            by_rank.sort_by_key(|part| rank(part).unwrap_or(FIRST.len()));
            rest = by_rank.split_off(room - 1);
            shown.retain(|part| !rest.contains(part));
        }
        let entry =
            |part: &usize| (self.parts[*part].swatch(), self.parts[*part].fill, self.parts[*part].name, vec![*part]);
        let mut entries: Vec<_> = shown.iter().map(entry).collect();
        if let Some(&first) = rest.first() {
            entries.push((" ", self.parts[first].fill, "the rest", rest));
        }
        let rows = entries.len().div_ceil(usize::from(columns));
        for (at, (swatch, fill, name, parts)) in entries.into_iter().enumerate() {
            let (x, y) = (area.x + (at / rows) as u16 * (cell + 2), area.y + (at % rows) as u16);
            let after = paint::text(buf, area, x, y, swatch, Style::new().fg(fill.colour));
            paint::text(buf, area, after + 1, y, name, self.theme().dim);
            for (bar_at, bar) in self.bars.iter().enumerate() {
                let sum = parts.iter().map(|&part| value(bar, part)).sum::<Option<f64>>();
                let text = self.axis.unit().parts(sum).0;
                let style = if sum == Some(0.0) { self.theme().dim } else { bar.look.style };
                paint::right(buf, area, x + 2 + name_width + 5 * (bar_at as u16 + 1), y, &text, style);
            }
        }
        true
    }

    /// All figures: a row for each part, a column for each bar.
    fn draw_table(&self, area: Rect, name_width: u16, buf: &mut Buffer) {
        let unit = self.axis.unit();
        let column =
            (unit.width() as u16).max(self.bars.iter().map(|bar| paint::width(bar.name)).max().unwrap_or(0)) + 2;
        let end = |at: usize| area.x + name_width + column * (at as u16 + 1);
        for (at, bar) in self.bars.iter().enumerate() {
            // Numbers end where the name ends, so the head of a column stands over its figures.
            paint::right(buf, area, end(at), area.y, bar.name, self.theme().dim);
        }
        for (part_at, part) in self.parts.iter().enumerate() {
            let y = area.y + 1 + part_at as u16;
            let x = paint::text(buf, area, area.x, y, part.swatch(), Style::new().fg(part.fill.colour));
            paint::text(buf, area, x + 1, y, part.name, self.theme().dim);
            for (at, bar) in self.bars.iter().enumerate() {
                let style = if bar.values.get(part_at) == Some(&0.0) { self.theme().dim } else { self.theme().text };
                paint::right(buf, area, end(at), y, &unit.fixed(bar.values.get(part_at).copied()), style);
            }
        }
    }

    fn table_size(&self, name_width: u16) -> (u16, u16) {
        let column = (self.axis.unit().width() as u16)
            .max(self.bars.iter().map(|bar| paint::width(bar.name)).max().unwrap_or(0))
            + 2;
        (name_width + column * self.bars.len() as u16, self.parts.len() as u16 + 1)
    }
}

impl Part {
    fn swatch(&self) -> &'static str {
        if self.fill.glyph == "█" { "■" } else { self.fill.glyph }
    }
}

impl Widget for &StackedBars<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let totals: Vec<_> = self.bars.iter().map(|bar| self.total(bar)).collect();
        // In a single row the totals are all there is.
        let inner = self.panel.render(area, buf, if area.height == 1 { &totals } else { &[] });
        let rows = self.bars.len() as u16;
        if inner.is_empty() || rows == 0 {
            return;
        }
        let name_width = self.name_width();
        let value_width = self.axis.unit().width() as u16;
        let bars_fit = inner.width >= name_width + value_width + 1 + 8;
        let part_width = self.parts.iter().map(|part| paint::width(part.name)).max().unwrap_or(0) + 2;
        let (table_width, table_height) = self.table_size(part_width);
        let spare = inner.height.saturating_sub(rows);
        let table = spare > table_height && inner.width >= table_width;
        let legend = !table && spare >= 1;
        // A blank row between bars where there is room for all of them.
        let pitch = match table {
            true if spare > table_height + rows => 2,
            false if spare > rows + if self.figured { self.parts.len() as u16 } else { 1 } => 2,
            _ => 1,
        };
        for (at, bar) in self.bars.iter().enumerate() {
            let y = inner.y + at as u16 * pitch;
            if y >= inner.bottom() {
                break;
            }
            let row = Rect { y, height: 1, ..inner };
            let total = self.axis.unit().fixed(bar.total());
            if inner.width >= value_width + 4 {
                self.draw_name(Rect { width: inner.width - value_width - 1, ..row }, bar, buf);
            }
            paint::right(buf, row, row.right(), y, &total, bar.look.style);
            if bars_fit {
                let bar_row = Rect { x: row.x + name_width, width: row.width - name_width - value_width - 1, ..row };
                self.draw_bar(bar_row, bar, buf);
            }
        }
        let below = inner.y + (rows - 1) * pitch + 1;
        if table {
            let top = inner.bottom() - table_height;
            self.draw_table(Rect { y: top.min(below + 1), height: table_height, ..inner }, part_width, buf);
        } else if legend {
            let y = (below + pitch - 1).min(inner.bottom() - 1);
            let area = Rect { y, height: inner.bottom() - y, ..inner };
            if !(self.figured && self.draw_figures(area, buf)) {
                self.draw_legend(area, buf);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{
        theme::ColorDepth,
        widgets::{
            Unit,
            samples::{drawn, text},
        },
    };

    fn bars<'a>(
        theme: &'a Theme,
        axis: &'a Axis,
        values: &[f64],
        limit: Option<f64>,
        kv_equivalent: Option<f64>,
    ) -> StackedBars<'a> {
        let bar = Bar { name: "x", look: theme.kcache, values: values.to_vec(), limit, kv_equivalent };
        StackedBars::ledger(Panel::new(theme, "t").bare(), axis).bar(bar)
    }

    #[test]
    fn parts_limit_and_kv_equivalent_stand_at_their_values() {
        // 32 columns are left for the bar, one for each KiB.
        let (theme, axis) = (Theme::mono(), Axis::nice(Unit::Bytes, 32.0 * 1024.0));
        let kib = |values: &[f64]| values.iter().map(|value| value * 1024.0).collect::<Vec<_>>();
        let values = kib(&[8.0, 4.0, 0.0, 2.0, 2.0]);
        let widget = bars(&theme, &axis, &values, Some(28.0 * 1024.0), Some(24.0 * 1024.0));
        let screen = text(&drawn(&widget, 45, 3));
        assert_eq!(screen.lines().nth(1).unwrap(), "● x ▒▒▒▒▒▒▒▒████╱╱··┄┄┄┄┄┄┄┄┤   ┃    16.0 KiB");
    }

    #[test]
    fn boundaries_inside_a_cell_take_both_colours() {
        let (theme, axis) = (Theme::dark(ColorDepth::Ansi16), Axis::nice(Unit::Bytes, 32.0 * 1024.0));
        let buf = drawn(&bars(&theme, &axis, &[1.5 * 1024.0, 2048.0, 0.0, 0.0, 0.0], None, None), 45, 3);
        let [weights, k] = [theme.owners[0].colour, theme.owners[1].colour];
        assert_eq!((buf[(5, 1)].symbol(), buf[(5, 1)].fg, buf[(5, 1)].bg), ("▌", weights, k));
        assert_eq!((buf[(7, 1)].symbol(), buf[(7, 1)].fg, buf[(7, 1)].bg), ("▌", k, Color::Reset));
    }

    #[test]
    fn nothing_known_is_not_nothing() {
        let (theme, axis) = (Theme::mono(), Axis::new(Unit::Bytes));
        assert!(text(&drawn(&bars(&theme, &axis, &[], None, None), 45, 3)).contains(" n/a"));
    }
}
