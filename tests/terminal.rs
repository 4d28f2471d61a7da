//! The real program on a real pseudo-terminal, from its first frame to the shell's prompt after it.
#![cfg(unix)]

#[path = "terminal/ending.rs"]
mod ending;
#[path = "support/terminal.rs"]
mod terminal;
#[path = "support/tiny.rs"]
mod tiny;
#[path = "terminal/typing.rs"]
mod typing;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use terminal::{LANES, LEAVE_SCREEN, Terminal, alone, home, places, tidy};

/// Seconds of CPU that a process has used so far.
fn cpu_seconds(pid: u32) -> f64 {
    let ticks = Command::new("getconf").arg("CLK_TCK").output().unwrap();
    let ticks: f64 = String::from_utf8(ticks.stdout).unwrap().trim().parse().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in brackets, may hold anything; user and system time are fields 14 and 15 of the whole.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / ticks
}

#[test]
fn it_starts_chats_resizes_stops_and_quits() {
    let _alone = alone();
    let question = "Tell me a very long story about a lighthouse.";
    let mut terminal = Terminal::with_default_model((80, 24), &["--no-demo"]);
    terminal.until("the whole screen", tidy);
    assert!(LANES.iter().all(|lane| !terminal.pane(lane).is_empty()), "{}", terminal.text());
    terminal.ask(question);
    terminal.until_both_answer(question);
    terminal.until_both_go_on();
    assert_ne!(terminal.settings(), terminal.before, "keys come one by one");

    for (columns, rows) in [(120, 40), (40, 12), (80, 24)] {
        terminal.resize(columns, rows);
        terminal.until(&format!("a whole screen of {columns}x{rows}"), tidy);
    }
    terminal.until_both_go_on();

    terminal.press("\x03");
    terminal.until_shown("ctrl-c again quits");
    terminal
        .until("the end of both answers", |terminal| LANES.iter().all(|lane| terminal.pane(lane).contains("stopped")));
    let stopped = LANES.map(|lane| terminal.pane(lane));
    thread::sleep(Duration::from_millis(400));
    assert_eq!(LANES.map(|lane| terminal.pane(lane)), stopped, "nothing comes after a stop");
    terminal.press("\x03");
    let ended = terminal.end();
    ended.restored(0);
    assert_eq!(ended.text.trim(), "", "nothing is left behind");
}

#[test]
fn escape_and_q_quit() {
    let _alone = alone();
    let mut terminal = Terminal::start(home(), (80, 24), &["--no-demo", "--model", "m.gguf"], &[]);
    terminal.until("the whole screen", tidy);
    terminal.press("q");
    terminal.until("a letter in the message", |terminal| {
        terminal.text().lines().any(|line| line.contains("│ q") || line.contains("│q"))
    });
    terminal.leave_input();
    terminal.press("q");
    terminal.end().restored(0);
}

#[test]
fn what_is_pasted_is_a_message_until_it_is_sent() {
    let _alone = alone();
    let mut terminal = Terminal::start(home(), (80, 24), &["--no-demo", "--model", "m.gguf"], &[]);
    terminal.until("the whole screen", tidy);
    terminal.press("about");
    terminal.until_shown("about");
    terminal.press("\x1b[200~ the fan and\nthe motor\x1b[201~");
    terminal.until_shown("about the fan and");
    terminal.until_shown("the motor");
    // A line break in what is pasted sends nothing.
    assert!(LANES.iter().all(|lane| !terminal.pane(lane).contains("motor")), "{}", terminal.text());
    terminal.press("\r");
    terminal
        .until("the message in both lanes", |terminal| LANES.iter().all(|lane| terminal.pane(lane).contains("motor")));
    terminal.press("\x11");
    terminal.end().restored(0);
}

#[test]
fn sessions_are_saved_and_reopened_and_go_on_and_a_damaged_file_is_kept() {
    let _alone = alone();
    let settings = [("KCACHE_SCREEN_SAVE_SESSIONS", "true"), ("KCACHE_SAMPLING_MAX_TOKENS", "12")];
    let arguments = ["--no-demo", "--model", "m.gguf"];
    let both = |words: &str| {
        let words = words.to_owned();
        move |terminal: &Terminal| LANES.iter().all(|lane| terminal.pane(lane).contains(&words))
    };
    let mut terminal = Terminal::start(home(), (120, 40), &arguments, &settings);
    terminal.until("the whole screen", tidy);
    terminal.ask("hello there");
    terminal.until("both ends", both("12 tokens"));
    let said = LANES.map(|lane| terminal.answer(lane, "there"));
    terminal.press("\x11");
    let ended = terminal.end();
    ended.restored(0);
    let file = ended.home.path().join(".local/state/kcache/sessions.json");
    assert!(fs::read_to_string(&file).unwrap().contains("hello there"));

    let mut terminal = Terminal::start(ended.home, (120, 40), &arguments, &settings);
    terminal.until("the conversation", both("from an earlier run"));
    terminal.until("the answers", both("12 tokens"));
    for (lane, said) in LANES.iter().zip(&said) {
        // The first letters: the last line has times that are not kept.
        let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        let said: String = letters(said).chars().take(12).collect();
        assert!(letters(&terminal.answer(lane, "there")).starts_with(&said), "{lane}: {said}\n{}", terminal.text());
    }
    terminal.ask("and then");
    terminal.until("two answers in both lanes", |terminal| {
        LANES.iter().all(|lane| terminal.pane(lane).matches("12 tokens").count() == 2)
    });
    terminal.press("\x11");
    let ended = terminal.end();
    ended.restored(0);
    assert!(fs::read_to_string(&file).unwrap().contains("and then"));

    fs::write(&file, "{\"version\":1,\"sess").unwrap();
    let mut terminal = Terminal::start(ended.home, (120, 40), &arguments, &settings);
    terminal.until_shown("sessions.json is damaged");
    terminal.press("\x11");
    let ended = terminal.end();
    ended.restored(0);
    assert!(ended.log.contains("it is kept as"), "{}", ended.log);
    let kept = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| fs::read_to_string(path).is_ok_and(|text| text == "{\"version\":1,\"sess"));
    assert_eq!(kept.count(), 1);
}

/// The state of a process, as `ps` shows it: T is stopped.
#[cfg(target_os = "linux")]
fn stopped(terminal: &Terminal) -> bool {
    let pid = terminal.child.process_id().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
}

#[cfg(target_os = "linux")]
#[test]
fn it_is_suspended_and_comes_back() {
    let _alone = alone();
    let long = [("KCACHE_SAMPLING_MAX_TOKENS", "39000")];
    let mut terminal = Terminal::start(home(), (80, 24), &["--no-demo", "--model", "m.gguf"], &long);
    terminal.until("the whole screen", tidy);
    terminal.ask("hello");
    terminal.until_both_go_on();
    for by_key in [true, false] {
        if by_key {
            terminal.press("\x1a");
        } else {
            terminal.signal("TSTP");
        }
        terminal.until("a stopped program", stopped);
        assert_eq!(terminal.settings(), terminal.before, "the terminal's settings are the shell's");
        terminal.until("the shell's screen", |terminal| {
            let seen = terminal.seen.lock().unwrap();
            let screen = seen.parser.screen();
            !screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor()
        });
        terminal.resize(120, 30);
        terminal.signal("CONT");
        terminal.until("the whole screen again", tidy);
        assert!(terminal.seen.lock().unwrap().parser.screen().alternate_screen());
        terminal.until_both_go_on();
    }
    terminal.press("\x11");
    let ended = terminal.end();
    assert_eq!(ended.code, 0, "{}", ended.text);
    assert_eq!(places(&ended.bytes, LEAVE_SCREEN).len(), 3, "twice for the shell and once in the end");
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn an_answer_is_copied_and_a_session_exported() {
    let _alone = alone();
    let few = [("KCACHE_SAMPLING_MAX_TOKENS", "12"), ("TMUX", "")];
    let mut terminal = Terminal::start(home(), (120, 40), &["--no-demo", "--model", "m.gguf"], &few);
    terminal.until("the whole screen", tidy);
    terminal.ask("hello there");
    terminal.until("both ends", |terminal| LANES.iter().all(|lane| terminal.pane(lane).contains("12 tokens")));
    terminal.press("\x1by");
    terminal.until_shown("a terminal may refuse it");
    terminal.until("the whole screen", tidy);
    terminal.press("\x1be");
    terminal.until_shown("session written to");
    let seen = terminal.seen.lock().unwrap().bytes.clone();
    let at = places(&seen, b"\x1b]52;c;");
    assert_eq!(at.len(), 1, "once to the clipboard");
    let payload = seen[at[0] + 7..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte));
    assert!(payload.count() >= 12, "the text, in base64");
    terminal.press("/export again.md\r");
    terminal.until_shown("session written to again.md");
    terminal.press("/export again.md\r");
    terminal.until_shown("again.md is there already");
    terminal.press("\x11");
    let ended = terminal.end();
    ended.restored(0);
    let written: Vec<_> =
        files(ended.home.path()).into_iter().filter(|path| path.extension() == Some("md".as_ref())).collect();
    assert_eq!(written.len(), 2, "{written:?}");
    for path in written {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("# hello there\n") && text.contains("> hello there\n"), "{text}");
        assert!(text.contains("| tokens | 12 | 12 | measured |"), "{text}");
    }
}

#[test]
fn the_message_is_edited_in_the_users_editor_while_the_engine_goes_on() {
    let _alone = alone();
    let home = home();
    // Says that it runs, and adds to the file once it is told to.
    let script = "echo EDITING; stat -c %a \"$2\" > mode; n=0; until [ -e go ] || [ $n = 400 ]; do sleep 0.05; n=$((n+1)); done; printf ' and more\\n' >> \"$2\"";
    fs::write(home.path().join("editor.sh"), script).unwrap();
    let environment =
        [("KCACHE_SAMPLING_MAX_TOKENS", "39000"), ("VISUAL", "sh editor.sh 'a flag'"), ("EDITOR", "false")];
    let mut terminal = Terminal::start(home, (100, 30), &["--no-demo", "--model", "m.gguf"], &environment);
    terminal.until("the whole screen", tidy);
    terminal.ask("hello");
    terminal.until_both_go_on();
    let before = LANES.map(|lane| terminal.pane(lane));
    terminal.press("draft");
    terminal.until_shown("draft");
    terminal.press("\x07");
    terminal.until_shown("EDITING");
    assert_eq!(terminal.settings(), terminal.before, "the terminal's settings are the shell's");
    assert!(!terminal.seen.lock().unwrap().parser.screen().alternate_screen());
    // What is typed now is the editor's, and ctrl-c is no end of this program.
    terminal.press("q\x03");
    thread::sleep(Duration::from_millis(300));
    assert!(terminal.child.try_wait().unwrap().is_none(), "{}", terminal.text());
    // The interrupt was the script's end.
    terminal.until_shown("the message is as it was");
    fs::write(terminal.home.path().join("go"), "").unwrap();
    terminal.press("\x07");
    terminal.until_shown("draft and more");
    let mode = fs::read_to_string(terminal.home.path().join("mode")).unwrap();
    assert_eq!(mode.trim(), "600", "nobody else reads the message");
    let after = LANES.map(|lane| terminal.pane(lane));
    assert_ne!(before, after, "tokens came meanwhile");
    terminal.until_both_go_on();

    // Ended while the editor has the terminal, the program ends it, and leaves the terminal as it was.
    fs::remove_file(terminal.home.path().join("go")).unwrap();
    terminal.press("\x07");
    terminal.until("the editor", |terminal| !terminal.seen.lock().unwrap().parser.screen().alternate_screen());
    terminal.signal("TERM");
    let ended = terminal.end();
    assert_eq!(ended.code, 143, "{}", ended.text);
    assert_eq!(places(&ended.bytes, LEAVE_SCREEN).len(), 3, "once for every editor");
}

#[test]
fn an_editor_that_is_not_there_is_told_in_one_notice() {
    let _alone = alone();
    for (editor, words) in
        [("no-such-editor -w", "there is no editor `no-such-editor -w`"), ("", "set VISUAL or EDITOR")]
    {
        let environment = [("VISUAL", editor), ("EDITOR", editor)];
        let mut terminal = Terminal::start(home(), (100, 30), &["--no-demo", "--model", "m.gguf"], &environment);
        terminal.until("the whole screen", tidy);
        terminal.press("draft\x07");
        terminal.until_shown(words);
        terminal.until("the whole screen again", tidy);
        terminal.until_shown("draft");
        terminal.press("\x11");
        assert_eq!(terminal.end().code, 0);
    }
}

#[test]
fn a_signal_amid_answers_restores_the_terminal() {
    let _alone = alone();
    for (name, code) in [("TERM", 143), ("HUP", 129), ("INT", 130), ("QUIT", 131)] {
        let long = [("KCACHE_SAMPLING_MAX_TOKENS", "39000")];
        let mut terminal = Terminal::start(home(), (80, 24), &["--no-demo", "--model", "m.gguf"], &long);
        terminal.until("the whole screen", tidy);
        terminal.ask("hello");
        (0..3).for_each(|_| terminal.until_both_go_on());
        terminal.signal(name);
        let ended = terminal.end();
        ended.restored(code);
        assert_eq!(ended.text.trim(), "");
    }
}

/// The switch exists in debug builds alone.
#[cfg(debug_assertions)]
#[test]
fn a_panic_of_the_engine_is_told_and_the_screen_stays_until_it_is_left() {
    const PANIC: &str = "KCACHE_FAULT=engine-panic asked for this panic";
    let _alone = alone();
    let fault = [("KCACHE_FAULT", "engine-panic")];
    let mut terminal = Terminal::start(home(), (120, 30), &["--no-demo", "--model", "m.gguf"], &fault);
    terminal.until("the whole screen", tidy);
    terminal.ask("hello");
    terminal.until_shown(PANIC);
    terminal.until_shown("everything stays readable");
    assert!(LANES.iter().all(|lane| terminal.pane(lane).contains("hello")), "{}", terminal.text());
    // It still listens.
    terminal.leave_input();
    terminal.press("?");
    terminal.until_shown("type to search");
    terminal.press("\x03");
    let ended = terminal.end();
    ended.restored(1);
    let after = &ended.bytes[places(&ended.bytes, LEAVE_SCREEN)[0]..];
    let panic = places(after, PANIC.as_bytes());
    assert!(!panic.is_empty() && ended.text.contains("thread engine"), "{}", ended.text);
    assert!(ended.log.contains(PANIC), "{}", ended.log);
}

#[test]
fn a_first_start_talks_by_itself() {
    let _alone = alone();
    let mut terminal = Terminal::with_default_model((120, 40), &[]);
    terminal.until_shown("Support history");
    let took = terminal.until_both_answer("Answer in one sentence from the text.");
    eprintln!("first words in both lanes {:.1} s after the screen", took.as_secs_f64());
    terminal.until_both_go_on();
    terminal.leave_input();
    terminal.press("q");
    terminal.end().restored(0);
}

#[test]
fn an_idle_dashboard_takes_next_to_no_cpu() {
    let _alone = alone();
    let mut terminal = Terminal::with_default_model((120, 40), &["--no-demo"]);
    terminal.until("the whole screen", tidy);
    thread::sleep(Duration::from_secs(1));
    let pid = terminal.child.process_id().unwrap();
    let (began, before) = (Instant::now(), cpu_seconds(pid));
    thread::sleep(Duration::from_secs(3));
    let share = (cpu_seconds(pid) - before) / began.elapsed().as_secs_f64();
    eprintln!("an idle dashboard takes {:.1} % of a core", share * 100.0);
    assert!(share < 0.2, "{share}");
    terminal.press("\x03");
    terminal.end().restored(0);
}

#[test]
fn chat_shows_how_far_a_long_document_is_and_is_interrupted() {
    let _alone = alone();
    let document: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/meetings.md");
    let arguments = ["chat", "Who is the chair?", "--file", document.to_str().unwrap()];
    let mut terminal = Terminal::with_default_model((80, 24), &arguments);
    terminal.until_shown("reading: ");
    terminal.press("\x03");
    let ended = terminal.end();
    assert_eq!(ended.code, 130, "{}", ended.text);
    assert!(!ended.text.contains("reading"), "{:?}", String::from_utf8_lossy(&ended.bytes));
}

#[test]
fn no_letter_stays_on_the_screen_after_unruly_text_has_scrolled() {
    let _alone = alone();
    let few = [("KCACHE_SAMPLING_MAX_TOKENS", "8")];
    let mut terminal = Terminal::start(home(), (80, 24), &["--no-demo", "--model", "m.gguf"], &few);
    terminal.until("the whole screen", tidy);
    let messages = [
        "ｶﾞｷﾞX ﾊﾟﾋﾟ ﾞ one",
        "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} two",
        "👨\u{200d}👩\u{200d}👧 👍🏽 🇯🇵 ❤\u{fe0f} three",
        "e\u{301} \u{301}x \u{202e}turned\u{202c} a\tb no\u{200b}width four",
    ];
    for (message, last) in messages.iter().zip(["one", "two", "three", "four"]) {
        terminal.press(&format!("\x1b[200~{message}\x1b[201~"));
        terminal.until_shown(last);
        if last == "three" {
            terminal.until_shown("JP");
        }
        terminal.press("\r");
        terminal.until("both ends", |terminal| {
            LANES.iter().all(|lane| {
                let pane = terminal.pane(lane);
                pane.rsplit_once(last).is_some_and(|(_, below)| below.contains("8 tokens"))
            })
        });
    }
    terminal.press("\t\t");
    for _ in 0..30 {
        terminal.press("\x1b[A");
        thread::sleep(Duration::from_millis(30));
    }
    // All the keys have been heard when the first message is at the top.
    terminal.until("the first message", |terminal| terminal.pane(LANES[0]).starts_with("❯ ガ"));
    thread::sleep(Duration::from_millis(300));
    let scrolled = LANES.map(|lane| terminal.pane(lane));
    // Another size and back again: everything is drawn anew.
    terminal.resize(90, 24);
    terminal.until("a whole screen", |terminal| terminal.pane(LANES[0]).lines().count() > 2);
    thread::sleep(Duration::from_millis(300));
    terminal.resize(80, 24);
    thread::sleep(Duration::from_millis(300));
    terminal.until("the same screen drawn anew", |terminal| LANES.map(|lane| terminal.pane(lane)) == scrolled);
    terminal.press("\x11");
    terminal.end().restored(0);
}

#[test]
fn a_locale_that_is_not_utf8_gets_a_screen_in_ascii() {
    let _alone = alone();
    let locale = [("LC_ALL", "ja_JP.EUC-JP")];
    let mut terminal = Terminal::start(home(), (80, 24), &["--no-demo", "--model", "m.gguf"], &locale);
    terminal.until_shown("+- * KCache ");
    terminal.until_shown("enter send");
    assert!(terminal.text().is_ascii(), "{}", terminal.text());
    terminal.press("\x11");
    terminal.end().restored(0);
}

#[test]
fn a_key_keeps_what_was_turned() {
    let _alone = alone();
    let arguments = ["--no-demo", "--model", "m.gguf", "--policy", "kcache:n=64,tail=none"];
    let mut terminal = Terminal::start(home(), (120, 30), &arguments, &[]);
    let file = terminal.home.path().join(".config/kcache/config.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "# mine\n[screen]\nfps = 30 # smooth\n").unwrap();
    terminal.until("the whole screen", tidy);
    terminal.leave_input();
    terminal.press("]");
    terminal.until_shown("n=128");
    terminal.press("S");
    terminal.until_shown("kept in");
    terminal.press("q");
    let ended = terminal.end();
    ended.restored(0);
    let text = fs::read_to_string(ended.home.path().join(".config/kcache/config.toml")).unwrap();
    let expected =
        "# mine\n[screen]\nfps = 30 # smooth\n\n[lanes.kcache]\npolicy = \"kcache:n=128,tail=none,select=head\"\n";
    assert_eq!(text, expected);
}
