//! What is taken out of a session and put into it: copies, exports, messages from an editor, system messages, stop texts.

use super::*;
use crate::tui::{
    io::saved::{read, sessions, write},
    update::export::markdown,
};

fn notice(state: &State) -> String {
    state.toasts.last().map_or_else(String::new, |toast| toast.text.clone())
}

/// Types a command and sends it.
fn slash(state: &mut State, text: &str) -> Vec<Command> {
    typed(state, text);
    press(state, &["enter"])
}

fn token(lane: Lane, index: usize, text: &str) -> Message {
    let (token_id, text) = (index as u32 + 7, text.to_owned());
    let session = SessionId(1);
    let token = crate::engine::Token { lane, session, step: 1, index, token_id, text, itl_ms: None, kept_mass: None };
    Message::Engine(Event { t_ms: 1.0, kind: EventKind::Token(token) })
}

fn copied(commands: &[Command]) -> (&str, &str) {
    match commands {
        [Command::Copy { text, notice }] => (text, notice),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_answer_on_show_is_copied() {
    let mut state = fixture::state(80, 24);
    let said = |state: &State, turn: usize, lane: Lane| state.sessions[0].turns[turn].answer(lane).text.clone();
    let last = said(&state, 1, Lane::KCache);
    let commands = slash(&mut state, "/copy");
    let (text, says) = copied(&commands);
    assert_eq!(text, last);
    assert!(says.starts_with(&format!("copied {} characters of KCache's answer", last.chars().count())), "{says}");

    state.focus = Focus::Transcript(Lane::Kv);
    assert_eq!(copied(&press(&mut state, &["y"])).0, said(&state, 1, Lane::Kv));
    // Scrolled to the beginning, that is what is on show.
    press(&mut state, &["g", "y"]);
    assert_eq!(copied(&press(&mut state, &["y"])).0, said(&state, 0, Lane::Kv));

    let mut state = fixture::empty(80, 24);
    assert_eq!(press(&mut state, &["alt-y"]), []);
    assert_eq!(notice(&state), "there is no answer to copy yet");
}

#[test]
fn a_long_answer_is_copied_in_part_and_its_escapes_are_not() {
    let mut state = fixture::empty(80, 24);
    slash(&mut state, "hello");
    update(&mut state, token(Lane::Kv, 0, "\u{1b}]52;c;AAAA\u{7}\u{9b}2Jé"));
    let commands = press(&mut state, &["alt-y"]);
    assert_eq!(copied(&commands).0, "]52;c;AAAA2Jé", "KV's, where KCache has none");
    (1..=1_000).for_each(|index| drop(update(&mut state, token(Lane::Kv, index, &"é".repeat(100)))));
    let commands = press(&mut state, &["alt-y"]);
    let (text, says) = copied(&commands);
    assert!(text.len() <= 74_994 && text.len() > 74_990 && text.ends_with('é'), "{}", text.len());
    assert!(says.starts_with("copied the first 37,50"), "{says}");
}

#[test]
fn a_session_is_exported_with_what_was_said_and_where_it_comes_from() {
    let mut state = fixture::state(120, 40);
    state.sessions[0].system = Some("Be brief.\n\u{1b}[31m".into());
    state.sessions[0].turns[0].text = "# What | did it mean?\nAnd then?".into();
    let commands = press(&mut state, &["alt-e"]);
    assert_eq!(commands, [Command::Export { path: None }]);
    assert_eq!(slash(&mut state, "/export ~/a.md"), [Command::Export { path: Some("~/a.md".into()) }]);
    let (text, name) = markdown(&state, "2030-01-02 03:04").unwrap();
    assert!(name.starts_with("kcache-support-history-") && name.ends_with(".md"), "{name}");
    for words in [
        "# Support history\n",
        "- Written by kcache ",
        " at 2030-01-02 03:04 UTC\n",
        "- Model: SmolLM2 135M Instruct, 30 layers",
        "- KCache lane: `kcache:n=256,",
        "- KV lane: `kv`, 64.0 MiB of device memory at most",
        "- Answers: greedy, at most 256 tokens\n",
        "## System message\n\n> Be brief.\n> [31m\n",
        "About the document support.md.",
        "> # What | did it mean?\n> And then?\n",
        "### Answer of KCache\n\n> The error code E7",
        "### Answer of KV\n\n> The error code E7",
        "The lanes part at token 32: KCache has ",
        "| tokens | 46 | 46 | measured |",
        "| ended | stop | stop | measured |",
        "| mean kept mass | 95.1 % | n/a (every row is read) | measured |",
        "## Message 2\n\n> Who replaced the fan motor, and when?",
        "| ended | n/a (not yet) | n/a (not yet) | measured |",
        "| K, V and tail on the device | ",
        " | simulated |\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    // What an earlier run measured is not known any more.
    let mut later = fixture::empty(120, 40);
    update(&mut later, Message::SessionsRead(Ok(read(&write(&sessions(&state))).unwrap())));
    let (text, _) = markdown(&later, "2030").unwrap();
    assert!(text.contains("| time to the end | n/a (an earlier run) | n/a (an earlier run) | measured |"), "{text}");
    assert!(text.contains("> Be brief.") && text.contains("| tokens | 46 | 46 | measured |"), "{text}");

    let mut state = fixture::empty(80, 24);
    assert_eq!(press(&mut state, &["alt-e"]), []);
    assert!(notice(&state).contains("nothing to export"), "{}", notice(&state));
    update(&mut state, Message::Exported(Ok("/home/a.md".into())));
    assert_eq!(notice(&state), "session written to /home/a.md");
}

#[test]
fn a_message_comes_back_from_the_editor_into_its_session() {
    let mut state = fixture::state(120, 40);
    typed(&mut state, "draft");
    let commands = press(&mut state, &["ctrl-g"]);
    assert_eq!(commands, [Command::Edit { session: Some(SessionId(1)), text: "draft".into() }]);
    // The demo, or a load, may have put another session on show meanwhile.
    state.selected = 1;
    let back = |result: Result<&str, &str>| Message::Edited {
        session: Some(SessionId(1)),
        result: result.map(str::to_owned).map_err(str::to_owned),
    };
    update(&mut state, back(Ok("two\nlines\u{1b}[2J")));
    assert_eq!(
        (state.sessions[0].composer.text(), state.sessions[1].composer.text()),
        ("two\nlines[2J".into(), String::new())
    );
    update(&mut state, back(Err("there is no editor `nano`")));
    assert_eq!(state.sessions[0].composer.text(), "two\nlines[2J");
    assert_eq!(notice(&state), "there is no editor `nano`; the message is as it was");
}

#[test]
fn a_system_message_is_this_sessions_or_a_new_ones_and_is_kept() {
    let mut state = fixture::empty(100, 30);
    slash(&mut state, "/new");
    let commands = slash(&mut state, "/system Answer like a pirate.");
    let given = Request::SetSystem { session: SessionId(1), system: "Answer like a pirate.".into() };
    assert_eq!(ops(&commands), [&given]);
    assert_eq!(text(&state).matches("system: Answer like a pirate.").count(), 2, "{}", text(&state));
    slash(&mut state, "Hello");
    assert!(text(&state).matches("system: Answer like a pirate.").count() == 2, "{}", text(&state));

    // Something was said: it begins another session.
    let commands = slash(&mut state, "/system Be brief.");
    assert!(
        matches!(ops(&commands)[..], [Request::Open { session: SessionId(2), system: Some(system), .. }] if system == "Be brief."),
        "{commands:?}"
    );
    assert_eq!(state.selected, 1);
    slash(&mut state, "Hello again");

    let saved = write(&sessions(&state));
    assert!(saved.starts_with("{\"version\":2,"), "{saved}");
    let mut next = fixture::empty(100, 30);
    let commands = update(&mut next, Message::SessionsRead(Ok(read(&saved).unwrap())));
    let systems: Vec<_> = ops(&commands)
        .into_iter()
        .filter_map(|op| match op {
            Request::Open { system, .. } => Some(system.as_deref().unwrap_or("none")),
            _ => None,
        })
        .collect();
    assert_eq!(systems, ["Answer like a pirate.", "Be brief."]);

    // The engine has the last word: a template may have no place for one.
    let kind = EventKind::Session { session: SessionId(2), name: "b".into(), lanes: Lane::ALL.to_vec(), system: None };
    update(&mut state, Message::Engine(Event { t_ms: 5.0, kind }));
    assert_eq!(state.sessions[1].system, None);
}

#[test]
fn a_file_without_system_messages_is_of_the_first_version_and_is_read() {
    let state = fixture::state(100, 30);
    let text = write(&sessions(&state));
    assert!(text.starts_with("{\"version\":1,") && !text.contains("system"), "{:.80}", text);
    assert_eq!(read(&text).unwrap(), sessions(&state));
}

#[test]
fn stop_texts_go_with_the_next_message() {
    let mut state = fixture::empty(100, 30);
    slash(&mut state, "/stop-at ###");
    slash(&mut state, r#"/stop-at "\nUser: ""#);
    assert_eq!(notice(&state), r####"from the next message on, answers end before "###" or "\nUser: ""####);
    let commands = slash(&mut state, "Hello");
    let [_, Request::SubmitMessage { options: turn, .. }] = ops(&commands)[..] else { panic!("{commands:?}") };
    assert_eq!(turn.stop.texts(), ["###", "\nUser: "]);
    slash(&mut state, &format!("/stop-at {}", "x".repeat(257)));
    assert!(notice(&state).contains("257 bytes"), "{}", notice(&state));
    assert_eq!(state.stop.texts().len(), 2);
    slash(&mut state, "/stop-at");
    assert_eq!(state.stop.texts().len(), 0);
}

#[test]
fn a_long_notice_keeps_its_advice_on_a_small_screen() {
    let mut state = fixture::state(80, 24);
    fixture::full().into_iter().for_each(|event| drop(update(&mut state, Message::Engine(event))));
    let screen = text(&state);
    let rows: Vec<&str> = screen.lines().collect();
    let notice = format!("{} {}", rows[22].trim(), rows[23].trim());
    assert!(notice.contains("fits 2303: shorten it, start a new session or raise the budget"), "{notice}");
    // A short one leaves the panes alone.
    state.toasts.clear();
    state.toast("session written to a.md", false);
    let screen = text(&state);
    let rows: Vec<&str> = screen.lines().collect();
    assert!(rows[22].contains('╰') && rows[23].contains("a.md"), "{screen}");
}
