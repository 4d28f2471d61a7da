//! Sessions as they are kept from one run to the next: names, messages, and what each lane answered. No pages: when the
//! next message comes the engine computes the conversation again.
//!
//! Sessions of the demo and of a load are not kept, nor what was typed and not sent.

use serde::{Deserialize, Serialize};

use crate::{
    engine::{Document, FinishReason, Lane, Request, SessionId, Token, Usage},
    model::{ChatMessage, Role},
};

use crate::tui::{
    command::Command,
    state::{
        State,
        session::{Phase, Session},
        transcript::Turn,
    },
    update::open_with,
};

/// The version of the file's format; a later one may not be readable.
pub const VERSION: u32 = 2;
/// The version of a file without system messages: an earlier kcache reads it too, and would lose them.
const WITHOUT_SYSTEM: u32 = 1;

/// The file.
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

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedSession {
    name: String,
    /// Its system message; since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// Whether it was on show.
    shown: bool,
    turns: Vec<SavedTurn>,
}

/// A message and its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedTurn {
    text: String,
    /// Name and text of the document it is about.
    document: Option<(String, String)>,
    answers: Vec<SavedAnswer>,
}

/// What one lane answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedAnswer {
    lane: Lane,
    /// The tokens, each with the text it added.
    tokens: Vec<(u32, String)>,
    /// How it ended, if it did.
    end: Option<FinishReason>,
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

/// Opens the sessions of an earlier run; the engine gets each lane's side of the conversation.
pub fn reopen(state: &mut State, saved: Vec<SavedSession>) -> Vec<Command> {
    let mut commands = Vec::new();
    for SavedSession { name, system, shown, turns } in saved {
        let (id, command) = open_with(state, name, system);
        commands.push(command);
        if shown {
            state.selected = state.sessions.len() - 1;
        }
        let Some(session) = state.by_id(id) else { continue };
        session.turns = turns.iter().map(|turn| shown_turn(id, turn)).collect();
        for &lane in &session.lanes {
            let last = turns.last().and_then(|turn| turn.answers.iter().find(|answer| answer.lane == lane)?.end);
            session.phases[lane as usize] = last.map_or(Phase::Idle, Phase::Ended);
            let messages = messages(&turns, lane);
            if !messages.is_empty() {
                commands.push(Command::Engine(Request::RestoreHistory { session: id, lane, messages }));
            }
        }
    }
    commands
}

/// A turn as the screen shows it.
fn shown_turn(session: SessionId, saved: &SavedTurn) -> Turn {
    let mut turn = Turn::new(saved.text.clone(), saved.document.as_ref().map(|(name, _)| name.clone()));
    turn.source = saved.document.as_ref().map(|(_, text)| text.clone());
    turn.earlier = true;
    for SavedAnswer { lane, tokens, end } in &saved.answers {
        let lane = *lane;
        for (index, (token_id, text)) in tokens.iter().enumerate() {
            let (token_id, text) = (*token_id, text.clone());
            turn.token(&Token { lane, session, step: 0, index, token_id, text, itl_ms: None, kept_mass: None });
        }
        if let Some(reason) = end {
            turn.finish(lane, *reason, Usage { completion_tokens: tokens.len(), ..Usage::default() });
        }
    }
    turn
}

/// A lane's side of the conversation; what it did not answer is not part of it.
fn messages(turns: &[SavedTurn], lane: Lane) -> Vec<ChatMessage> {
    let mut messages = Vec::new();
    for turn in turns {
        let answer = turn.answers.iter().find(|answer| answer.lane == lane && !answer.tokens.is_empty());
        let Some(answer) = answer else { continue };
        let document = turn.document.clone().map(|(name, text)| Document { name, text });
        messages.push(ChatMessage::new(Role::User, Document::before(document.as_ref(), &turn.text)));
        messages
            .push(ChatMessage::new(Role::Assistant, answer.tokens.iter().map(|(_, text)| &**text).collect::<String>()));
    }
    messages
}
