//! The command line: one file per command.
//!
//! Exit codes: 0 fine, 1 failed, 2 misuse (a flag, a key, a policy or a file that is not what it should be). What was
//! asked for goes to stdout, everything else to stderr, errors as one line `kcache: …`.

use std::{
    io::{self, Write},
    panic,
    process::ExitCode,
};

use clap::Parser;

mod args;
mod bench;
mod capacity;
mod chat;
mod config;
mod dashboard;
mod doctor;
mod engine;
mod eval;
mod failure;
mod fetch;
mod headless;
mod interrupt;
mod load;
mod log;
mod machine;
mod measuring;
mod memory;
mod model;
mod output;
mod picture;
mod plan;
mod recording;
mod shell;
mod soak;
mod text;
mod tune;

pub use args::Cli;
pub use failure::Failure;

use crate::config::{Config, Overrides};
use args::Command;
use log::Log;

/// The program: reads the command line, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    show_panics();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(&mut io::stderr().lock()),
    }
}

/// Has panics shown with where they come from; every error that is foreseen has its own line. The hook writes by itself:
/// where stderr has gone, the hook that comes along would panic, and a panic in a panic aborts.
fn show_panics() {
    let (panics, errors) = color_eyre::config::HookBuilder::default().display_env_section(false).into_hooks();
    if let Err(error) = errors.install() {
        output::note(&format!("errors will be shown plainly: {error}"));
    }
    panic::set_hook(Box::new(move |info| {
        // Nobody is left to tell where even stderr is closed.
        let _ = writeln!(io::stderr(), "{}", panics.panic_report(info));
    }));
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let mut overrides = cli.global.overrides();
    let Some(command) = cli.command else {
        cli.dashboard.override_(&mut overrides);
        let (config, _log) = start(&overrides)?;
        return dashboard::run(cli.dashboard, config, cli.global.json);
    };
    match command {
        Command::Chat(args) => {
            args.override_(&mut overrides);
            let (config, _log) = start(&overrides)?;
            chat::run(args, &config, cli.global.json)
        }
        Command::Bench(args) => {
            let (config, _log) = start(&overrides)?;
            bench::run(&args, &config, cli.global.json)
        }
        Command::Eval(args) => {
            let (config, _log) = start(&overrides)?;
            eval::run(&args, &config, cli.global.json)
        }
        Command::Tune(args) => {
            let (config, _log) = start(&overrides)?;
            tune::run(&args, &config, cli.global.json)
        }
        Command::Config(command) => config::run(&command, &overrides, cli.global.json),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
        Command::Doctor => doctor::run(&overrides, cli.global.json),
        Command::Plan(args) => {
            let (config, _log) = start(&overrides)?;
            plan::run(&args, &config, cli.global.json)
        }
        Command::Picture(args) => {
            let (config, _log) = start(&overrides)?;
            picture::run(&args, &config)
        }
        Command::Model(command) => {
            let (config, _log) = start(&overrides)?;
            model::run(&command, &config, cli.global.json)
        }
    }
}

/// The configuration and, with it, the log. A log that cannot be had is no reason not to work.
fn start(overrides: &Overrides) -> Result<(Config, Option<Log>), Failure> {
    let (_, config) = load::load(overrides)?;
    measuring::hold_kernels(&config);
    let log = Log::start(&config.log).inspect_err(|error| eprintln!("kcache: no log file: {error}")).ok();
    Ok((config, log))
}
