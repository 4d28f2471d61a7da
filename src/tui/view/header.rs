//! The first row of the screen: what runs and how.

use ratatui::{buffer::Buffer, layout::Rect, text::Span};

use crate::{
    cache::{Format, Policy, Spread},
    tui::{
        input::action::Action,
        state::State,
        theme::Theme,
        widgets::{
            Unit,
            text::{right_spans, spans, text},
            width::of_spans,
        },
    },
};

/// Model, policy and machine at the left; what the screen itself does at the right.
pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if let Some(error) = &state.stopped {
        let why = error.as_deref().unwrap_or("the engine was shut down");
        let quit = state.keymap.hint(state.focus.scope(), Action::Quit);
        let quit = quit.map_or_else(String::new, |key| format!(", {key} quits"));
        let banner = format!(" {why} · everything stays readable{quit}");
        buf.set_style(area, theme.bad);
        text(buf, area, &banner, theme.bad);
        return;
    }
    let policy = policy(state, theme);
    let first = 8 + of_spans(&policy);
    let all = status(state, theme, true);
    // What the screen costs gives way to the policy.
    let cost = first + 11 + of_spans(&all) < usize::from(area.width);
    let taken = right_spans(buf, area, if cost { all } else { status(state, theme, false) });
    let room = usize::from(area.width.saturating_sub(taken + 1));
    // The most important first; knob by knob, N first. The word that must not be missed has its room before them.
    let simulated = state.simulated().then(|| Span::styled("  simulated", theme.mark));
    let mut used = 8 + of_spans(simulated.as_slice());
    let knobs = policy.chunks(2).map(<[Span]>::to_vec);
    let (mut left, full) = fitting(knobs, &mut used, room);
    left.insert(0, Span::styled(" kcache ", theme.title));
    left.extend(simulated);
    if !full {
        left.extend(fitting(machine(state, theme).into_iter(), &mut used, room).0);
    }
    spans(buf, Rect { width: area.width.saturating_sub(taken), ..area }, left);
}

/// The first of these that have room, and whether one had none: after it nothing follows.
fn fitting(
    parts: impl Iterator<Item = Vec<Span<'static>>>,
    used: &mut usize,
    room: usize,
) -> (Vec<Span<'static>>, bool) {
    let mut fit = Vec::new();
    for part in parts {
        *used += of_spans(&part);
        if *used > room {
            return (fit, true);
        }
        fit.extend(part);
    }
    (fit, false)
}

/// What runs, part by part.
fn machine(state: &State, theme: &Theme) -> Vec<Vec<Span<'static>>> {
    let Some(started) = &state.started else { return vec![vec![Span::styled("  loading the model…", theme.text)]] };
    let weights = Unit::Bytes.text(Some(started.weight_bytes as f64));
    let dim = |text: String| vec![Span::styled(text, theme.dim)];
    vec![
        vec![Span::styled("  ", theme.dim), Span::styled(started.model.clone(), theme.text)],
        dim(format!("  {} layers, {}/{} heads", started.layers, started.heads, started.kv_heads)),
        dim(format!("  weights {weights}, shared")),
        dim(format!("  {} threads", started.threads)),
        dim(format!("  context {}", started.context)),
    ]
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
    // How rows are spread over the heads says what N means.
    let share = knobs.p.map(|p| ("p", p.to_string()));
    let profile = if let Spread::Profile(profile) = knobs.spread { Some(profile.name()) } else { None };
    for (name, value) in share.into_iter().chain(profile.map(|name| ("profile", name.to_string()))) {
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
