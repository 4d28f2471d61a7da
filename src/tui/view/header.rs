//! The first row of the screen: what runs and how.

use ratatui::{buffer::Buffer, layout::Rect, text::Span};

use super::{right_spans, spans};
use crate::{
    cache::{Format, Policy},
    engine::Lane,
    tui::{action::Action, state::State, theme::Theme, widgets::Unit},
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
    let policy = policy(state, theme);
    let first = 8 + policy.iter().map(Span::width).sum::<usize>();
    let all = status(state, theme, true);
    // What the screen costs gives way to the policy.
    let cost = first + 11 + all.iter().map(Span::width).sum::<usize>() < usize::from(area.width);
    let taken = right_spans(buf, area, if cost { all } else { status(state, theme, false) });
    let mut left = vec![Span::styled(" kcache ", theme.title)];
    let room = usize::from(area.width.saturating_sub(taken + 1));
    let mut used = 8;
    // The most important first; after the first that does not fit nothing follows.
    let mut full = false;
    let mut add = |pieces: Vec<Span<'static>>| {
        used += pieces.iter().map(Span::width).sum::<usize>();
        full |= used > room;
        if !full {
            left.extend(pieces);
        }
    };
    // Knob by knob, N first.
    policy.chunks(2).for_each(|knob| add(knob.to_vec()));
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

/// What must be seen at any width, and with `cost` what drawing takes.
fn status(state: &State, theme: &Theme, cost: bool) -> Vec<Span<'static>> {
    let mut pieces = Vec::new();
    if state.frozen.is_some() {
        pieces.push(Span::styled(" FROZEN ", theme.selection));
        pieces.push(Span::raw(" "));
    }
    if state.dropped > 0 {
        pieces.push(Span::styled(format!("missed {} ", Unit::Count.text(Some(state.dropped as f64))), theme.warn));
    }
    if state.recorded {
        pieces.push(Span::styled("recorded ", theme.mark));
    } else if cost {
        let share = Unit::Percent.fixed(state.observer.share);
        pieces.push(Span::styled("screen ", theme.dim));
        pieces.push(Span::styled(share, theme.text));
        pieces.push(Span::styled(" of a core ", theme.dim));
    }
    pieces
}

/// How a lane is called on the screen.
pub(super) fn lane_name(state: &State, lane: Lane) -> String {
    match (lane, state.metrics.lanes[lane as usize].policy) {
        (Lane::KCache, None | Some(Policy::KCache(_))) => "KCache".into(),
        (Lane::Kv, None | Some(Policy::Kv)) => "KV".into(),
        (_, Some(policy)) => policy.to_string(),
    }
}
