//! `kcache bench machine`: what the units of this machine can do. The stages of a step are compared with these bounds.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::{
    Failure,
    engine::threads,
    measuring::{Display, machine_facts, machine_headline, table},
    output::{print, print_json},
};
use crate::{
    attention::HeadShape,
    bench::{AttentionRates, MachineError, MachineOptions, MachineRates, Rate, attention_rates, machine},
    config::Config,
    kernels::Pool,
    plan::{Device, PlanModel},
    progress::Progress,
    telemetry::HostSampler,
};

pub fn run(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let pool = Pool::new(threads(config));
    let options = MachineOptions::default();
    let rates = measure(&pool, options)?;
    if json {
        print_json(&json!({
            "machine": machine_facts(&pool), "rounds": options.rounds, "buffer_bytes": options.buffer_bytes,
            "rates": rates,
        }))?;
    } else {
        let how = format!("{} rounds, alternating; medians, least and most\n\n", options.rounds);
        print(&format!("{}{how}{}", machine_headline(&pool), table(&rows(&rates))))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The rates of this machine, on the threads of `pool`, with its progress on stderr.
pub fn measure(pool: &Pool, options: MachineOptions) -> Result<MachineRates, Failure> {
    let sample = HostSampler::new().map(|mut host| host.sample());
    let memory = sample.and_then(|sample| sample.memory_total_bytes.zip(sample.memory_used_bytes));
    if let Some((total, used)) = memory
        && total.saturating_sub(used) < options.buffer_bytes as u64
    {
        let (needed, free) = (options.buffer_bytes >> 20, total.saturating_sub(used) >> 20);
        let message = format!("measuring takes {needed} MiB of memory, {free} MiB are free: end other programs first");
        return Err(Failure::failed(message));
    }
    let mut display = Display::start()?;
    let mut progress = |progress: Progress| display.show(&progress.what, progress.done, progress.total);
    let rates = machine(pool, options, &mut progress);
    display.end();
    rates.map_err(failure)
}

/// What attention takes here for heads of this shape.
fn measure_attention(pool: &Pool, shape: &HeadShape, options: MachineOptions) -> Result<AttentionRates, Failure> {
    let mut display = Display::start()?;
    let mut progress = |progress: Progress| display.show(&progress.what, progress.done, progress.total);
    let rates = attention_rates(pool, shape, options, &mut progress);
    display.end();
    rates.map_err(failure)
}

fn failure(error: MachineError) -> Failure {
    match error {
        MachineError::Stopped => Failure::failed("stopped; nothing was measured to the end"),
        MachineError::NoRounds | MachineError::Linear(_) => Failure::failed(error),
    }
}

/// This machine as a device to plan for, measured for a model's heads.
pub fn this(pool: &Pool, model: &PlanModel, options: MachineOptions) -> Result<Device, Failure> {
    let memory = HostSampler::new().and_then(|mut host| host.sample().memory_total_bytes);
    let memory =
        memory.ok_or_else(|| Failure::failed("this machine does not say how much memory it has: name a device"))?;
    let rates = measure(pool, options)?;
    let PlanModel { heads, kv_heads, head_dim, .. } = *model;
    let shape = HeadShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
    let attention = measure_attention(pool, &shape, options)?;
    Ok(Device::measured(&rates, &attention, head_dim, memory))
}

/// A row per unit: one thread, all threads, and their ratio.
fn rows(rates: &MachineRates) -> Vec<Vec<String>> {
    let all = match rates.threads {
        1 => "1 thread again".to_owned(),
        threads => format!("{threads} threads"),
    };
    let mut header = vec![String::new(); 2];
    header.extend(
        ["1 thread", &all]
            .iter()
            .flat_map(|threads| [(*threads).to_owned(), format!("{threads}: least"), format!("{threads}: most")]),
    );
    header.push("ratio".to_owned());
    let mut rows = vec![header];
    let mut unit = |name: &str, unit: &str, digits: usize, Rate { one, all }: Rate| {
        let mut row = vec![name.to_owned(), unit.to_owned()];
        row.extend(
            [one, all].iter().flat_map(|rate| [rate.median, rate.min, rate.max]).map(|x| format!("{x:.digits$}")),
        );
        row.push(format!("×{:.2}", all.median / one.median));
        rows.push(row);
    };
    unit("memory, front to back", "GB/s", 2, rates.read_gb_s);
    unit("memory, random rows of 128 B", "GB/s", 2, rates.gather_gb_s);
    unit("f32 multiply-add, registers", "GFLOP/s", 1, rates.fma_gflop_s);
    unit("f32 matrix product, L2", "GFLOP/s", 1, rates.gemm_gflop_s);
    unit("8-bit products, L1", "GOP/s", 1, rates.dot8_gop_s);
    unit("linear layer Q4_1, 32 rows, L2", "GOP/s", 1, rates.linear_gop_s);
    unit("linear layers Q4_1, 32 rows, memory", "GOP/s", 1, rates.layers_gop_s);
    unit("weights Q4_1, 1 row, memory", "GB/s", 2, rates.weights_gb_s);
    unit("keys f16, 3 queries, memory", "GB/s", 2, rates.keys_gb_s);
    unit("empty parallel region", "µs", 2, rates.region_us);
    unit("region with work, beyond it", "µs", 2, rates.joined_us);
    rows
}
