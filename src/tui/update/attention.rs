//! What is chosen on the attention view, and what the engine is asked to look at for it.

use crate::{
    engine::{Lane, Request},
    tui::{
        command::Command,
        layout,
        state::{Preset, State},
    },
};

/// Chooses another layer and head of the model.
pub fn step_head(state: &mut State, by: [isize; 2]) {
    let sizes = state.started.as_ref().map_or([0, 0], |started| [started.layers, started.heads]);
    state.attention.step_head(sizes, by);
}

/// Scrolls the text by pages.
pub fn scroll(state: &mut State, pages: isize) {
    let (top, rows, total) = layout::attention::extent(state);
    let moved = top.saturating_add_signed(pages * (rows as isize - 1).max(1));
    state.attention.top = Some(moved.min(total.saturating_sub(rows)));
}

/// Has the engine look at the session on show while the attention view is there, and at nothing else.
pub fn sync(state: &mut State) -> Option<Command> {
    let looks = state.preset == Preset::Attention && state.stopped.is_none();
    let wanted = state.session().filter(|session| looks && session.lanes.contains(&Lane::KCache));
    let wanted = wanted.map(|session| session.id);
    if !state.attention.ask(wanted) {
        return None;
    }
    state.stopped.is_none().then(|| Command::Engine(Request::Inspect(wanted.map(|id| (id, Lane::KCache)))))
}
