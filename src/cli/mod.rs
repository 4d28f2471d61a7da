//! The command line: one file per command.
//!
//! Exit codes: 0 fine, 1 failed, 2 misuse (a flag, a key, a policy or a file that is not what it should be). What was
//! asked for goes to stdout, everything else to stderr, errors as one line `kcache: …`.

use std::{env, ffi::OsString, io, process::ExitCode};

use clap::{CommandFactory, Parser};

mod args;
mod bench;
mod chat;
mod config;
mod dashboard;
mod doctor;
mod duration;
mod engine;
mod escape;
mod eval;
mod failure;
mod fetch;
mod headless;
mod interrupt;
mod limits;
mod log;
mod measuring;
mod model;
mod output;
mod panics;
mod picture;
mod plan;
mod questions;
mod recording;
mod settings;
mod shell;
mod text;
mod tune;

pub use args::Cli;
pub use failure::Failure;

use crate::config::{Config, Overrides};
use args::Command;
use log::Log;

/// The program: reads the command line, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    let cli = match command_line(env::args_os().collect()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    panics::install_hook();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(&mut io::stderr().lock()),
    }
}

/// Reads the command line. Help, the version and mistakes are printed here, as far as anybody reads them.
fn command_line(arguments: Vec<OsString>) -> Result<Cli, ExitCode> {
    let error = match Cli::try_parse_from(&arguments) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    // The message repeats what was typed, so what was typed is made harmless before it is read once more.
    let harmless = arguments.iter().map(|argument| escape::line(&argument.to_string_lossy()).into_owned());
    let error = Cli::try_parse_from(harmless).err().filter(|again| again.kind() == error.kind()).unwrap_or(error);
    let _ = error.print();
    Err(if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let mut overrides = cli.global.overrides();
    let Some(command) = cli.command else {
        cli.dashboard.override_(&mut overrides);
        let (config, _log) = start(&overrides)?;
        return dashboard::run(cli.dashboard, config, overrides.user_file(), cli.global.json);
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
        Command::Completions(args) => shell::completions(&args, Cli::command()),
        Command::Man => shell::man(Cli::command()),
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
    limits::check()?;
    let (_, config) = settings::load(overrides)?;
    measuring::hold_kernels(&config)?;
    let log = Log::start(&config.log).inspect_err(|error| output::note(&format!("no log file: {error}"))).ok();
    Ok((config, log))
}
