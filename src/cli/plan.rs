//! `kcache plan`: how many sessions of which context fit under each policy, how fast they would be, and from which context
//! on one policy wins over another.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, builder::RangedI64ValueParser, value_parser};
use serde_json::Value;

mod report;

use super::{
    Failure,
    bench::machine,
    duration::duration,
    engine::threads,
    fetch,
    measuring::{policies, table},
    output::{print, print_json},
};
use crate::{
    bench::MachineOptions,
    cache::{ModelId, Policy},
    config::Config,
    files,
    kernels::Pool,
    model::Gguf,
    plan::{
        Described, Device, Measured, PRESETS, PlanModel, Planner, Room,
        units::{bandwidth, bytes, count, operations},
    },
};

use report::Plan;

/// What to plan for.
#[derive(Debug, Args)]
#[command(after_long_help = long_help())]
pub struct PlanArgs {
    /// A device by name (see below), or `this`, the default: this machine, measured; the flags that follow change its figures
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Memory of the device
    #[arg(long, value_name = "24GiB", value_parser = bytes)]
    memory: Option<u64>,
    /// What the device reads from its memory in a second
    #[arg(long, value_name = "936GB/s", value_parser = bandwidth)]
    bandwidth: Option<f64>,
    /// What reaches the device from host memory in a second
    #[arg(long, value_name = "32GB/s", value_parser = bandwidth)]
    link: Option<f64>,
    /// What the device multiplies and adds in a second; left out with a device that has no name, it bounds nothing
    #[arg(long, value_name = "312TFLOP/s", value_parser = operations)]
    compute: Option<f64>,
    /// Host memory for V; left out, as much as it takes
    #[arg(long, value_name = "64GiB", value_parser = bytes)]
    host_memory: Option<u64>,
    /// Bytes for sessions, as the budget of a lane is; left out, a share of the memory less the weights
    #[arg(long, value_name = "960MiB", value_parser = bytes)]
    budget: Option<u64>,
    /// The share of the memory that can be used
    #[arg(long, value_name = "0..1", default_value_t = 0.9, value_parser = share)]
    usable: f64,
    /// Tokens of a session, prompt and answer together; left out, 512, 4096 and 32768, none beyond the model's context
    #[arg(long, value_name = "TOKENS,…", value_parser = tokens(), value_delimiter = ',')]
    ctx: Vec<u32>,
    /// The longest step: the time between two tokens of a session. More sessions than that allows are left out; `none` counts all that memory holds
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = itl)]
    itl: Itl,
    /// A policy to plan for; repeat it to compare with the first. Without it, `kv`, `kv-q8`, `kcache`, `kcache:k=q8`
    #[arg(long = "policy", value_name = "P")]
    policies: Vec<String>,
    /// A report of `kcache bench --json` to compare the predictions with
    #[arg(long, value_name = "FILE.json")]
    measured: Option<PathBuf>,
    #[command(flatten)]
    described: DescribedArgs,
}

/// A model without its file.
#[derive(Debug, Args)]
#[command(next_help_heading = "A model without its file")]
struct DescribedArgs {
    /// Transformer layers
    #[arg(long, value_name = "32", value_parser = dimension())]
    layers: Option<u32>,
    /// Query heads
    #[arg(long, value_name = "32", value_parser = dimension())]
    heads: Option<u32>,
    /// KV heads; left out, as many as query heads
    #[arg(long, value_name = "8", value_parser = dimension())]
    kv_heads: Option<u32>,
    /// Values of a head
    #[arg(long, value_name = "128", value_parser = dimension())]
    head_dim: Option<u32>,
    /// Weights
    #[arg(long, value_name = "8B", value_parser = count)]
    params: Option<u64>,
    /// Bits of a weight, scales included; left out, 16
    #[arg(long, value_name = "4.5", value_parser = bits)]
    weight_bits: Option<f64>,
}

/// The longest step in milliseconds, if any is too long.
#[derive(Debug, Clone, Copy)]
struct Itl(Option<f64>);

fn itl(text: &str) -> Result<Itl, String> {
    match text {
        "none" => Ok(Itl(None)),
        time => duration(time).map(|time| Itl(Some(time.as_secs_f64() * 1e3))).map_err(|why| format!("{why}, or none")),
    }
}

/// Contexts to plan for where none are asked for.
const CONTEXTS: [usize; 3] = [512, 4096, 32768];

/// Those, with the model's own in place of what is beyond it.
fn contexts(longest: Option<usize>) -> Vec<usize> {
    let mut contexts = CONTEXTS.map(|ctx| longest.map_or(ctx, |longest| ctx.min(longest))).to_vec();
    contexts.dedup();
    contexts
}

fn tokens() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=1 << 24)
}

fn dimension() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=1 << 16)
}

fn share(text: &str) -> Result<f64, String> {
    number_in(text, 0.0, 1.0).ok_or_else(|| "it is a number above 0, at most 1".to_owned())
}

fn bits(text: &str) -> Result<f64, String> {
    number_in(text, 0.0, 64.0).ok_or_else(|| "it is a number above 0, at most 64".to_owned())
}

fn number_in(text: &str, above: f64, to: f64) -> Option<f64> {
    text.parse().ok().filter(|&number| number > above && number <= to)
}

fn long_help() -> String {
    let mut rows = vec![["Devices", "memory", "bandwidth", "link", "16-bit products"].map(str::to_owned).to_vec()];
    for preset in PRESETS {
        rows.push(vec![
            format!("  {}", preset.name),
            format!("{} GiB", preset.memory_gib),
            format!("{} GB/s", preset.bandwidth_gb_s),
            format!("{} GB/s", preset.link_gb_s),
            format!("{} TFLOP/s", preset.tflop_s),
        ]);
    }
    let sources: Vec<String> = PRESETS.iter().map(|preset| format!("  {}: {}", preset.name, preset.source)).collect();
    format!(
        "{}\nSources (links: PCI-SIG, 16 lanes of 16 or 32 GT/s, one direction)\n{}\n\n\
         How it is computed\n  \
         A session takes whole pages of 64 tokens: K, the V that its policy keeps on the device, and running sums.\n  \
         A step reads the weights once for all sessions, and for each its K, its V on the device and N rows a head\n  \
         over the link. A stage takes the longer of bytes over bandwidth and arithmetic over the peak (the roofline),\n  \
         and stages come one after the other. These are bounds: nothing reaches its peak, and what is small is left\n  \
         out. Of the sessions that memory holds only so many count as keep a step within --itl. On this machine, measured, the times of its kernels count instead: a time for each row of the linear\n  \
         layers beyond the first, for each position that a head scores, and for each row that it chooses. With\n  \
         --bandwidth, --link or --compute it is no longer this machine, and bounds are computed from its rates.\n  \
         `kcache bench capacity` shows how far the plan for this machine is off; --measured does it for a report.\n",
        table(&rows),
        sources.join("\n")
    )
}

pub fn run(args: &PlanArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let policies = match &args.policies[..] {
        [] => self::policies(&["kv", "kv-q8", "kcache", "kcache:k=q8"].map(str::to_owned), config)?,
        asked => self::policies(asked, config)?,
    };
    let measured = args.measured.as_deref().map(report).transpose()?;
    let (model, id) = model(&args.described, config)?;
    // What no model's file is there for is planned as it is spelled.
    let on = |(spelling, policy): (String, Policy)| match &id {
        Some(id) => policy.on(id).map(|policy| (spelling, policy)),
        None => Ok((spelling, policy)),
    };
    let policies = policies.into_iter().map(on).collect::<Result<_, _>>().map_err(Failure::misuse)?;
    let device = device(args, &model, config)?;
    let room = args.budget.map_or(Room::Share(args.usable), Room::Budget);
    let planner = Planner::new(model, device, room).map_err(Failure::misuse)?.within(args.itl.0);
    let compared = measured.as_deref().map(|runs| planner.compare(runs)).transpose().map_err(Failure::misuse)?;
    let ctx = match &args.ctx[..] {
        [] => contexts(planner.model().context),
        asked => asked.iter().map(|&ctx| ctx as usize).collect(),
    };
    let plan = Plan { planner, policies, ctx, itl_ms: args.itl.0, compared };
    if json {
        print_json(&plan.as_json())?
    } else {
        print(&plan.as_text())?
    }
    Ok(ExitCode::SUCCESS)
}

/// The runs of a report.
fn report(path: &Path) -> Result<Vec<Measured>, Failure> {
    let complain = |why: String| Failure::misuse(format!("{}: {why}", path.display()));
    let text = files::read_text(path, 64).map_err(|error| complain(format!("cannot be read: {error}")))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| complain(format!("is no JSON: {error}")))?;
    Measured::from_report(&report).map_err(|error| complain(error.to_string()))
}

/// The model that is described, else the one that would run.
fn model(args: &DescribedArgs, config: &Config) -> Result<(PlanModel, Option<ModelId>), Failure> {
    let DescribedArgs { layers, heads, kv_heads, head_dim, params, weight_bits } = *args;
    if [layers, heads, kv_heads, head_dim].iter().all(Option::is_none) && params.is_none() && weight_bits.is_none() {
        let path = fetch::model_file(config)?;
        let gguf = Gguf::open(&path).map_err(Failure::misuse)?;
        let model = PlanModel::from_gguf(&gguf).map_err(Failure::misuse)?;
        let id = ModelId { fingerprint: gguf.fingerprint(), layers: model.layers, heads: model.heads };
        return Ok((model, Some(id)));
    }
    if config.model.path.is_some() {
        return Err(Failure::misuse(
            "a model has a file or a description: leave out --model, or --layers and the like",
        ));
    }
    let (Some(layers), Some(heads), Some(head_dim), Some(params)) = (layers, heads, head_dim, params) else {
        return Err(Failure::misuse("a description needs --layers, --heads, --head-dim and --params"));
    };
    let kv_heads = kv_heads.unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(Failure::misuse(format!("{heads} query heads cannot share {kv_heads} KV heads evenly")));
    }
    let described = PlanModel::described(Described {
        layers: layers as usize,
        heads: heads as usize,
        kv_heads: kv_heads as usize,
        head_dim: head_dim as usize,
        params,
        weight_bits: weight_bits.unwrap_or(16.0),
    });
    Ok((described, None))
}

/// The device with what the flags say over it. Without a name, the flags have to say enough, or nothing.
fn device(args: &PlanArgs, model: &PlanModel, config: &Config) -> Result<Device, Failure> {
    let mut device = match (args.device.as_deref(), args.memory, args.bandwidth, args.link) {
        (None, Some(memory_bytes), Some(bandwidth), Some(link)) => Device {
            name: "the device described".into(),
            memory_bytes,
            host_bytes: None,
            bandwidth,
            weight_bandwidth: bandwidth,
            link,
            linear_flops: None,
            attention_flops: None,
            one_memory: false,
            attention: None,
        },
        (None, None, None, None) | (Some("this"), ..) => {
            machine::this(&Pool::new(threads(config)), model, MachineOptions::default())?
        }
        (None, ..) => {
            return Err(Failure::misuse("a device without a name needs --memory, --bandwidth and --link"));
        }
        (Some(name), ..) => Device::preset(name).ok_or_else(|| {
            let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
            Failure::misuse(format!("--device: `{name}` is not known; `this`, or one of {}", names.join(", ")))
        })?,
    };
    if args.bandwidth.is_some() || args.link.is_some() || args.compute.is_some() {
        // Of a machine that does not exist no kernels were measured.
        device.attention = None;
    }
    device.memory_bytes = args.memory.unwrap_or(device.memory_bytes);
    if let Some(bandwidth) = args.bandwidth {
        (device.bandwidth, device.weight_bandwidth) = (bandwidth, bandwidth);
    }
    device.link = args.link.unwrap_or(device.link);
    device.host_bytes = args.host_memory.or(device.host_bytes);
    if args.compute.is_some() {
        (device.linear_flops, device.attention_flops) = (args.compute, args.compute);
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_none_that_the_model_lacks() {
        assert_eq!(contexts(None), [512, 4096, 32768]);
        assert_eq!(contexts(Some(8192)), [512, 4096, 8192]);
        assert_eq!(contexts(Some(4096)), [512, 4096]);
        assert_eq!(contexts(Some(300)), [300]);
    }

    #[test]
    fn the_longest_step_is_a_time_or_none() {
        let ms = |text: &str| itl(text).map(|itl| itl.0);
        assert_eq!([ms("100ms"), ms("2s"), ms("none")], [Ok(Some(100.0)), Ok(Some(2e3)), Ok(None)]);
        assert!(ms("100").is_err_and(|why| why.ends_with(", or none")));
    }
}
