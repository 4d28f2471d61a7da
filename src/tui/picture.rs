//! A screen as an SVG picture: for the README, and for a dump of the screen by a key.
//!
//! The picture is a grid of cells of one size. Text is placed character by character, so that columns stay columns in
//! whatever font the reader has; blocks, boxes and braille are drawn as shapes, so that they join without seams.

mod shapes;

use std::{collections::BTreeMap, fmt::Write};

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::widgets::width::of_cell;
use shapes::{Ink, Shape};

/// Width of a cell in the picture's units.
const CELL_WIDTH: f64 = 9.0;
const CELL_HEIGHT: f64 = 18.0;
/// Size of the letters; a monospaced letter is about 0.6 of it wide.
const FONT_SIZE: f64 = 15.0;
/// Where letters stand in a cell, from its top.
const BASELINE: f64 = 13.5;
const MARGIN: f64 = 12.0;

type Rgb = [u8; 3];

/// The colours that stand for a terminal's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette {
    /// Letters of no colour of their own.
    pub foreground: Rgb,
    pub background: Rgb,
    /// The 16 colours of ANSI, in its order.
    pub ansi: [Rgb; 16],
}

impl Palette {
    pub const DARK: Self = Self {
        foreground: [0xd8, 0xde, 0xe6],
        background: [0x11, 0x15, 0x1c],
        ansi: [
            [0x1c, 0x22, 0x2b],
            [0xd9, 0x5f, 0x63],
            [0x7f, 0xb9, 0x6b],
            [0xe0, 0xb0, 0x5c],
            [0x4f, 0x86, 0xc6],
            [0xb0, 0x7f, 0xc4],
            [0x4f, 0xb3, 0xbf],
            [0xb4, 0xbd, 0xc8],
            [0x5a, 0x65, 0x73],
            [0xf0, 0x7f, 0x7a],
            [0x9c, 0xd6, 0x84],
            [0xf2, 0xcb, 0x7a],
            [0x7f, 0xae, 0xe8],
            [0xd3, 0x9c, 0xe0],
            [0x7a, 0xd3, 0xdc],
            [0xf4, 0xf7, 0xfa],
        ],
    };

    pub const LIGHT: Self = Self {
        foreground: [0x24, 0x2a, 0x33],
        background: [0xfb, 0xfb, 0xf9],
        ansi: [
            [0x1c, 0x22, 0x2b],
            [0xc0, 0x39, 0x2f],
            [0x3c, 0x81, 0x34],
            [0xb5, 0x7f, 0x10],
            [0x23, 0x63, 0xb0],
            [0x8e, 0x3f, 0xa0],
            [0x1a, 0x80, 0x8c],
            [0xd5, 0xd9, 0xde],
            [0x76, 0x80, 0x8c],
            [0xe0, 0x6c, 0x55],
            [0x5f, 0xa8, 0x50],
            [0xea, 0xc5, 0x5a],
            [0x5b, 0x93, 0xd8],
            [0xb3, 0x72, 0xc4],
            [0x45, 0xaa, 0xb5],
            [0xff, 0xff, 0xff],
        ],
    };

    /// A terminal's colour; `own` is what `Reset` stands for.
    fn rgb(&self, colour: Color, own: Rgb) -> Rgb {
        let ansi = |at: usize| self.ansi[at];
        match colour {
            Color::Reset => own,
            Color::Black => ansi(0),
            Color::Red => ansi(1),
            Color::Green => ansi(2),
            Color::Yellow => ansi(3),
            Color::Blue => ansi(4),
            Color::Magenta => ansi(5),
            Color::Cyan => ansi(6),
            Color::Gray => ansi(7),
            Color::DarkGray => ansi(8),
            Color::LightRed => ansi(9),
            Color::LightGreen => ansi(10),
            Color::LightYellow => ansi(11),
            Color::LightBlue => ansi(12),
            Color::LightMagenta => ansi(13),
            Color::LightCyan => ansi(14),
            Color::White => ansi(15),
            Color::Rgb(r, g, b) => [r, g, b],
            Color::Indexed(at @ 0..=15) => ansi(usize::from(at)),
            Color::Indexed(at @ 16..=231) => {
                let level = |digit: u8| if digit == 0 { 0 } else { 55 + 40 * digit };
                let at = at - 16;
                [level(at / 36), level(at / 6 % 6), level(at % 6)]
            }
            Color::Indexed(at) => [8 + 10 * (at - 232); 3],
        }
    }

    /// The colours of a cell's letters and background, with reverse and dim worked in.
    fn cell(&self, cell: &Cell) -> (Rgb, Rgb) {
        let mut front = self.rgb(cell.fg, self.foreground);
        let mut back = self.rgb(cell.bg, self.background);
        if cell.modifier.contains(Modifier::REVERSED) {
            (front, back) = (back, front);
        }
        if cell.modifier.contains(Modifier::DIM) {
            front = blend(front, back, 0.52);
        }
        (front, back)
    }
}

/// `share` of `a` over `b`.
fn blend(a: Rgb, b: Rgb, share: f64) -> Rgb {
    std::array::from_fn(|at| (f64::from(a[at]) * share + f64::from(b[at]) * (1.0 - share)).round() as u8)
}

/// The buffer as one SVG document.
pub fn svg(buffer: &Buffer, palette: &Palette) -> String {
    let area = buffer.area;
    let (width, height) =
        (f64::from(area.width) * CELL_WIDTH + 2.0 * MARGIN, f64::from(area.height) * CELL_HEIGHT + 2.0 * MARGIN);
    let mut picture = Picture::default();
    for y in 0..area.height {
        let mut x = 0;
        while x < area.width {
            let Some(cell) = buffer.cell((area.x + x, area.y + y)) else { break };
            let columns = (of_cell(cell) as u16).clamp(1, area.width - x);
            let place = (MARGIN + f64::from(x) * CELL_WIDTH, MARGIN + f64::from(y) * CELL_HEIGHT);
            picture.cell(cell, palette, place, f64::from(columns) * CELL_WIDTH);
            x += columns;
        }
        picture.end_run();
    }
    picture.document(width, height, palette.background)
}

/// A stretch of text in one style.
#[derive(PartialEq)]
struct Run {
    y: f64,
    colour: Rgb,
    modifier: Modifier,
}

/// What has been drawn so far, sorted by how it is drawn and in which colour: one path for each.
#[derive(Default)]
struct Picture {
    fills: BTreeMap<(bool, Rgb), String>,
    strokes: BTreeMap<(Ink, Rgb), String>,
    texts: String,
    run: Option<Run>,
    letters: String,
    places: String,
}

impl Picture {
    fn cell(&mut self, cell: &Cell, palette: &Palette, (x, y): (f64, f64), width: f64) {
        let (front, back) = palette.cell(cell);
        if back != palette.background {
            // Backgrounds lie below everything: `false` sorts first.
            let path = self.fills.entry((false, back)).or_default();
            shapes::rectangle(path, x, y, width, CELL_HEIGHT);
        }
        let lines = [(Modifier::UNDERLINED, BASELINE + 2.0), (Modifier::CROSSED_OUT, CELL_HEIGHT / 2.0)];
        for (_, at) in lines.into_iter().filter(|(modifier, _)| cell.modifier.contains(*modifier)) {
            let path = self.strokes.entry((Ink::Line, front)).or_default();
            shapes::segment(path, x, y + at, x + width, y + at);
        }
        let symbol = cell.symbol();
        if symbol.trim().is_empty() || cell.modifier.contains(Modifier::HIDDEN) {
            return self.end_run();
        }
        let mut characters = symbol.chars();
        let (first, alone) = (characters.next().unwrap_or(' '), characters.next().is_none());
        match Shape::of(first).filter(|_| alone) {
            Some(Shape::Shade(share)) => {
                let path = self.fills.entry((true, blend(front, back, share))).or_default();
                shapes::rectangle(path, x, y, width, CELL_HEIGHT);
            }
            Some(shape) => match shape.ink() {
                None => shape.draw(self.fills.entry((true, front)).or_default(), x, y, CELL_WIDTH, CELL_HEIGHT),
                Some(ink) => shape.draw(self.strokes.entry((ink, front)).or_default(), x, y, CELL_WIDTH, CELL_HEIGHT),
            },
            None => {
                let modifier = cell.modifier & (Modifier::BOLD | Modifier::ITALIC);
                let run = Run { y: y + BASELINE, colour: front, modifier };
                // A place belongs to each character, so a symbol of several characters stands for itself.
                if self.run.as_ref() != Some(&run) || !alone {
                    self.end_run();
                    self.run = Some(run);
                }
                escape(symbol, &mut self.letters);
                let gap = if self.places.is_empty() { "" } else { " " };
                let _ = write!(self.places, "{gap}{}", shapes::Number(x));
                if !alone {
                    self.end_run();
                }
                return;
            }
        }
        self.end_run();
    }

    /// Writes the text gathered so far.
    fn end_run(&mut self) {
        if let Some(Run { y, colour, modifier }) = self.run.take()
            && !self.letters.is_empty()
        {
            let weight = if modifier.contains(Modifier::BOLD) { " font-weight=\"700\"" } else { "" };
            let slant = if modifier.contains(Modifier::ITALIC) { " font-style=\"italic\"" } else { "" };
            let (places, letters, y) = (&self.places, &self.letters, shapes::Number(y));
            let fill = hex(colour);
            let _ =
                writeln!(self.texts, "<text x=\"{places}\" y=\"{y}\" fill=\"{fill}\"{weight}{slant}>{letters}</text>");
        }
        self.letters.clear();
        self.places.clear();
    }

    fn document(&self, width: f64, height: f64, background: Rgb) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
             {height}\" font-family=\"'DejaVu Sans Mono', ui-monospace, Menlo, Consolas, monospace\" \
             font-size=\"{FONT_SIZE}\">\n<rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{}\"/>\n",
            hex(background)
        );
        // Writing to a String cannot fail.
        for ((_, colour), path) in &self.fills {
            let _ = writeln!(svg, "<path fill=\"{}\" shape-rendering=\"crispEdges\" d=\"{path}\"/>", hex(*colour));
        }
        for ((ink, colour), path) in &self.strokes {
            let (width, cap) = ink.pen();
            let colour = hex(*colour);
            let _ = writeln!(
                svg,
                "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linecap=\"{cap}\" \
                 d=\"{path}\"/>"
            );
        }
        svg.push_str(&self.texts);
        svg.push_str("</svg>\n");
        svg
    }
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Text as XML allows it.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ratatui::{layout::Rect, style::Style};

    use super::*;

    /// Checks that tags are closed in order and that nothing but text and known entities is between them.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            assert!(!text.contains('>'), "stray > in {text}");
            for entity in text.split('&').skip(1) {
                assert!(["amp;", "lt;", "gt;"].iter().any(|name| entity.starts_with(name)), "bad entity in {text}");
            }
            let end = rest[at..].find('>').expect("every tag ends") + at;
            let tag = &rest[at + 1..end];
            assert!(tag.matches('"').count().is_multiple_of(2), "quotes in {tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty());
        assert!(svg.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn text_is_escaped_placed_and_styled() {
        let mut buffer = Buffer::empty(Rect::new(3, 2, 12, 1));
        buffer.set_string(3, 2, "a<&>\"", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD));
        buffer.set_string(9, 2, "你b", Style::new());
        buffer[(14, 2)].set_symbol("\u{1}");
        let svg = svg(&buffer, &Palette::DARK);
        assert_well_formed(&svg);
        assert!(
            svg.contains(
                "<text x=\"12 21 30 39 48\" y=\"25.5\" fill=\"#d95f63\" font-weight=\"700\">a&lt;&amp;&gt;\"</text>"
            ),
            "{svg}"
        );
        // A wide character takes two columns, so what follows stands two further on.
        assert!(svg.contains("<text x=\"66 84\" y=\"25.5\" fill=\"#d8dee6\">你b</text>"), "{svg}");
    }

    #[test]
    fn reverse_and_dim_are_colours() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 4, 1));
        buffer.set_string(0, 0, "r", Style::new().add_modifier(Modifier::REVERSED));
        buffer.set_string(2, 0, "d", Style::new().add_modifier(Modifier::DIM));
        let svg = svg(&buffer, &Palette::DARK);
        assert!(svg.contains("<path fill=\"#d8dee6\" shape-rendering=\"crispEdges\" d=\"M12 12h9v18h-9z\"/>"), "{svg}");
        assert!(svg.contains("fill=\"#11151c\">r<"), "{svg}");
        let dimmed = hex(blend(Palette::DARK.foreground, Palette::DARK.background, 0.52));
        assert!(svg.contains(&format!("fill=\"{dimmed}\">d<")), "{svg}");
    }

    #[test]
    fn blocks_boxes_and_braille_are_shapes() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 1));
        buffer.set_string(0, 0, "▀▄█▌▁▏░▚─│╭┼┊╌━⣿⠁", Style::new());
        let svg = svg(&buffer, &Palette::LIGHT);
        assert_well_formed(&svg);
        assert!(!svg.contains("<text"), "{svg}");
        assert!(svg.contains("stroke-linecap=\"round\""));
    }

    #[test]
    fn an_empty_screen_is_a_picture_too() {
        assert_well_formed(&svg(&Buffer::empty(Rect::ZERO), &Palette::DARK));
    }

    proptest! {
        #[test]
        fn always_well_formed(
            symbols in prop::collection::vec(any::<char>(), 1..200), width in 1u16..40, style in 0u16..512,
        ) {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, symbols.len() as u16 / width + 1));
            for (cell, symbol) in buffer.content.iter_mut().zip(&symbols) {
                cell.set_char(*symbol).set_style(Style::new().add_modifier(Modifier::from_bits_truncate(style)));
            }
            assert_well_formed(&svg(&buffer, &Palette::DARK));
        }
    }
}
