//! Which answer is copied, and how much of it.

use crate::engine::Lane;
use crate::tui::{
    command::Command,
    layout::transcript::turn_on_show,
    state::{Focus, State},
    widgets::{plain::plain, units::thousands},
};

/// The most bytes that are copied: in base64 they are 100,000, and some terminals take no more.
const MOST: usize = 74_994;

/// Copies the answer on show: that in the middle of the focused transcript where it was scrolled, else the last one.
/// Where no transcript is focused it is KCache's, or KV's where KCache has none.
pub fn copy(state: &mut State) -> Vec<Command> {
    let lanes = match state.focus {
        Focus::Transcript(lane) => vec![lane],
        _ => Lane::ALL.to_vec(),
    };
    let Some((lane, text)) = lanes.into_iter().find_map(|lane| Some((lane, answer(state, lane)?))) else {
        state.toast("there is no answer to copy yet", true);
        return Vec::new();
    };
    let whose = state.lane_name(lane);
    let end = text.floor_char_boundary(MOST);
    let count = |text: &str| thousands(text.chars().count());
    let notice = match &text[..end] {
        all if all.len() == text.len() => format!("copied {} characters of {whose}'s answer", count(all)),
        first => format!("copied the first {} of {} characters", count(first), count(&text)),
    };
    vec![Command::Copy { text: text[..end].to_owned(), notice }]
}

/// The text of the answer on show in a lane.
fn answer(state: &State, lane: Lane) -> Option<String> {
    let turns = &state.session()?.turns;
    let until = turn_on_show(state, lane).map_or(turns.len(), |at| at + 1);
    let answers = turns[..until].iter().map(|turn| &turn.answer(lane).text);
    answers.rev().find(|text| !text.is_empty()).map(|text| plain(text))
}
