//! The real program on a real pseudo-terminal, from its first frame to the shell's prompt after it.
#![cfg(unix)]

#[path = "support/tiny.rs"]
mod tiny;

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kcache::model::source;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tempfile::TempDir;
use tiny::Tiny;

/// How long anything may take before the test fails; far more than it does take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What takes the terminal back.
const LEAVE_SCREEN: &[u8] = b"\x1b[?1049l";
const PASTE_OFF: &[u8] = b"\x1b[?2004l";
const SHOW_CURSOR: &[u8] = b"\x1b[?25h";
const HIDE_CURSOR: &[u8] = b"\x1b[?25l";

/// One program at a time: two would take each other's cores, and one of them measures what it uses.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A home of its own, with a small model that talks for ever in it.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let model = Tiny { context: 40_000, endless: true, ..Tiny::default() }.temp();
    model.persist(home.path().join("m.gguf")).unwrap();
    home
}

/// What came out of the terminal so far.
struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

/// The program on a terminal.
struct Terminal {
    home: TempDir,
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    writer: Box<dyn Write + Send>,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
    /// The terminal's settings before the program began.
    before: String,
}

impl Terminal {
    fn start(home: TempDir, (columns, rows): (u16, u16), arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let pair = native_pty_system().openpty(size(columns, rows)).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_kcache"));
        command.args(arguments);
        command.cwd(home.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KCACHE_") || name.to_string_lossy().starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        for name in ["NO_COLOR", "COLORTERM", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command.env("HOME", home.path());
        for (name, value) in environment {
            command.env(name, value);
        }
        let before = format!("{:?}", pair.master.get_termios().unwrap());
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let seen = Arc::new(Mutex::new(Seen { parser: vt100::Parser::new(rows, columns, 0), bytes: Vec::new() }));
        let (mut output, shared) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&seen));
        // Ends when the program has closed its side.
        let reader = thread::spawn(move || {
            let mut bytes = [0; 1 << 14];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut seen = shared.lock().unwrap();
                seen.parser.process(&bytes[..count]);
                seen.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { home, master: pair.master, child, writer, seen, reader, before }
    }

    /// The dashboard on the default model, which is fetched where it is missing.
    fn with_default_model(size: (u16, u16), arguments: &[&str]) -> Self {
        let model = source::ensure_default(&mut |_| {}, &AtomicBool::new(false)).unwrap();
        let folder = model.parent().unwrap().to_str().unwrap();
        let environment = [("KCACHE_DATA_DIR", folder), ("KCACHE_SAMPLING_MAX_TOKENS", "2000")];
        Self::start(tempfile::tempdir().unwrap(), size, arguments, &environment)
    }

    fn text(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    fn has(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    #[track_caller]
    fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "in vain waited for: {what}\n{}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    }

    #[track_caller]
    fn until_shown(&self, words: &str) -> Duration {
        self.until(words, |terminal| terminal.has(words))
    }

    fn press(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    /// Types a message and sends it.
    #[track_caller]
    fn ask(&mut self, question: &str) {
        self.press(question);
        self.until_shown(question);
        self.press("\r");
    }

    /// Ends a word of commands: what is typed no longer goes into the message.
    #[track_caller]
    fn leave_input(&mut self) {
        self.press("\x1b");
        self.until("the keys of another pane", |terminal| !terminal.has("enter send"));
    }

    fn resize(&self, columns: u16, rows: u16) {
        // What is drawn for the new size must not be read as of the old one.
        let mut seen = self.seen.lock().unwrap();
        self.master.resize(size(columns, rows)).unwrap();
        seen.parser.screen_mut().set_size(rows, columns);
    }

    /// The text of the pane with this title, line by line; nothing while it is not on the screen.
    fn pane(&self, title: &str) -> String {
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        let (rows, columns) = screen.size();
        let cell = |row, column| screen.cell(row, column).map_or("", |cell| cell.contents());
        let line = |row, from, to| {
            (from..to).map(|column| Some(cell(row, column)).filter(|text| !text.is_empty()).unwrap_or(" ")).collect()
        };
        let corner = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).find(|&(row, column)| {
            let start: String = line(row, column, columns);
            cell(row, column) == "╭" && start.starts_with(&format!("╭─ {title} "))
        });
        let Some((top, left)) = corner else { return String::new() };
        let right = (left..columns).find(|&column| cell(top, column) == "╮").unwrap_or(columns);
        let inside = (top + 1..rows).take_while(|&row| cell(row, left) != "╰");
        inside.map(|row| format!("{}\n", line(row, left + 1, right).trim_end())).collect()
    }

    /// What a lane has answered so far: what stands below the question, which has to be on the screen.
    fn answer(&self, lane: &str, question: &str) -> String {
        let pane = self.pane(lane);
        // The question may be wrapped.
        let last = question.split_whitespace().last().unwrap_or_default();
        let below = pane.rsplit_once(last).map_or("", |(_, below)| below);
        let progress = |line: &&str| {
            ["waits for its turn", "reads"].contains(&line.trim()) || line.trim_start().starts_with("prefill")
        };
        below.lines().filter(|line| !progress(line)).collect()
    }

    /// Waits until both lanes have begun to answer.
    #[track_caller]
    fn until_both_answer(&self, question: &str) -> Duration {
        let mut answered = [false; 2];
        self.until("words of both lanes", |terminal| {
            for (answered, lane) in answered.iter_mut().zip(LANES) {
                *answered |= terminal.answer(lane, question).chars().filter(|c| c.is_alphabetic()).count() >= 5;
            }
            answered == [true; 2]
        })
    }

    /// Waits until something more stands in both transcripts.
    #[track_caller]
    fn until_both_go_on(&self) {
        let before = LANES.map(|lane| self.pane(lane));
        self.until("more words of both lanes", |terminal| {
            LANES.iter().zip(&before).all(|(lane, before)| terminal.pane(lane) != *before)
        });
    }

    fn signal(&self, name: &str) {
        let pid = self.child.process_id().unwrap().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
    }

    /// Waits for the program's end and everything it wrote.
    #[track_caller]
    fn end(mut self) -> Ended {
        let began = Instant::now();
        let code = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status.exit_code(),
                None if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(5)),
                None => {
                    self.child.kill().unwrap();
                    panic!("it does not end\n{}", self.text());
                }
            }
        };
        let settings = format!("{:?}", self.master.get_termios().unwrap());
        while !self.reader.is_finished() {
            assert!(began.elapsed() < PATIENCE, "the terminal is still open");
            thread::sleep(Duration::from_millis(5));
        }
        let seen = self.seen.lock().unwrap();
        let (screen, bytes) = (seen.parser.screen(), seen.bytes.clone());
        assert_eq!(settings, self.before, "the terminal's settings are what they were");
        assert!(!screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        let log = fs::read_to_string(self.home.path().join(".local/state/kcache/kcache.log")).unwrap_or_default();
        Ended { code, text: screen.contents(), bytes, log }
    }
}

/// A program that has ended.
struct Ended {
    code: u32,
    /// What is left on the screen: what was written after the dashboard.
    text: String,
    bytes: Vec<u8>,
    log: String,
}

impl Ended {
    /// It ended with this code, and gave the terminal back once and no more.
    #[track_caller]
    fn restored(&self, code: u32) {
        assert_eq!(self.code, code, "{}", self.text);
        for once in [LEAVE_SCREEN, PASTE_OFF] {
            assert_eq!(places(&self.bytes, once).len(), 1, "{once:?}");
        }
        // While it runs the cursor comes and goes with the input line; what counts is that it is there in the end.
        let after = &self.bytes[places(&self.bytes, LEAVE_SCREEN)[0]..];
        assert!(!places(after, SHOW_CURSOR).is_empty() && places(after, HIDE_CURSOR).is_empty());
    }
}

const LANES: [&str; 2] = ["● KCache", "○ KV"];

fn size(columns: u16, rows: u16) -> PtySize {
    PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }
}

fn places(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter(|(_, window)| *window == wanted).map(|(at, _)| at).collect()
}

/// Whether every frame on the screen is whole: as many corners of each kind, and a line of keys at the bottom.
fn tidy(terminal: &Terminal) -> bool {
    let text = terminal.text();
    let count = |corner| text.chars().filter(|&c| c == corner).count();
    let corners = ['╭', '╮', '╰', '╯'].map(count);
    let rows = terminal.seen.lock().unwrap().parser.screen().size().0;
    corners[0] > 0
        && corners.iter().all(|&corner| corner == corners[0])
        && text.lines().count() == usize::from(rows)
        && text.lines().last().is_some_and(|line| line.contains("enter send"))
}

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
    let raw = format!("{:?}", terminal.master.get_termios().unwrap());
    assert_ne!(raw, terminal.before, "keys come one by one");

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
fn a_signal_amid_answers_restores_the_terminal() {
    let _alone = alone();
    for (name, code) in [("TERM", 143), ("HUP", 129)] {
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
