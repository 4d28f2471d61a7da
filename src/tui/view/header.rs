//! The top of the screen: what runs and how, and the figures of both lanes.

use ratatui::{buffer::Buffer, layout::Rect, text::Span};
use unicode_width::UnicodeWidthStr;

use super::{right_spans, rows, spans};
use crate::{
    cache::{Format, Policy},
    engine::Lane,
    tui::{action::Action, figures::Room, state::State, theme::Theme, widgets::Unit},
};

/// Model, policy and machine at the left; what the screen itself does at the right.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if let Some(error) = &state.stopped {
        let why = error.as_deref().unwrap_or("the engine was shut down");
        let quit = state.keymap.hint(state.focus.scope(), Action::Quit);
        let quit = quit.map_or_else(String::new, |key| format!(", {key} quits"));
        let banner = format!(" {why} · everything stays readable{quit}");
        buf.set_style(area, theme.bad);
        super::text(buf, area, &banner, theme.bad);
        return;
    }
    let right = status(state, theme);
    let taken = right_spans(buf, area, right);
    let mut left = vec![Span::styled(" kcache ", theme.title)];
    let room = usize::from(area.width.saturating_sub(taken + 1));
    let mut used = 8;
    // The most important first; after the first that does not fit nothing follows.
    let mut add = |pieces: Vec<Span<'static>>| {
        used += pieces.iter().map(Span::width).sum::<usize>();
        if used <= room {
            left.extend(pieces);
        }
    };
    add(policy(state, theme));
    if state.simulated() {
        add(vec![Span::styled("  simulated", theme.mark)]);
    }
    match &state.started {
        Some(started) => {
            add(vec![Span::styled("  ", theme.dim), Span::styled(started.model.clone(), theme.text)]);
            let heads = format!("  {} layers, {}/{} heads", started.layers, started.heads, started.kv_heads);
            add(vec![Span::styled(heads, theme.dim)]);
            let weights = Unit::Bytes.text(Some(started.weight_bytes as f64));
            add(vec![Span::styled(format!("  weights {weights}, shared"), theme.dim)]);
            add(vec![Span::styled(format!("  {} threads", started.threads), theme.dim)]);
            add(vec![Span::styled(format!("  context {}", started.context), theme.dim)]);
        }
        None => add(vec![Span::styled("  loading the model…", theme.warn)]),
    }
    spans(buf, Rect { width: area.width.saturating_sub(taken), ..area }, left);
}

/// The knobs of the KCache lane; `…` while the engine has yet to confirm them.
fn policy(state: &State, theme: &Theme) -> Vec<Span<'static>> {
    let Some(Policy::KCache(knobs)) = state.policy() else { return Vec::new() };
    let mut pieces = Vec::new();
    for (name, value) in [
        ("n", knobs.n.to_string()),
        ("tail", knobs.tail.to_string()),
        ("dense", knobs.dense.to_string()),
        ("select", knobs.select.to_string()),
    ] {
        pieces.push(Span::styled(format!(" {name}="), theme.dim));
        pieces.push(Span::styled(value, theme.knob));
    }
    if knobs.k != Format::F16 {
        pieces.push(Span::styled(" k=", theme.dim));
        // No knob: it stays as it is.
        pieces.push(Span::styled(knobs.k.to_string(), theme.dim));
    }
    pieces.push(Span::styled(if state.wanted.is_some() { "…" } else { " " }, theme.warn));
    pieces
}

fn status(state: &State, theme: &Theme) -> Vec<Span<'static>> {
    let mut pieces = Vec::new();
    if state.frozen.is_some() {
        pieces.push(Span::styled(" FROZEN ", theme.selection));
        pieces.push(Span::raw(" "));
    }
    if state.dropped > 0 {
        pieces.push(Span::styled(format!("missed {} ", Unit::Count.text(Some(state.dropped as f64))), theme.warn));
    }
    let share = Unit::Percent.fixed(state.observer.share);
    pieces.push(Span::styled("screen costs ", theme.dim));
    pieces.push(Span::styled(format!("{share} "), theme.text));
    pieces
}

/// One figure for both lanes, or one for the KCache lane.
struct Figure {
    label: &'static str,
    short: &'static str,
    value: Vec<Span<'static>>,
}

/// The figures: one row, or two rows with the names above.
pub fn kpis(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let figures = figures(state, theme);
    let tall = area.height >= 2;
    let wide = |figure: &Figure| figure.value.iter().map(Span::width).sum::<usize>();
    let total = |short: bool, blanks: usize| {
        figures.iter().fold(0, |sum, figure| {
            let label = if short { figure.short.width() } else { figure.label.width() };
            sum + blanks + if tall { wide(figure).max(label) } else { wide(figure) + 1 + label }
        })
    };
    let short = total(false, 2) > usize::from(area.width);
    let spare = usize::from(area.width).saturating_sub(total(short, 0));
    let gap = (spare / figures.len().max(1)).clamp(2, 6) as u16;
    let mut x = area.x + 1;
    for figure in figures {
        let label = if short { figure.short } else { figure.label };
        let width = wide(&figure) as u16;
        let cell = if tall { width.max(label.width() as u16) } else { width + 1 + label.width() as u16 };
        if x + cell > area.right() {
            break;
        }
        let at = Rect { x, width: cell, ..rows(area, 0, 1) };
        if tall {
            super::text(buf, at, label, theme.dim);
            spans(buf, Rect { y: at.y + 1, ..at }, figure.value);
        } else {
            let mut pieces = vec![Span::styled(format!("{label} "), theme.dim)];
            pieces.extend(figure.value);
            spans(buf, at, pieces);
        }
        x += cell + gap;
    }
}

fn figures(state: &State, theme: &Theme) -> Vec<Figure> {
    let figures = state.figures();
    let plain = |text: String| vec![Span::styled(text, theme.text)];
    let both = |values: [String; 2]| {
        let [ours, theirs] = values;
        let lane = |lane: Lane, value: String| {
            let look = theme.lane(lane);
            [Span::styled(look.symbol, look.style), Span::styled(value, look.style)]
        };
        let mut spans = lane(Lane::KCache, ours).to_vec();
        spans.push(Span::raw(" "));
        spans.extend(lane(Lane::Kv, theirs));
        spans
    };
    let number = |unit: Unit, value: Option<f64>| format!("{:>4}", unit.parts(value).0);
    let pair = |value: Option<(f64, f64)>| match value {
        Some((p50, p99)) => {
            format!("{}/{:<4}", number(Unit::Ms, Some(p50)), number(Unit::Ms, Some(p99)).trim_start())
        }
        None => format!("{:<9}", " n/a"),
    };
    let room = |room: Room| match room {
        Room::Unknown => " n/a".to_owned(),
        Room::Unlimited => "   ∞".to_owned(),
        Room::Tokens(tokens) => number(Unit::Count, Some(tokens as f64)),
    };
    let share = |value| Unit::Percent.fixed(value);
    let (_, compared) = figures.agreement;
    let saved_label = if state.simulated() { "saved, simulated" } else { "saved on device" };
    let mut saved = plain(Unit::Bytes.fixed(figures.saved_bytes));
    if figures.saved_share.is_some() {
        saved.push(Span::styled(format!("{:>3.0} %", figures.saved_share.unwrap_or(0.0) * 100.0), theme.good));
    }
    let mut agreement = plain(share(figures.agreement_share()));
    if compared > 0 {
        agreement.push(Span::styled(format!(" of {:<4}", Unit::Count.text(Some(compared as f64))), theme.dim));
    }
    vec![
        Figure { label: saved_label, short: "saved", value: saved },
        Figure {
            label: "tok/s",
            short: "tok/s",
            value: both(figures.tok_s.map(|value| number(Unit::TokensPerSecond, value))),
        },
        Figure { label: "ms per token, p50/p99", short: "ms", value: both(figures.step_ms.map(pair)) },
        Figure { label: "kept mass", short: "kept", value: plain(share(figures.kept)) },
        Figure { label: "same tokens", short: "same", value: agreement },
        Figure { label: "until full", short: "room", value: both(figures.until_full.map(room)) },
        Figure { label: "ms seen between tokens", short: "seen", value: both(figures.itl_ms.map(pair)) },
    ]
}

/// Milliseconds without their unit, whatever their size: `8.24`, `31.5`, `1240`.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ..9.995 => format!("{ms:.2}"),
        ..99.95 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// How a lane is called on the screen.
pub(super) fn lane_name(state: &State, lane: Lane) -> String {
    match (lane, state.metrics.lanes[lane as usize].policy) {
        (Lane::KCache, None | Some(Policy::KCache(_))) => "KCache".into(),
        (Lane::Kv, None | Some(Policy::Kv)) => "KV".into(),
        (_, Some(policy)) => policy.to_string(),
    }
}
