//! The figures of both lanes at the top of the screen, each in a column of its own width.
//!
//! A column never changes its width with its value, and has one unit. Where columns do not fit they go whole, the last
//! ones first.

use ratatui::{buffer::Buffer, layout::Rect, text::Span};

use crate::{
    engine::Lane,
    tui::{
        state::{
            State,
            figures::{Judge, Room},
        },
        theme::Theme,
        widgets::{
            Unit,
            text::{band, spans, text},
            units::{millis, nats},
            width::{self, of_spans},
        },
    },
};

/// Columns of the largest bytes, `-1023 MiB`.
const BYTES: usize = 9;

/// One figure for both lanes, or one for the KCache lane.
struct Figure {
    label: &'static str,
    value: Vec<Span<'static>>,
    /// Both again for a single row.
    short: (&'static str, Vec<Span<'static>>),
}

/// The figures: one row, or two rows with the names above.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let tall = area.height >= 2;
    let cell = |label: &str, value: &[Span<'_>]| {
        let label = width::width(label);
        if tall { of_spans(value).max(label) } else { label + 1 + of_spans(value) }
    };
    let figures = figures(state, theme);
    let room = usize::from(area.width);
    // A single row has room for all names and both percentiles on very wide screens alone.
    let long = tall || figures.iter().map(|figure| cell(figure.label, &figure.value) + 2).sum::<usize>() < room;
    let mut columns = Vec::new();
    let mut used = 1;
    for figure in figures {
        let (label, value) = if long { (figure.label, figure.value) } else { figure.short };
        let cell = cell(label, &value);
        if used + cell > room {
            break;
        }
        used += cell + 2;
        columns.push((label, value, cell as u16));
    }
    let spare = (room + 1).saturating_sub(used);
    let gap = 2 + (spare / columns.len().max(1)).min(3) as u16;
    let mut x = area.x + 1;
    for (label, value, cell) in columns {
        let at = Rect { x, width: cell, ..band(area, 0, 1) };
        if tall {
            text(buf, at, label, theme.dim);
            spans(buf, Rect { y: at.y + 1, ..at }, value);
        } else {
            let mut pieces = vec![Span::styled(format!("{label} "), theme.dim)];
            pieces.extend(value);
            spans(buf, at, pieces);
        }
        x += cell + gap;
    }
}

fn figures(state: &State, theme: &Theme) -> Vec<Figure> {
    let figures = state.figures();
    let apart = |values: [String; 2], gap: &str| {
        let mut spans = Vec::new();
        for (lane, value) in Lane::ALL.into_iter().zip(values) {
            let look = theme.lane(lane);
            let gap = if spans.is_empty() { "" } else { gap };
            spans.push(Span::styled(format!("{gap}{} {value}", look.symbol), look.style));
        }
        spans
    };
    let both = |values| apart(values, "  ");
    let close = |values| apart(values, " ");
    let number = |unit: Unit, value: Option<f64>| format!("{:>4}", unit.parts(value).0);
    let p50 = |value: Option<(f64, f64)>| format!("{:>4}", value.map_or("n/a".to_owned(), |(p50, _)| millis(p50)));
    let pair = |value: Option<(f64, f64)>| match value {
        Some((_, p99)) => format!("{}/{:<5}", p50(value), millis(p99)),
        None => format!("{:<10}", " n/a"),
    };
    let room = |room: Room| match room {
        Room::Unknown => " n/a".to_owned(),
        Room::Unlimited => "   ∞".to_owned(),
        Room::Tokens(tokens) => number(Unit::Count, Some(tokens as f64)),
    };
    let share = |value| Span::styled(Unit::Percent.fixed(value), theme.text);
    let whole = |value: Option<f64>| match value {
        Some(value) => format!("{:>4.0} %", value * 100.0),
        None => format!("{:>6}", "n/a"),
    };
    let saved = || {
        let style = if figures.saved_share.is_some_and(|share| share < 0.0) { theme.warn } else { theme.good };
        vec![
            Span::styled(format!("{:>BYTES$}", Unit::Bytes.text(figures.saved_bytes)), theme.text),
            Span::styled(whole(figures.saved_share), style),
        ]
    };
    // Who says so is part of the figure.
    let (judge, judge_short) = match figures.quality.map(|quality| quality.judge) {
        Some(Judge::Compare) => ("agree, by compare", "compare"),
        Some(Judge::Probes) => ("agree, by probes", "probes"),
        None => ("predictions agree", "agree"),
    };
    let agree = || share(figures.quality.map(|quality| quality.share()));
    let kl = figures.quality.and_then(|quality| quality.kl).map_or("n/a".to_owned(), nats);
    let quality = vec![agree(), Span::styled(format!("  KL {kl:<6}"), theme.dim)];
    let rates = |values: [Option<f64>; 2]| values.map(|value| number(Unit::TokensPerSecond, value));
    let own = || rates(figures.tok_s);
    let delivered = || rates(figures.delivered.map(|lane| lane.tok_s()));
    let until_full = || figures.until_full.map(room);
    let saved_label = if state.simulated() { "saved, simulated" } else { "saved on device" };
    let figure = |label, value, short| Figure { label, value, short };
    vec![
        figure(saved_label, saved(), ("saved", saved())),
        figure("tok/s, own steps", both(own()), ("tok/s", close(own()))),
        figure("tok/s, delivered", both(delivered()), ("wall", close(delivered()))),
        figure(judge, quality, (judge_short, vec![agree()])),
        figure("ms per token, p50/p99", both(figures.step_ms.map(pair)), ("ms", close(figures.step_ms.map(p50)))),
        figure("kept mass", vec![share(figures.kept)], ("kept", vec![share(figures.kept)])),
        figure("tokens until full", both(until_full()), ("room", close(until_full()))),
        figure("ms between tokens, p50/p99", both(figures.itl_ms.map(pair)), ("seen", close(figures.itl_ms.map(p50)))),
    ]
}
