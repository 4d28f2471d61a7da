//! What the measuring commands share: reading sizes and policies, the model with its threads, the facts about the machine,
//! and the display of progress.

use std::{
    borrow::Cow,
    io::{IsTerminal, stderr},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use clap::{builder::RangedI64ValueParser, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    Failure,
    engine::{open_model, threads},
    escape, interrupt,
    output::note,
};
use crate::{
    cache::Policy,
    config::{Config, Kernels},
    engine::Lane,
    kernels::{
        Pool,
        cpu::{self, Level},
    },
    model::LanguageModel,
    telemetry::{HostSampler, cpu_name},
};

/// The policies that were asked for, else the baseline and the one under test as configured.
pub fn policies(asked: &[String], config: &Config) -> Result<Vec<(String, Policy)>, Failure> {
    if asked.is_empty() {
        let configured = |lane| config.lanes.get(lane).policy;
        return Ok([Lane::Kv, Lane::KCache].map(configured).map(|policy| (policy.to_string(), policy)).to_vec());
    }
    asked
        .iter()
        .map(|spelling| spelling.parse().map(|policy| (spelling.clone(), policy)).map_err(Failure::misuse))
        .collect()
}

/// Sizes that memory or the model's context bound from above.
pub fn at_least_one() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=1 << 24)
}

/// Refuses what needs more memory than is free, where the system tells.
pub fn enough_memory(needed: u64, advice: &str) -> Result<(), Failure> {
    let sample = HostSampler::new().map(|mut host| host.sample());
    let memory = sample.and_then(|sample| sample.memory_total_bytes.zip(sample.memory_used_bytes));
    match memory.map(|(total, used)| total.saturating_sub(used)) {
        Some(free) if needed > free => Err(Failure::misuse(format!(
            "the caches would take {} MiB, {} MiB of memory are free: {advice}",
            needed >> 20,
            free >> 20
        ))),
        _ => Ok(()),
    }
}

/// A model with the threads that compute.
pub struct Machine {
    pub model: Arc<LanguageModel>,
    pub pool: Pool,
}

impl Machine {
    /// As configured; the default model is fetched where it is missing.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        Ok(Self { model: open_model(config)?, pool: Pool::new(threads(config)) })
    }

    /// The policies on this model. One that nobody spelled is shown as what it means here.
    pub fn policies(&self, asked: Vec<(String, Policy)>) -> Result<Vec<(String, Policy)>, Failure> {
        let on = |(spelling, policy): (String, Policy)| {
            let here = policy.on(self.model.id()).map_err(Failure::misuse)?;
            Ok((if spelling == policy.to_string() { here.to_string() } else { spelling }, here))
        };
        asked.into_iter().map(on).collect()
    }

    /// What figures from this machine depend on.
    pub fn facts(&self) -> Value {
        let shape = &self.model.shape;
        let mut facts = machine_facts(&self.pool);
        facts["device_simulated"] = true.into();
        facts["model"] = json!({
            "name": shape.name, "layers": shape.layers, "heads": shape.heads, "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim, "context": self.model.context(),
        });
        facts
    }

    /// The same in one line, for people.
    pub fn headline(&self) -> String {
        format!("{}, {}", escape::line(&self.model.shape.name), machine_headline(&self.pool))
    }
}

/// What figures depend on that come from this machine without a model.
pub fn machine_facts(pool: &Pool) -> Value {
    json!({
        "version": env!("BUILD_VERSION"),
        "optimised": !cfg!(debug_assertions),
        "cpu": cpu_name(),
        "kernels": cpu::level().name(),
        "threads": pool.threads(),
    })
}

/// The same in one line, for people.
pub fn machine_headline(pool: &Pool) -> String {
    let threads = pool.threads();
    let cpu = cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let plural = if threads == 1 { "" } else { "s" };
    let unoptimised = if cfg!(debug_assertions) { "; a debug build, slower than a release" } else { "" };
    format!("{threads} thread{plural} on {cpu} ({}){unoptimised}\n", kernels())
}

/// Has only those kernels run that the configuration says, from before the first of them does.
pub fn hold_kernels(config: &Config) -> Result<(), Failure> {
    match held(config.engine.kernels, cpu::found())? {
        None => {}
        Some(level) => cpu::hold(level),
    }
    Ok(())
}

/// The level to hold kernels to; the fastest where there is none to. What the processor cannot do is refused.
fn held(kernels: Kernels, found: Level) -> Result<Option<Level>, Failure> {
    let level = match kernels {
        Kernels::Auto => return Ok(None),
        Kernels::Avx512 => Level::Avx512,
        Kernels::Avx2 => Level::Avx2,
        Kernels::Portable => Level::Portable,
    };
    if level > found {
        let (asked, found) = (level.name(), found.name());
        return Err(Failure::misuse(format!(
            "engine.kernels is `{asked}`, for which this processor lacks instructions; it has those for `{found}`, and \
             `auto` takes the fastest"
        )));
    }
    Ok(Some(level))
}

/// Which kernels run, for people: a lesser kind than the processor's is no property of the machine.
pub fn kernels() -> String {
    let (level, found) = (cpu::level(), cpu::found());
    if level == found {
        format!("{} kernels", level.name())
    } else {
        format!("held to {} kernels, {} here", level.name(), found.name())
    }
}

/// Shows how far the work is, on stderr: a bar where that is a terminal, a line for every tenth elsewhere. Knows
/// whether Ctrl-C was pressed.
pub struct Display {
    bar: Option<ProgressBar>,
    said: Option<usize>,
    cancel: Arc<AtomicBool>,
}

impl Display {
    /// Watches for Ctrl-C from now on.
    pub fn start() -> Result<Self, Failure> {
        let cancel = interrupt::watch().context("cannot watch for Ctrl-C")?;
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("[{bar:30}] {percent:>3} %  {elapsed}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(1).with_style(style.progress_chars("=> "))
        });
        Ok(Self { bar, said: None, cancel })
    }

    /// Shows that `done` of `total` parts are done; whether to go on.
    pub fn show(&mut self, what: &str, done: usize, total: usize) -> ControlFlow<()> {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(escape::line(what).into_owned());
            }
            None => {
                let tenth = done * 10 / total.max(1);
                if self.said != Some(tenth) {
                    note(&format!("{:>3} % {what}", tenth * 10));
                }
                self.said = Some(tenth);
            }
        }
        if self.cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A table of figures, a row each: a column per run, and its ratio to the first run's.
pub struct Comparison<'a, T> {
    runs: &'a [T],
    rows: Vec<Vec<String>>,
}

impl<'a, T> Comparison<'a, T> {
    /// The header: a title, and what each run is called.
    pub fn new(title: String, runs: &'a [T], name: impl Fn(&T) -> &str) -> Self {
        let mut header = vec![title, String::new()];
        for (index, run) in runs.iter().enumerate() {
            header.push(name(run).to_owned());
            header.extend((index > 0).then(|| "ratio".to_owned()));
        }
        Self { runs, rows: vec![header] }
    }

    /// Adds a figure; `None` is what a run does not have.
    pub fn figure(&mut self, name: &str, unit: &str, digits: usize, of: impl Fn(&T) -> Option<f64>) {
        let first = self.runs.first().and_then(&of);
        self.row(name, unit, digits, first, of);
    }

    /// Adds a figure of which ratios say nothing.
    pub fn alone(&mut self, name: &str, unit: &str, digits: usize, of: impl Fn(&T) -> Option<f64>) {
        self.row(name, unit, digits, None, of);
    }

    fn row(&mut self, name: &str, unit: &str, digits: usize, first: Option<f64>, of: impl Fn(&T) -> Option<f64>) {
        let mut row = vec![name.to_owned(), unit.to_owned()];
        for (index, run) in self.runs.iter().enumerate() {
            let value = of(run);
            row.push(value.map_or("n/a".to_owned(), |value| format!("{value:.digits$}")));
            if index > 0 {
                let ratio = value.zip(first).filter(|(_, first)| *first > 0.0).map(|(value, first)| value / first);
                row.push(ratio.map_or(String::new(), |ratio| format!("×{ratio:.2}")));
            }
        }
        self.rows.push(row);
    }

    /// The rows, header first.
    pub fn rows(self) -> Vec<Vec<String>> {
        self.rows
    }
}

/// A table for people: the first column to the left, all others to the right, each as wide as it has to be. Whatever is
/// in a cell, a row is one line.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| escape::line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column).map(|cell| cell.chars().count())).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            line += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The same in Markdown.
pub fn markdown_table(rows: &[Vec<String>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        text += &line(&mut row.iter().map(|cell| escape::line(cell).replace('|', "\\|")));
        if index == 0 {
            text += &line(&mut (0..row.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [vec!["a".into(), "1".into(), "×".into()], vec!["long".into(), "22.5".into()]];
        assert_eq!(table(&rows), "a        1  ×\nlong  22.5\n");
    }

    #[test]
    fn a_table_is_markdown_too() {
        let rows = [vec!["a".into(), "b|c".into()], vec!["d".into(), "2".into()]];
        assert_eq!(markdown_table(&rows), "| a | b\\|c |\n| --- | ---: |\n| d | 2 |\n");
    }

    #[test]
    fn kernels_that_the_processor_lacks_are_refused_in_a_line() {
        for (asked, found, level) in [
            (Kernels::Auto, Level::Portable, None),
            (Kernels::Avx512, Level::Avx512, Some(Level::Avx512)),
            (Kernels::Avx2, Level::Avx512, Some(Level::Avx2)),
            (Kernels::Portable, Level::Avx2, Some(Level::Portable)),
        ] {
            assert_eq!(held(asked, found).unwrap(), level);
        }
        for (asked, found) in [(Kernels::Avx512, Level::Avx2), (Kernels::Avx2, Level::Portable)] {
            let Err(Failure::Misuse(line)) = held(asked, found) else { panic!("{asked:?} on {found:?} is refused") };
            assert!(line.contains("engine.kernels") && line.contains(found.name()) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn what_memory_cannot_hold_is_refused_with_advice() {
        assert!(enough_memory(1, "take less").is_ok());
        let Err(Failure::Misuse(line)) = enough_memory(u64::MAX, "take less") else { panic!("it is refused") };
        assert!(line.ends_with("of memory are free: take less"), "{line}");
    }

    #[test]
    fn without_policies_the_baseline_comes_first() {
        let config = Config::default();
        let found = policies(&[], &config).unwrap();
        assert_eq!(found[0], ("kv".to_owned(), Policy::Kv));
        assert_eq!(found[1].1, config.lanes.kcache.policy);
        let asked = policies(&["kcache:paper".to_owned()], &config).unwrap();
        assert_eq!(asked[0].0, "kcache:paper");
        assert!(matches!(policies(&["kvv".to_owned()], &config), Err(Failure::Misuse(line)) if line.contains("`kvv`")));
    }
}
