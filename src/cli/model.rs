//! `kcache model list | fetch | info`.

use std::{
    fmt::{Display, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;

use super::{
    Failure, escape, fetch,
    output::{print, print_json},
};
use crate::{
    config::Config,
    files,
    model::{
        Gguf, ModelInfo,
        source::{self, DEFAULT, KNOWN, KnownModel},
    },
};

/// What to do with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Shows the known models: size, licence, checksum, sources, and whether each is here
    List,
    /// Fetches a known model, checked against its SHA-256, and prints its path
    Fetch {
        /// Its name as `model list` shows it; left out, the default model
        name: Option<String>,
        /// Checks a file that is here already against its SHA-256
        #[arg(long)]
        verify: bool,
    },
    /// Shows what a model file holds and what a token of cache takes
    Info {
        /// The file; left out, the configured or default model
        file: Option<PathBuf>,
    },
}

pub fn run(command: &ModelCommand, config: &Config, json: bool) -> Result<ExitCode, Failure> {
    match command {
        ModelCommand::List => list(json)?,
        ModelCommand::Fetch { name, verify } => {
            let known = name.as_deref().map_or(Ok(&DEFAULT), find)?;
            let dir = source::data_dir().context("cannot fetch")?;
            let path = fetch::fetch(known, &dir, *verify)?;
            if json {
                print_json(
                    &json!({ "name": known.name, "path": files::shown(&path), "bytes": known.bytes, "sha256": known.sha256 }),
                )?;
            } else {
                print(&format!("{}\n", path.display()))?;
            }
        }
        ModelCommand::Info { file } => {
            let path = match file {
                Some(file) if !file.is_file() => {
                    return Err(Failure::misuse(format!("there is no model file {}", file.display())));
                }
                Some(file) => file.clone(),
                None => fetch::model_file(config)?,
            };
            let of_file = |why: &dyn Display| Failure::misuse(format!("{}: {why}", path.display()));
            let gguf = Gguf::open(&path).map_err(Failure::misuse)?;
            let info = ModelInfo::from_gguf(&gguf).map_err(|error| of_file(&error))?;
            if json {
                print_json(&info)?
            } else {
                print(&info_text(&info))?
            }
            if let Some(why) = &info.refused {
                return Err(of_file(why));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The known model that somebody means by `name`: its name or its file's, in any case.
fn find(name: &str) -> Result<&'static KnownModel, Failure> {
    let means = |known: &&KnownModel| {
        let stem = known.file_name.trim_end_matches(".gguf");
        [known.name, known.file_name, stem].iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    KNOWN.iter().find(means).ok_or_else(|| {
        let names: Vec<_> = KNOWN.iter().map(|known| format!("`{}`", known.name)).collect();
        Failure::misuse(format!("`{name}` is not a known model; known: {}", names.join(", ")))
    })
}

fn list(json: bool) -> Result<(), Failure> {
    let dir = source::data_dir().context("cannot look for models")?;
    if json {
        let models: Vec<_> = KNOWN
            .iter()
            .map(|known| {
                json!({
                    "name": known.name, "default": *known == DEFAULT, "path": source::find(known, &dir).as_deref().map(files::shown),
                    "bytes": known.bytes, "sha256": known.sha256, "licence": known.licence,
                    "sources": sources(known),
                })
            })
            .collect();
        return print_json(&json!({ "folder": files::shown(&dir), "models": models }));
    }
    let mut text = String::new();
    for known in KNOWN {
        let default = if *known == DEFAULT { " (default)" } else { "" };
        let here = source::find(known, &dir)
            .map_or("not here yet: `kcache model fetch` gets it".to_owned(), |path| path.display().to_string());
        let rows = [
            ("file", here),
            ("size", format!("{} ({} bytes)", megabytes(known.bytes), known.bytes)),
            ("licence", known.licence.to_owned()),
            ("sha256", known.sha256.to_owned()),
            ("sources", sources(known).join(", then ")),
        ];
        text += &format!("{}{default}\n", known.name);
        text += &table(&rows);
    }
    print(&text)
}

fn sources(known: &KnownModel) -> Vec<String> {
    known.sources().iter().map(|source| source.describe()).collect()
}

fn info_text(info: &ModelInfo) -> String {
    let shape = &info.shape;
    let types: Vec<_> = info
        .types
        .iter()
        .map(|share| format!("{} {} tensors {}", share.dtype, share.tensors, megabytes(share.bytes)))
        .collect();
    let kib = |bytes: u64| format!("{:.1} KiB", bytes as f64 / 1024.0);
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    table(&[
        ("file", info.path.display().to_string()),
        ("size", format!("{} ({} bytes)", megabytes(info.file_bytes), info.file_bytes)),
        ("licence", info.licence.clone().unwrap_or_else(|| "n/a: the file names none".into())),
        ("parameters", format!("{:.1} million", info.parameters as f64 / 1e6)),
        ("weights", types.join(", ")),
        (
            "shape",
            format!(
                "{} layers, {} query heads on {} KV heads of {}, context {}",
                shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.context
            ),
        ),
        ("tokenizer", info.tokenizer.clone()),
        ("template", if info.chat_template { "yes" } else { "none" }.into()),
        (
            "cache",
            format!(
                "{} a token (K and V, f16), {} at full context; KCache keeps {} of it on the device",
                kib(info.kv_bytes_per_token),
                mib(info.kv_bytes_full_context),
                mib(info.kv_bytes_full_context / 2)
            ),
        ),
    ])
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn table(rows: &[(&str, String)]) -> String {
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<11} {}", escape::line(value));
        text
    })
}
