//! A load on the screen: two rows in the list of sessions for all of its sessions, the form that asks for one, and what
//! becomes of it.

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
    text::Span,
};

use crate::{
    engine::Lane,
    tui::{
        input::action::{Action, Scope},
        state::{
            State,
            metrics::{Delivery, Since},
            workload::{Field, fit},
        },
        theme::Theme,
        widgets::{
            Unit,
            text::{band, paragraph, spans, text},
            units::{count, waited},
        },
    },
};

pub const WIDTH: u16 = 64;
/// Rows of the form and of the table, with their frame.
pub const HEIGHT: u16 = 16;
/// Rows of the table in which the load stands as it is written, and the first row of its counts.
const WRITTEN: u16 = 2;
const COUNTS: u16 = WRITTEN + 2;
/// Columns of the names of fields and counts.
const NAMES: usize = 10;
/// Columns of a field's value.
const VALUES: usize = 9;
/// Columns of a count of both lanes.
const VALUES_OF_LANES: usize = 18;

/// Draws the two rows: how many have come, and how many have their answer.
pub fn entry(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let load = &state.workload.load;
    let of = match load.spec() {
        Some(spec) if load.is_coming() || load.arrived() >= spec.sessions => format!(" of {}", spec.sessions),
        Some(_) => ", stopped".to_owned(),
        None => String::new(),
    };
    text(buf, band(area, 0, 1), &format!("≡ load {}{of}", load.arrived()), theme.text);
    let mut pieces = vec![Span::raw("  ")];
    for lane in Lane::ALL {
        let (look, counts) = (theme.lane(lane), load.counts(lane));
        let style = if counts.waiting + counts.running + counts.preempted > 0 { look.style } else { theme.dim };
        pieces.push(Span::styled(format!("{} ", look.symbol), look.style));
        pieces.push(Span::styled(format!("{:<3} ", counts.ended()), style));
    }
    pieces.push(Span::styled("done", theme.dim));
    spans(buf, band(area, 1, 1), pieces);
}

/// The title of what is shown over the panes.
pub fn title(state: &State) -> String {
    let key = state.keymap.hint(Scope::Charts, Action::Workload).map_or(String::new(), |key| format!(" · {key}"));
    match (state.workload.load.is_active(), state.workload.load.is_coming()) {
        (true, true) => format!("Load{key} stops arrivals · esc closes this"),
        (true, false) => format!("Load{key} cancels what is left · esc closes this"),
        _ => "Load · enter starts it · ←/→ halve, double · esc".to_owned(),
    }
}

/// Draws the form, or the counts of the load that runs; returns where the cursor stands.
pub fn draw(state: &State, theme: &Theme, inner: Rect, buf: &mut Buffer) -> Option<Position> {
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    if state.workload.load.is_active() {
        table(state, theme, inner, buf);
        return None;
    }
    let form = &state.workload.form;
    let mut cursor = None;
    for (at, (field, value)) in Field::ALL.into_iter().zip(&form.values).enumerate() {
        let row = band(inner, at as u16, 1);
        let chosen = at == form.selected;
        let style = if chosen { theme.selection } else { theme.text };
        let pieces = vec![
            Span::styled(format!("{:<NAMES$}", field.key()), if chosen { theme.title } else { theme.text }),
            Span::styled(format!("{value:>VALUES$}"), style),
            Span::styled(format!("  {}", field.words()), theme.dim),
        ];
        spans(buf, row, pieces);
        if chosen && !row.is_empty() {
            let column = (NAMES + VALUES) as u16;
            cursor = Some(Position::new((row.x + column).min(row.right().saturating_sub(1)), row.y));
        }
    }
    let below = band(inner, Field::ALL.len() as u16 + 1, inner.height);
    let spec = form.spec();
    let (words, style) = match (&form.error, &spec) {
        (Some(error), _) | (None, Err(error)) => (error.clone(), theme.bad),
        (None, Ok(spec)) => {
            let fits = spec.lanes.iter().map(|&lane| {
                let count = match state
                    .started
                    .as_ref()
                    .and_then(|started| fit(spec, started, &state.metrics.lanes[lane as usize], state.budget(lane)))
                {
                    None => "n/a".to_owned(),
                    Some(None) => "all".to_owned(),
                    Some(Some(count)) => count.min(spec.sessions as u64).to_string(),
                };
                format!("{} {count}", theme.lane(lane).symbol)
            });
            let simulated = if state.simulated() { " (simulated)" } else { "" };
            let fits = fits.collect::<Vec<_>>().join("  ");
            (format!("the budget{simulated} holds at once: {fits}; the others wait"), theme.dim)
        }
    };
    paragraph(buf, below, &words, style);
    cursor
}

fn table(state: &State, theme: &Theme, inner: Rect, buf: &mut Buffer) {
    let load = &state.workload.load;
    let written = load.spec().map_or(String::new(), ToString::to_string);
    paragraph(buf, band(inner, 0, WRITTEN), &written.replace(',', ", "), theme.dim);
    let all = load.spec().map_or(String::new(), |spec| format!(" of {}", spec.sessions));
    let stopped = if load.is_coming() { "" } else { "; no more come" };
    text(buf, band(inner, WRITTEN, 1), &format!("{} sessions came{all}{stopped}", load.arrived()), theme.text);
    let counts = Lane::ALL.map(|lane| load.counts(lane));
    let names = ["running", "waiting", "preempted", "finished", "cancelled", "refused"];
    let values = counts.map(|counts| {
        [counts.running, counts.waiting, counts.preempted, counts.finished, counts.cancelled, counts.refused]
    });
    let [ours, theirs] = Lane::ALL.map(|lane| theme.lane(lane));
    for (at, name) in names.into_iter().enumerate() {
        let pieces = vec![
            Span::styled(format!("{name:<NAMES$}"), theme.dim),
            Span::styled(format!("{} {:<7}", ours.symbol, values[0][at]), ours.style),
            Span::styled(format!("{} {:<7}", theirs.symbol, values[1][at]), theirs.style),
        ];
        spans(buf, band(inner, COUNTS + at as u16, 1), pieces);
    }
    let below = COUNTS + names.len() as u16;
    came(state, theme, band(inner, below, inner.height), buf);
    // Beside the counts: why one was refused.
    if let Some(why) = load.why() {
        let left = (NAMES + VALUES_OF_LANES).min(usize::from(inner.width)) as u16;
        let beside = Rect { x: inner.x + left, width: inner.width - left, ..inner };
        paragraph(buf, band(beside, COUNTS, names.len() as u16), why, theme.bad);
    }
}

/// What has come of it in each lane: a row for each figure, with words at the right.
fn came(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let lanes = state.figures().delivered;
    let rate = |lane: Delivery| Unit::TokensPerSecond.parts(lane.tok_s()).0;
    let known = |value: Option<u64>| value.map_or("n/a".to_owned(), count);
    let lines = [
        ("at most", lanes.map(|lane| known(lane.peak)), "ran at once".to_owned()),
        ("tok/s", lanes.map(rate), format!("wall clock, {}", since(state, lanes))),
        (
            "queue p50",
            lanes.map(|lane| waited(lane.queued_ms.map(|(p50, _)| p50))),
            "median before the start".to_owned(),
        ),
        ("queue p99", lanes.map(|lane| waited(lane.queued_ms.map(|(_, p99)| p99))), "99 of 100 at most".to_owned()),
    ];
    for ((name, values, words), row) in lines.into_iter().zip(area.rows()) {
        let mut pieces = vec![Span::styled(format!("{name:<NAMES$}"), theme.dim)];
        for (lane, value) in Lane::ALL.into_iter().zip(values) {
            let look = theme.lane(lane);
            pieces.push(Span::styled(format!("{} {value:<7}", look.symbol), look.style));
        }
        pieces.push(Span::styled(words, theme.dim));
        spans(buf, row, pieces);
    }
}

/// From when on what the lanes deliver is counted, in words.
pub(super) fn since(state: &State, lanes: [Delivery; 2]) -> String {
    let words = Lane::ALL.map(|lane| match lanes[lane as usize] {
        Delivery { since: Since::Load, over: false, .. } => "since the load began".to_owned(),
        Delivery { since: Since::Load, over: true, .. } => "while the load was on".to_owned(),
        Delivery { since: Since::Start, .. } => "while something was asked".to_owned(),
        Delivery { since: Since::Knob, .. } => {
            let change = state.metrics.last_change(lane, state.at_ms());
            format!("since {}", change.map_or("the knob was changed", |mark| &mark.label))
        }
    });
    let [ours, theirs] = &words;
    if ours == theirs { ours.clone() } else { format!("● {ours}, ○ {theirs}") }
}
