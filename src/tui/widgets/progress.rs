//! How far a prefill has come: a bar, tokens, speed and time left, in one row.

use ratatui::{buffer::Buffer, layout::Rect, style::Style, widgets::Widget};

use super::{
    paint,
    units::{Unit, duration},
};
use crate::tui::theme::Theme;

/// The progress of one prefill.
#[derive(Debug, Clone)]
pub struct ProgressBar<'a> {
    theme: &'a Theme,
    label: &'a str,
    done: usize,
    total: usize,
    tokens_per_second: Option<f64>,
    style: Style,
}

impl<'a> ProgressBar<'a> {
    /// `done` of `total` tokens, at a speed that may not be known yet.
    pub fn new(theme: &'a Theme, label: &'a str, done: usize, total: usize, tokens_per_second: Option<f64>) -> Self {
        Self { theme, label, done: done.min(total), total, tokens_per_second, style: theme.good }
    }

    /// The bar's style, usually a lane's.
    pub fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    fn share(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.done as f64 / self.total as f64 }
    }

    /// Seconds left at the present speed.
    fn left(&self) -> Option<f64> {
        let speed = self.tokens_per_second.filter(|&speed| speed > 0.0)?;
        Some((self.total - self.done) as f64 / speed)
    }
}

impl Widget for &ProgressBar<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(buf.area);
        if area.is_empty() {
            return;
        }
        let row = Rect { height: 1, ..area };
        let digits = self.total.to_string().len();
        let tokens = format!("{:>digits$}/{}", self.done, self.total);
        let speed = Unit::TokensPerSecond.fixed(self.tokens_per_second);
        // Wide enough for what is usual, so that the bar keeps its length while the time runs down.
        let left = match self.left() {
            Some(left) => format!("{:>9} left", duration(Some(left))),
            None => format!("{:>14}", ""),
        };
        let label = paint::width(self.label);
        let percent = format!("{:>3.0} %", (self.share() * 100.0).floor());
        let figures = [
            format!("{percent}  {tokens}  {speed}  {left}"),
            format!("{tokens}  {speed}  {left}"),
            format!("{percent}  {tokens}  {left}"),
            format!("{percent}  {left}"),
            left.trim_start().to_owned(),
            percent.clone(),
        ];
        // The label goes before the time left does.
        let fits = |figures: &str, label: u16| label + 6 + paint::width(figures) + 2 <= row.width;
        let known = figures.iter().filter(|figures| !figures.is_empty());
        let mut choices = known.flat_map(|figures| [(figures.as_str(), label + 1), (figures.as_str(), 0)]);
        let (figures, label_room) = match choices.find(|&(figures, label)| fits(figures, label)) {
            Some(choice) => choice,
            None if row.width >= 5 => (percent.as_str(), 0),
            None => ("", 0),
        };
        let mut x = row.x;
        if label_room > 0 {
            x = paint::text(buf, row, x, row.y, self.label, self.theme.text) + 1;
        }
        let end = row.right() - paint::width(figures).min(row.width);
        paint::text(buf, row, end, row.y, figures, self.theme.dim);
        let bar = Rect { x, width: (end.saturating_sub(1)).saturating_sub(x), ..row };
        let eighths = (self.share() * f64::from(bar.width) * 8.0).round() as usize;
        for at in 0..usize::from(bar.width) {
            let part = eighths.saturating_sub(at * 8).min(8);
            let (symbol, style) =
                if part == 0 { ("┄", self.theme.dim) } else { (paint::LEFT_EIGHTHS[part], self.style) };
            paint::cell(buf, bar, bar.x + at as u16, row.y, symbol, style);
        }
    }
}
