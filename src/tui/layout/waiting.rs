//! What a session waits for, in words.

use crate::{
    engine::Lane,
    tui::{
        state::{
            State,
            session::{Phase, Session},
        },
        widgets::units::duration,
    },
};

/// What a session that has not begun, or was preempted, waits for in a lane, in words.
pub fn waits_for(state: &State, session: &Session, lane: Lane) -> String {
    let place = state.metrics.lanes[lane as usize].place(session.id).filter(|&(_, all)| all > 1);
    if let Phase::Preempted { kept } = session.phase(lane) {
        let place = place.map_or(String::new(), |(at, all)| format!(", {at} of {all} in the queue"));
        let pages = if kept { "its pages wait in host memory" } else { "its tokens will be computed again" };
        return format!("preempted to make room: {pages}{place}");
    }
    if let Some((at, all)) = place {
        return format!("waits for its turn: {at} of {all} in the queue");
    }
    if let Some(first) = read_first(state, session) {
        return format!("waits until {first} has been read");
    }
    let answering = |other: &&Session| other.id != session.id && other.leading_phase() == Phase::Answering;
    match state.sessions.iter().filter(answering).count() {
        0 => "waits for its turn".to_owned(),
        1 => "waits for its turn; one other answer runs".to_owned(),
        several => format!("waits for its turn; {several} other answers run"),
    }
}

/// The session whose prompt is computed before that of `session`, and how long that takes.
pub fn read_first(state: &State, session: &Session) -> Option<String> {
    state.sessions.iter().filter(|other| other.id != session.id).find_map(|other| match other.leading_phase() {
        Phase::Prefill(progress) => {
            let left = progress.seconds_left().map_or(String::new(), |s| format!(", {} left", duration(Some(s))));
            Some(format!("\"{}\" ({:.0} %{left})", other.name, progress.share() * 100.0))
        }
        _ => None,
    })
}
