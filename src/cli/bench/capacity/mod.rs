//! `kcache bench capacity`: how many sequences a device budget holds, and what many at once are worth.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::machine;
use crate::cli::{
    Failure, fetch,
    measuring::{Comparison, Display, Machine, at_least_one, enough_memory, policies, table},
    output::{print, print_json},
};
use crate::{
    bench::{CapacityError, CapacityOptions, CapacityRun, MachineOptions, capacity},
    cache::{Policy, ProfileError},
    config::{Budget, Config},
    model::Gguf,
    plan::{PlanModel, Planner, Room},
    progress::Progress,
};

mod planned;

use planned::Planned;

/// Sequences of `kv` that the budget holds where none is given.
const SEQUENCES: usize = 10;
/// The policies that are compared where none is given: the baseline, its rival, and the ideas of both.
const POLICIES: [&str; 4] = ["kv", "kv-q8", "kcache", "kcache:k=q8"];

/// What to measure.
#[derive(Debug, Args)]
pub struct CapacityArgs {
    /// A policy to measure; repeat it to compare. Without it: kv, kv-q8, kcache and kcache:k=q8
    #[arg(long = "policy", value_name = "P")]
    policies: Vec<String>,
    /// What a policy's cache may hold on the device, such as 960MiB. Without it, what 10 kv sequences need
    #[arg(long, value_name = "BYTES")]
    budget: Option<Budget>,
    /// Tokens of context that each request begins with
    #[arg(long, value_name = "TOKENS", default_value_t = 4096, value_parser = at_least_one())]
    ctx: u32,
    /// Requests in a round, all there from the start
    #[arg(long, value_name = "N", default_value_t = 72, value_parser = at_least_one())]
    requests: u32,
    /// Tokens that each request generates
    #[arg(long = "gen", value_name = "TOKENS", default_value_t = 32, value_parser = at_least_one())]
    generate: u32,
    /// Rounds that are measured; the policies alternate
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one())]
    rounds: u32,
    /// Every request computes its context, instead of copying one that was computed before
    #[arg(long)]
    real_prefill: bool,
}

pub fn run(args: &CapacityArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let asked = if args.policies.is_empty() { POLICIES.map(str::to_owned).to_vec() } else { args.policies.clone() };
    let machine = Machine::start(config)?;
    let on = |(spelling, policy): (String, Policy)| Ok((spelling, policy.on(machine.model.id())?));
    let policies = policies(&asked, config)?.into_iter().map(on).collect::<Result<Vec<_>, ProfileError>>();
    let policies = policies.map_err(Failure::misuse)?;
    let (ctx, generate, chunk) = (args.ctx as usize, args.generate as usize, config.engine.prefill_chunk);
    let budget = match args.budget {
        Some(Budget(Some(bytes))) => bytes,
        Some(Budget(None)) => return Err(Failure::misuse("without a budget there is no capacity to measure")),
        None => CapacityOptions::budget_for(&machine.model, machine.pool.threads(), SEQUENCES, (ctx, generate), chunk),
    };
    let options = CapacityOptions {
        policies,
        budget,
        ctx,
        requests: args.requests as usize,
        generate,
        rounds: args.rounds as usize,
        prefill_chunk: chunk,
        threads: machine.pool.threads(),
        real_prefill: args.real_prefill,
    };
    options.check(&machine.model).map_err(failure)?;
    enough_memory(options.memory(&machine.model), "take a smaller --budget")?;
    let planner = planner(&machine, &options, config)?;
    let mut display = Display::start()?;
    let mut progress = |progress: Progress| display.show(&progress.what, progress.done, progress.total);
    let runs = capacity(&machine.model, &machine.pool, &options, &mut progress).map_err(failure);
    display.end();
    let plan = |(run, (_, policy)): (CapacityRun, &(String, Policy))| {
        let sessions = planned::sessions(&planner, policy, &options, &machine.model);
        Planned::new(&planner, policy, &options, sessions, run)
    };
    let runs: Vec<Planned> = runs?.into_iter().zip(&options.policies).map(plan).collect();
    if json {
        print_json(&json!({
            "machine": machine.facts(), "budget_bytes": options.budget, "ctx": ctx, "requests": options.requests,
            "gen": generate, "rounds": options.rounds, "prefill_chunk": chunk, "real_prefill": options.real_prefill,
            "device": planner.device(), "runs": runs,
        }))?;
    } else {
        let (requests, rounds) = (options.requests, options.rounds);
        let contexts = if options.real_prefill { "computed by each request" } else { "copied" };
        let how = format!(
            "{requests} requests, {generate} tokens each after a context of {ctx} ({contexts}); {rounds} rounds, \
             alternating; budget {:.1} MiB (simulated)\n",
            mib(options.budget)
        );
        let plan =
            "what `kcache plan` says of these sessions, from this machine's rates as measured before the rounds\n";
        let [measured, planned] = [rows(&runs), planned::rows(&runs)].map(|rows| table(&rows));
        print(&format!("{}{how}\n{measured}\n{plan}\n{planned}", machine.headline()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Plans for this machine, measured for it.
fn planner(machine: &Machine, options: &CapacityOptions, config: &Config) -> Result<Planner, Failure> {
    const QUICKLY: MachineOptions =
        MachineOptions { rounds: 5, slice: Duration::from_millis(30), ..MachineOptions::DEFAULT };
    let gguf = Gguf::open(&fetch::model_file(config)?).map_err(Failure::misuse)?;
    let model = PlanModel::from_gguf(&gguf).map_err(Failure::misuse)?;
    let device = machine::this(&machine.pool, &model, QUICKLY)?;
    Planner::new(model, device, Room::Budget(options.budget)).map_err(Failure::misuse)
}

fn failure(error: CapacityError) -> Failure {
    match error {
        CapacityError::Empty | CapacityError::Context { .. } | CapacityError::Refused { .. } => Failure::misuse(error),
        CapacityError::Cancelled => Failure::failed("stopped; nothing was measured to the end"),
        CapacityError::OverBudget { .. } | CapacityError::OutOfBudget(_) | CapacityError::Engine(_) => {
            anyhow::Error::new(error).into()
        }
    }
}

/// A row per figure, a column per policy with its ratio to the first.
fn rows(planned: &[Planned]) -> Vec<Vec<String>> {
    let runs: Vec<&CapacityRun> = planned.iter().map(|planned| &planned.run).collect();
    let mut table = Comparison::new(String::new(), &runs, |run| &run.policy);
    table.figure("sessions resident", "", 0, |run| Some(run.sessions_resident as f64));
    table.figure("all together", "tok/s", 1, |run| run.tok_s);
    table.figure("  slowest round", "tok/s", 1, |run| run.tok_s_min);
    table.figure("  fastest round", "tok/s", 1, |run| run.tok_s_max);
    table.figure("step p50", "ms", 1, |run| run.step_ms_p50);
    table.figure("  linear", "ms", 1, |run| run.linear_ms);
    table.figure("  attention", "ms", 1, |run| run.attention_ms);
    table.figure("  output head", "ms", 1, |run| run.head_ms);
    table.figure("  sampling", "ms", 1, |run| run.sampling_ms);
    table.figure("  other", "ms", 1, |run| run.other_ms);
    table.figure("TTFT p50, waiting included", "ms", 0, |run| run.ttft_ms_p50);
    table.figure("TTFT p99", "ms", 0, |run| run.ttft_ms_p99);
    table.figure("ITL p50", "ms", 1, |run| run.itl_ms_p50);
    table.figure("ITL p99", "ms", 1, |run| run.itl_ms_p99);
    table.figure("preemptions", "", 0, |run| Some(run.preemptions as f64));
    table.figure("device peak (simulated)", "MiB", 1, |run| Some(mib(run.device_peak_bytes)));
    table.figure("host peak", "MiB", 1, |run| Some(mib(run.host_peak_bytes)));
    table.figure("completed", "", 0, |run| Some(run.completed as f64));
    table.figure("scheduling a step", "ms", 3, |run| run.schedule_ms_p50);
    table.figure("  longest", "ms", 3, |run| run.schedule_ms_max);
    table.rows()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
