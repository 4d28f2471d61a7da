//! How the dashboard starts and ends: what it is given, the loop that runs meanwhile, and the terminal given back.

mod dashboard;
mod options;
mod saving;

use std::{
    io,
    sync::{Arc, mpsc::SyncSender},
    thread,
};

use tokio::sync::mpsc;

pub use self::options::{Exit, Options, RunError};
use self::{dashboard::Dashboard, saving::Saving};
use super::{
    input::keymap::Keymap,
    io::{
        saved,
        signals::{self, HANGUP},
        store::Store,
        terminal::{self, Screen},
    },
    message::Message,
    state::{State, demo::Demo, workload::Workload},
};
use crate::engine::{Event, Request};

/// Events between engine and screen; when it is full the bridge waits, and the engine drops telemetry.
const EVENTS: usize = 1_024;

/// Carries events from the engine to the dashboard: a thread calls `next` until it returns `None` or nobody listens.
///
/// # Errors
///
/// When no thread can be started.
pub fn bridge(mut next: impl FnMut() -> Option<Event> + Send + 'static) -> io::Result<mpsc::Receiver<Event>> {
    let (sender, receiver) = mpsc::channel(EVENTS);
    thread::Builder::new().name("events".into()).spawn(move || {
        while let Some(event) = next() {
            if sender.blocking_send(event).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

/// Runs the dashboard until the user or a signal ends it. Ops go out through `ops`, events come in through `events`
/// (see [`bridge`]). The engine is asked to shut down; waiting for it is the caller's part.
///
/// # Errors
///
/// Key bindings that cannot be used, or a terminal that does not do what it is told; it is restored.
pub fn run(options: Options, ops: SyncSender<Request>, events: mpsc::Receiver<Event>) -> Result<Exit, RunError> {
    let keymap = Keymap::new(&options.config.keys)?;
    let demo = if options.demo { Demo::bundled()? } else { Demo::default() };
    let mut state = State::new(&options.config, keymap, demo);
    state.workload = Workload::new(Arc::clone(&options.text), options.load.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    terminal::install_panic_hook();
    signals::end_in_any_case()?;
    let screen = Screen::enter(options.config.screen.mouse)?;
    let (store, earlier) = options.sessions.clone().map(Store::open).unzip();
    let saving = Saving::new(store);
    let (ended, sessions) = runtime.block_on(async {
        match Dashboard::new(options, state, screen, ops, saving.clone()) {
            Ok(mut dashboard) => {
                earlier.into_iter().for_each(|earlier| dashboard.take(Message::SessionsRead(earlier)));
                let ended = dashboard.serve(events).await;
                // The engine may be busy or gone; it also ends when its ops have no sender left.
                let _ = dashboard.ops.try_send(Request::Shutdown);
                (ended, saved::sessions(&dashboard.state))
            }
            Err(error) => (Err(error), Vec::new()),
        }
    });
    // A file that is still being read must not hold up the exit.
    runtime.shutdown_background();
    terminal::restore();
    // Also where the terminal has gone away: what was said is not its fault.
    let unsaved = saving.finish(&sessions);
    let (code, engine_error) = match ended {
        // Closing the window is a way to quit.
        Err(error) if terminal::is_gone(&error) => (128 + HANGUP, None),
        ended => ended?,
    };
    Ok(Exit { code, engine_error, panics: terminal::take_panics(), unsaved })
}
