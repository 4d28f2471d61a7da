//! Ctrl-C and SIGTERM for commands that have something to finish. The first signal asks the command to end, and the second
//! ends the program. If the command does not end soon, the first one does so too: a step or a template may take very long.

use std::{
    io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// How long whoever works may take to notice that it was asked to end, and to end.
const END_WITHIN: Duration = Duration::from_millis(1_500);

/// Watches for as long as the flag is held. It becomes true at the first signal; whoever works looks at it.
pub fn watch() -> io::Result<Arc<AtomicBool>> {
    let asked = Arc::default();
    listen(&asked, |asked: &AtomicBool, _| asked.store(true, Ordering::Relaxed))?;
    Ok(asked)
}

/// The same for a command whose exit code says which signal it was: 0 before one came, then its number.
pub fn signal() -> io::Result<Arc<AtomicU8>> {
    let number = Arc::default();
    listen(&number, |number: &AtomicU8, signal| number.store(signal, Ordering::Relaxed))?;
    Ok(number)
}

fn listen<T: Send + Sync + 'static>(listener: &Arc<T>, tell: fn(&T, u8)) -> io::Result<()> {
    let listener = Arc::downgrade(listener);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    // Not joined: it waits for signals until the program ends.
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let mut number = signals.next().await;
            // What was watched is done; whoever came after it has its own listener.
            let Some(listening) = listener.upgrade() else { return };
            tell(&listening, number);
            drop(listening);
            tokio::select! {
                again = signals.next() => number = again,
                () = tokio::time::sleep(END_WITHIN) => tracing::warn!("ended amid work that was not done in time"),
            }
            if listener.strong_count() > 0 {
                // As shells report it.
                process::exit(i32::from(128 + number));
            }
        });
    })?;
    Ok(())
}

const INTERRUPT: u8 = 2;

#[cfg(unix)]
const TERMINATE: u8 = 15;

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => TERMINATE,
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> u8 {
        self.0.recv().await;
        INTERRUPT
    }
}
