//! Sessions from one run in the next one's screen.

use super::*;
use crate::{
    model::Role,
    tui::{
        io::saved::{read, sessions, write},
        state::session::Phase,
    },
};

fn reopened(state: &State) -> (State, Vec<Command>) {
    let saved = read(&write(&sessions(state))).unwrap();
    let mut next = fixture::empty(120, 40);
    let commands = update(&mut next, Message::SessionsRead(Ok(saved)));
    (next, commands)
}

#[test]
fn a_conversation_is_the_same_on_the_next_screen_and_in_the_next_engine() {
    let mut state = fixture::state(120, 40);
    // The demo's are not kept, nor one in which nothing was said.
    state.sessions[1].demo = true;
    let (next, commands) = reopened(&state);
    assert_eq!(next.sessions.len(), 1);
    let (before, after) = (&state.sessions[0], &next.sessions[0]);
    assert_eq!(before.name, after.name);
    for (before, after) in before.turns.iter().zip(&after.turns) {
        assert_eq!((&before.text, &before.document), (&after.text, &after.document));
        assert_eq!(before.together, after.together);
        for lane in Lane::ALL {
            assert_eq!(before.answer(lane).text, after.answer(lane).text);
            assert_eq!(before.answer(lane).tokens, after.answer(lane).tokens);
        }
    }
    // The last answer was still coming: it ended there. Nothing of it is counted as of this run.
    assert_eq!(after.phases, [Phase::Ended(crate::engine::FinishReason::Cancelled); 2]);
    assert_eq!(next.figures().quality, None);
    let screen = text(&next);
    assert!(screen.matches("from an earlier run").count() == 2 && screen.contains("stopped · 22 tokens"), "{screen}");

    let ops = ops(&commands);
    assert!(matches!(ops[0], Request::Open { session: SessionId(1), .. }));
    let sides: Vec<_> = ops[1..]
        .iter()
        .map(|op| match op {
            Request::RestoreHistory { session: SessionId(1), lane, messages } => (*lane, messages),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sides.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(), Lane::ALL);
    for (lane, messages) in sides {
        let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::User, Role::Assistant]);
        assert_eq!(messages[3].content, before.turns[1].answer(lane).text);
    }
}

#[test]
fn a_documents_text_stands_before_the_message_again() {
    let mut state = fixture::empty(100, 30);
    typed(&mut state, "Who?");
    state.composer_mut().document =
        Some(crate::engine::Document { name: "a.md".into(), text: "It was Ines.\n".into() });
    press(&mut state, &["enter"]);
    let token = |lane| crate::engine::Token {
        lane,
        session: SessionId(1),
        step: 1,
        index: 0,
        token_id: 7,
        text: "Ines".into(),
        itl_ms: None,
        kept_mass: None,
    };
    // One lane has not answered: the message is not part of what it knows.
    update(&mut state, Message::Engine(Event { t_ms: 1.0, kind: EventKind::Token(token(Lane::Kv)) }));
    let (next, commands) = reopened(&state);
    let recalled: Vec<_> = ops(&commands)
        .into_iter()
        .filter_map(|op| match op {
            Request::RestoreHistory { lane, messages, .. } => Some((*lane, messages[0].content.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(recalled, [(Lane::Kv, "It was Ines.\n\nWho?")]);
    assert!(text(&next).contains("▸ a.md"));
}
