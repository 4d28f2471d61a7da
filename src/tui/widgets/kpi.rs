//! A card with one figure, and how it compares.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    widgets::Widget,
};

use super::{paint, panel::Panel, units::Unit};

/// A figure beside the other lane's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison<'a> {
    /// Ours.
    pub ours: Option<f64>,
    /// The other lane's.
    pub theirs: Option<f64>,
    /// What the other one is called.
    pub other: &'a str,
    /// Whether less is better.
    pub less_is_better: bool,
}

impl Comparison<'_> {
    /// In words, with an arrow; `None` where one side is unknown or nothing.
    pub fn text(&self) -> Option<String> {
        let ratio = self.ratio()?;
        let Self { other, .. } = self;
        Some(match ratio {
            r if (r - 1.0).abs() < 0.005 => format!("= same as {other}"),
            r if r < 1.0 => format!("▼ {:.0} % less than {other}", (1.0 - r) * 100.0),
            r if r < 2.0 => format!("▲ {:.0} % more than {other}", (r - 1.0) * 100.0),
            r if r < 100.0 => format!("▲ {r:.1} times {other}"),
            r => format!("▲ {} times {other}", Unit::Count.text(Some(r))),
        })
    }

    /// Whether ours is better; `None` where they are the same or it is not known.
    pub fn better(&self) -> Option<bool> {
        let ratio = self.ratio()?;
        ((ratio - 1.0).abs() >= 0.005).then_some((ratio < 1.0) == self.less_is_better)
    }

    fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours?, self.theirs?);
        (ours.is_finite() && theirs.is_finite() && ours >= 0.0 && theirs > 0.0).then(|| ours / theirs)
    }
}

/// A card: label, value, and a second line.
#[derive(Debug, Clone)]
pub struct Kpi<'a> {
    panel: Panel<'a>,
    value: Option<f64>,
    unit: Unit,
    style: Style,
    comparison: Option<Comparison<'a>>,
    second: Option<&'a str>,
}

impl<'a> Kpi<'a> {
    /// A card; the panel's title is the label.
    pub fn new(panel: Panel<'a>, value: Option<f64>, unit: Unit) -> Self {
        let style = panel.theme().text;
        Self { panel, value, unit, style, comparison: None, second: None }
    }

    /// The value's style, usually a lane's.
    pub fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// Compares in the second line.
    pub fn compare(self, comparison: Comparison<'a>) -> Self {
        Self { comparison: Some(comparison), ..self }
    }

    /// What the second line says where there is nothing to compare.
    pub fn second(self, text: &'a str) -> Self {
        Self { second: Some(text), ..self }
    }
}

impl Widget for &Kpi<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let theme = self.panel.theme();
        let area = area.intersection(buf.area);
        let (number, unit) = self.unit.parts(self.value);
        let big = self.style.add_modifier(Modifier::BOLD);
        if area.height == 1 {
            // One line: the label gives way to the figure.
            let text = self.unit.text(self.value);
            let inner = self.panel.bare().render(area, buf, &[]);
            paint::right(buf, area, area.right(), area.y, &format!(" {text}"), big);
            debug_assert!(inner.is_empty());
            return;
        }
        let inner = self.panel.render(area, buf, &[]);
        let row = |at: u16| Rect { x: inner.x + 1, y: inner.y + at, width: inner.width.saturating_sub(1), height: 1 };
        if inner.is_empty() {
            return;
        }
        let first = row(0);
        let x = paint::text(buf, first, first.x, first.y, &format!("{number:>4}"), big);
        paint::text(buf, first, x + 1, first.y, unit, theme.dim);
        if inner.height < 2 {
            return;
        }
        let second = row(1);
        let compared = self.comparison.as_ref().and_then(|comparison| Some((comparison.text()?, comparison.better())));
        let (text, style) = match (&compared, self.second) {
            (Some((text, better)), _) => {
                let style = match better {
                    Some(true) => theme.good,
                    Some(false) => theme.warn,
                    None => theme.dim,
                };
                (text.as_str(), style)
            }
            (None, Some(text)) => (text, theme.dim),
            (None, None) => return,
        };
        // Where the whole sentence does not fit, what it compares with goes first: the other card says it.
        let short = text.split_once(" than ").map_or(text, |(short, _)| short);
        let text = if paint::width(text) <= second.width { text } else { short };
        paint::text(buf, second, second.x, second.y, &paint::clip(text, second.width), style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_words() {
        let compare = |ours, theirs| Comparison { ours, theirs, other: "kv", less_is_better: true };
        for (ours, theirs, text, better) in [
            (54.0, 100.0, Some("▼ 46 % less than kv"), Some(true)),
            (140.0, 100.0, Some("▲ 40 % more than kv"), Some(false)),
            (310.0, 100.0, Some("▲ 3.1 times kv"), Some(false)),
            (100.0, 100.1, Some("= same as kv"), None),
            (100.0, 0.0, None, None),
            (f64::NAN, 1.0, None, None),
        ] {
            let comparison = compare(Some(ours), Some(theirs));
            assert_eq!((comparison.text().as_deref(), comparison.better()), (text, better));
        }
        assert_eq!(compare(None, Some(1.0)).text(), None);
    }
}
