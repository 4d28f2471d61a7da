//! `kcache bench soak`: sessions come and go for a while, and nothing of them may be left.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use crate::cli::{
    Failure,
    duration::duration,
    engine::{lanes, options},
    measuring::{Display, Machine, table},
    output::{print, print_json},
};
use crate::{
    bench::{Soak, soak},
    config::Config,
    progress::Progress,
};

/// How long, and with what.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// How long sessions come, such as 10m
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "1m")]
    time: Duration,
    /// The seed of lengths, stops and changes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &SoakArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let machine = Machine::start(config)?;
    let options = options(config, lanes(config));
    let mut display = Display::start()?;
    let mut progress = |progress: Progress| display.show(&progress.what, progress.done, progress.total);
    let soaked = soak(&machine.model, options, args.time, args.seed, &mut progress);
    display.end();
    let soaked = soaked.map_err(Failure::failed)?;
    if json {
        print_json(&json!({ "machine": machine.facts(), "seed": args.seed, "soak": soaked }))?;
    } else {
        print(&format!("{}{}", machine.headline(), table(&rows(&soaked))))?;
    }
    if soaked.left_bytes > 0 {
        return Err(Failure::failed(format!("{} bytes were left in the tiers", soaked.left_bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(soak: &Soak) -> Vec<Vec<String>> {
    let mib = |bytes: Option<u64>| bytes.map_or("n/a".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1048576.0));
    let mut rows = vec![vec!["sessions".to_owned(), soak.sessions.to_string()]];
    rows.extend(soak.ended.iter().map(|(how, count)| vec![format!("  answers {how}"), count.to_string()]));
    rows.push(vec!["knobs and budgets changed".into(), soak.changed.to_string()]);
    rows.push(vec!["preempted".into(), soak.preemptions.to_string()]);
    rows.push(vec!["pages evicted".into(), soak.freed.to_string()]);
    rows.push(vec!["tokens computed again".into(), soak.recomputed_tokens.to_string()]);
    rows.push(vec!["tokens shared".into(), soak.prefix_hit_tokens.to_string()]);
    rows.push(vec!["resident memory, first fifth".into(), mib(soak.rss_early_bytes), "MiB".into()]);
    rows.push(vec!["resident memory, later".into(), mib(soak.rss_late_bytes), "MiB".into()]);
    rows.push(vec!["resident memory, at rest".into(), mib(soak.rss_left_bytes), "MiB".into()]);
    rows.push(vec!["reserved in the tiers, first fifth".into(), mib(Some(soak.reserved_early_bytes)), "MiB".into()]);
    rows.push(vec!["reserved in the tiers, later".into(), mib(Some(soak.reserved_late_bytes)), "MiB".into()]);
    rows.push(vec!["left in the tiers".into(), soak.left_bytes.to_string(), "bytes".into()]);
    rows
}
