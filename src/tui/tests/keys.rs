//! What keys and typed words ask of the engine.

use super::*;
use crate::document::Opened;

#[test]
fn a_typed_message_goes_to_the_engine_and_shows_at_once() {
    let mut state = fixture::empty(100, 30);
    typed(&mut state, "Hello there");
    assert!(text(&state).contains("Hello there"));
    let commands = press(&mut state, &["enter"]);
    let [
        Request::Open { session, name, lanes, .. },
        Request::SubmitMessage { session: asked, text: said, options: turn, .. },
    ] = ops(&commands)[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!((session, name.as_str(), lanes.len()), (asked, "Hello there", 2));
    assert_eq!((said.as_str(), turn.priority), ("Hello there", Priority::Typed));
    let screen = text(&state);
    assert_eq!(screen.matches("❯ Hello there").count(), 2, "{screen}");

    // The engine's confirmation does not show it twice.
    let kind = EventKind::Said { session: SessionId(1), document: None, text: "Hello there".into() };
    update(&mut state, Message::Engine(Event { t_ms: 5.0, kind }));
    assert_eq!(state.sessions[0].turns.len(), 1);
}

#[test]
fn a_message_waits_for_the_answer_before_it() {
    let mut state = fixture::state(100, 30);
    let commands = typed(&mut state, "And then?").into_iter().chain(press(&mut state, &["enter"])).collect::<Vec<_>>();
    assert!(commands.is_empty(), "{commands:?}");
    assert!(state.sessions[0].queued.is_some());
    let commands: Vec<Command> = fixture::finished(SessionId(1), 22)
        .into_iter()
        .flat_map(|event| update(&mut state, Message::Engine(event)))
        .collect();
    assert!(
        matches!(&ops(&commands)[..], [Request::SubmitMessage { text, .. }] if text == "And then?"),
        "{commands:?}"
    );
}

#[test]
fn knobs_build_on_each_other_before_the_engine_confirms() {
    let mut state = fixture::state(100, 30);
    let before = state.policy();
    assert_eq!(before, Some(Policy::KCache(Knobs { n: 256, ..Knobs::default() })));
    let commands = press(&mut state, &["alt-up", "alt-up", "alt-t"]);
    let wanted = Policy::KCache(Knobs { n: 1024, tail: Tail::None, ..Knobs::default() });
    assert_eq!(ops(&commands).last(), Some(&&Request::SetPolicy { lane: Lane::KCache, policy: wanted }));
    assert!(text(&state).contains("n=1024"));
    // Letters turn knobs only outside of the input.
    assert!(press(&mut state, &["t", "d", "]"]).is_empty());
    assert_eq!(press(&mut state, &["esc", "]"]).len(), 1);
    let kind =
        EventKind::Knob { lane: Lane::KCache, step: 9, change: "n=2048".into(), policy: state.policy().unwrap() };
    let t_ms = state.engine_ms;
    update(&mut state, Message::Engine(Event { t_ms, kind }));
    assert_eq!((state.wanted, state.metrics.marks.last().unwrap().label.as_str()), (None, "n=2048"));
}

#[test]
fn budgets_turn_in_the_focused_lane_or_in_both() {
    let mut state = fixture::state(120, 40);
    const MIB: u64 = 1 << 20;
    let commands = press(&mut state, &["esc", "b"]);
    let budget = |lane, mib| Request::SetBudget { lane, bytes: Some(mib * MIB) };
    assert_eq!(ops(&commands), [&budget(Lane::KCache, 56), &budget(Lane::Kv, 56)]);
    let screen = text(&state);
    assert!(screen.contains("device budget, simulated: KCache 56.0 MiB, KV 56.0 MiB"), "{screen}");
    state.focus = Focus::Transcript(Lane::Kv);
    assert_eq!(ops(&press(&mut state, &["B"])), [&budget(Lane::Kv, 63)]);
    assert_eq!(ops(&press(&mut state, &["b"])), [&budget(Lane::Kv, 55)], "it builds on what is not confirmed yet");
    assert_eq!(ops(&press(&mut state, &["u"])), [&Request::SetBudget { lane: Lane::Kv, bytes: None }]);
    assert_eq!((state.budget(Lane::KCache), state.budget(Lane::Kv)), (Some(56 * MIB), None));
    // What the ledger says next is what holds.
    let ledger = |mib: u64| {
        let mut ledger = *fixture::state(120, 40).metrics.lanes[0].ledger_at(f64::INFINITY).unwrap();
        ledger.budget_bytes = Some(mib * MIB);
        Message::Engine(Event { t_ms: 1e6, kind: EventKind::Ledger(ledger) })
    };
    update(&mut state, ledger(64));
    assert_eq!(state.budget(Lane::KCache), Some(56 * MIB), "an account from before the turn");
    update(&mut state, ledger(56));
    assert_eq!(state.wanted_budgets, [None, Some(None)]);
}

#[test]
fn ctrl_c_stops_first_and_quits_then() {
    let mut state = fixture::state(100, 30);
    let commands = press(&mut state, &["ctrl-c"]);
    assert!(matches!(ops(&commands)[..], [Request::Stop { session: SessionId(1), lane: None }]), "{commands:?}");
    assert_eq!(press(&mut state, &["ctrl-c"]), [Command::Quit]);

    let mut idle = fixture::empty(100, 30);
    assert_eq!(press(&mut idle, &["ctrl-c"]), [Command::Quit]);
    assert!(typed(&mut idle, "q").is_empty());
    assert_eq!(press(&mut idle, &["esc", "q"]), [Command::Quit]);
}

#[test]
fn ctrl_c_asks_while_others_answer_and_quits_the_second_time() {
    let mut state = fixture::state(100, 30);
    // The session on show has nothing to stop, another answers.
    press(&mut state, &["alt-j", "alt-j"]);
    assert!(!state.session().unwrap().busy() && state.sessions.iter().any(|session| session.busy()));
    assert_eq!(press(&mut state, &["ctrl-c"]), []);
    assert!(text(&state).contains("2 other sessions still answer; ctrl-c again quits"), "{}", text(&state));
    assert_eq!(press(&mut state, &["ctrl-c"]), [Command::Quit]);

    // As long as the notice is there, and no longer.
    let mut state = fixture::state(100, 30);
    press(&mut state, &["alt-j", "alt-j", "ctrl-c"]);
    let now = state.clock_ms;
    update(&mut state, Message::Tick(now + 7_000.0));
    assert!(!text(&state).contains("ctrl-c again"));
    assert_eq!(press(&mut state, &["ctrl-c"]), []);
    update(&mut state, Message::Tick(now + 12_000.0));
    assert!(text(&state).contains("ctrl-c again"));
    assert_eq!(press(&mut state, &["ctrl-c"]), [Command::Quit]);

    // Where the engine has ended nothing is under way.
    let mut state = fixture::state(100, 30);
    press(&mut state, &["alt-j", "alt-j"]);
    let kind = EventKind::Stopped { error: Some("gone".into()) };
    update(&mut state, Message::Engine(Event { t_ms: 1.0, kind }));
    assert_eq!(press(&mut state, &["ctrl-c"]), [Command::Quit]);
}

#[test]
fn a_wrong_command_leaves_the_box_and_is_in_the_history() {
    let mut state = fixture::empty(100, 30);
    typed(&mut state, "/fly away");
    assert!(press(&mut state, &["enter"]).is_empty());
    assert!(text(&state).contains("/fly is not a command here"), "{}", text(&state));
    assert!(state.composer().is_empty());
    typed(&mut state, "hello");
    let commands = press(&mut state, &["enter"]);
    assert!(
        matches!(&ops(&commands)[..], [Request::Open { .. }, Request::SubmitMessage { text, .. }] if text == "hello"),
        "{commands:?}"
    );
    let mut state = fixture::empty(100, 30);
    typed(&mut state, "/n zero");
    press(&mut state, &["enter", "up"]);
    assert_eq!(state.composer().text(), "/n zero");
}

#[test]
fn a_letter_that_is_a_command_never_ends_up_in_the_message() {
    for (from, to) in [("f3", "3"), ("f5", "3"), ("f3", "1"), ("alt-5", "3")] {
        let mut state = fixture::state(120, 40);
        let function = |text: &str| text.strip_prefix('f').and_then(|number| number.parse().ok()).map(KeyCode::F);
        let event = function(from).map_or_else(|| key(from), |code| KeyEvent::new(code, KeyModifiers::NONE));
        update(&mut state, Message::Key(event));
        press(&mut state, &[to, "i"]);
        assert_eq!((state.focus, state.composer().text().as_str()), (Focus::Composer, ""), "{from} {to}");
    }
    // Who changes the view by a key that works while writing goes on writing.
    let mut state = fixture::state(120, 40);
    for function in [3, 4] {
        update(&mut state, Message::Key(KeyEvent::new(KeyCode::F(function), KeyModifiers::NONE)));
    }
    typed(&mut state, "on");
    assert_eq!(state.composer().text(), "on");
}

#[test]
fn ctrl_u_clears_every_place_to_write_in() {
    let mut state = fixture::state(100, 30);
    press(&mut state, &["ctrl-r", "ctrl-u"]);
    assert_eq!(state.overlay, Overlay::Rename(String::new()));
    press(&mut state, &["esc", "alt-h"]);
    typed(&mut state, "free");
    press(&mut state, &["ctrl-u"]);
    assert!(matches!(&state.overlay, Overlay::Help { query, .. } if query.is_empty()));
    press(&mut state, &["esc", "alt-w", "ctrl-u"]);
    assert_eq!(state.workload.form.values[0], "");
}

#[test]
fn closing_asks_once_where_something_was_said() {
    let mut state = fixture::state(100, 30);
    assert!(press(&mut state, &["alt-x"]).is_empty());
    assert!(text(&state).contains("y / n"));
    assert!(press(&mut state, &["n"]).is_empty());
    let commands = press(&mut state, &["alt-x", "y"]);
    assert!(matches!(ops(&commands)[..], [Request::Close { session: SessionId(1) }]));
    assert_eq!(state.sessions.len(), 2);
    // A late word of the closed session does not bring it back.
    let kind = EventKind::Session { session: SessionId(1), name: "back".into(), lanes: vec![], system: None };
    update(&mut state, Message::Engine(Event { t_ms: 1.0, kind }));
    assert_eq!(state.sessions.len(), 2);
}

#[test]
fn files_are_asked_for_and_attached() {
    let mut state = fixture::empty(100, 30);
    let commands =
        typed(&mut state, "/file notes.md").into_iter().chain(press(&mut state, &["enter"])).collect::<Vec<_>>();
    let [Command::ReadFile { purpose, .. }] = &commands[..] else { panic!("{commands:?}") };
    let document = crate::engine::Document { name: "notes.md".into(), text: "Something.".into() };
    let notice = Some("notes.md is not in UTF-8; it is read as EUC-JP".to_owned());
    let read = Message::FileRead { purpose: purpose.clone(), result: Ok(Opened { document, notice }) };
    assert!(matches!(ops(&update(&mut state, read))[..], [Request::Open { .. }]));
    assert!(text(&state).contains("notes.md attached"));
    assert!(text(&state).contains("it is read as EUC-JP"));
    typed(&mut state, "What?");
    let commands = press(&mut state, &["enter"]);
    assert!(matches!(ops(&commands)[..], [Request::SubmitMessage { document: Some(_), .. }]), "{commands:?}");

    let failed = Message::FileRead { purpose: purpose.clone(), result: Err("notes.md: no such file".into()) };
    update(&mut state, failed);
    assert!(text(&state).contains("no such file"));
}

#[test]
fn the_demo_opens_its_sessions_and_yields_to_the_user() {
    let mut state = fixture::empty(120, 40);
    state.demo = crate::tui::state::demo::Demo::bundled().unwrap();
    let Event { kind, .. } = fixture::events().remove(0);
    update(&mut state, Message::Engine(Event { t_ms: 0.0, kind }));
    let commands = update(&mut state, Message::Tick(1.0));
    let count = state.sessions.len();
    assert!(count >= 3);
    assert_eq!(ops(&commands).iter().filter(|op| matches!(op, Request::Open { .. })).count(), count);
    let background = |op: &&&Request| matches!(op, Request::SubmitMessage { options, .. } if options.priority == Priority::Background);
    assert_eq!(ops(&commands).iter().filter(background).count(), 1);
    assert!(text(&state).contains("demo"));
    typed(&mut state, "Mine");
    let commands = press(&mut state, &["enter"]);
    assert!(matches!(ops(&commands)[..], [Request::Stop { .. }]), "{commands:?}");
    assert!(!state.sessions[0].demo && state.sessions[1].demo);
}

#[test]
fn freezing_gives_the_charts_the_cursor_keys_and_going_on_gives_the_message_back() {
    let mut state = fixture::state(120, 40);
    typed(&mut state, "half a mess");
    assert_eq!(state.focus, Focus::Composer);
    press(&mut state, &["alt-f"]);
    let before = state.cursor_ms().unwrap();
    press(&mut state, &["left"]);
    assert!(state.cursor_ms().unwrap() < before, "the arrow moves the cursor of the charts at once");
    press(&mut state, &["alt-f"]);
    assert_eq!((state.focus, state.frozen), (Focus::Composer, None));
    typed(&mut state, "age");
    assert_eq!(state.composer().text(), "half a message");
    // Without charts on the screen there is nothing to move along.
    press(&mut state, &["esc", "1"]);
    let focus = state.focus;
    press(&mut state, &["space"]);
    assert_eq!(state.focus, focus);
}

#[test]
fn what_was_turned_is_kept_in_the_words_of_the_configuration() {
    let kept = |state: &mut State, key: &str| match press(state, &[key]).as_slice() {
        [Command::KeepSettings(settings)] => settings.clone(),
        other => panic!("{other:?}"),
    };
    assert!(press(&mut fixture::empty(120, 40), &["ctrl-s"]).is_empty(), "there is no policy yet");
    let mut state = fixture::state(120, 40);
    let settings = kept(&mut state, "ctrl-s");
    let expected = [
        ("lanes.kcache.policy", "kcache:n=256,tail=mean,select=head"),
        ("lanes.kcache.budget", "64MiB"),
        ("lanes.kv.budget", "64MiB"),
    ];
    assert_eq!(settings, expected.map(|(path, value)| (path.to_owned(), value.to_owned())));

    // What the start made of the configured policy on this model is not said: on another one it may be something else.
    let on = |text: &str| text.parse::<Policy>().unwrap();
    state.started.as_mut().unwrap().lanes[0].policy = on("kcache:n=128,profile=default");
    state.metrics.lanes[Lane::KCache as usize].policy = Some(on("kcache:n=64,tail=none,profile=default"));
    assert_eq!(kept(&mut state, "ctrl-s")[0].1, "kcache:n=64,tail=none,select=head");
    // What was changed away from it is.
    state.metrics.lanes[Lane::KCache as usize].policy = Some(on("kcache:n=64,dense=2,profile=default"));
    assert_eq!(kept(&mut state, "ctrl-s")[0].1, "kcache:n=64,tail=mean,dense=2,select=head,profile=default");
    typed(&mut state, "/keep");
    assert!(matches!(press(&mut state, &["enter"])[..], [Command::KeepSettings(_)]));

    update(&mut state, Message::SettingsKept(Ok("kept in c.toml: lanes.kv.budget".into())));
    assert!(text(&state).contains("kept in c.toml"));
    update(&mut state, Message::SettingsKept(Err("nothing is kept: no space".into())));
    assert!(text(&state).contains("nothing is kept: no space"));
}
