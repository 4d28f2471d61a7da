//! Saving the sessions for the next run: seldom, and on a thread of its own that waits for the disk.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use crate::tui::{
    io::{
        saved::{self, SavedSession},
        store::Store,
    },
    message::Message,
    state::State,
};

/// Sessions are saved at most so often.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What has to be saved.
#[derive(Clone, Default)]
pub(super) struct Saving {
    store: Option<Arc<Mutex<Store>>>,
    /// Whether something was said that is not in the file.
    pub(super) wanted: bool,
    /// Whether a thread is saving now.
    under_way: bool,
    last: Option<Instant>,
    /// What went wrong the last time; it is said once.
    error: Option<String>,
}

impl Saving {
    /// Saves to `store`; without one nothing is saved.
    pub(super) fn new(store: Option<Store>) -> Self {
        Self { store: store.map(|store| Arc::new(Mutex::new(store))), ..Self::default() }
    }

    /// Saves the sessions where an answer has ended since the last time, and has the result sent to `answers`.
    pub(super) fn save(&mut self, state: &State, answers: &UnboundedSender<Message>) {
        let Some(store) = &self.store else { return };
        if !self.wanted || self.under_way || self.last.is_some_and(|last| last.elapsed() < SAVE_EVERY) {
            return;
        }
        (self.wanted, self.under_way, self.last) = (false, true, Some(Instant::now()));
        let (store, answers, sessions) = (Arc::clone(store), answers.clone(), saved::sessions(state));
        tokio::task::spawn_blocking(move || {
            let result = lock(&store).save(&sessions);
            // Nobody listens any more only when the dashboard has ended.
            let _ = answers.send(Message::SessionsSaved(result));
        });
    }

    /// Notes how that went; whether it is to be said: the same error is not repeated after every answer.
    pub(super) fn saved(&mut self, result: &Result<(), String>) -> bool {
        self.under_way = false;
        let error = result.clone().err();
        std::mem::replace(&mut self.error, error.clone()) != error
    }

    /// Saves at the end; why that failed, where it did.
    pub(super) fn finish(&self, sessions: &[SavedSession]) -> Option<String> {
        self.store.as_ref().and_then(|store| lock(store).finish(sessions).err())
    }
}

/// The file of sessions, for this thread or one that saves meanwhile.
fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    // A panic amid saving leaves the file as it was or whole.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}
