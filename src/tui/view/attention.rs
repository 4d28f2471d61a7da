//! The attention view: the text with what a token read, the heads, where their rows lie, and what other N would keep.

use ratatui::{buffer::Buffer, layout::Rect, style::Style, widgets::Widget};

use super::charts;
use crate::tui::{
    layout::attention::{body, lines, panes, top},
    state::{Chart, State},
    theme::{Heat, Pattern, SeriesLook, Theme},
    widgets::{
        CoverageCurve, HeadMap, HeatMap, LegendEntry, Panel, Unit,
        text::{band, text},
        width::put_line,
    },
};

pub fn draw(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let panes = panes(state, area);
    source(state, theme, panes.text, buf);
    heat(state, theme, panes.heat, buf);
    heads(state, theme, panes.heads, buf);
    curve(state, theme, panes.curve, buf);
}

/// Whether what is known is about the session on show.
fn known(state: &State) -> bool {
    state.session().is_some_and(|session| state.attention.is_of(session.id))
}

fn heat(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let Some([layer, _]) = state.attention.head.filter(|_| known(state)) else {
        return charts::draw(state, theme, Chart::Hits, area, buf);
    };
    if area.is_empty() {
        return;
    }
    let title = format!("Layer {layer}: where its heads' rows lie");
    let distances = state.attention.distances(layer);
    let context = state.attention.curves().map_or(0, |coverage| coverage.len);
    // Distances below 64 are the first seven buckets.
    let sum = |counts: &[u64]| counts.iter().map(|&count| count as f64).sum::<f64>();
    let (recent, all) =
        distances.iter().fold((0.0, 0.0), |(recent, all), head| (recent + sum(&head[..7]), all + sum(head)));
    let share = (all > 0.0).then(|| recent / all);
    HeatMap::new(Panel::new(theme, &title), &distances, context).rows("H").shares(None, share).render(area, buf);
}

fn heads(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let coverage = state.attention.curves().filter(|_| known(state));
    let layers = coverage.map_or(&[][..], |coverage| &coverage.layers);
    let kept: Vec<Vec<f32>> = layers.iter().map(|heads| heads.iter().map(|head| head.kept).collect()).collect();
    HeadMap::new(Panel::new(theme, "Mass lost by head"), &kept, state.attention.head).render(area, buf);
}

fn curve(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let view = &state.attention;
    let coverage = view.curves().filter(|_| known(state));
    let n = coverage.map_or(&[][..], |coverage| &coverage.n);
    let why = match coverage {
        Some(_) => "n/a: every row is read",
        None if state.recorded => "n/a: not in the recording",
        None => "n/a: comes with the next token",
    };
    let title = if area.width < 50 { "Kept against N" } else { "Kept mass against N" };
    let mut chart = CoverageCurve::new(Panel::new(theme, title), n).why(why);
    if let Some((mean, rows, kept)) = view.mean().filter(|_| coverage.is_some()) {
        chart = chart.line("all".into(), mean, theme.kcache).today(Some((rows, kept)));
        if let (Some([layer, head]), Some(found)) = (view.head, view.head.and_then(|head| view.head_of(head))) {
            let look = SeriesLook { symbol: "◆", style: theme.mark, pattern: Pattern::Dashed };
            let curve = found.curve.iter().map(|&mass| f64::from(mass)).collect();
            let today = (found.rows as f64, f64::from(found.kept));
            chart = chart.line(format!("L{layer} H{head}"), curve, look).today(Some(today));
        }
    }
    chart.render(area, buf);
}

fn source(state: &State, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let view = &state.attention;
    let read = view.chosen().filter(|_| known(state));
    let title = match read {
        Some(read) => format!("What token {} read", read.index.saturating_add(1)),
        None => "What a token read".to_owned(),
    };
    let count = |number: usize| Unit::Count.text(Some(number as f64));
    let legend = read.map(|read| {
        let shown = if read.read > read.positions.len() { ", the hottest shown" } else { "" };
        let value = match read.heads {
            0 => format!("every row, {}", count(read.len)),
            _ => format!("{} of {}{shown}", count(read.read), count(read.len)),
        };
        LegendEntry { name: "", look: SeriesLook { symbol: "read", style: theme.text, ..theme.kcache }, value }
    });
    let legend: Vec<_> = legend.into_iter().collect();
    let mut panel = Panel::new(theme, &title).focused(true);
    if read.is_some() && !view.is_chosen() {
        panel = panel.note("the last");
    }
    let inner = panel.render(area, buf, &legend);
    let body = body(area).intersection(inner);
    if !known(state) || view.texts.is_empty() {
        let why = match state.session() {
            None => "n/a: there is no session",
            Some(_) if state.recorded => "n/a: nobody looked at this session while it was recorded",
            Some(session) if session.turns.is_empty() => "Nothing was said here yet.",
            Some(_) => "n/a: the engine has not told yet",
        };
        text(buf, band(inner, 0, 1), why, theme.dim);
        return;
    }
    let (lines, now) = lines(state, theme, usize::from(body.width).max(1));
    let top = top(state, now, usize::from(body.height), lines.len());
    for (line, row) in lines.iter().skip(top).zip(body.rows()) {
        put_line(buf, row.x, row.y, line, row.width);
    }
    strip(state, theme, band(inner, body.height, 1), buf);
}

/// The whole context in one row: each cell as hot as the mean of its positions.
fn strip(state: &State, theme: &Theme, row: Rect, buf: &mut Buffer) {
    let Some(read) = state.attention.chosen() else {
        return text(buf, row, "What is read comes with the next token.", theme.dim);
    };
    if read.heads == 0 {
        return text(buf, row, "Every row was read.", theme.dim);
    }
    let width = usize::from(row.width);
    let mut sums = vec![0u32; width];
    for &(position, count) in &read.positions {
        if let Some(sum) = sums.get_mut(position as usize * width / read.len.max(1)) {
            *sum = sum.saturating_add(u32::from(count));
        }
    }
    let positions = (read.len as f64 / width.max(1) as f64).max(1.0);
    for (x, sum) in (row.left()..row.right()).zip(sums) {
        let step = theme.heat.step((f64::from(sum) / positions / read.heads as f64).sqrt());
        let (symbol, style) = match &theme.heat {
            Heat::Colours(_) if step == 0 => ("·", theme.dim),
            Heat::Colours(colours) => (" ", Style::new().bg(colours[step])),
            Heat::Shades(shades) => (if step == 0 { "·" } else { shades[step] }, Style::new()),
        };
        if let Some(cell) = buf.cell_mut((x, row.y)) {
            cell.set_symbol(symbol).set_style(style);
        }
    }
}
