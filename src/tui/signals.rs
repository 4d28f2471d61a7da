//! The signals that the dashboard hears: those that end it, and those that stop it and let it go on.

use std::io;

use signal_hook::consts::{SIGCONT, SIGTSTP};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

/// The number of the signal of a terminal that has gone.
pub const HANGUP: u8 = 1;
const INTERRUPT: u8 = 2;
const TERMINATE: u8 = 15;

/// What a signal asks for.
pub enum Heard {
    /// To end; the number of the signal.
    End(u8),
    /// To stop until told to go on.
    Stop,
    /// To go on.
    Continue,
}

/// The signals that the dashboard hears.
pub struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    stop: Signal,
    go_on: Signal,
}

impl Signals {
    /// Hears them from now on: none of them has its own effect any more.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            stop: signal(SignalKind::from_raw(SIGTSTP))?,
            go_on: signal(SignalKind::from_raw(SIGCONT))?,
        })
    }

    /// What the next one asks for.
    pub async fn next(&mut self) -> Heard {
        select! {
            _ = self.terminate.recv() => Heard::End(TERMINATE),
            _ = self.interrupt.recv() => Heard::End(INTERRUPT),
            _ = self.hangup.recv() => Heard::End(HANGUP),
            _ = self.stop.recv() => Heard::Stop,
            _ = self.go_on.recv() => Heard::Continue,
        }
    }
}
