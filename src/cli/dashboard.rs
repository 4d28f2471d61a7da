//! `kcache` by itself: the dashboard.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use super::{
    Failure, engine,
    headless::{self, Asked, HeadlessArgs},
    output,
    recording::Recording,
};
use crate::{
    bench::WorkloadSpec,
    config::{Config, Overrides, folders},
    tui,
};

/// How long the end of the engine is waited for when the dashboard has ended.
const ENGINE_WITHIN: Duration = Duration::from_secs(1);

/// Flags of the dashboard.
#[derive(Debug, Default, Args)]
pub struct DashboardArgs {
    /// Start without the demo sessions
    #[arg(long)]
    pub no_demo: bool,
    /// Colours: auto, dark, light, mono or colour-blind
    #[arg(long, value_name = "NAME")]
    pub theme: Option<String>,
    /// Device budget of each lane: 512MiB, 1.5GiB, none
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<String>,
    /// The policy of the lane under test: kcache:n=128,tail=mean,select=head,k=f16 (every key optional)
    #[arg(long, value_name = "P")]
    pub policy: Option<String>,
    /// A text file to open a session about; repeat for more
    #[arg(long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Put a load on the lanes: sessions=16,context=1024,tokens=64,rate=30,arrivals=poisson,seed=0,shared=0,lanes=both. `rate` is the mean of so many a minute; they come as a Poisson process (or `even`), or without it all at once
    #[arg(long, value_name = "SPEC")]
    pub load: Option<WorkloadSpec>,
    /// Flags of a run without a screen.
    #[command(flatten)]
    pub headless: HeadlessArgs,
    /// Also write every event to FILE, as JSON lines; `kcache picture` draws from it
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

impl DashboardArgs {
    /// What these flags say over the configuration.
    pub fn override_(&self, overrides: &mut Overrides) {
        overrides
            .set("--theme", "screen.theme", self.theme.as_ref())
            .set("--policy", "lanes.kcache.policy", self.policy.as_ref())
            .set("--budget", "lanes.kcache.budget", self.budget.as_ref())
            .set("--budget", "lanes.kv.budget", self.budget.as_ref());
    }
}

/// Runs without a screen where that is asked for or there is none, else opens the dashboard and stays until the user or a signal ends it.
pub fn run(args: DashboardArgs, config: Config, settings: Option<PathBuf>, json: bool) -> Result<ExitCode, Failure> {
    let demo = config.screen.demo && !args.no_demo;
    if args.headless.applies(json)? {
        let asked = Asked { files: &args.files, demo, load: args.load, record: args.record.as_deref() };
        return headless::run(args.headless, asked, &config);
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return Err(Failure::misuse(
            "a terminal of the kind TERM=dumb shows no dashboard; use `kcache chat`, or `kcache --headless` for JSON lines",
        ));
    }
    for file in &args.files {
        if !file.is_file() {
            return Err(Failure::misuse(format!("there is no file {}", file.display())));
        }
    }
    let mut recording = args.record.as_deref().map(Recording::create).transpose()?;
    let model = engine::open_model(&config)?;
    let text = engine::load_text(&model, args.load.as_ref())?;
    let lanes = engine::lanes(&config);
    let running = engine::start(model, &config, lanes)?;
    let (requests, events) = (running.engine.ops(), running.events);
    // Said when the screen is gone.
    let cut_off = Arc::new(Mutex::new(None::<String>));
    let told = Arc::clone(&cut_off);
    let next = move || {
        let event = events.recv()?;
        if let Some(why) = recording.as_mut().and_then(|recording| recording.event(&event)) {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
        Some(event)
    };
    let events = tui::bridge(next).context("the thread for events could not be started")?;
    let options = tui::Options {
        demo,
        documents: args.files,
        settings,
        sessions: folders::sessions().filter(|_| config.screen.save_sessions),
        text,
        load: args.load,
        pictures: folders::pictures().unwrap_or_else(|| PathBuf::from(".")),
        config,
    };
    let exit = tui::run(options, requests, events).map_err(|error| match error {
        tui::RunError::Keymap(error) => Failure::misuse(error),
        error => Failure::failed(error),
    })?;
    if !running.engine.stop_within(ENGINE_WITHIN) {
        tracing::warn!("the engine is still busy; the program ends without waiting for it");
    }
    let cut_off = cut_off.lock().unwrap_or_else(PoisonError::into_inner).take();
    // A panic says where it was in a line of its own.
    let panics: Vec<_> = exit.panics.iter().map(|panic| panic.lines().collect::<Vec<_>>().join(" ")).collect();
    panics.iter().chain(&cut_off).chain(&exit.unsaved).chain(&exit.engine_error).for_each(|line| output::note(line));
    Ok(ExitCode::from(exit.code))
}
