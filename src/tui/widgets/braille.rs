//! A grid of braille dots, two by four in a cell, in which every cell belongs to one series.
//!
//! A cell of a terminal has one colour. Where two lines meet in a cell the later one takes it whole, so a dot never
//! appears in another series' colour.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::paint;
use crate::tui::theme::Pattern;

pub(super) struct Grid {
    area: Rect,
    cells: Vec<(u8, usize)>,
}

impl Grid {
    /// An empty grid over `area`.
    pub fn new(area: Rect) -> Self {
        Self { area, cells: vec![(0, usize::MAX); usize::from(area.width) * usize::from(area.height)] }
    }

    pub fn width(&self) -> usize {
        usize::from(self.area.width) * 2
    }

    pub fn height(&self) -> usize {
        usize::from(self.area.height) * 4
    }

    /// Sets a dot for a series. Outside the grid nothing happens.
    pub fn dot(&mut self, x: i64, y: i64, series: usize) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.width() || y >= self.height() {
            return;
        }
        // Dots of a braille character by column and row, as bits of its code point above U+2800.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let cell = &mut self.cells[y / 4 * usize::from(self.area.width) + x / 2];
        if cell.1 != series {
            *cell = (0, series);
        }
        cell.0 |= BITS[x % 2][y % 4];
    }

    /// Draws a line between two dots, both included. The pattern hangs on `phase`, the number of the grid's first
    /// column on the fixed grid of time, so that dashes move along with what they show.
    pub fn line(&mut self, from: (i64, i64), to: (i64, i64), series: usize, pattern: Pattern, phase: i64) {
        let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
        let steps = dx.max(dy);
        // Dashes are counted along the line's own direction; a short run upwards is part of a level line.
        let steep = dy > 3 && dy > dx;
        for at in 0..=steps {
            let share = at as f64 / steps.max(1) as f64;
            let between = |a: i64, b: i64| a + ((b - a) as f64 * share).round() as i64;
            let (x, y) = (between(from.0, to.0), between(from.1, to.1));
            let place = if steep { y } else { x.wrapping_add(phase) };
            let on = match pattern {
                Pattern::Solid => true,
                Pattern::Dashed => place.rem_euclid(8) < 5,
                Pattern::Dotted => place.rem_euclid(3) == 0,
            };
            if on {
                self.dot(x, y, series);
            }
        }
    }

    /// Writes the dots of every series in its style.
    pub fn render(&self, buf: &mut Buffer, styles: &[Style]) {
        for (at, &(dots, series)) in self.cells.iter().enumerate() {
            let Some(&style) = styles.get(series).filter(|_| dots != 0) else { continue };
            let (x, y) = (at % usize::from(self.area.width), at / usize::from(self.area.width));
            let symbol = char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ');
            let (x, y) = (self.area.x + x as u16, self.area.y + y as u16);
            paint::cell(buf, self.area, x, y, symbol.encode_utf8(&mut [0; 4]), style);
        }
    }
}
