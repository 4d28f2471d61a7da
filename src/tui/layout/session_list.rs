//! The list of sessions: which rows are left to the sessions, and which of them a click means.

use ratatui::layout::Rect;

use crate::{
    engine::Lane,
    tui::{layout, state::State},
};

/// Rows below the list of sessions: the names of the columns, and one for each lane.
const FOOT: u16 = 3;

/// The list keeps at least two sessions of two rows.
const LIST: u16 = 4;

/// Rows that a load takes in the list of sessions.
pub const WORKLOAD: u16 = 2;

/// The part of the list of sessions that is left to the sessions.
pub fn above(state: &State, inner: Rect) -> Rect {
    let known = Lane::ALL.iter().any(|&lane| state.queue(lane).is_some());
    let load = if state.workload.shown() { WORKLOAD } else { 0 };
    let wanted = load + if known { FOOT } else { 0 };
    let foot = if inner.height >= LIST + wanted { wanted } else { 0 };
    Rect { height: inner.height - foot, ..inner }
}

/// The session that a click on `row` of the screen means.
pub fn session_at(state: &State, area: Rect, row: u16) -> Option<usize> {
    let inner = above(state, layout::inner(area));
    let fit = usize::from(inner.height / 2).max(1);
    let first = (state.selected + 1).saturating_sub(fit);
    let at = first + usize::from(row.checked_sub(inner.y)?) / 2;
    (at < state.sessions.len() && row < inner.bottom()).then_some(at)
}
