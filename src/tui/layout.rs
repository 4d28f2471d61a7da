//! Which pane lies where. One function of the terminal's size and of what is to be shown, so that drawing, scrolling
//! and the mouse agree. The rooms below it say what lies inside of a pane, for the same reason.

use ratatui::layout::{Constraint, Layout, Rect};

use super::state::{Chart, Focus, Preset, State};
use crate::engine::Lane;

/// Where every pane lies; an empty rectangle is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Panes {
    pub header: Rect,
    pub kpis: Rect,
    pub sessions: Rect,
    /// Whether that list is one row of names.
    pub sessions_in_a_row: bool,
    /// The transcripts, in the order of [`Lane::ALL`].
    pub transcripts: [Rect; 2],
    pub composer: Rect,
    pub charts: Vec<(Chart, Rect)>,
    pub figures: Rect,
    pub attention: Rect,
    pub footer: Rect,
}

/// The panes for the state's own size.
pub fn of(state: &State) -> Panes {
    panes(state, Rect::new(0, 0, state.size.0, state.size.1))
}

/// The text of a transcript, without its frame.
pub fn transcript(state: &State, lane: Lane) -> Rect {
    inner(of(state).transcripts[lane as usize])
}

/// What is left inside of a pane's frame; the same rule as the panel's: small panes have no frame but a title.
pub fn inner(area: Rect) -> Rect {
    if area.height >= 3 && area.width >= 10 {
        Rect { x: area.x + 1, y: area.y + 1, width: area.width - 2, height: area.height - 2 }
    } else {
        Rect { y: area.y + area.height.min(1), height: area.height.saturating_sub(1), ..area }
    }
}

/// The panes in `area`.
pub fn panes(state: &State, area: Rect) -> Panes {
    let mut panes = Panes::default();
    // What goes first where rows are short: the figures, then the header, then the footer.
    let header = u16::from(area.height >= 8);
    let kpis = if area.height >= 36 { 2 } else { u16::from(area.height >= 12) };
    let footer = u16::from(area.height >= 4);
    let body;
    [panes.header, panes.kpis, body, panes.footer] = Layout::vertical([
        Constraint::Length(header),
        Constraint::Length(kpis),
        Constraint::Fill(1),
        Constraint::Length(footer),
    ])
    .areas(area);
    if state.expanded {
        expanded(state, body, &mut panes);
        return panes;
    }
    match state.preset {
        Preset::Both => both(state, body, &mut panes),
        Preset::Chat => chat(state, body, &mut panes),
        Preset::Charts => panes.charts = charts(state, body),
        Preset::Figures => panes.figures = body,
        Preset::Attention => panes.attention = body,
    }
    panes
}

fn expanded(state: &State, body: Rect, panes: &mut Panes) {
    match (state.preset, state.focus) {
        (Preset::Figures, _) => panes.figures = body,
        (Preset::Attention, _) | (_, Focus::Attention) => panes.attention = body,
        (Preset::Charts, _) | (_, Focus::Charts) => panes.charts = vec![(state.chart, body)],
        (_, Focus::Sessions) => panes.sessions = body,
        (_, Focus::Transcript(lane)) => panes.transcripts[lane as usize] = body,
        // The composer grows with its text; its pane at full size is the two transcripts with it.
        (_, Focus::Composer) => conversation(state, body, panes),
    }
}

fn chat(state: &State, body: Rect, panes: &mut Panes) {
    let rest = sessions(state, body, panes);
    conversation(state, rest, panes);
}

/// Takes the list of sessions off the left where there is room, else a row of names off the top.
fn sessions(state: &State, body: Rect, panes: &mut Panes) -> Rect {
    let width = match body.width {
        0..60 => 0,
        60..84 => 20,
        84..160 => 23,
        _ => 28,
    };
    if width > 0 && body.height >= 10 {
        let [list, rest] = Layout::horizontal([Constraint::Length(width), Constraint::Fill(1)]).areas(body);
        panes.sessions = list;
        return rest;
    }
    let row = u16::from(body.height >= 6 && !state.sessions.is_empty());
    let [list, rest] = Layout::vertical([Constraint::Length(row), Constraint::Fill(1)]).areas(body);
    panes.sessions = list;
    panes.sessions_in_a_row = true;
    rest
}

/// Two transcripts and the composer below them.
fn conversation(state: &State, area: Rect, panes: &mut Panes) {
    let lines = state.composer().lines().len().clamp(1, 6) as u16;
    let composer = match area.height {
        0..=3 => area.height.min(1),
        4..=7 => 2,
        _ => (lines + 2).min(area.height / 2),
    };
    let above;
    [above, panes.composer] = Layout::vertical([Constraint::Fill(1), Constraint::Length(composer)]).areas(area);
    panes.transcripts = if above.width >= 40 {
        Layout::horizontal([Constraint::Fill(1); 2]).areas(above)
    } else {
        // Too narrow for two: one above the other, or the KCache lane alone.
        match above.height {
            0..8 => match state.focus {
                Focus::Transcript(Lane::Kv) => [Rect::default(), above],
                _ => [above, Rect::default()],
            },
            _ => Layout::vertical([Constraint::Fill(1); 2]).areas(above),
        }
    };
}

fn both(state: &State, body: Rect, panes: &mut Panes) {
    if body.width >= 150 && body.height >= 20 {
        // Wide: sessions and chat at the left, all charts at the right.
        let [left, right] = Layout::horizontal([Constraint::Fill(11), Constraint::Fill(9)]).areas(body);
        chat(state, left, panes);
        panes.charts = charts(state, right);
        return;
    }
    let below = match body.height {
        0..14 => 0,
        14..26 => 7,
        _ => body.height * 2 / 5,
    };
    let [above, below] = Layout::vertical([Constraint::Fill(1), Constraint::Length(below)]).areas(body);
    chat(state, above, panes);
    panes.charts = charts(state, below);
}

/// As many charts as have room, around the chosen one, in a grid.
fn charts(state: &State, area: Rect) -> Vec<(Chart, Rect)> {
    if area.is_empty() {
        return Vec::new();
    }
    let all = state.charts();
    let (columns, rows) = grid(all.len(), area);
    let shown = (columns * rows).min(all.len());
    let chosen = all.iter().position(|&chart| chart == state.chart).unwrap_or(0);
    let first = if chosen < shown { 0 } else { (chosen + 1).saturating_sub(shown).min(all.len() - shown) };
    let mut placed = Vec::with_capacity(shown);
    let bands = Layout::vertical(vec![Constraint::Fill(1); rows]).split(area);
    for (band, charts) in bands.iter().zip(all[first..first + shown].chunks(columns)) {
        let cells = Layout::horizontal(vec![Constraint::Fill(1); charts.len()]).split(*band);
        placed.extend(charts.iter().copied().zip(cells.iter().copied()));
    }
    placed
}

/// Columns and rows for `count` charts: as many as can be shown, each about four times as wide as it is high.
fn grid(count: usize, area: Rect) -> (usize, usize) {
    const LEAST: (u16, u16) = (26, 6);
    const SHAPE: f64 = 4.0;
    let most_columns = usize::from((area.width / LEAST.0).max(1)).min(count);
    let most_rows = usize::from((area.height / LEAST.1).max(1));
    let candidates = (1..=most_columns).map(|columns| (columns, count.div_ceil(columns).min(most_rows)));
    let badness = |&(columns, rows): &(usize, usize)| {
        let missing = count.saturating_sub(columns * rows) as f64;
        let width = f64::from(area.width) / columns as f64;
        let height = f64::from(area.height) / rows as f64;
        missing + (width / height / SHAPE).ln().abs()
    };
    candidates.min_by(|a, b| badness(a).total_cmp(&badness(b))).unwrap_or((1, 1))
}

pub(crate) mod attention;
pub(crate) mod session_list;
pub(crate) mod transcript;
pub(crate) mod waiting;
