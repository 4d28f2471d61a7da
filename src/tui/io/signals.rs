//! The signals that the dashboard hears: those that end it, those that stop it and let it go on, and that of a terminal
//! with another size.

use std::{
    io, process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use signal_hook::consts::{SIGCONT, SIGTSTP};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use super::terminal;

/// The number of the signal of a terminal that has gone.
pub const HANGUP: u8 = 1;
/// The number of the signal of ctrl-c.
pub const INTERRUPT: u8 = 2;
/// The number of the signal of ctrl-\.
pub const QUIT: u8 = 3;
const TERMINATE: u8 = 15;

/// How long the dashboard may take to end after a signal; then the process ends as it is.
const END_WITHIN: Duration = Duration::from_millis(1_700);

/// Whether the dashboard stays in spite of a signal that it has heard.
static STAY: AtomicBool = AtomicBool::new(false);

/// The signal that was heard was meant for somebody else: it does not end the process either.
pub fn stay() {
    STAY.store(true, Ordering::SeqCst);
}

/// What a signal asks for.
pub enum Heard {
    /// To end; the number of the signal.
    End(u8),
    /// To stop until told to go on.
    Stop,
    Continue,
    /// To look how large the terminal is now.
    Resized,
}

/// The signals that the dashboard hears.
pub struct Signals {
    ends: Ends,
    stop: Signal,
    go_on: Signal,
    resized: Signal,
}

impl Signals {
    /// Hears them from now on: none of them has its own effect any more.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            ends: Ends::new()?,
            stop: signal(SignalKind::from_raw(SIGTSTP))?,
            go_on: signal(SignalKind::from_raw(SIGCONT))?,
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// What the next one asks for.
    pub async fn next(&mut self) -> Heard {
        select! {
            number = self.ends.next() => Heard::End(number),
            _ = self.stop.recv() => Heard::Stop,
            _ = self.go_on.recv() => Heard::Continue,
            _ = self.resized.recv() => Heard::Resized,
        }
    }
}

/// Those that ask to end.
struct Ends {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> u8 {
        select! {
            _ = self.terminate.recv() => TERMINATE,
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.quit.recv() => QUIT,
            _ = self.hangup.recv() => HANGUP,
        }
    }
}

/// Ends the process a while after a signal asked for it, whatever its other threads are busy with: a terminal that
/// takes nothing any more, or a disk. Where the dashboard ends by itself this is never seen.
pub fn end_in_any_case() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut ends = {
        let _inside = runtime.enter();
        Ends::new()?
    };
    // Not joined: it waits until the process ends.
    thread::Builder::new().name("signals".into()).spawn(move || {
        let number = runtime.block_on(async {
            let mut number = ends.next().await;
            loop {
                // Somebody who asks again does not want to wait.
                let again = select! {
                    () = sleep(END_WITHIN) => None,
                    again = ends.next() => Some(again),
                };
                let stays = matches!(number, INTERRUPT | QUIT) && STAY.swap(false, Ordering::SeqCst);
                number = match again {
                    again if !stays => break again.unwrap_or(number),
                    Some(next) => next,
                    None => ends.next().await,
                };
            }
        });
        terminal::restore_within(Duration::from_millis(100));
        process::exit(i32::from(128 + number));
    })?;
    Ok(())
}
