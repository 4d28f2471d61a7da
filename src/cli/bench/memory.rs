//! `kcache bench memory`: how much of this machine's memory a number of sequences really takes.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::{
    Failure,
    measuring::{Display, Machine, at_least_one, enough_memory, policies, table},
    output::{print, print_json},
};
use crate::{
    bench::{MemoryError, MemoryOptions, MemoryRun, memory},
    config::Config,
    progress::Progress,
};

/// What to fill.
#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// The policy whose caches are filled; without it, that of the lane under test
    #[arg(long, value_name = "P")]
    policy: Option<String>,
    /// Sequences
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    sessions: u32,
    /// Tokens of each sequence
    #[arg(long, value_name = "TOKENS", default_value_t = 8192, value_parser = at_least_one())]
    ctx: u32,
}

pub fn run(args: &MemoryArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let asked = args.policy.clone().unwrap_or_else(|| config.lanes.kcache.policy.to_string());
    let asked = policies(&[asked], config)?;
    let machine = Machine::start(config)?;
    let Some(policy) = machine.policies(asked)?.pop() else {
        return Err(Failure::misuse("there is no policy to fill caches of"));
    };
    let options = MemoryOptions { policy, sessions: args.sessions as usize, ctx: args.ctx as usize };
    let shape = machine.model.cache_shape();
    enough_memory(options.needed(shape), "take fewer --sessions or a smaller --ctx")?;
    let mut display = Display::start()?;
    let mut progress = |progress: Progress| display.show(&progress.what, progress.done, progress.total);
    let run = memory(shape, &machine.pool, &options, &mut progress);
    display.end();
    let run = run.map_err(failure)?;
    if json {
        print_json(&json!({ "machine": machine.facts(), "memory": run }))?;
    } else {
        let how = format!("{} sequences of {} tokens, rows made up\n\n", options.sessions, options.ctx);
        print(&format!("{}{how}{}", machine.headline(), table(&rows(&run))))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(error: MemoryError) -> Failure {
    match error {
        MemoryError::Cancelled => Failure::failed("stopped; nothing was measured to the end"),
        MemoryError::OutOfBudget(_) | MemoryError::Unbalanced(_) => anyhow::Error::new(error).into(),
    }
}

fn rows(run: &MemoryRun) -> Vec<Vec<String>> {
    let mib = |bytes: Option<u64>| bytes.map_or("n/a".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1048576.0));
    let share = |share: Option<f64>| share.map_or("n/a".to_owned(), |share| format!("×{share:.4}"));
    let row = |name: &str, bytes, ratio: String| vec![name.to_owned(), mib(bytes), "MiB".to_owned(), ratio];
    let both = Some(run.device_bytes + run.host_bytes);
    vec![
        vec![run.policy.clone()],
        row("needed, by the formula", Some(run.needed_bytes), String::new()),
        row("ledger, device (simulated) and host", both, share(Some(run.ledger_ratio))),
        row("  device (simulated)", Some(run.device_bytes), String::new()),
        row("  host", Some(run.host_bytes), String::new()),
        row("resident memory, growth", run.rss_growth_bytes, share(run.rss_ratio)),
        row("  not given back by the allocator afterwards", run.rss_left_bytes, String::new()),
    ]
}
