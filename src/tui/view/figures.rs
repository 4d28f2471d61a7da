//! The figures in large, for those who look on from across a table: what is saved, what is gained, what it costs, and
//! where each number comes from.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::Style,
};

use super::{paragraph, rows};
use crate::tui::{
    figures::{Figures, Provenance, Room},
    state::State,
    theme::Theme,
    widgets::{Panel, Unit},
    width::{self, put},
    wrap::wrap_text,
};

/// Rows of a large digit.
const TALL: u16 = 3;

struct Card {
    title: &'static str,
    value: String,
    unit: String,
    words: String,
    provenance: Provenance,
    style: Style,
}

/// Draws the cards.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let cards = cards(state, theme);
    let columns = usize::from((area.width / 38).clamp(1, 3));
    // Every card keeps as many rows for words as the longest needs, so that the numbers stand in line.
    let width = usize::from(area.width) / columns;
    let words = cards.iter().map(|card| wrap_text(&card.words, theme.dim, width.saturating_sub(5)).len()).max();
    let bands = Layout::vertical(vec![Constraint::Fill(1); cards.len().div_ceil(columns)]).split(area);
    for (band, row) in bands.iter().zip(cards.chunks(columns)) {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); columns]).split(*band);
        for (card, cell) in row.iter().zip(cells.iter()) {
            draw_card(card, theme, words.unwrap_or(0) as u16, *cell, buf);
        }
    }
}

fn draw_card(card: &Card, theme: &Theme, words_rows: u16, area: Rect, buf: &mut Buffer) {
    let provenance = card.provenance.to_string();
    let inner = Panel::new(theme, card.title).note(&provenance).render(area, buf, &[]);
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    if inner.is_empty() {
        return;
    }
    let words = wrap_text(&card.words, theme.dim, usize::from(inner.width));
    let big =
        inner.height > TALL + 1 && large_width(&card.value) + 1 + width::width(&card.unit) <= usize::from(inner.width);
    let used = if big { TALL } else { 1 };
    let top = inner.height.saturating_sub(used + 1 + words_rows.max(words.len() as u16)) / 2;
    let at = rows(inner, top, used);
    if big {
        large(&card.value, card.style, at, buf);
        let unit = rows(at, TALL - 1, 1);
        let x = at.x + large_width(&card.value) as u16 + 1;
        super::text(buf, Rect { x, width: at.right().saturating_sub(x), ..unit }, &card.unit, theme.text);
    } else {
        super::text(buf, at, &format!("{} {}", card.value, card.unit), card.style);
    }
    paragraph(buf, rows(inner, top + used + 1, inner.height), &card.words, theme.dim);
}

fn cards(state: &State, theme: &Theme) -> Vec<Card> {
    let figures: Figures = state.figures();
    let simulated = if state.simulated() { Provenance::Simulated } else { Provenance::Measured };
    let parts = |unit: Unit, value: Option<f64>| {
        let (number, unit) = unit.parts(value);
        (number, unit.to_owned())
    };
    let ours = theme.kcache.style;
    let [ours_s, theirs_s] = figures.tok_s;
    let [ours_ms, theirs_ms] = figures.step_ms.map(|pair| pair.map(|(p50, _)| p50));
    let text = |unit: Unit, value| unit.text(value);
    let times = |a: Option<f64>, b: Option<f64>| {
        a.zip(b).filter(|(_, b)| *b > 0.0).map_or("n/a".to_owned(), |(a, b)| format!("{:.2} times", a / b))
    };
    let card = |title, (value, unit): (String, String), words: String, provenance, style| Card {
        title,
        value,
        unit,
        words,
        provenance,
        style,
    };
    let (same, compared) = figures.agreement;
    let room = |room: Room| match room {
        Room::Unknown => None,
        Room::Unlimited => Some(f64::INFINITY),
        Room::Tokens(tokens) => Some(tokens as f64),
    };
    let [ours_room, theirs_room] = figures.until_full.map(room);
    let room_text = |room: Option<f64>| match room {
        Some(room) if room.is_infinite() => "without limit".to_owned(),
        room => format!("{} tokens", Unit::Count.text(room)),
    };
    vec![
        card(
            "Device memory saved",
            parts(Unit::Percent, figures.saved_share),
            format!(
                "{} less than an ordinary KV cache holds for the same tokens; {} of V lie in host memory instead",
                text(Unit::Bytes, figures.saved_bytes),
                text(Unit::Bytes, figures.host_v_bytes)
            ),
            simulated,
            theme.good,
        ),
        card(
            "Speed",
            parts(Unit::TokensPerSecond, ours_s),
            format!(
                "KV: {}. KCache is {} as fast, each lane counted by its own busy time",
                text(Unit::TokensPerSecond, theirs_s),
                times(ours_s, theirs_s)
            ),
            Provenance::Measured,
            ours,
        ),
        card(
            "Time per token",
            parts(Unit::Ms, ours_ms),
            format!("the median since N was turned, or of the time on the charts; KV: {}", text(Unit::Ms, theirs_ms)),
            Provenance::Measured,
            ours,
        ),
        card(
            "Same tokens",
            parts(Unit::Percent, figures.agreement_share()),
            format!("{same} of {compared} tokens are the same, place by place, as with the ordinary KV cache"),
            Provenance::Measured,
            theme.text,
        ),
        card(
            "Attention kept",
            parts(Unit::Percent, figures.kept),
            "of the attention weight lies on the rows that were read; the tail stands for the rest".to_owned(),
            Provenance::Measured,
            theme.text,
        ),
        card(
            "Room left on the device",
            match ours_room {
                Some(room) if room.is_infinite() => ("∞".to_owned(), String::new()),
                room => (Unit::Count.parts(room).0, "tokens".to_owned()),
            },
            format!(
                "until the budget is full{}; KV: {}{}",
                more_sessions(figures.more_sessions[0], ": "),
                room_text(theirs_room),
                more_sessions(figures.more_sessions[1], ", ")
            ),
            Provenance::Derived,
            ours,
        ),
    ]
}

/// How many more sessions fit, where that is known, after `before`.
fn more_sessions(more: Option<(u64, u64)>, before: &str) -> String {
    let count = |number: u64| Unit::Count.text(Some(number as f64));
    more.map_or_else(String::new, |(sessions, tokens)| {
        format!("{before}{} more sessions of {} tokens", count(sessions), count(tokens))
    })
}

/// The rows of a character, three cells wide where it is a digit.
fn glyph(c: char) -> [&'static str; TALL as usize] {
    match c {
        '0' => ["█▀█", "█ █", "▀▀▀"],
        '1' => ["▀█ ", " █ ", "▀▀▀"],
        '2' => ["▀▀█", "█▀▀", "▀▀▀"],
        '3' => ["▀▀█", " ▀█", "▀▀▀"],
        '4' => ["█ █", "▀▀█", "  ▀"],
        '5' => ["█▀▀", "▀▀█", "▀▀▀"],
        '6' => ["█▀▀", "█▀█", "▀▀▀"],
        '7' => ["▀▀█", "  █", "  ▀"],
        '8' => ["█▀█", "█▀█", "▀▀▀"],
        '9' => ["█▀█", "▀▀█", "▀▀▀"],
        '.' => [" ", " ", "▀"],
        '-' => ["   ", "▀▀▀", "   "],
        'k' => ["█ ▄", "█▀▄", "▀ ▀"],
        'M' => ["█▄ ▄█", "█ ▀ █", "▀   ▀"],
        'n' => ["   ", "█▀█", "▀ ▀"],
        'a' => ["   ", "▄▀█", "▀▀▀"],
        '/' => ["  ▄", " █ ", "▀  "],
        '∞' => ["     ", "█▀█▀█", "▀▀▀▀▀"],
        _ => [" ", " ", " "],
    }
}

fn large_width(text: &str) -> usize {
    text.chars().map(|c| width::width(glyph(c)[0]) + 1).sum::<usize>().saturating_sub(1)
}

fn large(text: &str, style: Style, area: Rect, buf: &mut Buffer) {
    let mut x = area.x;
    for c in text.chars() {
        let shape = glyph(c);
        for (row, part) in area.rows().zip(shape) {
            if x < area.right() {
                put(buf, x, row.y, part, usize::from(area.right() - x), style);
            }
        }
        x = x.saturating_add(width::width(shape[0]) as u16 + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_glyph_is_as_wide_as_the_others() {
        for c in "0123456789.-kMna/∞ ".chars() {
            let widths = glyph(c).map(width::width);
            assert!(widths.iter().all(|&width| width == widths[0]), "{c}");
        }
    }
}
