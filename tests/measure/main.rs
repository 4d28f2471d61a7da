//! `kcache bench`, `eval`, `plan` and `tune` as a user meets them: the built program on tiny models and small sizes.

mod bench;
mod eval;
mod plan;
#[path = "../support/tiny.rs"]
mod tiny;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::{TempDir, TempPath};
use tiny::Tiny;

const LAYERS: usize = 2;
const CONTEXT: usize = 512;

/// A home of its own, and a tiny model.
struct Home {
    folder: TempDir,
    model: TempPath,
}

impl Home {
    fn new() -> Self {
        let tiny = Tiny { layers: LAYERS, context: CONTEXT, ..Tiny::default() };
        Self { folder: tempfile::tempdir().unwrap(), model: tiny.temp() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kcache"));
        command.arg("--model").arg(&self.model).args(["--threads", "2"]).args(arguments);
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "RUST_BACKTRACE"] {
            command.env_remove(variable);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KCACHE_")) {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The one JSON document on stdout of a run that went well.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A text of `words` words; `seed` tells texts apart.
    fn text(&self, name: &str, words: usize, seed: usize) -> &Self {
        const WORDS: [&str; 7] = ["the", "thing", "other", "hello", "sand", "on", "an"];
        let word = |index: usize| WORDS[(index * index + index / 3 + seed) % WORDS.len()];
        let text: Vec<&str> = (0..words).map(word).collect();
        fs::write(self.path(name), text.join(" ")).unwrap();
        self
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A figure by name, which must be there and be a number.
fn figure(run: &Value, name: &str) -> f64 {
    run[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {run:#}"))
}

#[test]
fn misuse_exits_2_with_a_reason() {
    let home = Home::new();
    home.text("short.txt", 10, 0).text("long.txt", 400, 0);
    fs::write(home.path("empty.txt"), "").unwrap();
    fs::write(home.path("binary.txt"), b"GIF\0\0\x01").unwrap();
    fs::write(home.path("damaged.txt"), b"na\xc3\xafve caf\xc3\xa9 \xff").unwrap();
    let eval = |text: &'static str| ["eval", "--context", "100", "--tokens", "9", "--text", text].to_vec();
    for (arguments, reason) in [
        (vec!["bench", "--policy", "kvv"], "kcache: policy `kvv`: expected `kv`, `kv-q8` or `kcache`"),
        (vec!["bench", "--policy", "kcache:n=0"], "kcache: policy `kcache:n=0`: n is a whole number"),
        (vec!["bench", "--ctx", "400,490"], "context of 490 and 32 tokens more"),
        (vec!["bench", "--ctx", "400,490"], "the longest that fits is 480"),
        (vec!["bench", "--ctx", "1", "--gen", "512"], "generate fewer than 512"),
        (vec!["bench", "--ctx", "0"], "--ctx"),
        (vec!["bench", "--ctx", "100", "--batch", "16000000"], "take a smaller --ctx or --batch"),
        (vec!["bench", "memory", "--sessions", "16000000"], "take fewer --sessions or a smaller --ctx"),
        (vec!["bench", "capacity", "--budget", "none"], "no capacity to measure"),
        (vec!["bench", "capacity", "--ctx", "500", "--gen", "12"], "500 and 12 tokens more do not fit"),
        (vec!["bench", "capacity", "--ctx", "100", "--budget", "1KiB"], "the lane's budget fits 0"),
        (vec!["bench", "capacity", "--policy", "kvv"], "kcache: policy `kvv`"),
        (vec!["bench", "--ctx", "100", "capacity"], "cannot be used with"),
        (vec!["eval"], "--text"),
        (vec!["tune"], "--text"),
        (vec!["tune", "--text", "long.txt", "--rows", "0"], "--rows"),
        (vec!["tune", "--text", "short.txt", "--context", "100", "--tokens", "9"], "110 are needed"),
        (vec!["eval", "--text", "long.txt", "--json", "--markdown"], "exclude each other"),
        (eval("missing.txt"), "missing.txt: cannot be read"),
        (eval("empty.txt"), "empty.txt: the file is empty"),
        (eval("binary.txt"), "binary.txt: it is binary"),
        (eval("damaged.txt"), "damaged.txt: byte 14 is not UTF-8"),
        (eval("short.txt"), "110 are needed"),
        (vec!["eval", "--text", "long.txt", "--context", "500"], "the model's context is 512"),
    ] {
        let output = home.run(&arguments);
        let said = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_measurement_with_a_line() {
    let home = Home::new();
    interrupted(&home, &["bench", "--json", "--ctx", "200", "--gen", "100", "--rounds", "100000"], "0 % ctx 200");
    let capacity = ["bench", "capacity", "--json", "--ctx", "200", "--gen", "100", "--rounds", "100000"];
    interrupted(&home, &capacity, "0 % filling memory");
}

#[cfg(unix)]
fn interrupted(home: &Home, arguments: &[&str], first: &str) {
    let mut command = home.command(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains(first), "{line}");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{rest}");
    assert!(rest.ends_with("kcache: stopped; nothing was measured to the end\n"), "{rest}");
}
