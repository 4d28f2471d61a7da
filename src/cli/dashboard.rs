//! `kcache` by itself: the dashboard.

use std::{
    fs::File,
    io::{self, LineWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use color_eyre::eyre::WrapErr;

use super::{
    Failure, engine,
    headless::{self, HeadlessArgs},
    output,
};
use crate::{
    bench::LoadSpec,
    config::{Config, Overrides, folders},
    engine::Event,
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
    /// A text file to open a session about; repeat for more
    #[arg(long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Put a load on the lanes: sessions=16,context=1024,tokens=64,rate=30,arrivals=poisson,seed=0,shared=0,lanes=both. `rate` is the mean of so many a minute; they come as a Poisson process (or `even`), or without it all at once
    #[arg(long, value_name = "SPEC")]
    pub load: Option<LoadSpec>,
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
            .set("--budget", "lanes.kcache.budget", self.budget.as_ref())
            .set("--budget", "lanes.kv.budget", self.budget.as_ref());
    }
}

/// Runs without a screen where that is asked for or there is none, else opens the dashboard and stays until the user or a signal ends it.
pub fn run(args: DashboardArgs, config: Config, json: bool) -> Result<ExitCode, Failure> {
    let demo = config.screen.demo && !args.no_demo;
    if args.headless.applies(json)? {
        return headless::run(args.headless, &args.files, demo, args.load, &config);
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
    let (ops, events) = (running.engine.ops(), running.events);
    let next = move || {
        let event = events.recv()?;
        if let Some(failed) = recording.as_mut().and_then(|recording| recording.event(&event).err()) {
            // The dashboard goes on; what was written so far is whole lines.
            tracing::error!("the recording ends here: {failed}");
            recording = None;
        }
        Some(event)
    };
    let events = tui::bridge(next).wrap_err("the thread for events could not be started")?;
    let options = tui::Options {
        demo,
        documents: args.files,
        sessions: folders::sessions().filter(|_| config.screen.save_sessions),
        text,
        load: args.load,
        pictures: folders::pictures().unwrap_or_else(|| PathBuf::from(".")),
        config,
    };
    let exit = tui::run(options, ops, events).map_err(|error| match error {
        tui::RunError::Keymap(error) => Failure::misuse(error),
        error => Failure::failed(error),
    })?;
    if !running.engine.stop_within(ENGINE_WITHIN) {
        tracing::warn!("the engine is still busy; the program ends without waiting for it");
    }
    // A closed window has taken stderr with it.
    exit.panics.iter().chain(&exit.unsaved).chain(&exit.engine_error).for_each(|line| output::note(line));
    Ok(ExitCode::from(exit.code))
}

/// A file of events, one a line; whole lines, however the program ends.
struct Recording(LineWriter<File>);

impl Recording {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure::misuse(format!("{}: {error}", path.display())))?;
        Ok(Self(LineWriter::new(file)))
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, event)?;
        self.0.write_all(b"\n")
    }
}
