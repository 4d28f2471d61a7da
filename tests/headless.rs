//! The program without a screen: events as JSON lines, and replies of `kcache chat`, from a tiny model of random weights.

#[path = "support/home.rs"]
mod home;
#[path = "support/tiny.rs"]
mod tiny;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use home::{Home, fine, stderr, stdout};
use kcache::engine::{Event, EventKind, FinishReason, Lane, SessionId};
use serde_json::Value;
use tiny::Tiny;

/// A home with a model of this context in it, `m.gguf`.
fn home(context: usize) -> Home {
    let home = Home::new();
    let model = Tiny { context, endless: true, ..Tiny::default() }.temp();
    model.persist(home.path().join("m.gguf")).unwrap();
    home
}

/// The program on that model.
fn kcache(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(&["--model", "m.gguf"]);
    command.args(arguments).env("KCACHE_SAMPLING_MAX_TOKENS", "12");
    command
}

/// Every line as an event, which has as JSON what the line has.
fn events(text: &str) -> Vec<Event> {
    let names = |value: Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let event = |line: &str| {
        let event: Event = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        assert_eq!(names(serde_json::to_value(&event).unwrap()), names(serde_json::from_str(line).unwrap()));
        event
    };
    text.lines().map(event).collect()
}

fn tokens(events: &[Event], session: u32, lane: Lane) -> usize {
    let ours = |event: &&Event| matches!(&event.kind, EventKind::Token(token) if token.session == SessionId(session) && token.lane == lane);
    events.iter().filter(ours).count()
}

#[track_caller]
fn whole(events: &[Event], error: Option<&str>) {
    assert!(matches!(events[0].kind, EventKind::Started(_)), "{:?}", events[0]);
    let EventKind::Stopped { error: stopped } = &events[events.len() - 1].kind else { panic!("no end") };
    assert!(stopped.as_deref() == error || stopped.as_deref().zip(error).is_some_and(|(s, e)| s.contains(e)));
    let ordered = events.windows(2).all(|pair| pair[0].t_ms <= pair[1].t_ms);
    assert!(ordered, "time goes forward");
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success());
}

fn end(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().unwrap();
                panic!("it does not end");
            }
        }
    }
}

#[test]
fn every_question_is_answered_in_both_lanes_and_then_it_ends() {
    let home = home(512);
    fs::write(home.path().join("notes.md"), "the heat in the hall").unwrap();
    let arguments = ["--headless", "--file", "notes.md", "--say", "what is there?", "--say", "hello"];
    let events = events(&fine(&kcache(&home, &arguments).output().unwrap()));
    whole(&events, None);
    for session in [1, 2] {
        for lane in Lane::ALL {
            assert_eq!(tokens(&events, session, lane), 12, "session {session} in {lane}");
        }
    }
    let said: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Said { document, text, .. } => Some((document.as_deref(), text.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(said, [(Some("notes.md"), "what is there?"), (None, "hello")]);
    let reasons = |event: &Event| match &event.kind {
        EventKind::Finished(finished) => Some(finished.reason),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(reasons).collect::<Vec<_>>(), [FinishReason::Length; 4]);
}

#[test]
fn a_load_comes_by_and_by_and_its_end_is_the_end() {
    let home = home(512);
    let spec = "sessions=5,context=70,tokens=6,rate=3000,shared=64";
    let output = kcache(&home, &["--headless", "--load", spec]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = stderr(&output);
    let summary = "kcache: load: 5 sessions came; kcache: 5 finished; kv: 5 finished";
    assert!(said.lines().any(|line| line == summary), "{said}");
    let delivered = |lane: &str| said.lines().any(|line| line.starts_with(&format!("kcache: {lane}: 30 tokens, ")));
    assert!(delivered("kcache") && delivered("kv"), "{said}");
    let events = events(&stdout(&output));
    whole(&events, None);
    let loads: Vec<u32> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Session { session, .. } => Some(session.0),
            _ => None,
        })
        .collect();
    assert_eq!(loads, (0..5).map(|at| (1 << 31) + at).collect::<Vec<_>>(), "the demo gives way to it");
    for &session in &loads {
        assert_eq!(Lane::ALL.map(|lane| tokens(&events, session, lane)), [6, 6]);
    }
    let closed = events.iter().filter(|event| matches!(event.kind, EventKind::Closed { .. })).count();
    assert_eq!(closed, 5);
}

#[test]
fn a_load_that_cannot_be_is_refused_in_a_line() {
    let home = home(512);
    for (spec, word) in [("context=512,tokens=1", "the model's context of 512"), ("pace=3", "rate=30")] {
        let output = kcache(&home, &["--headless", "--load", spec]).output().unwrap();
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}

#[test]
fn a_stdout_that_is_no_terminal_gets_events_for_as_long_as_was_said() {
    let home = home(512);
    let began = Instant::now();
    let output = kcache(&home, &["--no-demo", "--for", "1.5s", "--say", "hello"]).output().unwrap();
    let took = began.elapsed();
    let events = events(&fine(&output));
    whole(&events, None);
    assert!(took >= Duration::from_millis(1_500) && events[events.len() - 1].t_ms >= 1_500.0, "{took:?}");
    assert_eq!(tokens(&events, 1, Lane::Kv), 12);
    assert!(events.iter().any(|event| matches!(event.kind, EventKind::Host(_))), "the host is sampled");
}

#[test]
fn nothing_asked_is_said_and_ends_at_once() {
    let home = home(512);
    let output = home.run(&["--model", "m.gguf", "--headless", "--no-demo"]);
    assert_eq!(output.status.code(), Some(0));
    whole(&events(&stdout(&output)), None);
    assert_eq!(stderr(&output), "kcache: nothing is asked; --say TEXT or --file FILE asks something\n");
}

#[test]
fn what_is_refused_is_not_waited_for() {
    let home = home(128);
    let long = "hello the heat ".repeat(40);
    let output = kcache(&home, &["--headless", "--say", &long, "--say", "hello"]).output().unwrap();
    let events = events(&stdout(&output));
    whole(&events, None);
    assert_eq!((tokens(&events, 1, Lane::Kv), tokens(&events, 2, Lane::Kv)), (0, 12));
    let said = stderr(&output);
    assert!(said.starts_with("kcache: the message needs"), "{said}");
    assert!(said.ends_with("\nkcache: 1 of 2 questions were refused\n") && said.lines().count() == 2, "{said}");
    assert_eq!(output.status.code(), Some(1));

    let output = kcache(&home, &["--headless", "--say", &long, "--say", &long]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.ends_with("\nkcache: nothing was answered: 2 of 2 questions were refused\n"), "{said}");
}

#[test]
fn a_load_of_which_nothing_is_answered_fails_and_one_lane_without_room_does_not() {
    let home = home(8192);
    let load = |sessions: usize, budget: &str| {
        let spec = format!("sessions={sessions},context=7000,tokens=4");
        kcache(&home, &["--headless", "--load", &spec, "--budget", budget]).output().unwrap()
    };
    let output = load(3, "1MiB");
    whole(&events(&stdout(&output)), None);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("kcache: load: why the last was refused: with the message the session has 7000"), "{said}");
    let summary = "load: 3 sessions came; kcache: 3 refused; kv: 3 refused; nothing was answered\n";
    assert!(said.ends_with(summary), "{said}");

    // A budget between what the two lanes take: one answers all, the other none. That is a finding and no failure.
    let alone = events(&stdout(&load(1, "none")));
    let peaks = Lane::ALL.map(|lane| {
        let peak = |event: &Event| match &event.kind {
            EventKind::Queue(queue) if queue.lane == lane => Some(queue.device_peak_bytes),
            _ => None,
        };
        alone.iter().filter_map(peak).max().unwrap()
    });
    assert!(peaks[0].abs_diff(peaks[1]) > 400_000, "{peaks:?}");
    let output = load(3, &format!("{}KiB", (peaks[0] + peaks[1]) / 2 / 1024));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let [kcache, kv] = if peaks[0] < peaks[1] { ["finished", "refused"] } else { ["refused", "finished"] };
    assert!(said.contains(&format!("load: 3 sessions came; kcache: 3 {kcache}; kv: 3 {kv}\n")), "{said}");
    assert!(said.contains("kcache: load: why the last was refused: "), "{said}");
}

#[test]
fn a_recording_has_the_lines_of_stdout_and_an_impossible_one_is_refused_first() {
    let home = home(512);
    let output = kcache(&home, &["--headless", "--say", "hello", "--record", "run.jsonl"]).output().unwrap();
    let said = fine(&output);
    whole(&events(&said), None);
    assert_eq!(fs::read_to_string(home.path().join("run.jsonl")).unwrap(), said);

    for path in ["nowhere/run.jsonl", "."] {
        // The model is looked for later: nothing was done before this was said.
        let output = home.run(&["--model", "m.gguf", "--headless", "--say", "hello", "--record", path]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        let said = stderr(&output);
        assert!(said.starts_with(&format!("kcache: --record {path}: ")) && said.lines().count() == 1, "{said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_recording_that_cannot_go_on_is_said_once_and_the_answers_are_finished() {
    let home = home(512);
    let output = kcache(&home, &["--headless", "--say", "hello", "--record", "/dev/full"]).output().unwrap();
    let events = events(&stdout(&output));
    whole(&events, None);
    assert_eq!(tokens(&events, 1, Lane::Kv), 12);
    let said = stderr(&output);
    assert!(said.starts_with("kcache: the recording /dev/full ends early: ") && said.lines().count() == 1, "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn signals_end_it_with_the_last_event() {
    let home = home(40_000);
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut command = kcache(&home, &["--for", "1h", "--say", "hello"]);
        let mut child = command.env("KCACHE_SAMPLING_MAX_TOKENS", "39000").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("\"type\":\"token\"") {
            assert!(lines.read_line(&mut text).unwrap() > 0, "{text}");
        }
        signal(&child, name);
        lines.read_to_string(&mut text).unwrap();
        assert_eq!(end(child), Some(code));
        let events = events(&text);
        whole(&events, None);
        let cancelled = |event: &&Event| matches!(&event.kind, EventKind::Finished(finished) if finished.reason == FinishReason::Cancelled);
        assert_eq!(events.iter().filter(cancelled).count(), 2, "both lanes stop");
    }
}

#[test]
fn a_reader_that_goes_is_no_failure() {
    let home = home(40_000);
    for arguments in [&["--for", "1h", "--say", "hello"][..], &["chat", "hello"]] {
        let mut command = kcache(&home, arguments);
        command.env("KCACHE_SAMPLING_MAX_TOKENS", "39000");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let mut first = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(end(child), Some(0), "{arguments:?}");
        let mut said = String::new();
        errors.read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{arguments:?}");
    }
}

/// The switch exists in debug builds alone.
#[cfg(debug_assertions)]
#[test]
fn an_engine_that_breaks_is_told_in_the_last_event_and_exits_1() {
    const TEXT: &str = "KCACHE_FAULT=engine-panic asked for this panic";
    let home = home(512);
    let run = |arguments: &[&str]| kcache(&home, arguments).env("KCACHE_FAULT", "engine-panic").output().unwrap();
    let output = run(&["--headless", "--say", "hello"]);
    assert_eq!(output.status.code(), Some(1));
    let events = events(&stdout(&output));
    whole(&events, Some(TEXT));
    assert!(tokens(&events, 1, Lane::KCache) >= 2, "it broke after a decode step");
    assert!(stderr(&output).ends_with(&format!("kcache: the engine stopped: {TEXT}\n")), "{}", stderr(&output));
    let output = run(&["chat", "hello"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).ends_with(&format!("kcache: the engine stopped: {TEXT}\n")), "{}", stderr(&output));
}

#[test]
fn the_same_settings_give_the_same_reply_and_all_rows_are_the_baseline() {
    let home = home(512);
    let chat = |more: &[&str]| {
        let arguments = [&["chat", "the heat in the hall", "--max-tokens", "60"][..], more].concat();
        fine(&kcache(&home, &arguments).output().unwrap())
    };
    let greedy = chat(&[]);
    assert!(greedy.trim_end().chars().count() > 20, "{greedy}");
    assert_eq!(greedy, chat(&[]));
    assert_eq!(chat(&["--policy", "kv"]), chat(&["--policy", "kcache:n=100000,dense=0"]));
    let few = chat(&["--policy", "kcache:n=2,tail=none,dense=0"]);
    assert_ne!(few, chat(&["--policy", "kv"]), "two rows of 60 are not enough, or the policy is not used");

    let sampled = |seed| chat(&["--temperature", "1.5", "--top-k", "50", "--top-p", "0.99", "--seed", seed]);
    assert_eq!(sampled("7"), sampled("7"));
    assert_ne!(sampled("7"), sampled("8"));
    assert_ne!(chat(&["--repeat-penalty", "2"]), greedy);
    assert_ne!(chat(&["--system", "hello hello"]), greedy);
}

#[test]
fn standard_input_and_files_are_read() {
    let home = home(512);
    let greedy = fine(&kcache(&home, &["chat", "the hall"]).output().unwrap());
    let mut child = kcache(&home, &["chat", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"the hall").unwrap();
    assert_eq!(fine(&child.wait_with_output().unwrap()), greedy);

    fs::write(home.path().join("notes.md"), "the heat in the hall ".repeat(8)).unwrap();
    let usage = |arguments: &[&str]| {
        let report: Value = serde_json::from_str(&fine(&kcache(&home, arguments).output().unwrap())).unwrap();
        report["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let (alone, about) =
        (usage(&["chat", "hello", "--json"]), usage(&["chat", "hello", "--file", "notes.md", "--json"]));
    assert!(about > alone + 40, "{about} against {alone}");
    assert!(usage(&["chat", "--file", "notes.md", "--json"]) > about);
}

#[test]
fn a_reply_as_json_has_its_figures() {
    let home = home(512);
    let report = |policy: &str| -> Value {
        let arguments = ["chat", "the heat in the hall", "--json", "--max-tokens", "40", "--policy", policy];
        serde_json::from_str(&fine(&kcache(&home, &arguments).output().unwrap())).unwrap()
    };
    let few = report("kcache:dense=0,n=4");
    assert_eq!((&few["policy"], &few["finish_reason"]), (&"kcache:dense=0,n=4".into(), &"length".into()));
    assert_eq!(few["usage"]["completion_tokens"], 40);
    assert!(!few["text"].as_str().unwrap().is_empty());
    for figure in ["tok_s", "ttft_ms", "itl_ms_p50", "itl_ms_p99"] {
        assert!(few[figure].as_f64().unwrap() > 0.0, "{figure}: {few:#}");
    }
    let mass = few["kept_mass"].as_f64().unwrap();
    assert!(mass > 0.0 && mass < 1.0, "{mass}");
    let held = |report: &Value, tier: &str| report["ledger"][tier]["v"].as_u64().unwrap();
    assert!(held(&few, "host") > 0 && held(&few, "device") == 0, "{few:#}");
    let all = report("kv");
    assert!(all["kept_mass"].is_null() && held(&all, "host") == 0 && held(&all, "device") > 0, "{all:#}");
}

#[test]
fn a_reply_that_is_interrupted_keeps_what_was_said() {
    let home = home(40_000);
    let mut command = kcache(&home, &["chat", "hello", "--max-tokens", "39000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut said = vec![0; 20];
    output.read_exact(&mut said).unwrap();
    signal(&child, "INT");
    output.read_to_end(&mut said).unwrap();
    assert_eq!(end(child), Some(130));
    assert!(said.ends_with(b"\n"));
}

#[test]
fn a_message_too_long_is_refused_in_one_line() {
    let home = home(128);
    let output = kcache(&home, &["chat", &"hello the heat ".repeat(40)]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()));
    let said = stderr(&output);
    assert!(said.starts_with("kcache: the message needs") && said.lines().count() == 1, "{said}");
}

#[test]
fn compared_lanes_say_the_same_and_how_far_they_are_apart() {
    let home = home(512);
    let arguments = ["--headless", "--no-demo", "--compare", "--say", "hello in the hall"];
    let output = kcache(&home, &arguments).env("KCACHE_LANES_KCACHE_POLICY", "kcache:n=4,tail=none,dense=0").output();
    let events = events(&fine(&output.unwrap()));
    whole(&events, None);
    let said = |lane| {
        let token = |event: &Event| match &event.kind {
            EventKind::Token(token) if token.lane == lane => Some(token.token_id),
            _ => None,
        };
        events.iter().filter_map(token).collect::<Vec<_>>()
    };
    assert_eq!(said(Lane::KCache), said(Lane::Kv));
    let kl: Vec<f64> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Compare(compare) => Some(compare.kl),
            _ => None,
        })
        .collect();
    assert_eq!((kl.len(), kl[0]), (12, 0.0));
    assert!(kl.iter().any(|&kl| kl > 1e-3), "{kl:?}");
}
