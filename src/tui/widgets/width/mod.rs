//! How many cells a text takes on the screen, and in which form it is written there: decided here and nowhere else.
//!
//! Terminals, ratatui and the Unicode tables do not agree on the width of every cluster of characters. Where they
//! differ, letters of an earlier frame stay on the screen. So a cluster that they could disagree on is written in a
//! form that all of them measure alike: a joined emoji as its parts, a flag as its two letters, a half-width kana with
//! its sound mark as the full-width kana that means the same, hangul jamo as the syllable that they make. What has no
//! width and no ink is left out; with it goes what turns the direction of text, which must not command the terminal.

use std::borrow::Cow;

use ratatui::{
    buffer::{Buffer, Cell, CellDiffOption, CellWidth},
    style::Style,
    text::{Line, Span},
};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

/// Marks that one letter may carry; more are left out.
const MARKS: usize = 4;
/// Spaces that stand for a tab.
const TAB: usize = 4;
/// What carries a mark that has no letter of its own.
const CARRIER: char = '◌';

/// What is written into one cell, or into a cell and those that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glyph<'a> {
    pub symbol: Cow<'a, str>,
    /// The cells that they take, at least one.
    pub cells: usize,
}

/// A text as it is written on the screen, glyph by glyph. A line break is a space here.
pub fn glyphs(text: &str) -> impl Iterator<Item = Glyph<'_>> {
    text.graphemes(true).flat_map(|cluster| {
        let (one, several) = match plain(cluster) {
            Some(cells) => (Some(Glyph { symbol: Cow::Borrowed(cluster), cells }), Vec::new()),
            None => (None, rewritten(cluster)),
        };
        one.into_iter().chain(several)
    })
}

/// The cells that a text takes.
pub fn width(text: &str) -> usize {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.len();
    }
    glyphs(text).map(|glyph| glyph.cells).sum()
}

/// The cells that one of a buffer covers, itself included.
pub fn of_cell(cell: &Cell) -> usize {
    match cell.diff_option {
        CellDiffOption::ForcedWidth(cells) => usize::from(cells.get()),
        _ => width(cell.symbol()).max(1),
    }
}

/// The cells that pieces of text take side by side.
pub fn of_spans(spans: &[Span<'_>]) -> usize {
    spans.iter().map(|span| width(&span.content)).sum()
}

/// A name cut to `cells`, with `…` at its end where something was cut.
pub fn clip(text: &str, cells: usize) -> String {
    cut(text, cells, |kept| kept.len())
}

/// A sentence cut to `cells` after a whole word, with `…` at its end where something was cut. Within the first word,
/// or where more than half would go, it is cut between letters.
pub fn clip_words(text: &str, cells: usize) -> String {
    cut(text, cells, |kept| {
        match kept.rfind(' ').map(|at| kept[..at].trim_end_matches([' ', ',', ';', ':', '·', '('])) {
            Some(words) if 2 * width(words) + 2 >= cells => words.len(),
            _ => kept.len(),
        }
    })
}

/// Cuts where `end` says, of what fits before the `…`.
fn cut(text: &str, cells: usize, end: impl Fn(&str) -> usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    if cells == 0 {
        return String::new();
    }
    let (mut kept, mut used, mut whole) = (String::new(), 0, false);
    for glyph in glyphs(text) {
        used += glyph.cells;
        if used > cells - 1 {
            // What ends just before a blank is whole.
            whole = glyph.symbol == " ";
            break;
        }
        kept.push_str(&glyph.symbol);
    }
    if !whole {
        kept.truncate(end(&kept));
    }
    kept.truncate(kept.trim_end().len());
    kept.push('…');
    kept
}

/// Writes at (x, y) what fits into `cells` and into the buffer; returns the column after it.
pub fn put(buf: &mut Buffer, x: u16, y: u16, text: &str, cells: usize, style: Style) -> u16 {
    let area = buf.area;
    if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() {
        return x;
    }
    let end = usize::from(x).saturating_add(cells).min(usize::from(area.right())) as u16;
    part(buf, x, y);
    let mut at = x;
    for glyph in glyphs(text) {
        if usize::from(end - at) < glyph.cells {
            #[cfg(test)]
            watch::cut(text);
            break;
        }
        let cell = &mut buf[(at, y)];
        cell.set_symbol(&glyph.symbol).set_style(style).set_diff_option(CellDiffOption::None);
        if usize::from(cell.symbol().cell_width()) != glyph.cells
            && let Ok(forced) = (glyph.cells as u16).try_into()
        {
            cell.set_diff_option(CellDiffOption::ForcedWidth(forced));
        }
        let after = at + glyph.cells as u16;
        (at + 1..after).for_each(|covered| buf[(covered, y)].reset());
        at = after;
    }
    at
}

/// Writes a line of styled pieces as [`put`] does.
pub fn put_line(buf: &mut Buffer, x: u16, y: u16, line: &Line<'_>, cells: u16) -> u16 {
    let end = x.saturating_add(cells);
    line.spans.iter().fold(x, |at, span| {
        put(buf, at, y, &span.content, usize::from(end.saturating_sub(at)), line.style.patch(span.style))
    })
}

/// A glyph whose second half is to be written over goes as a whole: half of it would hide what is written.
fn part(buf: &mut Buffer, x: u16, y: u16) {
    if x > buf.area.left() && of_cell(&buf[(x - 1, y)]) > 1 {
        buf[(x - 1, y)].set_symbol(" ").set_diff_option(CellDiffOption::None);
    }
}

/// The width of a cluster that everybody measures alike: one character that is no part of anything larger.
fn plain(cluster: &str) -> Option<usize> {
    let mut characters = cluster.chars();
    let (first, alone) = (characters.next()?, characters.next().is_none());
    let known = alone && !invisible(first) && !matches!(first, '\u{1f1e6}'..='\u{1f1ff}' | '\u{ff9e}' | '\u{ff9f}');
    first.width().filter(|&cells| known && cells > 0)
}

/// A cluster in a form that everybody measures alike.
fn rewritten(cluster: &str) -> Vec<Glyph<'static>> {
    if matches!(cluster, "\n" | "\r" | "\r\n" | "\u{85}" | "\u{2028}" | "\u{2029}") {
        return vec![glyph(' ')];
    }
    if cluster == "\t" {
        return vec![glyph(' '); TAB];
    }
    let mut out: Vec<Glyph<'static>> = Vec::new();
    let mut marks = 0;
    for c in cluster.chars().filter(|&c| !c.is_control() && !invisible(c)) {
        let last = out.last_mut();
        if let Some(joined) = last.as_deref().and_then(|last| joined(&last.symbol, c)) {
            if let Some(last) = last {
                *last = glyph(joined);
            }
            continue;
        }
        match (c, last) {
            // The two letters of a flag.
            ('\u{1f1e6}'..='\u{1f1ff}', _) => {
                out.push(glyph(char::from(b'A' + (u32::from(c) - 0x1f1e6) as u8)));
            }
            // The tone of a skin.
            ('\u{1f3fb}'..='\u{1f3ff}', Some(_)) => {}
            ('\u{ff9e}', _) => out.push(glyph('゛')),
            ('\u{ff9f}', _) => out.push(glyph('゜')),
            ('\u{1161}'..='\u{1175}', _) => out.push(glyph(shifted('\u{314f}', u32::from(c) - 0x1161))),
            ('\u{11a8}'..='\u{11c2}', _) => out.extend(FINALS.chars().nth(c as usize - 0x11a8).map(glyph)),
            (c, last) => match (c.width().unwrap_or(0), last) {
                (0, Some(last)) => {
                    if marks < MARKS {
                        last.symbol.to_mut().push(c);
                    }
                    marks += 1;
                }
                (0, None) => {
                    let carried = format!("{CARRIER}{c}");
                    // What joins only to what follows it has nothing to stand on.
                    if carried.graphemes(true).count() == 1 {
                        marks = 1;
                        out.push(Glyph { symbol: carried.into(), cells: 1 });
                    }
                }
                // Also a sign that takes room of its own, as Indic scripts have them: of several narrow characters that
                // are one cell of ours a terminal keeps the others when something narrower takes their place.
                _ => {
                    out.push(glyph(c));
                    marks = 0;
                }
            },
        }
    }
    out
}

fn glyph(c: char) -> Glyph<'static> {
    Glyph { symbol: c.to_string().into(), cells: c.width().unwrap_or(1).max(1) }
}

/// What has neither ink nor room: joiners, marks of direction, selectors of a variant, tags, fillers.
fn invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The final consonants of hangul as letters of their own, in the order of their jamo.
const FINALS: &str = "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ";

/// The one character that two make together: a half-width kana and its sound mark, or jamo of one syllable.
fn joined(before: &str, c: char) -> Option<char> {
    let mut characters = before.chars();
    let (first, None) = (characters.next()?, characters.next()) else { return None };
    let nth = |set: &str, from: char| set.chars().nth((first as usize).checked_sub(from as usize)?);
    match (first, c) {
        ('ｳ', '\u{ff9e}') => Some('ヴ'),
        ('ﾜ', '\u{ff9e}') => Some('ヷ'),
        ('ｦ', '\u{ff9e}') => Some('ヺ'),
        ('ｶ'..='ﾄ', '\u{ff9e}') => nth("ガギグゲゴザジズゼゾダヂヅデド", 'ｶ'),
        ('ﾊ'..='ﾎ', '\u{ff9e}') => nth("バビブベボ", 'ﾊ'),
        ('ﾊ'..='ﾎ', '\u{ff9f}') => nth("パピプペポ", 'ﾊ'),
        ('\u{1100}'..='\u{1112}', '\u{1161}'..='\u{1175}') => {
            let place = (u32::from(first) - 0x1100) * 21 + (u32::from(c) - 0x1161);
            Some(shifted('\u{ac00}', place * 28))
        }
        ('\u{ac00}'..='\u{d7a3}', '\u{11a8}'..='\u{11c2}') if (u32::from(first) - 0xac00).is_multiple_of(28) => {
            Some(shifted(first, u32::from(c) - 0x11a7))
        }
        _ => None,
    }
}

fn shifted(c: char, by: u32) -> char {
    char::from_u32(u32::from(c) + by).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// What was written without having room: for the test that nothing is cut in the middle of a word.
#[cfg(test)]
pub mod watch {
    use std::cell::RefCell;

    thread_local! {
        static CUT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn cut(text: &str) {
        CUT.with_borrow_mut(|cut| cut.push(text.to_owned()));
    }

    /// The texts that were cut since this was asked last.
    pub fn take() -> Vec<String> {
        CUT.take()
    }
}

#[cfg(test)]
mod tests;
