//! The loop: keys first, then signals, then what the engine says, then a frame.
//!
//! One thread, one select. Events of the engine come through a bounded channel and are taken in portions, so that a key
//! never waits behind them; a frame is drawn when something has changed, at most so often per second, and always shows
//! the last state. A key is drawn at once.

use std::{
    collections::VecDeque,
    fs,
    future::pending,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossterm::event::Event as TerminalEvent;
use signal_hook::{consts::SIGTSTP, low_level::emulate_default_handler};
use thiserror::Error;
use tokio::{select, sync::mpsc, time::sleep};

use crate::{
    bench::WorkloadSpec,
    config::{Borders, Config, ThemeName, keep_changed},
    engine::{Event, EventKind, Request},
    model::strftime_now,
};

use super::{
    command::{Command, FilePurpose},
    input::keymap::{Keymap, KeymapError},
    io::{
        clipboard::Way,
        editor::{Draft, Editor},
        keyboard::Keyboard,
        saved,
        signals::{self, HANGUP, Heard, INTERRUPT, QUIT, Signals},
        store::Store,
        terminal::{self, Screen},
    },
    message::Message,
    picture::{self, Palette},
    state::{
        State,
        demo::{Demo, DemoError},
        workload::Loads,
    },
    theme::{TerminalEnv, Theme},
    update::{export, update},
    view::view,
};
use crate::document;

/// Events between engine and screen; when it is full the bridge waits, and the engine drops telemetry.
const EVENTS: usize = 1_024;
/// Events taken in before keys are looked at again.
const PORTION: usize = 256;
/// Sessions are saved at most so often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two frames, also when keys come fast.
const SHORTEST_FRAME: Duration = Duration::from_millis(8);

/// How the dashboard is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Whether to open the demo sessions.
    pub demo: bool,
    /// Documents to open a session about at once.
    pub documents: Vec<PathBuf>,
    /// Tokens of a text to make the prompts of a load of.
    pub text: Arc<[u32]>,
    /// A load to begin with.
    pub load: Option<WorkloadSpec>,
    /// Where sessions wait for the next run; `None` keeps none.
    pub sessions: Option<PathBuf>,
    /// The configuration file to keep settings in; `None` where there is no place for one.
    pub settings: Option<PathBuf>,
    /// The folder for pictures of the screen; created when the first is written.
    pub pictures: PathBuf,
}

/// How the dashboard ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit status for the process: 0, 1 when the engine had failed, 128 + n after signal n.
    pub code: u8,
    /// Why the engine ended, where it ended by itself.
    pub engine_error: Option<String>,
    /// What other threads said when they panicked.
    pub panics: Vec<String>,
    /// Why the sessions could not be saved, where they should have been.
    pub unsaved: Option<String>,
}

/// Why there is no dashboard.
#[derive(Debug, Error)]
pub enum RunError {
    /// `[keys]` cannot be used.
    #[error(transparent)]
    Keymap(#[from] KeymapError),
    /// The demo that the program brings along cannot be read.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The terminal does not do what it is told.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

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
    state.loads = Loads::new(Arc::clone(&options.text), options.load.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    terminal::install_panic_hook();
    signals::end_in_any_case()?;
    let screen = Screen::enter(options.config.screen.mouse)?;
    let (store, earlier) = options.sessions.clone().map(Store::open).unzip();
    let store = store.map(|store| Arc::new(Mutex::new(store)));
    let (ended, sessions) = runtime.block_on(async {
        match Dashboard::new(options, state, screen, ops, store.clone()) {
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
    let unsaved = store.and_then(|store| lock(&store).finish(&sessions).err());
    let (code, engine_error) = match ended {
        // Closing the window is a way to quit.
        Err(error) if terminal::is_gone(&error) => (128 + HANGUP, None),
        ended => ended?,
    };
    Ok(Exit { code, engine_error, panics: terminal::take_panics(), unsaved })
}

/// The file of sessions, for this thread or one that saves meanwhile.
fn lock(store: &Mutex<Store>) -> std::sync::MutexGuard<'_, Store> {
    // A panic amid saving leaves the file as it was or whole.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has to be saved.
#[derive(Default)]
struct Saving {
    store: Option<Arc<Mutex<Store>>>,
    /// Whether something was said that is not in the file.
    wanted: bool,
    /// Whether a thread is saving now.
    under_way: bool,
    last: Option<Instant>,
    /// What went wrong the last time; it is said once.
    error: Option<String>,
}

struct Dashboard {
    state: State,
    saving: Saving,
    screen: Screen,
    theme: (ThemeName, Theme),
    borders: Borders,
    env: TerminalEnv,
    ops: SyncSender<Request>,
    waiting_ops: VecDeque<Request>,
    answers: (mpsc::UnboundedSender<Message>, mpsc::UnboundedReceiver<Message>),
    pictures: PathBuf,
    settings: Option<PathBuf>,
    documents: Vec<PathBuf>,
    frame: Duration,
    began: Instant,
    picture_wanted: bool,
    suspend: bool,
    /// A message to be edited, and the editor that has the terminal.
    draft: Option<Draft>,
    editor: Option<Editor>,
    quit: bool,
}

impl Dashboard {
    fn new(
        options: Options,
        state: State,
        screen: Screen,
        ops: SyncSender<Request>,
        store: Option<Arc<Mutex<Store>>>,
    ) -> io::Result<Self> {
        let env = TerminalEnv::read();
        let (name, borders) = (state.theme, options.config.screen.borders);
        Ok(Self {
            theme: (name, Theme::resolve(name, &env).with_borders(borders, &env)),
            borders,
            env,
            state,
            saving: Saving { store, ..Saving::default() },
            screen,
            ops,
            waiting_ops: VecDeque::new(),
            answers: mpsc::unbounded_channel(),
            pictures: options.pictures,
            settings: options.settings,
            documents: options.documents,
            frame: Duration::from_secs(1) / options.config.screen.fps.clamp(1, 120),
            began: Instant::now(),
            picture_wanted: false,
            suspend: false,
            draft: None,
            editor: None,
            quit: false,
        })
    }

    async fn serve(&mut self, mut events: mpsc::Receiver<Event>) -> io::Result<(u8, Option<String>)> {
        let mut keys = Some(Keyboard::listen()?);
        let mut signals = Signals::new()?;
        let size = self.screen.terminal.size()?;
        self.take(Message::Resized(size.width, size.height));
        for path in std::mem::take(&mut self.documents) {
            self.handle(Command::ReadFile { path, purpose: FilePurpose { session: None, question: None } });
        }
        self.draw()?;
        let mut code = 0;
        let mut listening = true;
        let mut ticked = Instant::now();
        let mut urgent = false;
        while !self.quit {
            let pause = if urgent { SHORTEST_FRAME } else { self.frame };
            select! {
                biased;
                key = next_key(&mut keys) => {
                    match key {
                        Some(event) => self.terminal(event),
                        // The terminal is gone, and nobody is there to read on.
                        None => {
                            code = 128 + HANGUP;
                            break;
                        }
                    }
                    urgent = true;
                }
                heard = signals.next() => match heard {
                    // The editor's: it shares the terminal's keys with this program.
                    Heard::End(INTERRUPT | QUIT) if self.editor.is_some() => signals::stay(),
                    Heard::End(number) => {
                        if let Some(editor) = self.editor.take() {
                            editor.end().await;
                        }
                        code = 128 + number;
                        self.take(Message::Terminated);
                    }
                    Heard::Stop => self.suspend = true,
                    Heard::Continue if self.editor.is_some() => {}
                    Heard::Continue => self.resume()?,
                    Heard::Resized => {
                        let size = self.screen.terminal.size()?;
                        self.take(Message::Resized(size.width, size.height));
                        urgent = true;
                    }
                },
                result = Editor::ended(&mut self.editor) => {
                    let session = self.editor.take().and_then(|editor| editor.session());
                    self.resume()?;
                    keys = Some(Keyboard::listen()?);
                    self.take(Message::Edited { session, result });
                }
                event = events.recv(), if listening => match event {
                    Some(event) => {
                        self.take(Message::Engine(event));
                        for _ in 1..PORTION {
                            match events.try_recv() {
                                Ok(event) => self.take(Message::Engine(event)),
                                Err(_) => break,
                            }
                        }
                    }
                    None => {
                        listening = false;
                        self.take(Message::EngineGone);
                    }
                },
                Some(answer) = self.answers.1.recv() => self.take(answer),
                () = sleep(pause.saturating_sub(ticked.elapsed())) => {}
            }
            self.send_waiting();
            self.save();
            if std::mem::take(&mut self.suspend) {
                terminal::restore();
                // All threads stop here, the engine's too, until somebody says to go on.
                emulate_default_handler(SIGTSTP)?;
                // An editor is stopped and goes on by itself, and has the terminal.
                if self.editor.is_none() {
                    self.resume()?;
                }
            }
            if let Some(draft) = self.draft.take() {
                // It would read the editor's keys.
                keys = None;
                self.edit(draft)?;
                if self.editor.is_none() {
                    keys = Some(Keyboard::listen()?);
                }
            }
            if ticked.elapsed() >= if urgent { SHORTEST_FRAME } else { self.frame } {
                (ticked, urgent) = (Instant::now(), false);
                let now_ms = self.began.elapsed().as_secs_f64() * 1_000.0;
                self.take(Message::Tick(now_ms));
                let ours = self.editor.is_none() && !self.quit;
                if ours && (self.state.changed || self.picture_wanted) {
                    self.draw()?;
                }
            }
        }
        let engine_error = self.state.stopped.clone().flatten();
        let code = if code == 0 && engine_error.is_some() { 1 } else { code };
        Ok((code, engine_error))
    }

    fn terminal(&mut self, event: TerminalEvent) {
        match event {
            TerminalEvent::Key(key) => self.take(Message::Key(key)),
            TerminalEvent::Paste(text) => self.take(Message::Paste(text)),
            TerminalEvent::Mouse(mouse) => self.take(Message::Mouse(mouse)),
            // A signal tells the size, and nobody asked for the focus.
            TerminalEvent::Resize(..) | TerminalEvent::FocusGained | TerminalEvent::FocusLost => {}
        }
    }

    /// Goes on where the program was stopped: the terminal has been somebody else's, and may have another size.
    fn resume(&mut self) -> io::Result<()> {
        self.screen.enter_again()?;
        let size = self.screen.terminal.size()?;
        self.take(Message::Resized(size.width, size.height));
        self.draw()
    }

    /// Gives the terminal to the editor. Meanwhile everything goes on but the drawing.
    fn edit(&mut self, draft: Draft) -> io::Result<()> {
        let session = draft.session();
        terminal::restore();
        match draft.open() {
            Ok(editor) => self.editor = Some(editor),
            Err(error) => {
                self.resume()?;
                self.take(Message::Edited { session, result: Err(error) });
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) {
        log(&message);
        match &message {
            Message::Engine(Event { kind: EventKind::Finished(finished), .. }) => {
                // Those of a load and of the demo are not kept.
                let kept = self.state.sessions.iter().any(|session| session.id == finished.session && !session.demo);
                self.saving.wanted |= kept;
            }
            Message::SessionsSaved(result) => {
                self.saving.under_way = false;
                let error = result.clone().err();
                // Every answer would say it again.
                if std::mem::replace(&mut self.saving.error, error.clone()) == error {
                    return;
                }
            }
            _ => {}
        }
        for command in update(&mut self.state, message) {
            self.handle(command);
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Engine(op) => {
                self.saving.wanted |= matches!(op, Request::Close { .. } | Request::Rename { .. });
                self.waiting_ops.push_back(op);
            }
            Command::ReadFile { path, purpose } => {
                let (answer, again) = (self.answers.0.clone(), purpose.clone());
                // Not joined: a file that is still being read must not hold up the exit.
                let started = thread::Builder::new().name("file".into()).spawn(move || {
                    // Nobody listens any more only when the dashboard has ended.
                    let _ = answer.send(Message::FileRead { purpose, result: document::read(&path) });
                });
                if let Err(error) = started {
                    let result = Err(format!("no thread to read the file: {error}"));
                    let _ = self.answers.0.send(Message::FileRead { purpose: again, result });
                }
            }
            Command::Copy { text, notice } => {
                let way = Way::from_here();
                let copied = self.screen.copy(&text, way);
                let said = copied.map(|()| notice + way.hint()).map_err(|error| error.to_string());
                self.take(Message::Copied(said));
            }
            Command::Export { path } => self.export(path),
            Command::Edit { session, text } => match Draft::new(session, &text) {
                Ok(draft) => self.draft = Some(draft),
                Err(error) => self.take(Message::Edited { session, result: Err(error) }),
            },
            Command::WritePicture => self.picture_wanted = true,
            Command::KeepSettings(settings) => {
                let _ = self.answers.0.send(Message::SettingsKept(keep(self.settings.as_deref(), &settings)));
            }
            Command::Suspend => self.suspend = true,
            Command::Quit => self.quit = true,
        }
    }

    /// Saves the sessions where an answer has ended since the last time; a thread of its own waits for the disk.
    fn save(&mut self) {
        let saving = &mut self.saving;
        let Some(store) = &saving.store else { return };
        if !saving.wanted || saving.under_way || saving.last.is_some_and(|last| last.elapsed() < SAVE_EVERY) {
            return;
        }
        (saving.wanted, saving.under_way, saving.last) = (false, true, Some(Instant::now()));
        let (store, answer, sessions) = (Arc::clone(store), self.answers.0.clone(), saved::sessions(&self.state));
        tokio::task::spawn_blocking(move || {
            let result = lock(&store).save(&sessions);
            // Nobody listens any more only when the dashboard has ended.
            let _ = answer.send(Message::SessionsSaved(result));
        });
    }

    /// Writes the session on show as it is now.
    fn export(&mut self, path: Option<PathBuf>) {
        let when = strftime_now("%Y-%m-%d %H:%M").unwrap_or_default();
        let Some((text, name)) = export::markdown(&self.state, &when) else { return };
        let (answer, folder) = (self.answers.0.clone(), self.pictures.clone());
        tokio::task::spawn_blocking(move || {
            // Nobody listens any more only when the dashboard has ended.
            let _ = answer.send(Message::Exported(export::write(path.as_deref(), &folder, &name, &text)));
        });
    }

    /// Ops go out in order; while the engine is in a step its channel may be full, and they wait here.
    fn send_waiting(&mut self) {
        while let Some(op) = self.waiting_ops.pop_front() {
            match self.ops.try_send(op) {
                Ok(()) => {}
                Err(TrySendError::Full(op)) => {
                    self.waiting_ops.push_front(op);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.waiting_ops.clear();
                    self.take(Message::EngineGone);
                }
            }
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        if self.theme.0 != self.state.theme {
            let theme = Theme::resolve(self.state.theme, &self.env).with_borders(self.borders, &self.env);
            self.theme = (self.state.theme, theme);
        }
        let began = Instant::now();
        let (state, theme) = (&self.state, &self.theme.1);
        let frame = self.screen.terminal.draw(|frame| view(state, theme, frame))?;
        let picture = self.picture_wanted.then(|| picture::svg(frame.buffer, &palette(self.theme.0)));
        let ms = began.elapsed().as_secs_f64() * 1_000.0;
        let bytes = self.screen.take_bytes();
        self.take(Message::Drawn { ms, bytes });
        if let Some(picture) = picture {
            self.picture_wanted = false;
            let written = write_picture(&self.pictures, &picture);
            self.take(Message::PictureWritten(written));
        }
        Ok(())
    }
}

/// A notice goes after a few seconds; the log keeps it.
fn log(message: &Message) {
    match message {
        Message::Engine(Event { kind: EventKind::Error { lane, session, message }, .. }) => {
            tracing::warn!(?lane, ?session, "{message}");
        }
        Message::Engine(Event { kind: EventKind::Stopped { error: Some(error) }, .. }) => tracing::error!("{error}"),
        Message::EngineGone => tracing::error!("the engine's events ended without a word"),
        Message::FileRead { result: Err(error), .. }
        | Message::SessionsRead(Err(error))
        | Message::SessionsSaved(Err(error))
        | Message::Copied(Err(error))
        | Message::Exported(Err(error))
        | Message::Edited { result: Err(error), .. }
        | Message::PictureWritten(Err(error))
        | Message::SettingsKept(Err(error)) => {
            tracing::warn!("{error}");
        }
        _ => {}
    }
}

/// The next key; none while the terminal is somebody else's.
async fn next_key(keys: &mut Option<Keyboard>) -> Option<TerminalEvent> {
    match keys {
        Some(keys) => keys.next().await,
        None => pending().await,
    }
}

fn palette(theme: ThemeName) -> Palette {
    match theme {
        ThemeName::Light => Palette::LIGHT,
        _ => Palette::DARK,
    }
}

/// Keeps settings in the user's file; what was written where, or why not, in one line.
fn keep(file: Option<&Path>, settings: &[(String, String)]) -> Result<String, String> {
    let file = file.ok_or("nothing is kept: there is no home folder; name a file with --config")?;
    let kept = keep_changed(file, settings).map_err(|error| {
        let error = error.to_string();
        format!("nothing is kept: {}", error.lines().next().unwrap_or_default())
    })?;
    if kept.is_empty() {
        return Ok(format!("nothing to keep: {} and the defaults say so already", file.display()));
    }
    let kept: Vec<_> = kept.iter().map(|kept| format!("{} = {}", kept.path, kept.toml)).collect();
    Ok(format!("kept in {}: {}", file.display(), kept.join(", ")))
}

/// Writes a picture under a name of its own; the error is one line.
fn write_picture(folder: &Path, svg: &str) -> Result<PathBuf, String> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let path = folder.join(format!("kcache-{seconds}.svg"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, svg))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
