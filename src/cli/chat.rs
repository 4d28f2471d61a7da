//! `kcache chat "text"`: one reply to stdout as it is generated, from one lane.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure, engine, interrupt,
    output::{note, print_json, print_part, progress},
    text,
};
use crate::{
    cache::Policy,
    config::{Config, Overrides},
    document::{self, Opened},
    engine::{
        Document, Event, EventKind, Events, FinishReason, Finished, Lane, LaneOptions, Ledger, Request, SessionId,
        Started, Token,
    },
    telemetry::Latency,
};

const SESSION: SessionId = SessionId(1);

/// The longest time until a signal is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an engine may take to stop a reply; it is not waited for beyond.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// A prompt that takes longer than this to compute shows its progress.
const SHOW_AFTER: Duration = Duration::from_millis(500);
/// How long the last account of bytes is waited for.
const LEDGER_WITHIN: Duration = Duration::from_secs(2);

/// Flags of `kcache chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// What to say; `-` reads standard input
    #[arg(required_unless_present = "file")]
    text: Option<String>,
    /// How the cache is kept and read: kv, kv-q8, or kcache:n=128,tail=mean,dense=1,select=head,k=f16 (every key
    /// optional)
    #[arg(long)]
    policy: Option<String>,
    /// A text file to talk about; without TEXT it is summarised
    #[arg(long)]
    file: Option<PathBuf>,
    /// The system message, instead of the model's own
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The most tokens of the reply
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// 0 is greedy: the likeliest token always
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Keep only the likeliest K tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep only the likeliest tokens whose probabilities reach this sum
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Divides the logits of recently seen tokens; 1 is off
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// The same seed gives the same text
    #[arg(long)]
    seed: Option<u64>,
    /// End the reply before this text, which is not shown; repeat for more, at most 16
    #[arg(long = "stop", value_name = "TEXT")]
    stops: Vec<String>,
}

impl ChatArgs {
    /// What these flags say over the configuration.
    pub fn override_(&self, overrides: &mut Overrides) {
        overrides
            .set("--max-tokens", "sampling.max_tokens", self.max_tokens)
            .set("--temperature", "sampling.temperature", self.temperature)
            .set("--top-k", "sampling.top_k", self.top_k)
            .set("--top-p", "sampling.top_p", self.top_p)
            .set("--repeat-penalty", "sampling.repeat_penalty", self.repeat_penalty)
            .set("--seed", "sampling.seed", self.seed)
            .set("--stop", "sampling.stop", self.stops());
    }

    /// The stop sequences as the configuration writes them.
    fn stops(&self) -> Option<toml::Value> {
        let stops = || self.stops.iter().cloned().map(toml::Value::String).collect();
        (!self.stops.is_empty()).then(|| toml::Value::Array(stops()))
    }

    /// The message and what it is about.
    fn message(&self) -> Result<(String, Option<Document>), Failure> {
        let opened = self.file.as_deref().map(document::read).transpose().map_err(Failure::misuse)?;
        let document = opened.map(|Opened { document, notice }| {
            notice.iter().for_each(|notice| note(notice));
            document
        });
        let text = match self.text.as_deref() {
            Some("-") => text::standard_input()?,
            Some(text) => text.to_owned(),
            None => document::SUMMARISE.to_owned(),
        };
        if text.trim().is_empty() {
            return Err(Failure::misuse("there is nothing to say: the text is empty"));
        }
        Ok((text, document))
    }
}

/// Says it and prints the reply.
pub fn run(args: ChatArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let (text, document) = args.message()?;
    let policy: Policy = match &args.policy {
        Some(policy) => policy.parse().map_err(Failure::misuse)?,
        None => config.lanes.kcache.policy,
    };
    let lane = if policy.knobs().is_some() { Lane::KCache } else { Lane::Kv };
    let signal = interrupt::signal().context("cannot watch for Ctrl-C")?;
    let model = engine::open_model(config)?;
    let configured = config.lanes.get(lane);
    let (device_budget, host_budget) = (configured.budget.0, configured.host_budget.0);
    let options = LaneOptions { lane, policy, device_budget, host_budget };
    let running = engine::start(model, config, vec![options])?;
    let requests = running.engine.ops();
    let turn = config.sampling.turn();
    let open = Request::Open { session: SESSION, name: "chat".into(), system: args.system, lanes: vec![lane] };
    for request in [open, Request::SubmitMessage { session: SESSION, document, text, options: turn }] {
        // An engine that has gone says why in its last event.
        let _ = requests.send(request);
    }

    let mut reply = Reply::new(!json);
    let mut stopping: Option<Instant> = None;
    let finished = loop {
        if let Some(finished) = reply.finished.take() {
            break finished;
        }
        let number = signal.load(Ordering::Relaxed);
        if stopping.is_none() && (reply.reader_gone || number != 0) {
            stopping = Some(Instant::now());
            let _ = requests.send(Request::Stop { session: SESSION, lane: None });
        }
        if stopping.is_some_and(|since| since.elapsed() >= STOP_WITHIN) {
            reply.end()?;
            running.end(Duration::ZERO);
            return Ok(if number == 0 { ExitCode::SUCCESS } else { ExitCode::from(128 + number) });
        }
        match running.events.recv_timeout(LOOK_EVERY) {
            Some(event) => reply.take(event)?,
            None if running.events.is_finished() => return Err(Failure::failed("the engine went away without a word")),
            None => {}
        }
    };
    reply.end()?;
    if json {
        let ledger = last_ledger(&running.events);
        let policy = args.policy.unwrap_or_else(|| policy.to_string());
        print_json(&reply.report(&policy, &finished, ledger))?;
    }
    match finished.reason {
        FinishReason::Cancelled => match signal.load(Ordering::Relaxed) {
            0 => Ok(ExitCode::SUCCESS),
            number => Ok(ExitCode::from(128 + number)),
        },
        FinishReason::Failed => Err(Failure::failed(reply.error.unwrap_or_else(|| "the reply failed".into()))),
        FinishReason::Budget if finished.usage.completion_tokens == 0 => {
            Err(Failure::failed(reply.error.unwrap_or_else(|| "the device budget is full".into())))
        }
        FinishReason::Budget => {
            note("the device budget is full; the reply ends here");
            Ok(ExitCode::SUCCESS)
        }
        FinishReason::Context => {
            note("the model's context is full; the reply ends here");
            Ok(ExitCode::SUCCESS)
        }
        FinishReason::Stop | FinishReason::Length => Ok(ExitCode::SUCCESS),
    }
}

/// The account of bytes at the end of the reply: the engine gives it as soon as it has nothing more to do.
fn last_ledger(events: &Events) -> Option<Ledger> {
    let deadline = Instant::now() + LEDGER_WITHIN;
    loop {
        let event = events.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        if let EventKind::Ledger(ledger) = event.kind {
            return Some(ledger);
        }
    }
}

/// A reply as it comes.
struct Reply {
    /// Whether it is printed as it comes.
    print: bool,
    reading: Reading,
    started: Option<Started>,
    accepted: bool,
    text: String,
    itl: Latency,
    itl_sum_ms: f64,
    kept: (f64, usize),
    error: Option<String>,
    finished: Option<Finished>,
    reader_gone: bool,
}

impl Reply {
    fn new(print: bool) -> Self {
        Self {
            print,
            reading: Reading::new(),
            started: None,
            accepted: false,
            text: String::new(),
            itl: Latency::new(f64::INFINITY, usize::MAX),
            itl_sum_ms: 0.0,
            kept: (0.0, 0),
            error: None,
            finished: None,
            reader_gone: false,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event.kind {
            EventKind::Started(started) => self.started = Some(started),
            EventKind::Said { .. } => self.accepted = true,
            EventKind::Prefill { done, total, .. } => self.reading.show(done, total),
            EventKind::Token(token) => self.token(event.t_ms, &token)?,
            EventKind::Error { message, .. } if !self.accepted => return Err(Failure::failed(message)),
            EventKind::Error { message, .. } => self.error = Some(message),
            EventKind::Finished(finished) => self.finished = Some(finished),
            EventKind::Stopped { error } => {
                return Err(Failure::failed(error.unwrap_or_else(|| "the engine was shut down".into())));
            }
            _ => {}
        }
        Ok(())
    }

    fn token(&mut self, t_ms: f64, token: &Token) -> Result<(), Failure> {
        self.reading.clear();
        if let Some(ms) = token.itl_ms {
            self.itl.record(t_ms, ms);
            self.itl_sum_ms += ms;
        }
        if let Some(mass) = token.kept_mass {
            self.kept = (self.kept.0 + f64::from(mass), self.kept.1 + 1);
        }
        self.text.push_str(&token.text);
        self.print(&token.text)
    }

    /// Ends the line that the reply stands on.
    fn end(&mut self) -> Result<(), Failure> {
        self.reading.clear();
        if self.text.is_empty() || self.text.ends_with('\n') { Ok(()) } else { self.print("\n") }
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        if !self.print || self.reader_gone || text.is_empty() {
            return Ok(());
        }
        self.reader_gone = !print_part(text)?;
        Ok(())
    }

    /// The reply as one JSON document. What cannot be known, such as the speed of a single token, is null.
    fn report(&self, policy: &str, finished: &Finished, ledger: Option<Ledger>) -> Value {
        let itl = self.itl.window(f64::MAX);
        let per_second = |count: u64| count as f64 / self.itl_sum_ms * 1e3;
        json!({
            "model": self.started.as_ref().map(|started| &started.model),
            "threads": self.started.as_ref().map(|started| started.threads),
            "policy": policy,
            "text": self.text,
            "finish_reason": finished.reason,
            "usage": finished.usage,
            "tok_s": Some(itl.count).filter(|&count| count > 0 && self.itl_sum_ms > 0.0).map(per_second),
            "ttft_ms": finished.usage.ttft_ms,
            "itl_ms_p50": itl.p50,
            "itl_ms_p99": itl.p99,
            "kept_mass": (self.kept.1 > 0).then(|| self.kept.0 / self.kept.1 as f64),
            "ledger": ledger,
        })
    }
}

/// The progress of a long prompt, in one line on stderr where that is a terminal. Short, so that the `^C` of an
/// interrupted reader still stands on the same line and goes with it.
struct Reading {
    terminal: bool,
    began: Option<Instant>,
    shown: bool,
}

impl Reading {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), began: None, shown: false }
    }

    fn show(&mut self, done: usize, total: usize) {
        let took = self.began.get_or_insert_with(Instant::now).elapsed();
        if !self.terminal || done == 0 || done >= total || took < SHOW_AFTER {
            return;
        }
        let left = took.mul_f64((total - done) as f64 / done as f64).as_secs_f64().ceil();
        progress(&format!("\rreading: {done} of {total} tokens, {left} s left\x1b[K"));
        self.shown = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            progress("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_single_token_are_unknown_and_of_several_measured() {
        let mut reply = Reply::new(false);
        let token = |index, itl_ms, kept_mass| Token {
            lane: Lane::KCache,
            session: SESSION,
            step: 1,
            index,
            token_id: 7,
            text: "a".into(),
            itl_ms,
            kept_mass,
        };
        let finished = |reply: &mut Reply| {
            let (reason, usage) = (FinishReason::Length, crate::engine::Usage::default());
            reply.report("kcache", &Finished { lane: Lane::KCache, session: SESSION, step: 1, reason, usage }, None)
        };
        reply.token(1.0, &token(0, None, None)).unwrap();
        let report = finished(&mut reply);
        assert_eq!(
            (&report["tok_s"], &report["itl_ms_p50"], &report["kept_mass"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        reply.token(11.0, &token(1, Some(10.0), Some(0.5))).unwrap();
        reply.token(41.0, &token(2, Some(30.0), Some(1.0))).unwrap();
        let report = finished(&mut reply);
        assert_eq!((&report["tok_s"], &report["itl_ms_p99"]), (&json!(50.0), &json!(30.0)));
        assert_eq!((&report["kept_mass"], &report["text"]), (&json!(0.75), &json!("aaa")));
    }
}
