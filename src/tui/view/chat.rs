//! A transcript: what was said in one lane, with the place where the lanes part marked.

use ratatui::{buffer::Buffer, layout::Rect, text::Line, widgets::Widget};

use crate::{
    engine::Lane,
    tui::{
        layout::{
            transcript::{Styles, body, head, lines},
            waiting::{read_first, waits_for},
        },
        state::{
            Focus, State,
            session::{Phase, Session},
            transcript::Together,
        },
        theme::{SeriesLook, Theme},
        widgets::{
            LegendEntry, Panel, ProgressBar,
            text::{band, text},
            width::{self, put_line},
            wrap::wrap_text,
        },
    },
};

/// Draws the transcript of the session on show in one lane.
pub fn draw(state: &State, theme: &Theme, lane: Lane, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let look = theme.lane(lane);
    let name = state.lane_name(lane);
    let title = format!("{} {name}", look.symbol);
    let legend: Vec<_> = state.session().and_then(|session| agreement(theme, session, lane)).into_iter().collect();
    let mut panel = Panel::new(theme, &title).focused(state.focus == Focus::Transcript(lane));
    if state.session().is_some_and(|session| session.compare) {
        panel = panel.note("compare");
    }
    let inner = panel.render(area, buf, &legend);
    // The title carries the lane's colour, as its lines on the charts do.
    let framed = inner.x > area.x;
    let at = Rect { x: area.x + if framed { 3 } else { 0 }, width: area.width, height: 1, ..area };
    buf.set_style(
        Rect { width: (1 + 1 + width::width(&name) as u16).min(at.width), ..at }.intersection(area),
        look.style,
    );
    let Some(session) = state.session() else {
        welcome(state, theme, lane, inner, buf);
        return;
    };
    if session.turns.is_empty() {
        welcome(state, theme, lane, inner, buf);
        return;
    }
    let styles = Styles::new(theme);
    let lines = lines(session, lane, &waits_for(state, session, lane), usize::from(inner.width), &styles);
    let body = body(session, lane, inner);
    let last = lines.len().saturating_sub(usize::from(body.height));
    let top = session.top[lane as usize].map_or(last, |top| top.min(last));
    for (line, row) in lines.iter().skip(top).zip(body.rows()) {
        put_line(buf, row.x, row.y, line, row.width);
    }
    if top < last {
        let below = format!(" ↓ {} more ", last - top);
        let width = width::width(&below) as u16;
        if width < inner.width {
            let at = Rect { x: area.right() - 1 - width, y: area.bottom() - 1, width, height: 1 };
            text(buf, at, &below, theme.warn);
        }
    }
    if let (Phase::Prefill(progress), true) = (session.phase(lane), body.height < inner.height) {
        let row = band(inner, body.height, 1);
        ProgressBar::new(theme, "prefill", progress.done, progress.total, progress.rate())
            .style(look.style)
            .render(row, buf);
    }
}

/// How far the answers on show agree, for the title: `≠ agree 37/40 92 %` where both lanes are fed the same, else
/// `≠ parted at 32`.
fn agreement(theme: &Theme, session: &Session, lane: Lane) -> Option<LegendEntry<'static>> {
    let turn = session.turns.last()?;
    let entry = |differs: bool, name, value| {
        let (symbol, style) = if differs { ("≠", theme.mark) } else { ("=", theme.good) };
        LegendEntry { name, look: SeriesLook { symbol, style, ..theme.lane(lane) }, value }
    };
    if let Some((comparison, share)) = turn.comparison.as_ref().and_then(|found| Some((found, found.share()?))) {
        // Rounded down: 100 % is all of them.
        let value = format!("{}/{} {:>3.0} %", comparison.same, comparison.kl.len(), (share * 100.0).floor());
        return Some(entry(!comparison.otherwise.is_empty(), "agree", value));
    }
    match turn.together {
        Together { parted: Some(at), .. } => Some(entry(true, "parted", format!("at {}", at + 1))),
        Together { both: 0, .. } => None,
        Together { both, .. } => Some(entry(false, "the same,", format!("{both} so far"))),
    }
}

/// What an empty transcript says.
fn welcome(state: &State, theme: &Theme, lane: Lane, inner: Rect, buf: &mut Buffer) {
    let words = match (lane, state.started.is_some()) {
        (_, false) if state.stopped.is_none() => "The model is being loaded.",
        (Lane::KCache, _) => {
            "K stays on the device, V lives in host memory. Every step reads only the N rows of V with the largest \
             attention weights."
        }
        (Lane::Kv, _) => "K and V stay on the device and every row is read: the ordinary KV cache, as the baseline.",
    };
    let width = usize::from(inner.width.saturating_sub(2));
    let mut lines = state.session().map_or_else(Vec::new, |session| head(session, width, &Styles::new(theme)));
    lines.extend(wrap_text(words, theme.dim, width));
    if let Some(session) = state.session().filter(|session| session.demo) {
        lines.push(Line::default());
        let begins = match read_first(state, session) {
            Some(first) => format!("This session begins by itself when {first} has been read."),
            None => "This session begins by itself.".to_owned(),
        };
        lines.extend(wrap_text(&begins, theme.text, width));
    }
    for (line, row) in lines.iter().zip(inner.rows()) {
        put_line(buf, row.x + 1, row.y, line, row.width.saturating_sub(1));
    }
}
