//! Sessions as they are kept from one run to the next: names, messages, and what each lane answered. No pages: when the
//! next message comes the engine computes the conversation again.
//!
//! Sessions of the demo and of a load are not kept, nor what was typed and not sent.

use serde::{Deserialize, Serialize};

use crate::engine::{FinishReason, Lane};

use crate::tui::state::{State, session::Session, transcript::Turn};

/// The version of the file's format; a later one may not be readable.
pub const VERSION: u32 = 2;
/// The version of a file without system messages: an earlier kcache reads it too, and would lose them.
const WITHOUT_SYSTEM: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct File {
    version: u32,
    sessions: Vec<SavedSession>,
}

/// Its version alone, which can be read whatever the rest is.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedSession {
    pub(crate) name: String,
    /// Its system message; since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system: Option<String>,
    /// Whether it was on show.
    pub(crate) shown: bool,
    pub(crate) turns: Vec<SavedTurn>,
}

/// A message and its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedTurn {
    pub(crate) text: String,
    /// Name and text of the document it is about.
    pub(crate) document: Option<(String, String)>,
    pub(crate) answers: Vec<SavedAnswer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedAnswer {
    pub(crate) lane: Lane,
    /// The tokens, each with the text it added.
    pub(crate) tokens: Vec<(u32, String)>,
    /// How it ended, if it did.
    pub(crate) end: Option<FinishReason>,
}

/// The file's text for these sessions.
pub fn write(sessions: &[SavedSession]) -> String {
    let plain = sessions.iter().all(|session| session.system.is_none());
    let file = File { version: if plain { WITHOUT_SYSTEM } else { VERSION }, sessions: sessions.to_vec() };
    // Strings, numbers and lists: nothing that JSON does not have.
    serde_json::to_string(&file).unwrap_or_default()
}

/// The sessions in a file's text.
///
/// # Errors
///
/// What is wrong with it, as the end of a line.
pub fn read(text: &str) -> Result<Vec<SavedSession>, String> {
    match serde_json::from_str::<Version>(text) {
        Ok(Version { version }) if version > VERSION => {
            return Err(format!("is of version {version}, and this kcache reads up to {VERSION}"));
        }
        _ => {}
    }
    serde_json::from_str(text).map(|file: File| file.sessions).map_err(|error| format!("is damaged ({error})"))
}

/// The sessions to keep of a state.
pub fn sessions(state: &State) -> Vec<SavedSession> {
    let kept = state.sessions.iter().enumerate().filter(|(_, session)| !session.demo && !session.turns.is_empty());
    let saved = |(at, session): (usize, &Session)| SavedSession {
        name: session.name.clone(),
        system: session.system.clone(),
        shown: at == state.selected,
        turns: session.turns.iter().enumerate().map(|(at, turn)| turn_of(session, at, turn)).collect(),
    };
    kept.map(saved).collect()
}

fn turn_of(session: &Session, at: usize, turn: &Turn) -> SavedTurn {
    let last = at + 1 == session.turns.len();
    let answer = |&lane: &Lane| {
        let answer = turn.answer(lane);
        let piece = |index: usize| answer.token_range(index).and_then(|range| answer.text.get(range)).unwrap_or("");
        // What still runs ends here.
        let cut = (last && session.phase(lane).busy()).then_some(FinishReason::Cancelled);
        SavedAnswer {
            lane,
            tokens: answer.tokens.iter().enumerate().map(|(at, token)| (token.id, piece(at).to_owned())).collect(),
            end: answer.end.as_ref().map(|(reason, _)| *reason).or(cut),
        }
    };
    SavedTurn {
        text: turn.text.clone(),
        document: turn.document.clone().map(|name| (name, turn.source.clone().unwrap_or_default())),
        answers: session.lanes.iter().map(answer).collect(),
    }
}
