//! Moving on the screen: from session to session, chart to chart and pane to pane, along the charts, through a transcript.

use crate::engine::Lane;
use crate::tui::{
    layout,
    state::{Focus, Frozen, Overlay, Preset, State, WINDOW_MS},
};

pub fn step_session(state: &mut State, by: isize) {
    let count = state.sessions.len();
    if count > 0 {
        state.selected = (state.selected as isize + by).rem_euclid(count as isize) as usize;
    }
}

pub fn step_chart(state: &mut State, by: isize) {
    let charts = state.charts();
    let at = charts.iter().position(|&chart| chart == state.chart).unwrap_or(0) as isize;
    state.chart = charts[(at + by).rem_euclid(charts.len() as isize) as usize];
}

/// Shows a preset. Who was writing goes on writing when the composer comes back; who was not is never put there.
pub fn show(state: &mut State, preset: Preset) {
    state.preset = preset;
    state.expanded = false;
    let there = focusable(preset);
    if there.contains(&Focus::Composer) && std::mem::take(&mut state.was_writing) {
        state.focus = Focus::Composer;
    } else if !there.contains(&state.focus) {
        state.was_writing = state.focus == Focus::Composer;
        state.focus = if let [only] = there {
            *only
        } else if state.was_writing || there.contains(&Focus::Charts) {
            Focus::Charts
        } else {
            Focus::Transcript(Lane::KCache)
        };
    }
}

/// The panes that a preset has, in the order of the tab key.
fn focusable(preset: Preset) -> &'static [Focus] {
    const ALL: [Focus; 5] =
        [Focus::Composer, Focus::Sessions, Focus::Transcript(Lane::KCache), Focus::Transcript(Lane::Kv), Focus::Charts];
    match preset {
        Preset::Both => &ALL,
        Preset::Chat => &ALL[..4],
        Preset::Charts | Preset::Figures => &ALL[4..],
        Preset::Attention => &[Focus::Attention],
    }
}

/// Gives the charts the focus, where the preset has them and no other pane has the whole screen.
pub fn focus_charts(state: &mut State) {
    if focusable(state.preset).contains(&Focus::Charts) && !state.expanded {
        state.focus = Focus::Charts;
    }
}

pub fn step_focus(state: &mut State, by: isize) {
    let there = focusable(state.preset);
    let at = there.iter().position(|&focus| focus == state.focus).unwrap_or(0) as isize;
    state.focus = there[(at + by).rem_euclid(there.len() as isize) as usize];
}

/// Stops the charts, or lets them go on.
pub fn freeze(state: &mut State) {
    let now = state.engine_ms;
    let was_writing = state.focus == Focus::Composer;
    match state.frozen.take() {
        // Who was writing goes on.
        Some(frozen) if frozen.was_writing && state.focus == Focus::Charts => state.focus = Focus::Composer,
        Some(_) => {}
        None => {
            state.frozen = Some(Frozen { end_ms: now, cursor_ms: now, was_writing });
            // The next keys that a frozen screen invites are those of the cursor.
            focus_charts(state);
        }
    }
}

pub fn zoom(state: &mut State, window_ms: f64) {
    state.window_ms = window_ms.clamp(WINDOW_MS.0, WINDOW_MS.1);
    state.zoomed = true;
    move_cursor(state, 0.0);
}

/// Moves the cursor over the charts; the charts follow it where it leaves them.
pub fn move_cursor(state: &mut State, by: f64) {
    let (window, now) = (state.shown_ms(), state.engine_ms);
    let Some(frozen) = &mut state.frozen else { return };
    frozen.cursor_ms = (frozen.cursor_ms + by * window).clamp(0.0_f64.min(now), now);
    frozen.end_ms = frozen.end_ms.clamp(frozen.cursor_ms, frozen.cursor_ms + window);
}

/// Scrolls by pages: the focused transcript, else both.
pub fn scroll_page(state: &mut State, pages: isize) {
    let lanes = match state.focus {
        Focus::Transcript(lane) => vec![lane],
        _ => Lane::ALL.to_vec(),
    };
    for lane in lanes {
        let rows = layout::transcript(state, lane).height as isize;
        scroll(state, lane, pages * (rows - 1).max(1));
    }
}

pub fn scroll_focused(state: &mut State, lines: isize) {
    if let Focus::Transcript(lane) = state.focus {
        scroll(state, lane, lines);
    }
}

/// Scrolls a transcript by `lines`; at its end it is followed again.
pub fn scroll(state: &mut State, lane: Lane, lines: isize) {
    let (total, rows) = layout::transcript::extent(state, lane);
    let last = total.saturating_sub(rows);
    if let Some(session) = state.session_mut() {
        let top = session.top[lane as usize].unwrap_or(last).min(last);
        let moved = top.saturating_add_signed(lines);
        session.top[lane as usize] = (moved < last).then_some(moved);
    }
}

pub fn show_help(state: &mut State) {
    state.overlay = Overlay::Help { query: String::new(), selected: 0 };
}
