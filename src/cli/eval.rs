//! `kcache eval`: what a policy costs in quality, against full attention on the same tokens.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use color_eyre::eyre::Report;
use serde_json::{Value, json};

use super::{
    Failure,
    measuring::{Display, Machine, policies, table},
    output::{print, print_json},
    text,
};
use crate::{
    config::Config,
    quality::{EvalError, EvalOptions, Evaluation, Score, evaluate},
};

/// What to evaluate on.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A text file (UTF-8); repeat it to pool several texts
    #[arg(long = "text", value_name = "FILE", required = true)]
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
}

pub fn run(args: &EvalArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let policies = policies(&args.policies, config)?;
    let texts = args.texts.iter().map(|path| text::read(path)).collect::<Result<Vec<_>, _>>()?;
    let machine = Machine::start(config)?;
    let policies = machine.policies(policies)?;
    let options = EvalOptions { context: args.context, tokens: args.tokens, policies, exact: args.exact };
    let mut display = Display::start()?;
    let evaluations = evaluate_all(&machine, &args.texts, &texts, &options, &mut display);
    display.end();
    let evaluations = evaluations?;
    let Some(pooled) = Evaluation::pooled(&evaluations) else { return Err(Failure::misuse("no text was named")) };
    if json {
        let each: Vec<Value> = args
            .texts
            .iter()
            .zip(&evaluations)
            .map(|(path, one)| json!({ "text": path, "full_ppl": one.full_ppl, "runs": as_json(one) }))
            .collect();
        print_json(&json!({
            "machine": machine.facts(), "context": options.context, "tokens": options.tokens, "exact": options.exact,
            "full_ppl": pooled.full_ppl, "runs": as_json(&pooled), "texts": each,
        }))?;
    } else {
        print(&as_text(&machine, &options, &args.texts, &evaluations, &pooled))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn evaluate_all(
    machine: &Machine,
    paths: &[PathBuf],
    texts: &[String],
    options: &EvalOptions,
    display: &mut Display,
) -> Result<Vec<Evaluation>, Failure> {
    let texts_total = texts.len();
    let mut evaluations = Vec::new();
    for (index, (path, text)) in paths.iter().zip(texts).enumerate() {
        let text = text::tokens(&machine.model.tokenizer, text);
        let mut progress = |progress: crate::quality::Progress| {
            let what = format!("{}: {}", path.display(), progress.what);
            display.show(&what, index * progress.total + progress.done, texts_total * progress.total)
        };
        let result = evaluate(&machine.model, &machine.pool, &text, options, &mut progress);
        evaluations.push(result.map_err(|error| failure(error, path))?);
    }
    Ok(evaluations)
}

fn failure(error: EvalError, path: &Path) -> Failure {
    match error {
        EvalError::Short { .. } => Failure::misuse(format!("{}: {error}", path.display())),
        EvalError::Context { .. } | EvalError::Empty => Failure::misuse(error),
        EvalError::Cancelled => Failure::failed("stopped; nothing was evaluated to the end"),
        EvalError::Full(_) => Report::new(error).into(),
    }
}

fn as_json(evaluation: &Evaluation) -> Vec<Value> {
    let run = |score: &Score| {
        json!({
            "policy": score.policy, "ppl": score.ppl, "kl_mean": score.kl_mean(), "kl_p99": score.kl_quantile(0.99),
            "top1": score.top1, "rows_mean": score.rows_mean, "kept_mass": score.kept_mass,
        })
    };
    evaluation.scores.iter().map(run).collect()
}

fn as_text(
    machine: &Machine,
    options: &EvalOptions,
    paths: &[PathBuf],
    evaluations: &[Evaluation],
    pooled: &Evaluation,
) -> String {
    let mut text = machine.headline();
    text += &format!(
        "{} tokens after {} tokens of context, decoded by each policy, compared with full attention (KL in nats)\n",
        options.tokens, options.context
    );
    let mut part = |title: String, evaluation: &Evaluation| text += &format!("\n{title}\n{}", table(&rows(evaluation)));
    for (path, one) in paths.iter().zip(evaluations) {
        part(path.display().to_string(), one);
    }
    if evaluations.len() > 1 {
        part(format!("all {} texts", evaluations.len()), pooled);
    }
    text
}

fn rows(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let header = ["policy", "KL mean", "KL p99", "same top-1", "ppl", "rows", "kept mass", "least", "in layer"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let no_figure = || "-".to_owned();
    rows.push(
        ["full attention".to_owned(), no_figure(), no_figure(), no_figure(), format!("{:.2}", evaluation.full_ppl)]
            .to_vec(),
    );
    for score in &evaluation.scores {
        let kept = score.kept_mass.iter();
        let mean = kept.clone().sum::<f32>() / kept.len() as f32;
        let least = kept.enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        rows.push(vec![
            score.policy.clone(),
            format!("{:.4}", score.kl_mean()),
            format!("{:.3}", score.kl_quantile(0.99)),
            format!("{:.1} %", score.top1 * 100.0),
            format!("{:.2}", score.ppl),
            format!("{:.1}", score.rows_mean),
            format!("{:.1} %", mean * 100.0),
            least.map_or_else(no_figure, |(_, kept)| format!("{:.1} %", kept * 100.0)),
            least.map_or_else(no_figure, |(layer, _)| layer.to_string()),
        ]);
    }
    rows
}
