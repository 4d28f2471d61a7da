//! The screen in ASCII: for terminals whose locale is not UTF-8, or that draw lines and blocks two cells wide.
//!
//! Everything is drawn as ever; at the end each sign of ours becomes the ASCII character that comes nearest to it.
//! Letters of users and of the model stay as they are; a line, block or arrow in their text is written like ours.

use ratatui::buffer::Buffer;

/// Writes every sign that the program draws with in ASCII.
pub fn plain(buf: &mut Buffer) {
    let width = usize::from(buf.area.width.max(1));
    for at in 0..buf.content.len() {
        let symbol = buf.content[at].symbol();
        let mut characters = symbol.chars();
        let (Some(c), None) = (characters.next(), characters.next()) else { continue };
        if c.is_ascii() {
            continue;
        }
        if c == '∞' {
            endless(buf, at, width);
        } else if let Some(c) = stand_in(c) {
            buf.content[at].set_char(c);
        }
    }
}

/// Room without a limit: the word where there are blanks before the sign.
fn endless(buf: &mut Buffer, at: usize, width: usize) {
    let blank = |back: usize| at % width >= back && buf.content[at - back].symbol() == " ";
    let word = if (1..=3).all(blank) { "inf" } else { "~" };
    for (back, c) in word.chars().rev().enumerate() {
        let (fg, modifier) = (buf.content[at].fg, buf.content[at].modifier);
        buf.content[at - back].set_char(c).set_fg(fg).modifier = modifier;
    }
}

/// The ASCII character that comes nearest to a sign of ours.
fn stand_in(c: char) -> Option<char> {
    Some(match c {
        '─' | '╌' | '╴' | '╶' | '╸' | '╺' => '-',
        '━' => '=',
        '┄' | '┈' => '.',
        '│' | '┃' | '╵' | '╷' | '╹' | '╻' => '|',
        '┊' | '┆' | '╎' => ':',
        '╭' | '╮' | '╯' | '╰' | '┌'..='╋' => '+',
        '▁' | '▂' => '_',
        '▃' | '▄' => 'o',
        '▅' | '▆' => 'O',
        '▇' | '█' | '▉' | '▊' | '■' | '▐' => '#',
        '▋' | '▌' | '▍' => '=',
        '▎' | '▏' | '▕' => '|',
        '▀' | '▔' => '"',
        '░' => ':',
        '▒' => '%',
        '▓' => '@',
        '▖'..='▟' => 'x',
        '╱' => '/',
        '●' | '▪' => '*',
        '○' | '▫' => 'o',
        '◌' => '.',
        '◆' => '+',
        '◇' => '&',
        '▲' | '↑' => '^',
        '▼' | '↓' => 'v',
        '▸' | '❯' | '→' | '≥' => '>',
        '←' | '≤' => '<',
        '≠' => '!',
        '≡' => '=',
        '≈' | '…' => '~',
        '·' | '−' | '–' | '—' => '-',
        '×' => 'x',
        '÷' => '/',
        'µ' => 'u',
        '\u{2800}'..='\u{28ff}' => braille((u32::from(c) - 0x2800) as u8),
        _ => return None,
    })
}

/// Dots in the upper half of a cell, in the lower, in both.
fn braille(dots: u8) -> char {
    const UPPER: u8 = 0x01 | 0x02 | 0x08 | 0x10;
    match (dots & UPPER != 0, dots & !UPPER != 0) {
        (true, true) => ':',
        (true, false) => '\'',
        (false, true) => '.',
        (false, false) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;

    use super::*;

    #[test]
    fn signs_become_ascii_and_letters_stay() {
        let mut buf = Buffer::with_lines(["╭─ ● é 你 ⠁⡀⣿ ─╮", "│ n=∞  ∞   ∞ ≠ │"]);
        plain(&mut buf);
        assert_eq!(buf, Buffer::with_lines(["+- * é 你 '.: -+", "| n=~  ~ inf ! |"]));
        let mut edge = Buffer::empty(Rect::new(0, 0, 1, 1));
        edge[(0, 0)].set_symbol("∞");
        plain(&mut edge);
        assert_eq!(edge[(0, 0)].symbol(), "~");
    }
}
