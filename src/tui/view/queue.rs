//! Who runs, who waits and who was preempted in each lane, and what still fits: a few rows below the list of sessions,
//! and a pane with everything.

use ratatui::{buffer::Buffer, layout::Rect, text::Span};

use super::workload;
use crate::{
    engine::{Lane, Queue},
    tui::{
        layout::session_list::{WORKLOAD, above},
        state::{State, metrics::Delivery},
        theme::Theme,
        widgets::{
            Panel, Unit,
            text::{band, spans, text},
            units::{count, waited},
            width::width,
        },
    },
};

/// Columns of a value in the pane.
const VALUE: usize = 6;

/// Draws the rows below the list of sessions, where there is room; returns what is left above them.
pub fn foot(state: &State, theme: &Theme, inner: Rect, buf: &mut Buffer) -> Rect {
    let above = above(state, inner);
    let mut foot = band(inner, above.height, inner.height);
    if state.workload.shown() {
        workload::entry(state, theme, band(foot, 0, WORKLOAD), buf);
        foot = band(foot, WORKLOAD, foot.height);
    }
    if foot.is_empty() {
        return above;
    }
    let columns = columns(usize::from(foot.width));
    let names: String = columns.iter().map(|(name, width)| format!("{name:>width$}")).collect();
    text(buf, band(foot, 0, 1), &names, theme.dim);
    for (row, lane) in Lane::ALL.into_iter().enumerate() {
        let look = theme.lane(lane);
        let mut pieces = vec![Span::styled(look.symbol, look.style)];
        let queue = state.queue(lane);
        for (at, (name, width)) in columns.iter().enumerate() {
            let value = queue.map_or("n/a".to_owned(), |queue| match *name {
                "run" => queue.running.to_string(),
                "wait" => queue.waiting.to_string(),
                "preempt" | "pre" => queue.preempted.to_string(),
                "full" => limit(queue.tokens_until_full),
                _ => sessions(queue),
            });
            // What waits or was preempted is what to look at.
            let style =
                if matches!(*name, "wait" | "preempt" | "pre") && value != "0" { theme.warn } else { look.style };
            // The sign of the lane takes a column of the first.
            let width = width - usize::from(at == 0);
            pieces.push(Span::styled(format!("{value:>width$}"), style));
        }
        spans(buf, band(foot, 1 + row as u16, 1), pieces);
    }
    above
}

/// The columns that have room in full, each with its width. The first stands closer to the edge, and a name is shortened,
/// where that lets one more in.
fn columns(room: usize) -> Vec<(&'static str, usize)> {
    let fitting = |(first, preempted)| {
        let mut used = 0;
        let all = [("run", first), ("wait", 5), preempted, ("fits", 5), ("full", 5)];
        let fits = all.into_iter().take_while(|(_, width)| {
            used += width;
            used <= room
        });
        fits.collect::<Vec<_>>()
    };
    let (long, short) = (("preempt", 8), ("pre", 4));
    let mut best = Vec::new();
    for found in [(5, long), (3, long), (5, short), (3, short)].map(fitting) {
        if found.len() > best.len() {
            best = found;
        }
    }
    best
}

/// Draws the pane: a row for each figure, the most important first, a column for each lane.
pub fn table(state: &State, theme: &Theme, panel: Panel<'_>, area: Rect, buf: &mut Buffer) {
    let inner = panel.render(area, buf, &[]);
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    let label = usize::from(inner.width).saturating_sub(2 * VALUE).min(36);
    let mut head = vec![Span::raw(" ".repeat(label))];
    for lane in Lane::ALL {
        let look = theme.lane(lane);
        head.push(Span::styled(format!("{:>VALUE$}", look.symbol), look.style));
    }
    spans(buf, band(inner, 0, 1), head);
    let queues = Lane::ALL.map(|lane| state.queue(lane));
    let delivered = state.figures().delivered;
    for (row, figure) in figures(queues, delivered).into_iter().enumerate() {
        let name = if width(&figure.long) <= label { &figure.long } else { figure.short };
        let mut pieces = vec![Span::styled(format!("{name:<label$}"), theme.dim)];
        for (lane, value) in Lane::ALL.into_iter().zip(figure.values) {
            let style = if figure.warns && value != "0" { theme.warn } else { theme.lane(lane).style };
            pieces.push(Span::styled(format!("{value:>VALUE$}"), style));
        }
        spans(buf, band(inner, 1 + row as u16, 1), pieces);
    }
}

struct Figure {
    short: &'static str,
    long: String,
    values: [String; 2],
    /// Whether anything but none of it is to be noticed.
    warns: bool,
}

fn figures(queues: [Option<&Queue>; 2], delivered: [Delivery; 2]) -> Vec<Figure> {
    let figure = |short, long: &str, warns, of: &dyn Fn(&Queue) -> String| Figure {
        short,
        long: long.to_owned(),
        values: queues.map(|queue| queue.map_or("n/a".to_owned(), of)),
        warns,
    };
    let came = |short, long: &str, of: &dyn Fn(&Delivery) -> String| {
        let (long, values) = (long.to_owned(), delivered.each_ref().map(of));
        Figure { short, long, values, warns: false }
    };
    let known = |of: fn(&Queue) -> Option<u64>| queues.into_iter().flatten().find_map(of);
    let bound = known(|queue| Some(queue.bound as u64)).map_or(String::new(), |bound| format!(", {bound} at most"));
    let length = known(|queue| queue.mean_tokens)
        .map_or(String::new(), |tokens| format!(", of {} tokens", Unit::Count.text(Some(tokens as f64))));
    vec![
        figure("running", "answers running", false, &|queue| count(queue.running as u64)),
        figure("waiting", &format!("waiting{bound}"), true, &|queue| count(queue.waiting as u64)),
        figure("preempted", "preempted, to go on", true, &|queue| count(queue.preempted as u64)),
        came("queue p50", "time in the queue, median", &|lane| waited(lane.queued_ms.map(|(p50, _)| p50))),
        came("queue p99", "99 of 100 waited at most", &|lane| waited(lane.queued_ms.map(|(_, p99)| p99))),
        came("tok/s", "tokens a second by the clock", &|lane| Unit::TokensPerSecond.parts(lane.tok_s()).0),
        came("finished", "answers finished", &|lane| count(lane.finished)),
        came("at most", "answers at once at most", &|lane| lane.peak.map_or("n/a".to_owned(), count)),
        figure("more fit", &format!("more sessions fit{length}"), false, &sessions),
        figure("until full", "tokens until it is full", false, &|queue| limit(queue.tokens_until_full)),
        figure("preemptions", "preemptions so far", false, &|queue| count(queue.preemptions)),
        figure("prefix hits", "prefix hits so far, in tokens", false, &|queue| count(queue.prefix_hit_tokens)),
        figure("again", "tokens computed again so far", false, &|queue| count(queue.recomputed_tokens)),
        figure("refused", "messages refused so far", false, &|queue| count(queue.refused)),
        figure("kept idle", "idle sessions that keep pages", false, &|queue| count(queue.idle as u64)),
    ]
}

/// What is left; without a budget there is no end to it.
fn limit(left: Option<u64>) -> String {
    left.map_or("∞".to_owned(), count)
}

/// Sessions of the lane's own length that still fit.
fn sessions(queue: &Queue) -> String {
    match (queue.tokens_until_full, queue.mean_tokens) {
        (None, _) => "∞".to_owned(),
        (_, None) => "n/a".to_owned(),
        _ => queue.sessions_until_full.map_or("n/a".to_owned(), count),
    }
}
