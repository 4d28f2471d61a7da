//! The dashboard in a real pseudo-terminal: this test binary starts itself again in one, with [`child`] as what runs.

use std::{
    io::{Read, Write},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        mpsc::{self, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::{Options, bridge, fixture, run};
use crate::{config::Config, engine::Op};

const MODE: &str = "KCACHE_TEST_DASHBOARD";
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the dashboard on the scripted events where the environment asks for it; otherwise there is nothing to test.
#[test]
fn child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let (ops, heard) = sync_channel::<Op>(64);
    let (events, script) = mpsc::channel();
    for event in fixture::events() {
        events.send(event).unwrap();
    }
    let worker = thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let _kept_open = events;
            while let Ok(op) = heard.recv() {
                match op {
                    Op::Shutdown => break,
                    Op::Stop { .. } if mode == "panic" => panic!("the engine thread panics on purpose"),
                    _ => {}
                }
            }
        })
        .unwrap();
    let receiver = bridge(move || script.recv().ok()).unwrap();
    let options =
        Options { config: Config::default(), demo: false, documents: Vec::new(), pictures: PathBuf::from("/nowhere") };
    let exit = run(options, ops, receiver).unwrap();
    drop(worker.join());
    println!("{} panics", exit.panics.len());
    for panic in &exit.panics {
        println!("{panic}");
    }
    std::process::exit(exit.code.into());
}

struct Dashboard {
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    writer: Box<dyn Write + Send>,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Dashboard {
    fn start(mode: &str) -> Self {
        let size = PtySize { rows: 30, cols: 100, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
        command.args(["tui::pty_tests::child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(MODE, mode);
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(30, 100, 0)));
        let (mut reader, seen) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&parser));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..count]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { master: pair.master, child, writer, parser }
    }

    fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    fn wait_for(&self, words: &str) -> Duration {
        let began = Instant::now();
        while !self.text().contains(words) {
            assert!(began.elapsed() < PATIENCE, "no `{words}` on\n{}", self.text());
            thread::sleep(Duration::from_millis(2));
        }
        began.elapsed()
    }

    fn press(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    /// Waits for the end; the terminal has to be as it was.
    fn ends_with(mut self, code: u32) -> String {
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.text()),
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.exit_code(), code, "{}", self.text());
        // What was written last may still be on its way.
        let restored =
            |screen: &vt100::Screen| !screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor();
        while !restored(self.parser.lock().unwrap().screen()) {
            assert!(began.elapsed() < PATIENCE, "the terminal was not restored");
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(50));
        self.text()
    }
}

#[test]
fn it_talks_resizes_and_quits_and_the_terminal_is_restored() {
    let mut dashboard = Dashboard::start("plain");
    dashboard.wait_for("Support history");
    dashboard.wait_for("KCache");
    dashboard.press("what about the fan");
    dashboard.wait_for("what about the fan");
    dashboard.press("\x1b[200~ and\nthe motor\x1b[201~");
    dashboard.wait_for("the motor");
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    dashboard.master.resize(size).unwrap();
    dashboard.parser.lock().unwrap().screen_mut().set_size(24, 80);
    dashboard.press("\r");
    dashboard.wait_for("Support");
    dashboard.press("\x11");
    dashboard.ends_with(0);
}

#[test]
fn a_signal_restores_the_terminal() {
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let dashboard = Dashboard::start("plain");
        dashboard.wait_for("Support history");
        let pid = dashboard.child.process_id().unwrap().to_string();
        assert!(Command::new("kill").args([format!("-{signal}"), pid]).status().unwrap().success());
        dashboard.ends_with(code);
    }
}

#[test]
fn a_panic_of_the_engine_leaves_the_screen_until_it_is_left() {
    let mut dashboard = Dashboard::start("panic");
    dashboard.wait_for("Support history");
    dashboard.press("\x18");
    dashboard.wait_for("everything stays readable");
    assert!(dashboard.parser.lock().unwrap().screen().alternate_screen());
    dashboard.wait_for("Marta");
    dashboard.press("\x03");
    let text = dashboard.ends_with(1);
    assert!(text.contains("1 panics") && text.contains("on purpose"), "{text}");
}
