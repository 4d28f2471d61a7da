//! The terminal: entered once, and restored exactly once, whichever way the program ends; in between it is given away
//! while the program is suspended.
//!
//! Exit, error, signal and a panic of the thread that draws all come through [`restore`]. A panic in another thread
//! (the engine's) leaves the screen alone: its text is kept, logged, and printed after the screen has gone.

use std::{
    cell::Cell,
    io::{self, BufWriter, Stdout, Write},
    panic,
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::Duration,
};

use crossterm::{
    cursor::{Hide, Show},
    event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture},
    execute,
    terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};
use rustix::io::Errno;

use super::clipboard::{self, Way};

/// Whether the terminal is in our hands.
static ENTERED: AtomicBool = AtomicBool::new(false);
/// Who draws, and what other threads had to say when they panicked.
static WATCH: Mutex<Watch> = Mutex::new(Watch { drawing: None, panics: Vec::new() });

struct Watch {
    drawing: Option<ThreadId>,
    panics: Vec<String>,
}

/// The terminal in our hands. Dropping it restores what was there.
pub struct Screen {
    pub terminal: Terminal<CrosstermBackend<Counted>>,
    bytes: Rc<Cell<u64>>,
    mouse: bool,
}

impl Screen {
    /// Takes the terminal: raw mode, alternate screen, bracketed paste, and the mouse where it is asked for.
    ///
    /// # Errors
    ///
    /// When the terminal does not do what it is told; then it is as before.
    pub fn enter(mouse: bool) -> io::Result<Self> {
        watch().drawing = Some(thread::current().id());
        let bytes = Rc::new(Cell::new(0));
        match take(mouse).and_then(|()| fresh(&bytes)) {
            Ok(terminal) => Ok(Self { terminal, bytes, mouse }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Takes the terminal again, after somebody else has had it: nothing of what it shows is known any more.
    ///
    /// # Errors
    ///
    /// When the terminal does not do what it is told.
    pub fn enter_again(&mut self) -> io::Result<()> {
        take(self.mouse)?;
        execute!(io::stdout(), Clear(ClearType::All))?;
        // `Terminal::clear` asks where the cursor is, and the answer would have to come past the reader of keys.
        self.terminal = fresh(&self.bytes)?;
        Ok(())
    }

    /// Hands a text to the terminal's clipboard. What that writes is no part of what drawing costs.
    ///
    /// # Errors
    ///
    /// When the terminal cannot be written to.
    pub fn copy(&mut self, text: &str, way: Way) -> io::Result<()> {
        let drawn = self.bytes.get();
        let terminal = self.terminal.backend_mut();
        terminal.write_all(clipboard::sequence(text, way).as_bytes())?;
        Write::flush(terminal)?;
        self.bytes.set(drawn);
        Ok(())
    }

    /// Bytes written to the terminal since this was asked last.
    pub fn take_bytes(&self) -> u64 {
        self.bytes.take()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// A terminal of which nothing is drawn yet.
fn fresh(bytes: &Rc<Cell<u64>>) -> io::Result<Terminal<CrosstermBackend<Counted>>> {
    let writer = Counted { inner: BufWriter::with_capacity(1 << 16, io::stdout()), bytes: Rc::clone(bytes) };
    Terminal::new(CrosstermBackend::new(writer))
}

fn take(mouse: bool) -> io::Result<()> {
    ENTERED.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide)?;
    if mouse {
        execute!(io::stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// Gives the terminal back, from a thread that has nothing else to do, and waits no longer than this: a terminal that
/// takes nothing any more would be waited for without end.
pub fn restore_within(limit: Duration) {
    if ENTERED.load(Ordering::SeqCst) {
        // This does not go through what is written, so it can be done in any case.
        let _ = disable_raw_mode();
    }
    let (done, over) = mpsc::channel();
    let restored = thread::Builder::new().spawn(move || {
        restore();
        let _ = done.send(());
    });
    if restored.is_ok() {
        let _ = over.recv_timeout(limit);
    }
}

/// Whether an error says that the terminal has gone: its window was closed.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Gives the terminal back. Whoever comes first does it; nobody does it twice.
pub fn restore() {
    if !ENTERED.swap(false, Ordering::SeqCst) {
        return;
    }
    // Every step is tried, whatever became of those before it: there is nobody left to tell.
    let mut out = io::stdout();
    let _ = execute!(out, DisableMouseCapture);
    let _ = execute!(out, DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Has panics restore the terminal before they are printed. What hook there is stays, behind this one.
pub fn install_panic_hook() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let elsewhere = watch().drawing.is_some_and(|drawing| drawing != thread::current().id());
        if elsewhere && ENTERED.load(Ordering::SeqCst) {
            let name = thread::current().name().unwrap_or("unnamed").to_owned();
            tracing::error!(thread = name, "{info}");
            watch().panics.push(format!("thread {name}: {info}"));
            return;
        }
        restore();
        tracing::error!("{info}");
        before(info);
    }));
}

/// What other threads said when they panicked, to be printed now that the screen is gone.
pub fn take_panics() -> Vec<String> {
    std::mem::take(&mut watch().panics)
}

fn watch() -> std::sync::MutexGuard<'static, Watch> {
    // A panic while it was held leaves a list of strings, which is as good as before.
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard output that counts what goes through it. What comes when the terminal is no longer ours is dropped: a
/// `Terminal` that is dropped shows the cursor once more, and where it cannot, it says so on a stderr that may have gone
/// with the window, which is a panic.
pub struct Counted {
    inner: BufWriter<Stdout>,
    bytes: Rc<Cell<u64>>,
}

impl Write for Counted {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if !ENTERED.load(Ordering::SeqCst) {
            return Ok(buf.len());
        }
        let written = self.inner.write(buf)?;
        self.bytes.set(self.bytes.get() + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !ENTERED.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.inner.flush()
    }
}
