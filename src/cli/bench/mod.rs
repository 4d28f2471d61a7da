//! `kcache bench`: what is measured, and the command that measures it.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use self::{capacity::CapacityArgs, memory::MemoryArgs, soak::SoakArgs, speed::SpeedArgs};
use super::Failure;
use crate::config::Config;

mod capacity;
pub(crate) mod machine;
mod memory;
mod soak;
mod speed;

/// What to measure.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What to measure instead of policies
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    speed: SpeedArgs,
}

/// What else is measured.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Measures what the units of this machine can do: memory, arithmetic, and the start of a parallel region
    Machine,
    /// Measures how many sequences a device budget holds, and their speed together, policy beside policy
    Capacity(CapacityArgs),
    /// Fills the caches of so many sequences, and compares what the process grows by with what their pages need
    Memory(MemoryArgs),
    /// Has sessions of random lengths come and go while knobs change, and tells what is left: for leaks
    Soak(SoakArgs),
}

pub fn run(args: &BenchArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    match &args.command {
        None => speed::run(&args.speed, config, json),
        Some(BenchCommand::Machine) => machine::run(config, json),
        Some(BenchCommand::Capacity(args)) => capacity::run(args, config, json),
        Some(BenchCommand::Memory(args)) => memory::run(args, config, json),
        Some(BenchCommand::Soak(args)) => soak::run(args, config, json),
    }
}
