//! The sessions of an earlier run come back.

use crate::{
    engine::{Document, Lane, Request, SessionId, Token, Usage},
    model::{ChatMessage, Role},
    tui::{
        command::Command,
        io::saved::{SavedAnswer, SavedSession, SavedTurn},
        state::{State, session::Phase, transcript::Turn},
    },
};

use super::sessions::open_with;

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
