//! The built program on a pseudo-terminal: what it writes is read as a terminal would, keys and signals go to it.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kcache::model::source;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tempfile::TempDir;

use crate::tiny::Tiny;

/// How long anything may take before the test fails; far more than it does take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What takes the terminal back.
pub const LEAVE_SCREEN: &[u8] = b"\x1b[?1049l";
pub const PASTE_OFF: &[u8] = b"\x1b[?2004l";
pub const SHOW_CURSOR: &[u8] = b"\x1b[?25h";
pub const HIDE_CURSOR: &[u8] = b"\x1b[?25l";

/// One program at a time: two would take each other's cores, and one of them measures what it uses.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A home of its own, with a small model that talks for ever in it.
pub fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let model = Tiny { context: 40_000, endless: true, ..Tiny::default() }.temp();
    model.persist(home.path().join("m.gguf")).unwrap();
    home
}

/// The program with these arguments in a home of its own.
pub fn command(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> CommandBuilder {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_kcache"));
    command.args(arguments);
    command.cwd(home);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KCACHE_") || name.to_string_lossy().starts_with("XDG_") {
            command.env_remove(name);
        }
    }
    for name in ["NO_COLOR", "COLORTERM", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color");
    command.env("LC_ALL", "C.UTF-8");
    command.env("HOME", home);
    for (name, value) in environment {
        command.env(name, value);
    }
    command
}

/// What came out of the terminal so far.
pub struct Seen {
    pub parser: vt100::Parser,
    pub bytes: Vec<u8>,
}

/// The program on a terminal.
pub struct Terminal {
    pub home: TempDir,
    pub master: Box<dyn MasterPty + Send>,
    pub child: Box<dyn Child + Send + Sync>,
    pub writer: Box<dyn Write + Send>,
    pub seen: Arc<Mutex<Seen>>,
    pub reader: JoinHandle<()>,
    /// The terminal's settings before the program began.
    pub before: String,
}

impl Terminal {
    pub fn start(home: TempDir, (columns, rows): (u16, u16), arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let pair = native_pty_system().openpty(size(columns, rows)).unwrap();
        let command = command(home.path(), arguments, environment);
        let before = format!("{:?}", pair.master.get_termios().unwrap());
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let seen = Arc::new(Mutex::new(Seen { parser: vt100::Parser::new(rows, columns, 0), bytes: Vec::new() }));
        let (mut output, shared) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&seen));
        // Ends when the program has closed its side.
        let reader = thread::spawn(move || {
            let (mut bytes, mut held) = ([0; 1 << 14], Vec::new());
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut seen = shared.lock().unwrap();
                seen.parser.process(&writable(&mut held, &bytes[..count]));
                seen.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { home, master: pair.master, child, writer, seen, reader, before }
    }

    /// The dashboard on the default model, which is fetched where it is missing.
    pub fn with_default_model(size: (u16, u16), arguments: &[&str]) -> Self {
        let model = source::ensure_default(&mut |_| {}, &AtomicBool::new(false)).unwrap();
        let folder = model.parent().unwrap().to_str().unwrap();
        let environment = [("KCACHE_DATA_DIR", folder), ("KCACHE_SAMPLING_MAX_TOKENS", "2000")];
        Self::start(tempfile::tempdir().unwrap(), size, arguments, &environment)
    }

    /// The terminal's settings.
    pub fn settings(&self) -> String {
        format!("{:?}", self.master.get_termios().unwrap())
    }

    pub fn text(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    pub fn has(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    #[track_caller]
    pub fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "in vain waited for: {what}\n{}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    }

    #[track_caller]
    pub fn until_shown(&self, words: &str) -> Duration {
        self.until(words, |terminal| terminal.has(words))
    }

    pub fn press(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    /// Types a message and sends it.
    #[track_caller]
    pub fn ask(&mut self, question: &str) {
        self.press(question);
        self.until_shown(question);
        self.press("\r");
    }

    /// Ends a word of commands: what is typed no longer goes into the message.
    #[track_caller]
    pub fn leave_input(&mut self) {
        self.press("\x1b");
        self.until("the keys of another pane", |terminal| !terminal.has("enter send"));
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        // What is drawn for the new size must not be read as of the old one.
        let mut seen = self.seen.lock().unwrap();
        self.master.resize(size(columns, rows)).unwrap();
        seen.parser.screen_mut().set_size(rows, columns);
    }

    /// The text of the pane with this title, line by line; nothing while it is not on the screen.
    pub fn pane(&self, title: &str) -> String {
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
    pub fn answer(&self, lane: &str, question: &str) -> String {
        let pane = self.pane(lane);
        // The question may be wrapped.
        let last = question.split_whitespace().last().unwrap_or_default();
        let below = pane.rsplit_once(last).map_or("", |(_, below)| below);
        let progress = |line: &&str| {
            let line = line.trim();
            line == "reads" || ["waits for its turn", "prefill"].iter().any(|words| line.starts_with(words))
        };
        below.lines().filter(|line| !progress(line)).collect()
    }

    /// Waits until both lanes have begun to answer.
    #[track_caller]
    pub fn until_both_answer(&self, question: &str) -> Duration {
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
    pub fn until_both_go_on(&self) {
        let before = LANES.map(|lane| self.pane(lane));
        self.until("more words of both lanes", |terminal| {
            LANES.iter().zip(&before).all(|(lane, before)| terminal.pane(lane) != *before)
        });
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.process_id().unwrap().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
    }

    /// Waits for the program's end and everything it wrote.
    #[track_caller]
    pub fn end(mut self) -> Ended {
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
        let settings = self.settings();
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
        let text = screen.contents();
        drop(seen);
        Ended { code, text, bytes, log, home: self.home }
    }
}

/// What comes out, with another sign of one cell in place of U+FFFD: a terminal shows it, but the emulator leaves it out
/// without moving on, and everything to the right of it would stand in other columns. `held` keeps the beginning of one
/// whose end has not come yet.
fn writable(held: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    const UNKNOWN: &[u8] = "\u{fffd}".as_bytes();
    let mut all = std::mem::take(held);
    all.extend_from_slice(bytes);
    let begun = (1..UNKNOWN.len()).rev().find(|&length| all.ends_with(&UNKNOWN[..length])).unwrap_or(0);
    held.extend(all.drain(all.len() - begun..));
    for at in places(&all, UNKNOWN) {
        all[at..at + UNKNOWN.len()].copy_from_slice("▯".as_bytes());
    }
    all
}

/// A program that has ended.
pub struct Ended {
    pub code: u32,
    /// What is left on the screen: what was written after the dashboard.
    pub text: String,
    pub bytes: Vec<u8>,
    pub log: String,
    /// Where it lived, for the next one.
    pub home: TempDir,
}

impl Ended {
    /// It ended with this code, and gave the terminal back once and no more.
    #[track_caller]
    pub fn restored(&self, code: u32) {
        assert_eq!(self.code, code, "{}", self.text);
        for once in [LEAVE_SCREEN, PASTE_OFF] {
            assert_eq!(places(&self.bytes, once).len(), 1, "{once:?}");
        }
        // While it runs the cursor comes and goes with the input line; what counts is that it is there in the end.
        let after = &self.bytes[places(&self.bytes, LEAVE_SCREEN)[0]..];
        assert!(!places(after, SHOW_CURSOR).is_empty() && places(after, HIDE_CURSOR).is_empty());
    }
}

pub const LANES: [&str; 2] = ["● KCache", "○ KV"];

pub fn size(columns: u16, rows: u16) -> PtySize {
    PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }
}

pub fn places(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter(|(_, window)| *window == wanted).map(|(at, _)| at).collect()
}

/// Whether every frame on the screen is whole: as many corners of each kind, and a line of keys at the bottom.
pub fn tidy(terminal: &Terminal) -> bool {
    let text = terminal.text();
    let count = |corner| text.chars().filter(|&c| c == corner).count();
    let corners = ['╭', '╮', '╰', '╯'].map(count);
    let rows = terminal.seen.lock().unwrap().parser.screen().size().0;
    corners[0] > 0
        && corners.iter().all(|&corner| corner == corners[0])
        && text.lines().count() == usize::from(rows)
        && text.lines().last().is_some_and(|line| line.contains("enter send"))
}
