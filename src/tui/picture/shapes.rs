//! Characters that are drawn instead of set: blocks, shades, box lines and braille.

use std::fmt::{self, Write};

/// With which pen a shape is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ink {
    Line,
    Heavy,
    Dots,
}

impl Ink {
    /// Stroke width and line cap.
    pub fn pen(self) -> (f64, &'static str) {
        match self {
            Self::Line => (1.1, "square"),
            Self::Heavy => (2.4, "square"),
            Self::Dots => (2.9, "round"),
        }
    }
}

/// What a character looks like, in parts of its cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// A rectangle: left, top, width and height in eighths.
    Block(f64, f64, f64, f64),
    /// Quadrants: upper left, upper right, lower left, lower right as bits 0 to 3.
    Quadrants(u8),
    /// The whole cell in that share of the colour.
    Shade(f64),
    /// Half lines from the middle: up, down, left, right as bits 0 to 3; and whether they are thick.
    Lines(u8, bool),
    /// A rounded corner between two of them, as for `Lines`.
    Corner(u8),
    /// A level line of so many dashes.
    Level(u8),
    /// An upright line of so many dashes.
    Upright(u8),
    Braille(u8),
}

const UP: u8 = 1;
const DOWN: u8 = 2;
const LEFT: u8 = 4;
const RIGHT: u8 = 8;

impl Shape {
    /// The shape of a character, if it has one.
    pub fn of(character: char) -> Option<Self> {
        let code = u32::from(character);
        Some(match character {
            '▀' => Self::Block(0.0, 0.0, 8.0, 4.0),
            '▐' => Self::Block(4.0, 0.0, 4.0, 8.0),
            '▔' => Self::Block(0.0, 0.0, 8.0, 1.0),
            '▕' => Self::Block(7.0, 0.0, 1.0, 8.0),
            '▁'..='█' => {
                let eighths = f64::from(code - 0x2580);
                Self::Block(0.0, 8.0 - eighths, 8.0, eighths)
            }
            '▉'..='▏' => Self::Block(0.0, 0.0, f64::from(0x2590 - code), 8.0),
            '░' => Self::Shade(0.25),
            '▒' => Self::Shade(0.5),
            '▓' => Self::Shade(0.75),
            '▖' => Self::Quadrants(4),
            '▗' => Self::Quadrants(8),
            '▘' => Self::Quadrants(1),
            '▙' => Self::Quadrants(1 | 4 | 8),
            '▚' => Self::Quadrants(1 | 8),
            '▛' => Self::Quadrants(1 | 2 | 4),
            '▜' => Self::Quadrants(1 | 2 | 8),
            '▝' => Self::Quadrants(2),
            '▞' => Self::Quadrants(2 | 4),
            '▟' => Self::Quadrants(2 | 4 | 8),
            '╌' => Self::Level(2),
            '┄' => Self::Level(3),
            '┈' => Self::Level(4),
            '╎' => Self::Upright(2),
            '┆' => Self::Upright(3),
            '┊' => Self::Upright(4),
            '╭' => Self::Corner(DOWN | RIGHT),
            '╮' => Self::Corner(DOWN | LEFT),
            '╯' => Self::Corner(UP | LEFT),
            '╰' => Self::Corner(UP | RIGHT),
            '\u{2800}'..='\u{28ff}' => Self::Braille((code - 0x2800) as u8),
            _ => {
                const LIGHT: &str = "╵╷│╴┘┐┤╶└┌├─┴┬┼";
                const HEAVY: &str = "╹╻┃╸┛┓┫╺┗┏┣━┻┳╋";
                let find = |set: &str| set.chars().position(|other| other == character).map(|at| at as u8 + 1);
                match (find(LIGHT), find(HEAVY)) {
                    (Some(halves), _) => Self::Lines(halves, false),
                    (_, Some(halves)) => Self::Lines(halves, true),
                    _ => return None,
                }
            }
        })
    }

    /// The pen; `None` for what is filled.
    pub fn ink(self) -> Option<Ink> {
        match self {
            Self::Block(..) | Self::Quadrants(_) | Self::Shade(_) => None,
            Self::Lines(_, true) => Some(Ink::Heavy),
            Self::Lines(..) | Self::Corner(_) | Self::Level(_) | Self::Upright(_) => Some(Ink::Line),
            Self::Braille(_) => Some(Ink::Dots),
        }
    }

    /// Adds the shape to a path, for a cell at (x, y) of that size.
    pub fn draw(self, path: &mut String, x: f64, y: f64, width: f64, height: f64) {
        let (middle, centre) = (x + width / 2.0, y + height / 2.0);
        match self {
            Self::Block(left, top, w, h) => {
                let (across, down) = (width / 8.0, height / 8.0);
                rectangle(path, x + left * across, y + top * down, w * across, h * down);
            }
            Self::Quadrants(bits) => {
                for at in (0..4u8).filter(|at| bits & 1 << at != 0) {
                    let (right, low) = (f64::from(at % 2), f64::from(at / 2));
                    let (w, h) = (width / 2.0, height / 2.0);
                    rectangle(path, x + right * w, y + low * h, w, h);
                }
            }
            Self::Shade(_) => rectangle(path, x, y, width, height),
            Self::Lines(halves, _) => {
                let ends = [(UP, middle, y), (DOWN, middle, y + height), (LEFT, x, centre), (RIGHT, x + width, centre)];
                for (_, to_x, to_y) in ends.into_iter().filter(|(half, ..)| halves & half != 0) {
                    segment(path, middle, centre, to_x, to_y);
                }
            }
            Self::Corner(halves) => {
                let end_y = if halves & UP != 0 { y } else { y + height };
                let end_x = if halves & LEFT != 0 { x } else { x + width };
                let radius = width / 2.0;
                let near = centre + radius * (end_y - centre).signum();
                segment(path, middle, end_y, middle, near);
                let [m, c, e] = [middle, centre, end_x].map(Number);
                // Writing to a String cannot fail.
                let _ = write!(path, "Q{m} {c} {e} {c}");
            }
            Self::Level(dashes) | Self::Upright(dashes) => {
                let length = if matches!(self, Self::Level(_)) { width } else { height };
                let pitch = length / f64::from(dashes);
                for at in 0..dashes {
                    let (from, to) = (pitch * (f64::from(at) + 0.3), pitch * (f64::from(at) + 0.7));
                    match self {
                        Self::Level(_) => segment(path, x + from, centre, x + to, centre),
                        _ => segment(path, middle, y + from, middle, y + to),
                    }
                }
            }
            Self::Braille(bits) => {
                // Bits go down the columns, except that the fourth row was added later.
                const PLACES: [(f64, f64); 8] =
                    [(0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (0.0, 3.0), (1.0, 3.0)];
                for (_, (column, row)) in PLACES.into_iter().enumerate().filter(|(at, _)| bits & 1 << at != 0) {
                    let (dot_x, dot_y) = (x + width * (column + 0.5) / 2.0, y + height * (row + 0.5) / 4.0);
                    let _ = write!(path, "M{} {}h0", Number(dot_x), Number(dot_y));
                }
            }
        }
    }
}

/// Adds a rectangle to a path.
pub(super) fn rectangle(path: &mut String, x: f64, y: f64, width: f64, height: f64) {
    let [x, y, w, h, back] = [x, y, width, height, -width].map(Number);
    let _ = write!(path, "M{x} {y}h{w}v{h}h{back}z");
}

/// Adds a straight line to a path.
pub(super) fn segment(path: &mut String, x1: f64, y1: f64, x2: f64, y2: f64) {
    let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(Number);
    let _ = write!(path, "M{x1} {y1}L{x2} {y2}");
}

/// A number with at most two digits after the point.
pub(super) struct Number(pub f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 100.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_shapes_of_unicode() {
        assert_eq!(Shape::of('█'), Some(Shape::Block(0.0, 0.0, 8.0, 8.0)));
        assert_eq!(Shape::of('▄'), Some(Shape::Block(0.0, 4.0, 8.0, 4.0)));
        assert_eq!(Shape::of('▏'), Some(Shape::Block(0.0, 0.0, 1.0, 8.0)));
        assert_eq!(Shape::of('▉'), Some(Shape::Block(0.0, 0.0, 7.0, 8.0)));
        assert_eq!(Shape::of('─'), Some(Shape::Lines(LEFT | RIGHT, false)));
        assert_eq!(Shape::of('┬'), Some(Shape::Lines(DOWN | LEFT | RIGHT, false)));
        assert_eq!(Shape::of('┃'), Some(Shape::Lines(UP | DOWN, true)));
        assert_eq!(Shape::of('┏'), Some(Shape::Lines(DOWN | RIGHT, true)));
        assert_eq!(Shape::of('a'), None);
    }

    #[test]
    fn braille_dots_are_where_they_belong() {
        let mut path = String::new();
        Shape::Braille(0b1000_0001).draw(&mut path, 0.0, 0.0, 8.0, 16.0);
        assert_eq!(path, "M2 2h0M6 14h0");
    }
}
