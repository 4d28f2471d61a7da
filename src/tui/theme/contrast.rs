//! How well one colour can be read on another: the ratio of WCAG, from 1 to 21; text wants at least 4.5.

use ratatui::style::Color;

/// The 16 colours as xterm has them; other terminals' are near.
const ANSI: [u32; 16] = [
    0x000000, 0xcd0000, 0x00cd00, 0xcdcd00, 0x0000ee, 0xcd00cd, 0x00cdcd, 0xe5e5e5, 0x7f7f7f, 0xff0000, 0x00ff00,
    0xffff00, 0x5c5cff, 0xff00ff, 0x00ffff, 0xffffff,
];

/// Black or white, whichever can be read better on a colour, in the same kind of colour.
pub fn ink(colour: Color) -> Color {
    let (black, white) = match colour {
        Color::Rgb(..) => (Color::Rgb(0, 0, 0), Color::Rgb(255, 255, 255)),
        Color::Indexed(_) => (Color::Indexed(16), Color::Indexed(231)),
        _ => (Color::Black, Color::White),
    };
    if legibility(colour, black) >= legibility(colour, white) { black } else { white }
}

/// The ratio of two colours; `None` where one is the terminal's own.
pub fn legibility(a: Color, b: Color) -> Option<f64> {
    let (a, b) = (luminance(a)?, luminance(b)?);
    Some((a.max(b) + 0.05) / (a.min(b) + 0.05))
}

fn luminance(colour: Color) -> Option<f64> {
    let linear = |value: u8| {
        let share = f64::from(value) / 255.0;
        if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
    };
    let [r, g, b] = rgb(colour)?.map(linear);
    Some(0.2126 * r + 0.7152 * g + 0.0722 * b)
}

fn rgb(colour: Color) -> Option<[u8; 3]> {
    let ansi = |at: usize| {
        let [_, r, g, b] = ANSI[at].to_be_bytes();
        [r, g, b]
    };
    Some(match colour {
        Color::Reset => return None,
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
            [level((at - 16) / 36), level((at - 16) / 6 % 6), level((at - 16) % 6)]
        }
        Color::Indexed(at) => [8 + 10 * (at - 232); 3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_wcag() {
        let ratio = |a, b| (legibility(a, b).unwrap() * 100.0).round() / 100.0;
        assert_eq!(ratio(Color::Black, Color::White), 21.0);
        assert_eq!(ratio(Color::Rgb(0x77, 0x77, 0x77), Color::Rgb(255, 255, 255)), 4.48);
        assert_eq!(legibility(Color::Reset, Color::White), None);
    }

    #[test]
    fn ink_can_be_read_on_every_colour() {
        let all = (0..=255).map(Color::Indexed).chain((0..=255).map(|grey| Color::Rgb(grey, grey / 2, 255 - grey)));
        for colour in all {
            assert!(legibility(colour, ink(colour)).unwrap() >= 4.5, "{colour:?}");
        }
    }
}
