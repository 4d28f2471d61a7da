//! The figures in large, for those who look on from across a table: what is saved, what is gained, what it costs, and
//! where each number comes from.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::Style,
};

use super::workload::since;
use crate::{
    engine::Lane,
    tui::{
        input::action::{Action, Scope},
        state::{
            State,
            figures::{Figures, Judge, Provenance, Quality, Room},
        },
        theme::Theme,
        widgets::{
            Panel, Unit,
            text::{band, paragraph, text},
            units::{count, nats, waited},
            width::{self, put},
            wrap::wrap_text,
        },
    },
};

/// Rows of a large digit.
const TALL: u16 = 3;

struct Card {
    title: &'static str,
    value: String,
    unit: String,
    /// In full, and where there is no room for that.
    words: [String; 2],
    provenance: Provenance,
    style: Style,
}

/// How the cards are drawn: all alike, so that the numbers stand in line.
#[derive(Clone, Copy)]
struct Manner {
    tall: u16,
    /// Whether a row is left free below it.
    apart: bool,
    words: usize,
    /// Rows that the longest of them take.
    rows: u16,
}

pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let columns = usize::from((area.width / 38).clamp(1, 3));
    let mut cards = cards(state, theme);
    // The most important first.
    cards.truncate(if columns == 3 { 9 } else { 6 });
    let room = (usize::from(area.width) / columns).saturating_sub(4);
    let bands = cards.len().div_ceil(columns);
    let manner = manner(&cards, theme, room, area.height / bands as u16);
    let bands = Layout::vertical(vec![Constraint::Fill(1); bands]).split(area);
    for (band, row) in bands.iter().zip(cards.chunks(columns)) {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); columns]).split(*band);
        for (card, cell) in row.iter().zip(cells.iter()) {
            draw_card(card, theme, manner, *cell, buf);
        }
    }
}

/// The largest numbers below which the words are read to their end: first in full, then the short ones.
fn manner(cards: &[Card], theme: &Theme, room: usize, height: u16) -> Manner {
    let inner = height.saturating_sub(2);
    let wide = cards.iter().all(|card| large_width(&card.value) + 1 + width::width(&card.unit) <= room);
    let manners = [(TALL, true, 0), (TALL, false, 0), (TALL, true, 1), (TALL, false, 1), (1, false, 0), (1, false, 1)];
    let manners = manners.map(|(tall, apart, words)| {
        let rows = cards.iter().map(|card| wrap_text(&card.words[words], theme.dim, room).len()).max();
        Manner { tall, apart, words, rows: rows.unwrap_or(0) as u16 }
    });
    let fits =
        |manner: &&Manner| (manner.tall == 1 || wide) && manner.tall + u16::from(manner.apart) + manner.rows <= inner;
    *manners.iter().find(fits).unwrap_or(&manners[manners.len() - 1])
}

fn draw_card(card: &Card, theme: &Theme, manner: Manner, area: Rect, buf: &mut Buffer) {
    let provenance = card.provenance.to_string();
    let inner = Panel::new(theme, card.title).note(&provenance).render(area, buf, &[]);
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    if inner.is_empty() {
        return;
    }
    let Manner { tall, apart, words, rows: words_rows } = manner;
    let used = tall + u16::from(apart);
    let top = inner.height.saturating_sub(used + words_rows) / 2;
    let at = band(inner, top, tall);
    if tall == TALL {
        large(&card.value, card.style, at, buf);
        let unit = band(at, TALL - 1, 1);
        let x = at.x + large_width(&card.value) as u16 + 1;
        text(buf, Rect { x, width: at.right().saturating_sub(x), ..unit }, &card.unit, theme.text);
    } else {
        text(buf, at, &format!("{} {}", card.value, card.unit), card.style);
    }
    paragraph(buf, band(inner, top + used, inner.height), &card.words[words], theme.dim);
}

fn cards(state: &State, theme: &Theme) -> Vec<Card> {
    let figures: Figures = state.figures();
    let simulated = if state.simulated() { Provenance::Simulated } else { Provenance::Measured };
    let parts = |unit: Unit, value: Option<f64>| {
        let (number, unit) = unit.parts(value);
        (number, unit.to_owned())
    };
    let ours = theme.kcache.style;
    let text = |unit: Unit, value| unit.text(value);
    let times = |a: Option<f64>, b: Option<f64>| {
        a.zip(b).filter(|(_, b)| *b > 0.0).map_or("n/a".to_owned(), |(a, b)| format!("{:.2} times", a / b))
    };
    let [name, base] = Lane::ALL.map(|lane| state.lane_name(lane));
    let card = |title, (value, unit): (String, String), words: [String; 2], provenance, style| Card {
        title,
        value,
        unit,
        words,
        provenance,
        style,
    };
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
    let saved = card(
        "Device memory saved",
        parts(Unit::Percent, figures.saved_share),
        [
            format!(
                "{} less than an ordinary KV cache holds for the same tokens; {} of V lie in host memory instead",
                text(Unit::Bytes, figures.saved_bytes),
                text(Unit::Bytes, figures.host_v_bytes)
            ),
            format!(
                "{} less than a KV cache; {} of V are in the host",
                text(Unit::Bytes, figures.saved_bytes),
                text(Unit::Bytes, figures.host_v_bytes)
            ),
        ],
        simulated,
        theme.good,
    );
    let lanes = figures.delivered;
    let [ours_wall, theirs_wall] = lanes.map(|lane| lane.tok_s());
    let [ours_done, theirs_done] = lanes.map(|lane| count(lane.finished));
    let peaks = lanes.map(|lane| lane.peak.map_or("n/a".to_owned(), count));
    let wall = times(ours_wall, theirs_wall);
    let delivered = card(
        "Delivered",
        parts(Unit::TokensPerSecond, ours_wall),
        [
            format!(
                "{base}: {}. By the clock on the wall {name} is {wall} as fast, {}. Finished: {ours_done} and \
                 {theirs_done}; at once at most: {} and {}",
                text(Unit::TokensPerSecond, theirs_wall),
                since(state, lanes),
                peaks[0],
                peaks[1],
            ),
            format!("{base} {}: by the clock {wall} as fast", text(Unit::TokensPerSecond, theirs_wall)),
        ],
        Provenance::Measured,
        ours,
    );
    let [ours_s, theirs_s] = figures.tok_s;
    let own = times(ours_s, theirs_s);
    let speed = card(
        "Speed of own steps",
        parts(Unit::TokensPerSecond, ours_s),
        [
            format!(
                "{base}: {}. By the time of its own decode steps {name} is {own} as fast; the time in which a lane waits \
                 for its turn is not counted",
                text(Unit::TokensPerSecond, theirs_s),
            ),
            format!("{base} {}: by its own steps {own} as fast", text(Unit::TokensPerSecond, theirs_s)),
        ],
        Provenance::Measured,
        ours,
    );
    let queued = |lane: usize| lanes[lane].queued_ms;
    let ours_queued = queued(0).map(|(p50, _)| p50);
    let [ours_99, theirs_99] = [0, 1].map(|lane| waited(queued(lane).map(|(_, p99)| p99)));
    let theirs_50 = waited(queued(1).map(|(p50, _)| p50));
    let queue = card(
        "Time in the queue",
        parts(Unit::Ms, ours_queued),
        [
            format!(
                "the median before an answer starts, {ours_99} for 99 of 100; {base}: {theirs_50} and {theirs_99}. Those \
                 that still wait count with their time so far"
            ),
            format!("99 of 100: {ours_99}; {base}: {theirs_50}, 99 of 100: {theirs_99}"),
        ],
        Provenance::Measured,
        ours,
    );
    let [ours_ms, theirs_ms] = figures.step_ms;
    let pair = |pair: Option<(f64, f64)>| {
        pair.map_or(["n/a".to_owned(), "n/a".to_owned()], |(p50, p99)| [p50, p99].map(|ms| text(Unit::Ms, Some(ms))))
    };
    let [[_, ours_p99], [theirs_p50, theirs_p99]] = [pair(ours_ms), pair(theirs_ms)];
    let token = card(
        "Time per token",
        parts(Unit::Ms, ours_ms.map(|(p50, _)| p50)),
        [
            format!(
                "the median of a step that decodes, {ours_p99} for 99 of 100; {base}: {theirs_p50} and {theirs_p99}"
            ),
            format!("the median of a step; {base}: {theirs_p50}"),
        ],
        Provenance::Measured,
        ours,
    );
    let kept = card(
        "Attention kept",
        parts(Unit::Percent, figures.kept),
        [
            "of the attention weight lies on the rows that were read; the tail stands for the rest".to_owned(),
            "of the weight lies on rows that were read".to_owned(),
        ],
        Provenance::Measured,
        theme.text,
    );
    let left = card(
        "Room left on the device",
        match ours_room {
            Some(room) if room.is_infinite() => ("∞".to_owned(), String::new()),
            room => (Unit::Count.parts(room).0, "tokens".to_owned()),
        },
        [
            format!(
                "until the budget is full{}; {base}: {}{}",
                more_sessions(figures.more_sessions[0], ": "),
                room_text(theirs_room),
                more_sessions(figures.more_sessions[1], ", ")
            ),
            format!("until the budget is full; {base}: {}", room_text(theirs_room)),
        ],
        Provenance::Derived,
        ours,
    );
    let together = card(
        "Answers at once",
        (lanes[0].running.map_or("n/a".to_owned(), count), String::new()),
        [
            format!(
                "run now, {} at most; {base}: {}, {} at most. Finished: {ours_done} and {theirs_done}, {}",
                peaks[0],
                lanes[1].running.map_or("n/a".to_owned(), count),
                peaks[1],
                since(state, lanes)
            ),
            format!("run now; finished {ours_done} and {theirs_done}"),
        ],
        Provenance::Measured,
        ours,
    );
    vec![saved, delivered, speed, quality(state, &figures, theme), queue, left, kept, together, token]
}

/// How far the predictions agree, who says so, and where nobody does, why.
fn quality(state: &State, figures: &Figures, theme: &Theme) -> Card {
    let base = state.lane_name(Lane::Kv);
    let kept = Unit::Percent.text(figures.kept);
    let words = match figures.quality {
        Some(quality) => {
            let Quality { judge, agreed, of, kl, kl_p99 } = quality;
            let [kl, kl_p99] = [kl, kl_p99].map(|kl| kl.map_or("n/a".to_owned(), nats));
            let how = match judge {
                Judge::Compare => format!("fed the same tokens as {base}"),
                Judge::Probes => "against exact attention over the same cache".to_owned(),
            };
            [
                format!(
                    "by {judge}: {} of {} predictions are the same, {how}. KL {kl}, p99 {kl_p99}; kept mass {kept}",
                    count(agreed),
                    count(of)
                ),
                format!("by {judge}, {} of {}; KL {kl}", count(agreed), count(of)),
            ]
        }
        None => {
            let key = state.keymap.hint(Scope::Charts, Action::Compare);
            let key = key.map_or_else(String::new, |key| format!(" ({key})"));
            let since =
                state.last_change(Lane::KCache).map_or("in the time on show".to_owned(), |at| format!("since {at}"));
            [
                format!("no prediction was compared{key} or probed (guard.probe_every) {since}; kept mass {kept}"),
                format!("nothing compared or probed {since}"),
            ]
        }
    };
    let (value, unit) = Unit::Percent.parts(figures.quality.map(|quality| quality.share()));
    let (title, provenance, style) = ("Predictions agree", Provenance::Measured, theme.text);
    Card { title, value, unit: unit.to_owned(), words, provenance, style }
}

/// How many more sessions fit, where that is known, after `before`.
fn more_sessions(more: Option<(u64, u64)>, before: &str) -> String {
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
