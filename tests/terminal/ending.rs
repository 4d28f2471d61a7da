//! Ends that nobody planned: an engine that never comes back, a window that is closed, a process that is killed.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use portable_pty::native_pty_system;

use crate::terminal::{LANES, PATIENCE, Terminal, alone, command, home, size, tidy};

/// How long an end may take whatever the engine does: two seconds, and half a second for a busy machine.
#[cfg(debug_assertions)]
const END_WITHIN: Duration = Duration::from_millis(2_500);
#[cfg(debug_assertions)]
const STUCK: (&str, &str) = ("KCACHE_FAULT", "engine-stuck");
const SAVE: (&str, &str) = ("KCACHE_SCREEN_SAVE_SESSIONS", "true");
const LONG: (&str, &str) = ("KCACHE_SAMPLING_MAX_TOKENS", "39000");
const ARGUMENTS: [&str; 3] = ["--no-demo", "--model", "m.gguf"];

fn saved(home: &Path) -> String {
    fs::read_to_string(home.join(".local/state/kcache/sessions.json")).unwrap_or_default()
}

/// The switch exists in debug builds alone.
#[cfg(debug_assertions)]
#[test]
fn the_dashboard_ends_whatever_the_engine_is_busy_with() {
    let _alone = alone();
    for (how, code) in [("TERM", 143), ("QUIT", 131), ("ctrl-c", 0), ("ctrl-q", 0)] {
        let mut terminal = Terminal::start(home(), (80, 24), &ARGUMENTS, &[STUCK, SAVE]);
        terminal.until("the whole screen", tidy);
        terminal.ask("hello");
        // The first step that decodes does not come back.
        thread::sleep(Duration::from_secs(1));
        let began = match how {
            "ctrl-q" => {
                terminal.press("\x11");
                Instant::now()
            }
            "ctrl-c" => {
                terminal.press("\x03");
                terminal.until_shown("ctrl-c again quits");
                terminal.press("\x03");
                Instant::now()
            }
            signal => {
                terminal.signal(signal);
                Instant::now()
            }
        };
        let ended = terminal.end();
        let took = began.elapsed();
        ended.restored(code);
        assert!(took < END_WITHIN, "{how}: {took:?}");
        assert!(saved(ended.home.path()).contains("hello"), "{how}");
        assert!(ended.log.contains("the engine is still busy"), "{how}: {}", ended.log);
    }
}

/// The same of the commands that have no screen.
#[cfg(debug_assertions)]
#[test]
fn a_command_ends_whatever_the_engine_is_busy_with() {
    let _alone = alone();
    let headless: &[&str] = &["--headless", "--no-demo", "--model", "m.gguf", "--say", "hello"];
    let chat: &[&str] = &["chat", "hello", "--model", "m.gguf"];
    let soak: &[&str] = &["bench", "soak", "--model", "m.gguf", "--for", "60s"];
    for (arguments, signal, code) in
        [(headless, "TERM", 143), (headless, "INT", 130), (chat, "INT", 130), (soak, "TERM", 143)]
    {
        let home = home();
        let mut program = Command::new(env!("CARGO_BIN_EXE_kcache"));
        program.args(arguments).current_dir(home.path()).env("HOME", home.path()).env(STUCK.0, STUCK.1);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name != STUCK.0) {
            if name.to_string_lossy().starts_with("KCACHE_") || name.to_string_lossy().starts_with("XDG_") {
                program.env_remove(name);
            }
        }
        let pipes = program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).map(|_| text)
        });
        thread::sleep(Duration::from_secs(2));
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?}: it is busy");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([format!("-{signal}"), pid]).status().unwrap().success());
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        let took = began.elapsed();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
        assert!(took < END_WITHIN, "{arguments:?}: {took:?}");
        let text = reader.join().unwrap().unwrap();
        if arguments == headless {
            let last = text.lines().last().unwrap();
            assert!(last.contains("\"type\":\"stopped\"") && last.contains("not waited for"), "{last}");
        }
    }
}

#[test]
fn a_closed_window_ends_it_as_quitting_does() {
    let _alone = alone();
    for amid_an_answer in [true, false, true] {
        let home = home();
        let pair = native_pty_system().openpty(size(80, 24)).unwrap();
        let mut child = pair.slave.spawn_command(command(home.path(), &ARGUMENTS, &[SAVE, LONG])).unwrap();
        drop(pair.slave);
        let (mut output, mut input) = (pair.master.try_clone_reader().unwrap(), pair.master.take_writer().unwrap());
        // Read here and not by a thread, which would keep the window open.
        let mut screen = vt100::Parser::new(24, 80, 0);
        let mut until = |what: &str| {
            let mut bytes = [0; 1 << 14];
            while !screen.screen().contents().contains(what) {
                let count = output.read(&mut bytes).unwrap();
                screen.process(&bytes[..count]);
            }
        };
        until("enter send");
        input.write_all(b"hello").unwrap();
        until("hello");
        if amid_an_answer {
            input.write_all(b"\r").unwrap();
            until("stop");
        }
        drop((output, input, pair.master));
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(began.elapsed() < PATIENCE, "it does not end"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.exit_code(), 129, "{status:?}");
        assert_eq!(saved(home.path()).contains("hello"), amid_an_answer);
        let log = fs::read_to_string(home.path().join(".local/state/kcache/kcache.log")).unwrap();
        assert!(!log.contains("panic"), "{log}");
    }
}

#[test]
fn what_was_answered_survives_a_kill() {
    let _alone = alone();
    let environment = [SAVE, ("KCACHE_SAMPLING_MAX_TOKENS", "12")];
    let mut terminal = Terminal::start(home(), (120, 40), &ARGUMENTS, &environment);
    terminal.until("the whole screen", tidy);
    for question in ["hello there", "and again"] {
        let answers = terminal.pane(LANES[0]).matches("12 tokens").count() + 1;
        terminal.ask(question);
        terminal.until("both ends", |terminal| {
            LANES.iter().all(|lane| terminal.pane(lane).matches("12 tokens").count() == answers)
        });
        terminal.until("the answer in the file", |terminal| {
            let saved = saved(terminal.home.path());
            saved.contains(question) && saved.matches("\"end\":\"length\"").count() == 2 * answers
        });
    }
    terminal.signal("KILL");
    terminal.child.wait().unwrap();
    let Terminal { home, .. } = terminal;

    let mut terminal = Terminal::start(home, (120, 40), &ARGUMENTS, &environment);
    terminal.until("the conversation", |terminal| {
        LANES.iter().all(|lane| terminal.pane(lane).contains("again") && terminal.pane(lane).contains("earlier run"))
    });
    terminal.press("\x11");
    terminal.end().restored(0);
}
