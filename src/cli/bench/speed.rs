//! `kcache bench` by itself: prefill and decode speed, stage times and bytes by tier, policy beside policy.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::{
    Failure,
    measuring::{Comparison, Display, Machine, at_least_one, enough_memory, policies, table},
    output::{print, print_json},
};
use crate::{
    bench::{BenchError, BenchOptions, Run, bench},
    config::Config,
    progress::Progress,
};

/// The speed of policies.
#[derive(Debug, Args)]
pub struct SpeedArgs {
    /// A policy to measure, like `kv` or `kcache:n=128,tail=mean`; repeat it to compare. Without it, the two lanes'
    #[arg(long = "policy", value_name = "P")]
    policies: Vec<String>,
    /// Prompt lengths in tokens
    #[arg(long, value_name = "TOKENS,…", value_parser = at_least_one())]
    #[arg(value_delimiter = ',', default_values_t = [512, 4096])]
    ctx: Vec<u32>,
    /// How many sequences decode together
    #[arg(long, value_name = "SEQUENCES,…", value_parser = at_least_one())]
    #[arg(value_delimiter = ',', default_values_t = [1])]
    batch: Vec<u32>,
    /// Tokens that each sequence decodes in a round
    #[arg(long = "gen", value_name = "TOKENS", default_value_t = 32, value_parser = at_least_one())]
    steps: u32,
    /// Measures every kcache policy once more with a probe of exact attention at every position that this divides
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one())]
    probe_every: Option<u32>,
    /// Rounds that are measured; the policies alternate
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    rounds: u32,
}

pub fn run(args: &SpeedArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let sizes = |sizes: &[u32]| sizes.iter().map(|&size| size as usize).collect();
    let policies = policies(&args.policies, config)?;
    let machine = Machine::start(config)?;
    let options = BenchOptions {
        policies: machine.policies(policies)?,
        ctx: sizes(&args.ctx),
        batch: sizes(&args.batch),
        steps: args.steps as usize,
        rounds: args.rounds as usize,
        prefill_chunk: config.engine.prefill_chunk,
        probe_every: args.probe_every.unwrap_or(0) as usize,
    };
    let mut display = Display::start()?;
    let mut progress = |progress: Progress| display.show(&progress.what, progress.done, progress.total);
    let runs = room(&options, &machine)
        .and_then(|()| bench(&machine.model, &machine.pool, &options, &mut progress).map_err(failure));
    display.end();
    let runs = runs?;
    if json {
        print_json(&json!({
            "machine": machine.facts(), "gen": options.steps, "rounds": options.rounds,
            "prefill_chunk": options.prefill_chunk, "runs": runs,
        }))?;
    } else {
        let rounds = options.rounds;
        let how = format!("{} tokens a round, {rounds} rounds, alternating; medians\n", options.steps);
        let parts = runs.chunk_by(|a, b| (a.ctx, a.batch) == (b.ctx, b.batch));
        let blocks: Vec<String> = parts.map(|runs| table(&rows(runs))).collect();
        print(&format!("{}{how}\n{}", machine.headline(), blocks.join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses what this machine's memory cannot hold, where the system tells: better than being killed in the middle.
fn room(options: &BenchOptions, machine: &Machine) -> Result<(), Failure> {
    // Sizes that no context can have are refused with a better reason.
    if options.ctx.iter().any(|&ctx| ctx + options.steps > machine.model.context()) {
        return Ok(());
    }
    enough_memory(options.cache_bytes(machine.model.cache_shape()), "take a smaller --ctx or --batch")
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Empty | BenchError::Context { .. } => Failure::misuse(error),
        BenchError::Cancelled => Failure::failed("stopped; nothing was measured to the end"),
        BenchError::OutOfBudget(_) | BenchError::Unbalanced(_) => anyhow::Error::new(error).into(),
    }
}

/// One context and batch as a table: a row per figure, a column per policy with its ratio to the first.
fn rows(runs: &[Run]) -> Vec<Vec<String>> {
    let mut table = Comparison::new(format!("ctx {}, batch {}", runs[0].ctx, runs[0].batch), runs, |run| &run.policy);
    if runs.iter().any(|run| run.probe_every > 0) {
        table.figure("probed at every", "tokens", 0, |run| (run.probe_every > 0).then_some(run.probe_every as f64));
    }
    // One pass has no slowest and no fastest.
    let range = |run: &Run, end: f64| (run.prefill_passes > 1).then_some(end);
    table.figure("prefill", "tok/s", 1, |run| Some(run.prefill_tok_s));
    table.figure("  slowest pass", "tok/s", 1, |run| range(run, run.prefill_tok_s_min));
    table.figure("  fastest pass", "tok/s", 1, |run| range(run, run.prefill_tok_s_max));
    table.figure("  linear layers", "GFLOP/s", 1, |run| run.prefill_linear_gflop_s);
    table.figure("decode", "tok/s", 1, |run| Some(run.decode_tok_s));
    table.figure("  slowest round", "tok/s", 1, |run| Some(run.decode_tok_s_min));
    table.figure("  fastest round", "tok/s", 1, |run| Some(run.decode_tok_s_max));
    table.figure("step p50", "ms", 2, |run| Some(run.step_ms_p50));
    table.figure("step p99", "ms", 2, |run| Some(run.step_ms_p99));
    table.figure("  linear", "ms", 2, |run| Some(run.linear_ms));
    table.figure("  attention", "ms", 2, |run| Some(run.attention_ms));
    table.figure("    scores", "ms", 2, |run| Some(run.scores_ms));
    table.figure("    select", "ms", 2, |run| Some(run.select_ms));
    table.figure("    gather", "ms", 2, |run| Some(run.gather_ms));
    table.figure("  output head", "ms", 2, |run| Some(run.head_ms));
    table.figure("  other", "ms", 2, |run| Some(run.other_ms));
    table.figure("attention reads", "GB/s", 2, |run| run.attention_gb_s);
    table.figure("rows per head", "", 1, |run| run.rows_per_head);
    let chosen = |run: &Run, rows: u64| (run.rows_chosen > 0).then_some(rows as f64);
    table.figure("rows chosen", "/step", 0, |run| chosen(run, run.rows_chosen));
    table.figure("  fetched from the host", "/step", 0, |run| chosen(run, run.rows_fetched));
    let mib = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
    table.figure("read, device", "MiB/step", 2, |run| mib(run.device_read_bytes));
    table.figure("read, host V", "MiB/step", 2, |run| mib(run.host_v_read_bytes));
    table.figure("device K+V (simulated)", "MiB", 2, |run| mib(run.device_kv_bytes));
    table.figure("host V", "MiB", 2, |run| mib(run.host_v_bytes));
    table.rows()
}
