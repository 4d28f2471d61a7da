//! `kcache eval`: what a policy costs in quality, against full attention on the same tokens.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure,
    measuring::{Display, Machine, markdown_table, policies, table},
    output::{print, print_json},
    text,
};
use crate::{
    config::Config,
    files,
    progress::Progress,
    quality::{
        ESTIMATES, EvalError, EvalOptions, Evaluation, FIGURES, Gate, ROUNDED, Score, TaskResult, TaskScore, evaluate,
        kl_mean, tasks, top1,
    },
};

/// Tokens that a task's questions and answers take at most.
const TASK_ROOM: usize = 640;
/// Parts of one text or task in the display of progress.
const PARTS: usize = 1000;

/// What to evaluate on.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A text file, best in UTF-8; repeat it to pool several texts
    #[arg(long = "text", value_name = "FILE", required_unless_present = "tasks")]
    texts: Vec<PathBuf>,
    /// Tokens of context before the first one that is compared
    #[arg(long, value_name = "TOKENS", default_value_t = 3072)]
    context: usize,
    /// Tokens that are compared
    #[arg(long, value_name = "TOKENS", default_value_t = 384)]
    tokens: usize,
    /// A policy to evaluate, like `kv` or `kcache:n=128,tail=mean`; repeat it to compare. Without it, the two lanes'
    #[arg(long = "policy", value_name = "P")]
    policies: Vec<String>,
    /// Compute linear layers on f32 activations: many times slower, and without the noise of rounding them to 8 bits
    #[arg(long)]
    exact: bool,
    /// Also set tasks: copy a list, find values at several depths of the context, count words
    #[arg(long = "probes", visible_alias = "tasks")]
    tasks: bool,
    /// Fail, exit code 1, where this holds for any policy, such as `kl_mean>0.02`; repeatable
    #[arg(long, value_name = "FIGURE>NUMBER")]
    fail_if: Vec<Gate>,
    /// Tables in Markdown
    #[arg(long)]
    markdown: bool,
}

pub fn run(args: &EvalArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    if json && args.markdown {
        return Err(Failure::misuse("--json and --markdown exclude each other"));
    }
    let policies = policies(&args.policies, config)?;
    let texts = args.texts.iter().map(|path| text::read(path)).collect::<Result<Vec<_>, _>>()?;
    let machine = Machine::start(config)?;
    let policies = machine.policies(policies)?;
    let options = EvalOptions { context: args.context, tokens: args.tokens, policies, exact: args.exact };
    let mut display = Display::start()?;
    let found = evaluate_all(&machine, args, &texts, &options, &mut display);
    display.end();
    let found = found?;
    let report = Report { machine: &machine, options: &options, paths: &args.texts, found: &found };
    if json {
        print_json(&report.json())?;
    } else {
        print(&report.text(args.markdown))?;
    }
    let Some(pooled) = &found.pooled else { return Ok(ExitCode::SUCCESS) };
    // What rounding costs is no policy's fault.
    let scores = || pooled.scores.iter().filter(|score| score.policy != ROUNDED);
    let failed: Vec<String> =
        args.fail_if.iter().flat_map(|gate| scores().filter_map(|score| gate.fails(score))).collect();
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::Failed(anyhow!(failed.join("; ")))) }
}

/// Everything that was found.
struct Found {
    texts: Vec<Evaluation>,
    pooled: Option<Evaluation>,
    tasks: Vec<TaskResult>,
}

fn evaluate_all(
    machine: &Machine,
    args: &EvalArgs,
    texts: &[String],
    options: &EvalOptions,
    display: &mut Display,
) -> Result<Found, Failure> {
    let Machine { model, pool } = machine;
    // Some questions and answers follow the context.
    let room = model.context().saturating_sub(TASK_ROOM);
    let tasks = if args.tasks { tasks(&model.tokenizer, options.context.min(room)) } else { Vec::new() };
    let total = texts.len() + tasks.len();
    let mut show = |index: usize, what: &str, progress: Progress| {
        let part = PARTS * progress.done / progress.total.max(1);
        display.show(&format!("{what}: {}", progress.what), index * PARTS + part, total * PARTS)
    };
    let mut evaluations = Vec::new();
    for (index, (path, text)) in args.texts.iter().zip(texts).enumerate() {
        let text = text::tokens(&model.tokenizer, text);
        let name = path.display().to_string();
        let result = evaluate(model, pool, &text, options, &mut |progress| show(index, &name, progress));
        evaluations.push(result.map_err(|error| failure(error, path))?);
    }
    let mut results = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let result = task.run(model, pool, options, &mut |progress| show(texts.len() + index, task.name, progress));
        results.push(result.map_err(|error| failure(error, Path::new(task.name)))?);
    }
    Ok(Found { pooled: Evaluation::pooled(&evaluations), texts: evaluations, tasks: results })
}

fn failure(error: EvalError, path: &Path) -> Failure {
    match error {
        EvalError::Short { .. } => Failure::misuse(format!("{}: {error}", path.display())),
        EvalError::Context { .. } | EvalError::Empty => Failure::misuse(error),
        EvalError::Cancelled => Failure::failed("stopped; nothing was evaluated to the end"),
        EvalError::OutOfBudget(_) | EvalError::NotFinite(_) | EvalError::Uniform { .. } | EvalError::Figure { .. } => {
            anyhow::Error::new(error).into()
        }
    }
}

/// What is printed, and in which way.
struct Report<'a> {
    machine: &'a Machine,
    options: &'a EvalOptions,
    paths: &'a [PathBuf],
    found: &'a Found,
}

impl Report<'_> {
    fn json(&self) -> Value {
        let Self { machine, options, paths, found } = self;
        let text = |(path, one): (&PathBuf, &Evaluation)| json!({ "text": files::shown(path), "full_ppl": one.full_ppl(), "runs": runs(one) });
        let texts: Vec<Value> = paths.iter().zip(&found.texts).map(text).collect();
        let mut report = json!({
            "machine": machine.facts(), "context": options.context, "tokens": options.tokens, "exact": options.exact,
            "full_ppl": found.pooled.as_ref().and_then(Evaluation::full_ppl),
            "runs": found.pooled.as_ref().map(runs).unwrap_or_default(), "texts": texts,
        });
        if !found.tasks.is_empty() {
            report["probes"] = found.tasks.iter().map(task).collect();
        }
        report
    }

    fn text(&self, markdown: bool) -> String {
        let Self { machine, options, paths, found } = self;
        let mut text = machine.headline();
        let table = |rows: &[Vec<String>]| if markdown { markdown_table(rows) } else { table(rows) };
        let mut part = |title: &str, rows: &[Vec<String>]| {
            let title = if markdown { format!("### {title}\n") } else { title.to_owned() };
            text += &format!("\n{title}\n{}", table(rows));
        };
        if !found.texts.is_empty() {
            let sizes = format!("{} tokens after {} tokens of context", options.tokens, options.context);
            let how = "decoded by each policy, compared with full attention (KL in nats, 95 % intervals)";
            for (path, one) in paths.iter().zip(&found.texts) {
                part(&format!("{}: {sizes}, {how}", path.display()), &rows(one));
            }
        }
        if let (Some(pooled), 2..) = (&found.pooled, found.texts.len()) {
            part(&format!("all {} texts", found.texts.len()), &rows(pooled));
        }
        if !found.tasks.is_empty() {
            part("tasks: answers that were the likeliest, and KL (nats) at them", &task_rows(&found.tasks));
        }
        text
    }
}

fn runs(evaluation: &Evaluation) -> Vec<Value> {
    let run = |score: &Score| {
        let mut run = json!({
            "policy": score.policy, "kept_mass": score.layers_kept(), "kept_mass_heads": score.kept_mass,
        });
        for figure in FIGURES {
            run[figure.name] = json!((figure.of)(score));
        }
        for (name, of) in ESTIMATES {
            run[format!("{name}_95")] = json!(score.interval(of));
        }
        run
    };
    evaluation.scores.iter().map(run).collect()
}

fn task(result: &TaskResult) -> Value {
    let run = |score: &TaskScore| json!({ "policy": score.policy, "right": score.right, "kl_mean": score.kl_mean });
    json!({
        "probe": result.task, "asked": result.asked, "full_right": result.full_right,
        "runs": result.scores.iter().map(run).collect::<Vec<_>>(),
    })
}

fn rows(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let header = [
        "policy",
        "KL mean",
        "KL from",
        "KL to",
        "KL median",
        "KL p99",
        "KL p99.9",
        "same top-1",
        "top-1 from",
        "top-1 to",
        "ΔP rms",
        "ppl",
        "rows",
        "fetched",
        "kept mass",
        "least kept",
        "in layer",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let no_figure = || "-".to_owned();
    let mut full = vec![no_figure(); header.len()];
    full[0] = "full attention".to_owned();
    full[11] = evaluation.full_ppl().map_or_else(no_figure, |ppl| format!("{ppl:.2}"));
    rows.push(full);
    for score in &evaluation.scores {
        let figure = |name: &str| score.figure(name).unwrap_or(f64::NAN);
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let [kl_from, kl_to] = score.interval(kl_mean);
        let [top1_from, top1_to] = score.interval(top1);
        rows.push(vec![
            score.policy.clone(),
            format!("{:.5}", figure("kl_mean")),
            format!("{kl_from:.5}"),
            format!("{kl_to:.5}"),
            format!("{:.5}", figure("kl_median")),
            format!("{:.4}", figure("kl_p99")),
            format!("{:.4}", figure("kl_p999")),
            percent(figure("top1")),
            percent(top1_from),
            percent(top1_to),
            percent(figure("dp_rms")),
            format!("{:.2}", figure("ppl")),
            format!("{:.1}", score.rows_mean),
            format!("{:.1}", score.rows_fetched),
            percent(score.kept_mass_mean()),
            score.least_layer().map_or_else(no_figure, |(_, kept)| percent(f64::from(kept))),
            score.least_layer().map_or_else(no_figure, |(layer, _)| layer.to_string()),
        ]);
    }
    rows
}

fn task_rows(results: &[TaskResult]) -> Vec<Vec<String>> {
    let mut header = vec!["task".to_owned(), "asked".to_owned(), "full attention".to_owned()];
    let policies = results.iter().take(1).flat_map(|result| &result.scores);
    header.extend(policies.flat_map(|score| [score.policy.clone(), format!("KL of {}", score.policy)]));
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let row = |result: &TaskResult| {
        let scores = result.scores.iter().flat_map(|score| [percent(score.right), format!("{:.4}", score.kl_mean)]);
        [result.task.to_owned(), result.asked.to_string(), percent(result.full_right)]
            .into_iter()
            .chain(scores)
            .collect()
    };
    [header].into_iter().chain(results.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_columns_have_the_same_name() {
        let score = |policy: &str| TaskScore { policy: policy.to_owned(), right: 1.0, kl_mean: 0.0 };
        let scores = vec![score("kv"), score("kcache")];
        let result = TaskResult { task: "list", asked: 3, full_right: 1.0, scores };
        let empty = Evaluation { scores: Vec::new() };
        for table in [rows(&empty), task_rows(&[result])] {
            let mut header = table[0].clone();
            header.sort();
            let count = header.len();
            header.dedup();
            assert_eq!(header.len(), count, "{:?}", table[0]);
            assert!(table.iter().all(|row| row.len() == count), "every row has every column");
        }
    }
}
