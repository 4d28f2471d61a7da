//! `kcache --headless`, and `kcache` where stdout is no terminal: the dashboard's events as JSON lines.
//!
//! Each event is one object on one line, written as soon as it happens. Each `--say` has a session of its own, and each
//! `--file` a session about it. Without either, each demo session asks its first question. `--load` starts a workload in
//! place of the demo. The last line is `stopped`, unless the reader has gone.
//!
//! The exit code is 1 if a question was not answered, for each was asked on purpose. A workload is there to find limits,
//! so it fails only if not one session was answered.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        atomic::Ordering,
        mpsc::{SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;

use super::{
    Failure,
    duration::duration,
    engine, interrupt, output,
    questions::{Question, questions},
    recording::Recording,
};
use crate::{
    bench::{Workload, WorkloadSpec},
    config::Config,
    engine::{Event, EventKind, FinishReason, GenerationOptions, Lane, Request, SessionId},
    tui::state::metrics::Answers,
};

/// The longest time until a signal, a deadline or a full queue of requests is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long an engine may take to end after a signal, or when nobody reads any more.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// The same when the run is over by itself, and nobody is in a hurry: a step on a slow machine may take seconds.
const END_WITHIN: Duration = Duration::from_secs(60);

/// What a script may rely on; shown below the flags.
pub const EXIT_CODES: &str = "\
Exit codes of a run without a screen: 0 where all was answered. 1 where a question of --say, --file or the demo was \
refused in a lane, or where no session of a --load was answered; sessions of a load that are refused beside others that \
are answered are no failure, and stderr says how many, and why the last. 2 for flags and files that cannot be used. 128 \
and the signal's number where a signal ended it.";

/// Flags of a run without a screen.
#[derive(Debug, Default, Args)]
pub struct HeadlessArgs {
    /// Write the events as JSON lines instead of opening the dashboard; so does a stdout that is no terminal
    #[arg(long)]
    pub headless: bool,
    /// Headless: end after this time (500ms, 30s, 2m)
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub limit: Option<Duration>,
    /// Headless: end when every answer has ended (the default without --for)
    #[arg(long)]
    pub until_idle: bool,
    /// Headless: ask this in place of the demo; repeat for more. The first is about the first --file, and so on
    #[arg(long = "say", value_name = "TEXT")]
    pub says: Vec<String>,
    /// Headless: feed both lanes what kv says, so that each token tells their KL (events `compare`)
    #[arg(long)]
    pub compare: bool,
}

impl HeadlessArgs {
    /// Whether there is to be no screen. `--json` asks for it as well: the dashboard has no other JSON.
    ///
    /// # Errors
    ///
    /// Flags that mean nothing where there is one.
    pub fn applies(&self, json: bool) -> Result<bool, Failure> {
        if self.headless || json || !io::stdout().is_terminal() {
            return Ok(true);
        }
        if self.limit.is_some() || self.until_idle || !self.says.is_empty() || self.compare {
            return Err(Failure::misuse(
                "--for, --until-idle, --say and --compare are for runs without a screen: add --headless",
            ));
        }
        Ok(false)
    }
}

/// What the flags for both ways of running ask of one without a screen.
pub struct Asked<'a> {
    pub files: &'a [PathBuf],
    pub demo: bool,
    pub load: Option<WorkloadSpec>,
    pub record: Option<&'a Path>,
}

/// Runs the engine without a screen.
pub fn run(args: HeadlessArgs, asked: Asked<'_>, config: &Config) -> Result<ExitCode, Failure> {
    let Asked { files, demo, load, record } = asked;
    let questions = questions(args.says, files, demo && load.is_none())?;
    let mut recording = record.map(Recording::create).transpose()?;
    let signal = interrupt::signal().context("cannot watch for Ctrl-C")?;
    let model = engine::open_model(config)?;
    let text = engine::load_text(&model, load.as_ref())?;
    let running = engine::start(model, config, engine::lanes(config))?;
    let (requests, events) = (running.engine.ops(), &running.events);
    let mut run = Run::new(questions, args.compare, config);
    let began = Instant::now();
    if let Some(spec) = load {
        run.load = Workload::new(text);
        run.load.start(spec);
    }
    if run.is_idle() {
        output::note("nothing is asked; --say TEXT or --file FILE asks something");
    }
    let until_idle = args.until_idle || args.limit.is_none();
    let deadline = args.limit.map(|limit| Instant::now() + limit);
    let mut reader_gone = false;
    let mut ending: Option<Instant> = None;
    let mut t_ms = 0.0;
    loop {
        run.waiting.extend(if ending.is_some() {
            Vec::new()
        } else {
            run.load.due(began.elapsed().as_secs_f64() * 1e3)
        });
        run.send(&requests);
        let asked = reader_gone || signal.load(Ordering::Relaxed) != 0;
        let over =
            asked || (until_idle && run.is_idle()) || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over && ending.is_none() {
            ending = Some(Instant::now());
            run.shut_down();
            continue;
        }
        let patience = if asked { STOP_WITHIN } else { END_WITHIN };
        if ending.is_some_and(|since| since.elapsed() >= patience) {
            let error = "the engine is busy with something that does not end; it is not waited for".to_owned();
            let event = Event { t_ms, kind: EventKind::Stopped { error: Some(error) } };
            run.note(&event.kind);
            run.record(&mut recording, &event);
            reader_gone = reader_gone || !output::print_json_line(&event)?;
            break;
        }
        let left =
            deadline.filter(|_| ending.is_none()).map_or(LOOK_EVERY, |at| at.saturating_duration_since(Instant::now()));
        let Some(event) = events.recv_timeout(left.min(LOOK_EVERY)) else {
            if events.is_finished() {
                break;
            }
            continue;
        };
        t_ms = event.t_ms;
        run.deliver(&event);
        run.note(&event.kind);
        run.record(&mut recording, &event);
        if !reader_gone {
            reader_gone = !output::print_json_line(&event)?;
        }
    }
    running.end(Duration::ZERO);
    run.summary().iter().for_each(|line| output::note(line));
    let number = signal.load(Ordering::Relaxed);
    if let Some(error) = run.engine_error.filter(|_| number == 0) {
        return Err(Failure::failed(error));
    }
    run.errors += usize::from(run.load.is_refused());
    Ok(match number {
        _ if reader_gone => ExitCode::SUCCESS,
        0 => ExitCode::from(u8::from(run.errors > 0)),
        number => ExitCode::from(128 + number),
    })
}

/// What has been asked, and what has become of it.
#[derive(Default)]
struct Run {
    /// Requests that the engine has no room for yet.
    waiting: VecDeque<Request>,
    /// Answers that have not ended.
    awaited: BTreeSet<(SessionId, Lane)>,
    /// How many were asked.
    asked: usize,
    /// Sessions whose message was accepted: from then on each lane says by itself how its answer ended.
    accepted: BTreeSet<SessionId>,
    /// Sessions whose message was refused before that.
    refused: BTreeSet<SessionId>,
    /// Sessions of which a lane said something, or was stopped by somebody.
    answered: BTreeSet<SessionId>,
    /// Sessions of which a lane ended with nothing said.
    silent: BTreeSet<SessionId>,
    /// Sessions that come by and by; what becomes of them is in the events, and is no error of this run.
    load: Workload,
    /// The answers of each lane, and when something was heard of the engine last.
    answers: [Answers; 2],
    heard_ms: f64,
    errors: usize,
    engine_error: Option<String>,
}

impl Run {
    fn new(questions: Vec<Question>, compare: bool, config: &Config) -> Self {
        let mut run = Self { asked: questions.len(), ..Self::default() };
        for (session, Question { name, document, text, priority }) in (1..).map(SessionId).zip(questions) {
            let turn = GenerationOptions { priority, ..config.sampling.turn() };
            run.awaited.extend(Lane::ALL.map(|lane| (session, lane)));
            run.waiting.push_back(Request::Open { session, name, system: None, lanes: Lane::ALL.to_vec() });
            if compare {
                run.waiting.push_back(Request::Compare { session, on: true });
            }
            run.waiting.push_back(Request::SubmitMessage { session, document, text, options: turn });
        }
        run
    }

    /// Whether every answer has ended, and none is to come.
    fn is_idle(&self) -> bool {
        self.awaited.is_empty() && !self.load.is_active()
    }

    /// Sends what the engine has room for. It never waits: while an engine is in a step, its events are read.
    fn send(&mut self, requests: &SyncSender<Request>) {
        while let Some(request) = self.waiting.pop_front() {
            match requests.try_send(request) {
                Ok(()) => {}
                Err(TrySendError::Full(request)) => return self.waiting.push_front(request),
                // Its last event says why.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
    }

    /// Has the engine stop every answer and end; what was not asked yet never is.
    fn shut_down(&mut self) {
        self.waiting.clear();
        self.waiting.push_back(Request::Shutdown);
    }

    /// Counts what an event says of the lanes' answers.
    fn deliver(&mut self, event: &Event) {
        self.heard_ms = self.heard_ms.max(event.t_ms);
        for lane in Lane::ALL {
            self.answers[lane as usize].note(lane, event.t_ms, &event.kind);
        }
    }

    /// What each lane has delivered, in a line.
    fn delivered(&self) -> Vec<String> {
        let line = |lane: Lane| {
            let came = self.answers[lane as usize].delivered(None, self.heard_ms);
            let (p50, p99) = came.queued_ms?;
            Some(format!(
                "{lane}: {} tokens, {:.2} a second by the clock; {} answers finished, {} at once at most; in the queue \
                 {:.1} s at the median, 99 of 100 at most {:.1} s",
                came.tokens,
                came.tok_s()?,
                came.finished,
                came.peak?,
                p50 / 1e3,
                p99 / 1e3
            ))
        };
        Lane::ALL.into_iter().filter_map(line).collect()
    }

    /// Writes an event to the recording, if there is one. One that ends early is an error of this run.
    fn record(&mut self, recording: &mut Option<Recording>, event: &Event) {
        if let Some(why) = recording.as_mut().and_then(|recording| recording.event(event)) {
            self.errors += 1;
            output::note(&why);
        }
    }

    fn note(&mut self, event: &EventKind) {
        if let Some(requests) = self.load.note(event) {
            return self.waiting.extend(requests);
        }
        match event {
            EventKind::Said { session, .. } => {
                self.accepted.insert(*session);
            }
            EventKind::Finished(finished) => {
                self.awaited.remove(&(finished.session, finished.lane));
                let nothing = finished.usage.completion_tokens == 0;
                let broke = matches!(finished.reason, FinishReason::Budget | FinishReason::Failed);
                let kind = if nothing && broke { &mut self.silent } else { &mut self.answered };
                kind.insert(finished.session);
            }
            EventKind::Error { session, message, .. } => {
                self.errors += 1;
                output::note(message);
                tracing::warn!(?session, "{message}");
                if let Some(session) = session.filter(|session| !self.accepted.contains(session)) {
                    self.awaited.retain(|(awaited, _)| *awaited != session);
                    self.refused.insert(session);
                }
            }
            EventKind::Stopped { error } => self.engine_error.clone_from(error),
            _ => {}
        }
    }

    /// What it came to, where that is not plain from the events: how many of several questions were refused, and the
    /// load.
    fn summary(&self) -> Vec<String> {
        let unanswered = self.refused.union(&self.silent).filter(|session| !self.answered.contains(session)).count();
        let mut lines = Vec::new();
        // Of a single one its own line has said it.
        if self.asked > 1 && unanswered > 0 {
            let none = if unanswered == self.asked { "nothing was answered: " } else { "" };
            lines.push(format!("{none}{unanswered} of {} questions were refused", self.asked));
        }
        if self.load.spec().is_some() {
            let why = self.load.why().map(|why| format!("load: why the last was refused: {why}"));
            lines.extend(why);
            let none = if self.load.is_refused() { "; nothing was answered" } else { "" };
            lines.push(self.load.summary() + none);
            lines.extend(self.delivered());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Finished, Priority, Usage};

    #[test]
    fn a_refused_message_is_not_waited_for_and_a_lane_without_room_still_ends_by_itself() {
        let ask =
            |text: &str| Question { name: "a".into(), document: None, text: text.into(), priority: Priority::Typed };
        let mut run = Run::new(vec![ask("one"), ask("two")], false, &Config::default());
        let error = |session| EventKind::Error { lane: None, session: Some(SessionId(session)), message: "no".into() };
        let ended = |session, lane| {
            let (step, reason, usage) = (1, FinishReason::Budget, Usage::default());
            EventKind::Finished(Finished { lane, session: SessionId(session), step, reason, usage })
        };
        run.note(&error(1));
        assert_eq!(run.awaited.len(), 2);
        run.note(&EventKind::Said { session: SessionId(2), document: None, text: "two".into() });
        run.note(&error(2));
        run.note(&ended(2, Lane::Kv));
        assert_eq!(run.awaited.iter().collect::<Vec<_>>(), [&(SessionId(2), Lane::KCache)]);
        run.note(&ended(2, Lane::KCache));
        assert!(run.awaited.is_empty());
        assert_eq!(run.errors, 2);
    }
}
