//! `kcache tune`: a profile of rows for every head of a model, learnt from texts.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{
    Failure,
    measuring::{Display, Machine, table},
    output::{note, notes, print, print_json},
    text,
};
use crate::{
    cache::Split,
    config::Config,
    files,
    quality::{EvalError, TuneError, TuneOptions, Tuned, tune},
};

/// What to learn from, and what for.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// A text file to learn from, best in UTF-8; repeat it: texts of several kinds make a profile that suits more
    #[arg(long = "text", value_name = "FILE", required = true)]
    texts: Vec<PathBuf>,
    /// Mean rows per head to make splits for; between them a policy's `n` is interpolated
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [32, 64, 96, 128, 192, 256],
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    rows: Vec<u32>,
    /// Tokens of context before the first one that is learnt from
    #[arg(long, value_name = "TOKENS", default_value_t = 3072)]
    context: usize,
    /// Tokens of each text that are learnt from; a quarter as many after them are held out, to measure what was learnt
    #[arg(long, value_name = "TOKENS", default_value_t = 384)]
    tokens: usize,
    /// Write the profile there instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &TuneArgs, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let texts = args.texts.iter().map(|path| text::read(path)).collect::<Result<Vec<_>, _>>()?;
    let machine = Machine::start(config)?;
    let texts: Vec<Vec<u32>> = texts.iter().map(|words| text::tokens(&machine.model.tokenizer, words)).collect();
    let options = TuneOptions {
        context: args.context,
        tokens: args.tokens,
        rows: args.rows.iter().map(|&rows| rows as usize).collect(),
    };
    let mut display = Display::start()?;
    let mut progress =
        |progress: crate::progress::Progress| display.show(&progress.what, progress.done, progress.total);
    let tuned = tune(&machine.model, &machine.pool, &texts, &options, &mut progress);
    display.end();
    let tuned = tuned.map_err(failure)?;
    let profile = format!("{}{}", header(args), tuned.table);
    match &args.out {
        Some(path) => {
            files::write_whole(path, &profile).with_context(|| format!("{} cannot be written", path.display()))?;
            // A configuration file lies elsewhere than this command runs, and paths in it count from there.
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let policy = format!("kcache:profile={}", whole.display());
            note(&format!("a policy takes this profile as `{policy}`; to keep it, put into the configuration:"));
            note("[lanes.kcache]");
            note(&format!("policy = {}", files::toml_string(&policy)));
        }
        None if json => {}
        None => print(&profile)?,
    }
    if json {
        print_json(&json!({
            "machine": machine.facts(), "context": options.context, "tokens": options.tokens,
            "texts": args.texts.iter().map(|path| files::shown(path)).collect::<Vec<_>>(),
            "learnt_tokens": tuned.learnt_tokens, "held_out_tokens": tuned.held_out.as_ref().map(|part| part.tokens),
            "out": args.out.as_deref().map(files::shown), "splits": splits(&tuned),
            "profile": args.out.is_none().then_some(profile),
        }))?;
    } else if args.out.is_some() {
        print(&losses(&tuned))?;
    } else {
        notes(&losses(&tuned));
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(error: TuneError) -> Failure {
    match error {
        TuneError::Text(EvalError::Cancelled) => Failure::failed("stopped; nothing was learnt to the end"),
        TuneError::Text(EvalError::OutOfBudget(_) | EvalError::NotFinite(_)) | TuneError::Tensor(_) => {
            anyhow::Error::new(error).into()
        }
        TuneError::Text(_) | TuneError::Nothing => Failure::misuse(error),
    }
}

/// How the profile was made, so that it can be made again. Folders differ between machines; names of texts do not.
fn header(args: &TuneArgs) -> String {
    let name = |path: &PathBuf| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let texts: Vec<String> = args.texts.iter().map(|path| format!("--text {}", name(path))).collect();
    let rows: Vec<String> = args.rows.iter().map(u32::to_string).collect();
    format!(
        "# Rows per query head, by layer: `n` is their mean, `lean` how far a head's tail leans from the mean of all V rows\n\
         # to the mean of the rows that were read. Made by kcache {}:\n\
         # kcache tune {} --rows {} --context {} --tokens {}\n\n",
        env!("CARGO_PKG_VERSION"),
        texts.join(" "),
        rows.join(","),
        args.context,
        args.tokens
    )
}

fn splits(tuned: &Tuned) -> Vec<serde_json::Value> {
    let split = |(at, split): (usize, &Split)| {
        let rows = split.rows.iter().flatten();
        json!({
            "n": split.n, "expected_kl": tuned.expected_kl[at], "expected_even_kl": tuned.expected_even_kl[at],
            "held_out_kl": tuned.held_out.as_ref().map(|part| part.kl[at]),
            "held_out_even_kl": tuned.held_out.as_ref().map(|part| part.even_kl[at]),
            "least": rows.clone().min(), "most": rows.max(),
        })
    };
    tuned.table.split.iter().enumerate().map(split).collect()
}

/// What the profile should lose, and what that was measured on.
fn losses(tuned: &Tuned) -> String {
    let apart = match &tuned.held_out {
        Some(part) => format!("held out: the {} tokens after those, which nothing was learnt from", part.tokens),
        None => "held out: n/a, no text has a quarter more tokens within the model's context".to_owned(),
    };
    format!(
        "expected KL in nats, with the profile and with the same rows for every head (even)\n\
         learnt: on the {} tokens that the profile was made from, which flatters it\n{apart}\n\n{}",
        tuned.learnt_tokens,
        table(&rows(tuned))
    )
}

fn rows(tuned: &Tuned) -> Vec<Vec<String>> {
    let header = ["mean rows", "held out", "even, held out", "learnt", "even, learnt", "fewest rows", "most rows"];
    let mut table = vec![header.map(str::to_owned).to_vec()];
    let nats = |kl: f64| format!("{kl:.5}");
    let apart = |kl: Option<f64>| kl.map_or("n/a".to_owned(), nats);
    for (at, split) in tuned.table.split.iter().enumerate() {
        let rows = split.rows.iter().flatten();
        let bound = |rows: Option<&u32>| rows.map_or("n/a".to_owned(), u32::to_string);
        table.push(vec![
            split.n.to_string(),
            apart(tuned.held_out.as_ref().map(|part| part.kl[at])),
            apart(tuned.held_out.as_ref().map(|part| part.even_kl[at])),
            nats(tuned.expected_kl[at]),
            nats(tuned.expected_even_kl[at]),
            bound(rows.clone().min()),
            bound(rows.max()),
        ]);
    }
    table
}
