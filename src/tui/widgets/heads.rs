//! The mass that each head of each layer loses, because it leaves rows unread: layers down, heads across, one of them
//! chosen. All of it is about what is lost, the title, the figures and the colours: hot is what to look at.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    widgets::Widget,
};

use super::{
    paint,
    panel::{LegendEntry, Panel},
    units::Unit,
};
use crate::tui::theme::{Heat, Pattern, SeriesLook};

/// The share that is shown as the hottest step.
const HOTTEST: f64 = 0.5;
/// Columns left of the map: `L29` and a blank.
const GUTTER: u16 = 4;

/// Lost mass by layer and head.
#[derive(Debug, Clone)]
pub struct HeadMap<'a> {
    panel: Panel<'a>,
    kept: &'a [Vec<f32>],
    chosen: Option<[usize; 2]>,
}

impl<'a> HeadMap<'a> {
    /// A map of `kept`, `[layers][heads]`; a layer that reads every row has no heads.
    pub fn new(panel: Panel<'a>, kept: &'a [Vec<f32>], chosen: Option<[usize; 2]>) -> Self {
        Self { panel, kept, chosen }
    }

    fn legend(&self) -> LegendEntry<'static> {
        let theme = self.panel.theme();
        let look = |symbol| SeriesLook { symbol, style: theme.text, pattern: Pattern::Solid };
        match self.chosen {
            Some([layer, head]) => {
                let kept = self.kept.get(layer).and_then(|heads| heads.get(head));
                let value = format!("L{layer} H{head} {}", Unit::Percent.fixed(kept.map(lost)));
                LegendEntry { name: "", look: look("◆"), value }
            }
            None => {
                let all: Vec<f64> = self.kept.iter().flatten().map(lost).collect();
                let mean = (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
                LegendEntry { name: "", look: look("mean"), value: Unit::Percent.fixed(mean) }
            }
        }
    }
}

/// What is lost where so much is kept.
fn lost(kept: &f32) -> f64 {
    1.0 - f64::from(*kept)
}

impl Widget for &HeadMap<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let inner = self.panel.render(area, buf, &[self.legend()]);
        let heads = self.kept.iter().map(Vec::len).max().unwrap_or(0);
        if heads == 0 || inner.width < GUTTER + heads as u16 || inner.height < 2 {
            if !inner.is_empty() {
                let why = if heads == 0 { "n/a: every row is read, or nothing yet" } else { "" };
                paint::text(buf, inner, inner.x, inner.y, &paint::clip(why, inner.width), theme.dim);
            }
            return;
        }
        let map = Rect { x: inner.x + GUTTER, width: inner.width - GUTTER, height: inner.height - 1, ..inner };
        let cell = (map.width / heads as u16).min(5);
        let rows = usize::from(map.height);
        // Where layers are more than rows, the rows follow the chosen one.
        let chosen = self.chosen.map_or(0, |[layer, _]| layer);
        let first = chosen.saturating_sub(rows / 2).min(self.kept.len().saturating_sub(rows));
        for ((layer, kept), y) in self.kept.iter().enumerate().skip(first).zip(map.top()..map.bottom()) {
            let here = self.chosen.filter(|[chosen, _]| *chosen == layer);
            let label = if here.is_some() { theme.title } else { theme.dim };
            paint::right(buf, inner, map.x - 1, y, &format!("L{layer}"), label);
            if kept.is_empty() {
                paint::text(buf, map, map.x, y, &paint::clip("every row is read", map.width), theme.dim);
            }
            for (head, kept) in kept.iter().enumerate() {
                let step = theme.heat.step((lost(kept) / HOTTEST).sqrt());
                let (symbol, style) = match &theme.heat {
                    Heat::Colours(colours) => (" ", Style::new().bg(colours[step])),
                    Heat::Shades(shades) => (shades[step], Style::new()),
                };
                let x = map.x + head as u16 * cell;
                (x..x + cell).for_each(|x| paint::cell(buf, map, x, y, symbol, style));
                if here.is_some_and(|[_, chosen]| chosen == head) {
                    let mark = Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD);
                    paint::cell(buf, map, x + cell / 2, y, "◆", mark);
                }
            }
        }
        let below = Rect { y: map.bottom(), height: 1, ..inner };
        let steps = theme.heat.steps();
        let mut x = paint::text(buf, below, map.x, below.y, "lost 0 ", theme.dim);
        for step in 1..steps {
            let (symbol, style) = match &theme.heat {
                Heat::Colours(colours) => (" ", Style::new().bg(colours[step])),
                Heat::Shades(shades) => (shades[step], Style::new()),
            };
            paint::cell(buf, below, x, below.y, symbol, style);
            x += 1;
        }
        paint::text(buf, below, x, below.y, &format!(" ≥{:.0} %", HOTTEST * 100.0), theme.dim);
    }
}
