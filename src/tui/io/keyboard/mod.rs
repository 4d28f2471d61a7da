//! The terminal's keyboard and mouse. A thread reads what the terminal sends; what it means is made of it here.
//!
//! Reading for ourselves has reasons: a paste whose end never comes must not lock the keyboard, lines that arrive at
//! once must be told from lines that are typed, and a terminal that has gone must be noticed. A reader that waits for
//! the end of a paste inside of a library can do none of that.

mod decoder;
mod sequence;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IsTerminal, PipeReader, PipeWriter},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossterm::event::Event;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
};
use tokio::{sync::mpsc, time::timeout_at};

use decoder::Decoder;

/// What one read takes at most; the kernel gives less.
const READ: usize = 1 << 16;
/// Nobody types so many bytes at once: what follows in a moment belongs to them.
const TYPED: usize = 16;
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
/// The most that is put together so.
const TOGETHER: usize = 1 << 20;
/// How long the thread may take to notice that nobody listens any more.
const END_WITHIN: Duration = Duration::from_millis(100);

/// Keys, mouse and pasted text as they come. While it lives nobody else can read from the terminal; dropping it ends
/// that.
pub struct Keyboard {
    chunks: mpsc::UnboundedReceiver<Vec<u8>>,
    decoder: Decoder,
    /// What has come and was not asked for yet.
    ready: VecDeque<Event>,
    /// Until when what is missing is waited for.
    until: Option<Instant>,
    /// Closing it wakes the thread, which ends then.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Keyboard {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// There is no terminal to read from, or no thread for it.
    pub fn listen() -> io::Result<Self> {
        let terminal = if io::stdin().is_terminal() {
            io::stdin().as_fd().try_clone_to_owned()?
        } else {
            File::open("/dev/tty")?.into()
        };
        let (stopped, stop) = io::pipe()?;
        let (sender, chunks) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name("keyboard".into()).spawn(move || {
            // Ends where the terminal has gone, which whoever listens sees from the channel's end.
            let _ = pass_on(&terminal, &stopped, &sender);
        })?;
        let (decoder, ready) = (Decoder::default(), VecDeque::new());
        Ok(Self { chunks, decoder, ready, until: None, stop: Some(stop), thread: Some(thread) })
    }

    /// What comes next; `None` where the terminal has gone. Nothing is lost where the wait is given up.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let chunk = match self.until {
                None => self.chunks.recv().await?,
                Some(until) => match timeout_at(until.into(), self.chunks.recv()).await {
                    Ok(chunk) => chunk?,
                    Err(_) => {
                        self.until = None;
                        self.ready.extend(self.decoder.give_up());
                        continue;
                    }
                },
            };
            self.ready.extend(self.decoder.take(&chunk));
            self.until = self.decoder.patience().map(|patience| Instant::now() + patience);
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < END_WITHIN {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Passes on what the terminal sends, until it has gone or nobody listens.
fn pass_on(terminal: &OwnedFd, stopped: &PipeReader, to: &mpsc::UnboundedSender<Vec<u8>>) -> Result<(), Errno> {
    loop {
        if wait(&[terminal.as_fd(), stopped.as_fd()], None)?[1] {
            return Ok(());
        }
        let mut bytes = vec![0; READ];
        let mut length = take(terminal, &mut bytes)?;
        // A paste comes in portions: it is told from typing by what follows without a pause.
        while length > TYPED && length < TOGETHER && wait(&[terminal.as_fd()], Some(&MOMENT))?[0] {
            bytes.resize(length + READ, 0);
            match take(terminal, &mut bytes[length..]) {
                Ok(more) => length += more,
                // What came before the end still counts.
                Err(_) => break,
            }
        }
        bytes.truncate(length);
        if to.send(bytes).is_err() {
            return Ok(());
        }
    }
}

/// Reads what is there; at least one byte, or the terminal has gone.
fn take(terminal: &OwnedFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match read(terminal, &mut *bytes) {
            Ok(0) => return Err(Errno::IO),
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Waits for any of them. Whether each has something to read, if only its end.
fn wait(all: &[BorrowedFd<'_>], limit: Option<&Timespec>) -> Result<Vec<bool>, Errno> {
    let mut polled: Vec<PollFd<'_>> = all.iter().map(|one| PollFd::new(one, PollFlags::IN)).collect();
    loop {
        match poll(&mut polled, limit) {
            Ok(_) => return Ok(polled.iter().map(|one| !one.revents().is_empty()).collect()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
