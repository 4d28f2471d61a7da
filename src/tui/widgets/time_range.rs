//! The time axis: which stretch of time is on show, and in which column a moment lies.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::paint;

/// Steps between labels, in seconds.
const STEPS: [f64; 16] =
    [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0];

/// The stretch of time that charts show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeRange {
    /// The newest moment on show.
    pub to_ms: f64,
    /// How far back it reaches.
    pub length_ms: f64,
    /// What `now` is; differs from `to_ms` when an earlier stretch is looked at.
    pub now_ms: f64,
}

impl TimeRange {
    /// Whether there is anything that could be drawn.
    pub(super) fn is_valid(&self) -> bool {
        self.length_ms.is_finite() && self.length_ms > 0.0
    }

    /// `-60s … -15s now` in the row below a plot. Labels count back from now, so they stay where they are while time
    /// goes on.
    pub(super) fn draw_axis(self, plot: Rect, row: Rect, style: Style, buf: &mut Buffer) {
        let seconds = self.length_ms / 1000.0;
        let behind = (self.now_ms - self.to_ms).max(0.0) / 1000.0;
        let room = f64::from(plot.width / 10).max(1.0);
        let days = (seconds / room / 86_400.0).ceil() * 86_400.0;
        let step = STEPS.into_iter().find(|step| seconds / step <= room).unwrap_or(days);
        let mut free_until = row.right();
        for at in 0..=(seconds / step) as u32 + 1 {
            let ago = (behind / step).ceil() * step + f64::from(at) * step;
            let share = (ago - behind) / seconds;
            if share > 1.0 {
                break;
            }
            let label = if ago == 0.0 { "now".into() } else { short_time(ago) };
            let width = paint::width(&label);
            let centre = plot.right() - 1 - (share * f64::from(plot.width - 1)).round() as u16;
            let x = centre.saturating_sub(width / 2).clamp(row.x, row.right().saturating_sub(width).max(row.x));
            if x + width < free_until || at == 0 {
                paint::text(buf, row, x, row.y, &label, style);
                free_until = x;
            }
        }
    }
}

/// The columns of a chart on the fixed grid of time.
pub(super) struct Columns {
    /// The number of the first column since time 0.
    pub first: i64,
    /// The time one column covers.
    pub width_ms: f64,
    /// How many columns there are.
    pub count: usize,
}

impl Columns {
    /// `count` columns over a span; the last one holds its end.
    pub fn new(span: TimeRange, count: usize) -> Self {
        let width_ms = span.length_ms / count.max(1) as f64;
        let last = (span.to_ms / width_ms).floor() as i64;
        Self { first: last.saturating_sub(count as i64 - 1), width_ms, count }
    }

    /// The column of a moment, counted from the first; may lie outside.
    pub fn dot(&self, t_ms: f64) -> i64 {
        ((t_ms / self.width_ms).floor() as i64).saturating_sub(self.first)
    }

    /// The column of the screen in which a moment lies, kept inside the plot.
    pub fn cell(&self, t_ms: f64, plot: Rect) -> u16 {
        plot.x + (self.dot(t_ms) / 2).clamp(0, i64::from(plot.width) - 1) as u16
    }

    /// Where the first column begins.
    pub fn start_ms(&self) -> f64 {
        self.first as f64 * self.width_ms
    }

    /// Where the last column ends.
    pub fn end_ms(&self) -> f64 {
        (self.first as f64 + self.count as f64) * self.width_ms
    }
}

/// `-15s`, `-2m`, `-1h`; fractions only below ten seconds.
pub(super) fn short_time(seconds_ago: f64) -> String {
    match seconds_ago {
        s if s < 10.0 && s.fract() > 1e-9 => format!("-{s:.1}s"),
        s if s < 120.0 => format!("-{s:.0}s"),
        s if s < 7200.0 && (s / 60.0).fract() < 1e-9 => format!("-{:.0}m", s / 60.0),
        s if s < 7200.0 => format!("-{}m{:02}s", (s / 60.0) as u64, s as u64 % 60),
        s => format!("-{:.1}h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let times = [3.25, 15.0, 60.0, 180.0, 200.0, 9000.0].map(short_time);
        assert_eq!(times, ["-3.2s", "-15s", "-60s", "-3m", "-3m20s", "-2.5h"]);
    }

    #[test]
    fn the_last_column_holds_the_end() {
        let columns = Columns::new(TimeRange { to_ms: 60_300.0, length_ms: 60_000.0, now_ms: 60_300.0 }, 60);
        assert_eq!((columns.dot(60_300.0), columns.dot(1_000.0), columns.dot(0.0)), (59, 0, -1));
        assert_eq!((columns.start_ms(), columns.end_ms()), (1_000.0, 61_000.0));
    }
}
