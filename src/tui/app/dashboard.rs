//! The loop: keys first, then signals, then what the engine says, then a frame.
//!
//! One thread, one select. Events of the engine come through a bounded channel and are taken in portions, so that a key
//! never waits behind them; a frame is drawn when something has changed, at most so often per second, and always shows
//! the last state. A key is drawn at once.

use std::{
    collections::VecDeque,
    future::pending,
    io,
    path::PathBuf,
    sync::mpsc::{SyncSender, TrySendError},
    thread,
    time::{Duration, Instant},
};

use crossterm::event::Event as TerminalEvent;
use signal_hook::{consts::SIGTSTP, low_level::emulate_default_handler};
use tokio::{select, sync::mpsc, time::sleep};

use super::{options::Options, saving::Saving};
use crate::{
    config::{Borders, ThemeName},
    document,
    engine::{Event, EventKind, Request},
    model::strftime_now,
    tui::{
        command::{Command, FilePurpose},
        io::{
            clipboard::Way,
            editor::{Draft, Editor},
            files,
            keyboard::Keyboard,
            signals::{self, HANGUP, Heard, INTERRUPT, QUIT, Signals},
            terminal::{self, Screen},
        },
        message::Message,
        picture::{self, Palette},
        state::State,
        theme::{TerminalEnv, Theme},
        update::{export, update},
        view::view,
    },
};

/// Events taken in before keys are looked at again.
const PORTION: usize = 256;
/// The shortest time between two frames, also when keys come fast.
const SHORTEST_FRAME: Duration = Duration::from_millis(8);

/// The dashboard while it runs.
pub(super) struct Dashboard {
    pub(super) state: State,
    saving: Saving,
    screen: Screen,
    theme: (ThemeName, Theme),
    borders: Borders,
    env: TerminalEnv,
    pub(super) ops: SyncSender<Request>,
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
    pub(super) fn new(
        options: Options,
        state: State,
        screen: Screen,
        ops: SyncSender<Request>,
        saving: Saving,
    ) -> io::Result<Self> {
        let env = TerminalEnv::read();
        let (name, borders) = (state.theme, options.config.screen.borders);
        Ok(Self {
            theme: (name, Theme::resolve(name, &env).with_borders(borders, &env)),
            borders,
            env,
            state,
            saving,
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

    pub(super) async fn serve(&mut self, mut events: mpsc::Receiver<Event>) -> io::Result<(u8, Option<String>)> {
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
            self.saving.save(&self.state, &self.answers.0);
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

    pub(super) fn take(&mut self, message: Message) {
        log(&message);
        match &message {
            Message::Engine(Event { kind: EventKind::Finished(finished), .. }) => {
                // Those of a load and of the demo are not kept.
                let kept = self.state.sessions.iter().any(|session| session.id == finished.session && !session.demo);
                self.saving.wanted |= kept;
            }
            Message::SessionsSaved(result) => {
                let said_before = !self.saving.saved(result);
                if said_before {
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
                let _ = self
                    .answers
                    .0
                    .send(Message::SettingsKept(files::keep_settings(self.settings.as_deref(), &settings)));
            }
            Command::Suspend => self.suspend = true,
            Command::Quit => self.quit = true,
        }
    }

    /// Writes the session on show as it is now.
    fn export(&mut self, path: Option<PathBuf>) {
        let when = strftime_now("%Y-%m-%d %H:%M").unwrap_or_default();
        let Some((text, name)) = export::markdown(&self.state, &when) else { return };
        let (answer, folder) = (self.answers.0.clone(), self.pictures.clone());
        tokio::task::spawn_blocking(move || {
            // Nobody listens any more only when the dashboard has ended.
            let _ = answer.send(Message::Exported(files::write_session(path.as_deref(), &folder, &name, &text)));
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
            let written = files::write_picture(&self.pictures, &picture);
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
