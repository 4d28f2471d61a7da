//! The command line as a structure.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;

/// An LLM engine with two caches side by side, KCache and an ordinary KV cache, measured live.
#[derive(Debug, Parser)]
#[command(name = "kcache", version = env!("BUILD_VERSION"), max_term_width = 100)]
#[command(after_help = super::headless::EXIT_CODES)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// Flags of the dashboard.
    #[command(flatten)]
    pub dashboard: super::dashboard::DashboardArgs,
    /// What to do; the dashboard where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// A GGUF file to run instead of the default model
    #[arg(long, global = true, value_name = "FILE.gguf")]
    pub model: Option<PathBuf>,
    /// Threads that compute
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// The configuration file to read instead of the user's
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON document on stdout, nothing else there
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Says one thing to the model and prints its reply as it is generated
    Chat(super::chat::ChatArgs),
    /// Shows, checks or starts the configuration
    #[command(subcommand)]
    Config(super::config::ConfigCommand),
    /// Lists, fetches and describes models
    #[command(subcommand)]
    Model(super::model::ModelCommand),
    /// Measures prefill and decode speed, stage times and bytes by tier, policy beside policy
    Bench(super::bench::BenchArgs),
    /// Measures what policies cost in quality on a text, against full attention on the same tokens
    Eval(super::eval::EvalArgs),
    /// Predicts how many sessions of which context fit on a device under each policy, and how fast they would be
    Plan(Box<super::plan::PlanArgs>),
    /// Learns from texts how many rows each head of the model should read, and writes a profile for policies
    Tune(super::tune::TuneArgs),
    /// Draws the screen at one moment of a recorded run, as SVG
    Picture(super::picture::PictureArgs),
    /// What this machine offers and what is missing, each with what to do about it
    Doctor,
    /// Writes the completions of a shell to stdout
    Completions(super::shell::CompletionsArgs),
    /// Writes the manual page to stdout
    Man,
}

impl Global {
    /// What these flags say over the configuration.
    pub fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::with_file(self.config.clone());
        overrides.set_path("--model", "model.path", self.model.as_deref()).set(
            "--threads",
            "engine.threads",
            self.threads,
        );
        overrides
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
