//! The mouse, where the configuration captures it: a click focuses, the wheel scrolls.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::navigation::scroll;
use crate::engine::Lane;
use crate::tui::{
    layout::{self, session_list::session_at},
    state::{Focus, Overlay, State},
};

/// Lines that one notch of the wheel scrolls.
const WHEEL: isize = 3;

/// Takes in what the mouse did.
pub fn mouse(state: &mut State, event: MouseEvent) {
    if state.overlay != Overlay::None {
        return;
    }
    let position = Position::new(event.column, event.row);
    let panes = layout::of(state);
    let lane = Lane::ALL.into_iter().find(|&lane| panes.transcripts[lane as usize].contains(position));
    match event.kind {
        MouseEventKind::ScrollUp => lane.into_iter().for_each(|lane| scroll(state, lane, -WHEEL)),
        MouseEventKind::ScrollDown => lane.into_iter().for_each(|lane| scroll(state, lane, WHEEL)),
        MouseEventKind::Down(MouseButton::Left) => {
            if let Some(lane) = lane {
                state.focus = Focus::Transcript(lane);
            } else if panes.sessions.contains(position) {
                state.focus = Focus::Sessions;
                if !panes.sessions_in_a_row
                    && let Some(at) = session_at(state, panes.sessions, event.row)
                {
                    state.selected = at;
                }
            } else if panes.composer.contains(position) {
                state.focus = Focus::Composer;
            } else if let Some(&(chart, _)) = panes.charts.iter().find(|(_, area)| area.contains(position)) {
                state.focus = Focus::Charts;
                state.chart = chart;
            }
        }
        _ => {}
    }
}
