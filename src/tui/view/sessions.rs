//! The list of sessions: name, state and progress of each, per lane.

use ratatui::{buffer::Buffer, layout::Rect, text::Span};

use super::queue;
use crate::{
    engine::{FinishReason, Lane},
    tui::{
        state::{
            Focus, State,
            session::{Phase, Session},
        },
        theme::{SeriesLook, Theme},
        widgets::{
            LegendEntry, Panel,
            text::{band, spans, text},
            units::duration,
            width::{self, clip, of_spans},
        },
    },
};

/// The sign of a session in which the program itself asks.
const DEMO: &str = "◇";
/// The sign of a session whose guard has found something.
const GUARD: &str = "!";

/// The list, two rows for each session.
pub fn list(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let title = format!("Sessions {}", state.sessions.len());
    let look = SeriesLook { symbol: DEMO, style: theme.dim, ..theme.kv_equivalent };
    let demo = LegendEntry { name: "", look, value: "demo".into() };
    let look = SeriesLook { symbol: GUARD, style: theme.warn, ..theme.kv_equivalent };
    let guard = LegendEntry { name: "", look, value: "guard".into() };
    let any = |of: fn(&Session) -> bool| state.sessions.iter().any(of);
    let signs = [(any(|session| session.guard.is_some()), guard), (any(|session| session.demo), demo)];
    let legend: Vec<_> = signs.into_iter().filter_map(|(shown, sign)| shown.then_some(sign)).collect();
    let inner = Panel::new(theme, &title).focused(state.focus == Focus::Sessions).render(area, buf, &legend);
    let inner = queue::foot(state, theme, inner, buf);
    if state.sessions.is_empty() {
        let key = state.keymap.keys(crate::tui::input::action::Action::NewSession).first();
        let hint = key.map_or_else(|| "none yet".to_owned(), |key| format!("none yet: {key}"));
        text(buf, inner, &hint, theme.dim);
        return;
    }
    let fit = usize::from(inner.height / 2).max(1);
    let first = (state.selected + 1).saturating_sub(fit);
    for (at, session) in state.sessions.iter().enumerate().skip(first).take(fit) {
        let cell = band(inner, (at - first) as u16 * 2, 2);
        entry(state, theme, session, at == state.selected, cell, buf);
    }
}

fn entry(state: &State, theme: &Theme, session: &Session, selected: bool, cell: Rect, buf: &mut Buffer) {
    let (top, below) = (band(cell, 0, 1), band(cell, 1, 1));
    if selected {
        buf.set_style(top, theme.selection);
    }
    let name_style = if selected { theme.selection.patch(theme.title) } else { theme.text };
    // A sign at the edge, so that it takes no room from the name; the frame says what it means.
    let (sign, style) = match (&session.guard, session.demo) {
        (Some(_), _) => (GUARD, theme.warn),
        (None, true) => (DEMO, theme.dim),
        (None, false) => (" ", theme.dim),
    };
    let sign_style = if selected { theme.selection } else { style };
    text(buf, Rect { width: top.width.min(1), ..top }, sign, sign_style);
    text(buf, Rect { x: top.x + 2, width: top.width.saturating_sub(2), ..top }, &session.name, name_style);
    let mut pieces = vec![Span::raw("  ")];
    pieces.extend(status(state, theme, session, usize::from(below.width.saturating_sub(2))));
    spans(buf, below, pieces);
}

/// What each lane is doing; said once where both do the same.
fn status(state: &State, theme: &Theme, session: &Session, room: usize) -> Vec<Span<'static>> {
    let [ours, theirs] = session.phases;
    let one_lane = session.lanes.len() == 1;
    if session.queued.is_some() {
        let words = ["your message waits", "message waits", "waits"];
        let fits = words.into_iter().find(|words| width::width(words) <= room);
        return vec![Span::styled(fits.unwrap_or("…"), theme.warn)];
    }
    if let (Phase::Prefill(progress), true) = (ours, same_kind(ours, theirs) || one_lane) {
        let left = progress.seconds_left().map_or(String::new(), |s| format!(", {}", duration(Some(s))));
        let long = format!("prefill {:.0} %{left}", progress.share() * 100.0);
        let mid = format!("{:.0} %{left} left", progress.share() * 100.0);
        let short = format!("prefill {:.0} %", progress.share() * 100.0);
        let fits = [long, mid].into_iter().find(|text| width::width(text) <= room && !left.is_empty());
        return vec![Span::styled(fits.unwrap_or(short), theme.text)];
    }
    let places = Lane::ALL.map(|lane| state.metrics.lanes[lane as usize].place(session.id));
    let same_word = match (ours, theirs) {
        _ if Lane::ALL.iter().any(|&lane| session.refused(lane)) => None,
        (Phase::Idle, Phase::Idle) => Some("idle".to_owned()),
        (Phase::Waiting, Phase::Waiting) if places[0] == places[1] => Some(match places[0] {
            Some((at, all)) if all > 1 => format!("waiting, {at} of {all}"),
            _ => "waiting".to_owned(),
        }),
        _ => None,
    };
    if let Some(word) = same_word {
        return vec![Span::styled(word, theme.dim)];
    }
    // `● 37 tok  ○ 41 tok`: what runs is in the lane's colour, what has ended is dim and says why. Where that is too
    // long for both lanes the numbers have to do.
    let long = session.lanes.len() * 10 <= room + 1;
    let mut pieces = Vec::new();
    let mut used = 0;
    for &lane in &session.lanes {
        let look = theme.lane(lane);
        let tokens = session.turns.last().map_or(0, |turn| turn.answer(lane).tokens.len());
        let (word, style) = match session.phase(lane) {
            Phase::Idle | Phase::Ended(_) if session.refused(lane) => {
                (if long { "refused" } else { "none" }.to_owned(), theme.bad)
            }
            Phase::Idle => ("idle".to_owned(), theme.dim),
            Phase::Waiting => match places[lane as usize] {
                Some((at, _)) if long => (format!("wait {at}"), theme.dim),
                Some((at, _)) => (format!("#{at}"), theme.dim),
                None => (if long { "waiting" } else { "…" }.to_owned(), theme.dim),
            },
            Phase::Started { again } if long => (if again { "goes on" } else { "starts" }.to_owned(), look.style),
            Phase::Started { .. } => ("…".to_owned(), look.style),
            // Where its pages are, or what they will cost.
            Phase::Preempted { kept } if long => (if kept { "in host" } else { "to redo" }.to_owned(), theme.warn),
            Phase::Preempted { kept } => (if kept { "host" } else { "redo" }.to_owned(), theme.warn),
            Phase::Prefill(progress) => (format!("{:.0} %", progress.share() * 100.0), look.style),
            Phase::Answering if long => (format!("{tokens} tok"), look.style),
            Phase::Answering => (tokens.to_string(), look.style),
            Phase::Ended(FinishReason::Stop) if long => (format!("{tokens} done"), theme.dim),
            Phase::Ended(_) if !long => (tokens.to_string(), theme.dim),
            Phase::Ended(reason) => (reason.to_string(), theme.dim),
        };
        let word = if long { format!("{word:<8}") } else { format!("{word:<5}") };
        if used + 2 + width::width(word.trim_end()) > room {
            break;
        }
        used += 2 + width::width(&word);
        pieces.push(Span::styled(format!("{} ", look.symbol), look.style));
        pieces.push(Span::styled(word, style));
    }
    pieces
}

fn same_kind(a: Phase, b: Phase) -> bool {
    match (a, b) {
        (Phase::Prefill(a), Phase::Prefill(b)) => (a.done, a.total) == (b.done, b.total),
        _ => false,
    }
}

/// One row of names, the one on show in the middle of what fits.
pub fn row(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let Some(session) = state.session() else { return };
    let count = format!(" {}/{} ", state.selected + 1, state.sessions.len());
    let mut pieces = vec![Span::styled(count, theme.dim)];
    let style = if state.focus == Focus::Sessions { theme.selection } else { theme.title };
    pieces.push(Span::styled(clip(&session.name, usize::from(area.width / 2)), style));
    pieces.push(Span::raw("  "));
    let used = of_spans(&pieces);
    pieces.extend(status(state, theme, session, usize::from(area.width).saturating_sub(used)));
    spans(buf, area, pieces);
}
