//! `kcache bench` and `kcache eval` as a user meets them: the built program on tiny models and small sizes.

#[path = "support/tiny.rs"]
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
fn bench_measures_every_policy_at_every_size() {
    const FIGURES: [&str; 12] = [
        "threads",
        "prefill_tok_s",
        "decode_tok_s",
        "step_ms_p50",
        "step_ms_p99",
        "linear_ms",
        "attention_ms",
        "scores_ms",
        "gather_ms",
        "head_ms",
        "attention_gb_s",
        "prefill_linear_gflop_s",
    ];
    let home = Home::new();
    let (paper, steps) = ("kcache:n=16,tail=none,dense=0", 5);
    let report =
        home.json(&["bench", "--policy", "kv", "--policy", paper, "--ctx", "100,200", "--batch", "1,3", "--gen", "5"]);
    assert_eq!((figure(&report, "gen"), figure(&report, "rounds")), (5.0, 3.0));
    assert_eq!(report["machine"]["model"]["name"], "tiny");
    let runs = report["runs"].as_array().unwrap();
    let expected: Vec<_> = [100, 200]
        .into_iter()
        .flat_map(|ctx| [1, 3].map(|batch| (ctx, batch)))
        .flat_map(|(ctx, batch)| ["kv", paper].map(|policy| (policy, ctx, batch)))
        .collect();
    let found: Vec<_> = runs
        .iter()
        .map(|run| (run["policy"].as_str().unwrap(), figure(run, "ctx") as usize, figure(run, "batch") as usize))
        .collect();
    assert_eq!(found, expected);

    for (run, (policy, ctx, batch)) in runs.iter().zip(expected) {
        for name in FIGURES {
            assert!(figure(run, name) > 0.0, "{name} in {run:#}");
        }
        for name in ["prefill_tok_s", "decode_tok_s", "step_ms_p50"] {
            let range = figure(run, &format!("{name}_min"))..=figure(run, &format!("{name}_max"));
            assert!(range.contains(&figure(run, name)), "{name} in {run:#}");
        }
        assert!(figure(run, "step_ms_p99") >= figure(run, "step_ms_p50_min"));
        assert_eq!(figure(run, "prefill_passes"), 3.0, "short prompts are computed once a round");
        // Medians of parts need not add up; parts of a step that took longer than its slowest do not exist.
        for name in ["linear_ms", "attention_ms", "head_ms", "other_ms"] {
            assert!(figure(run, name) <= figure(run, "step_ms_p99"), "{name} in {run:#}");
        }

        // 64 tokens of 2 heads of 16 values of 2 bytes.
        let page = (64 * 2 * 16 * 2) as f64;
        let one = page * (LAYERS * batch * (ctx + steps).div_ceil(64)) as f64;
        let sums = (LAYERS * batch * 2 * 16 * 4) as f64;
        let (device, host) = (figure(run, "device_kv_bytes"), figure(run, "host_v_bytes"));
        let (host_read, rows) = (figure(run, "host_v_read_bytes"), figure(run, "rows_per_head"));
        // Only a policy that chooses rows takes time to choose them.
        assert_eq!(figure(run, "select_ms") > 0.0, policy != "kv");
        if policy == "kv" {
            assert_eq!((device, host, host_read), (2.0 * one, 0.0, 0.0));
            assert_eq!(rows, (ctx + steps.div_ceil(2)) as f64, "the mean length over the steps");
        } else {
            assert_eq!((device, host, rows), (one + sums, one, 16.0));
            assert_eq!(host_read, (LAYERS * batch * 4 * 16 * 16 * 2) as f64, "each head its own rows");
        }
    }
}

#[test]
fn bench_shows_a_table_with_units_and_ratios() {
    let home = Home::new();
    let output = home.run(&["bench", "--ctx", "70", "--batch", "2", "--gen", "2", "--rounds", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let line =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{text}"));
    let header = line("ctx 70, batch 2");
    let columns: Vec<&str> = header.split_whitespace().collect();
    assert_eq!(columns[4..], ["kv", "kcache:n=128,tail=mean,dense=1,select=head", "ratio"]);
    let words: Vec<&str> = line("device K+V (simulated)").split_whitespace().collect();
    // One of two layers is dense: three quarters of the pages, and the sums of V.
    assert_eq!(words[3..], ["MiB", "0.06", "0.05", "×0.76"]);
    assert!(line("decode").contains("tok/s") && line("step p50").contains("ms"));
    assert!(stderr(&output).contains("kcache: 100 % ctx 70, batch 2: decode round 1 of 1"), "{}", stderr(&output));
}

#[test]
fn eval_finds_nothing_lost_where_every_row_is_read() {
    let home = Home::new();
    let few = "kcache:n=8,tail=none,dense=0";
    let report = home.text("text.txt", 300, 0).json(&[
        "eval",
        "--text",
        "text.txt",
        "--context",
        "100",
        "--tokens",
        "40",
        "--policy",
        "kv",
        "--policy",
        "kcache:n=140,dense=0",
        "--policy",
        few,
    ]);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in &runs[..2] {
        assert_eq!((figure(run, "kl_mean"), figure(run, "kl_p99"), figure(run, "top1")), (0.0, 0.0, 1.0), "{run:#}");
        assert_eq!(figure(run, "ppl"), figure(&report, "full_ppl"));
        assert_eq!(figure(run, "rows_mean"), 120.5, "positions 101 to 140");
        assert_eq!(run["kept_mass"], serde_json::json!([1.0, 1.0]));
    }
    let run = &runs[2];
    assert_eq!(run["policy"], few);
    assert!(figure(run, "kl_mean") > 1e-4 && figure(run, "kl_p99") >= figure(run, "kl_mean"), "{run:#}");
    assert_eq!(figure(run, "rows_mean"), 8.0);
    let kept: Vec<f64> = run["kept_mass"].as_array().unwrap().iter().map(|kept| kept.as_f64().unwrap()).collect();
    assert!(kept.len() == LAYERS && kept.iter().all(|kept| (8.0 / 140.0..0.999).contains(kept)), "{kept:?}");
}

#[test]
fn bench_capacity_measures_what_a_budget_holds() {
    let home = Home::new();
    let sizes = ["--ctx", "150", "--gen", "9", "--requests", "30", "--rounds", "1"];
    for more in [&[][..], &["--real-prefill"]] {
        let report = home.json(&[&["bench", "capacity"][..], &sizes, more].concat());
        let runs = report["runs"].as_array().unwrap();
        let names: Vec<_> = runs.iter().map(|run| run["policy"].as_str().unwrap()).collect();
        assert_eq!(names, ["kv", "kv-q8", "kcache", "kcache:k=q8"]);
        let resident: Vec<f64> = runs.iter().map(|run| figure(run, "sessions_resident")).collect();
        // The default budget is what ten need; the tiny model's dense layer is one of few.
        assert_eq!(resident[0], 10.0);
        assert!(resident[1] > 10.0 && resident[2] > 10.0 && resident[3] > resident[2], "{resident:?}");
        for run in runs {
            assert_eq!(figure(run, "completed"), 30.0, "{run}");
            assert!(figure(run, "device_peak_bytes") <= figure(run, "budget_bytes"), "{run}");
            assert!(figure(run, "tok_s") > 0.0 && figure(run, "itl_ms_p99") >= figure(run, "itl_ms_p50"), "{run}");
            assert!(figure(run, "ttft_ms_p99") >= figure(run, "ttft_ms_p50"), "{run}");
            assert_eq!(figure(run, "preemptions"), 0.0, "what starts has the room to end");
        }
        for run in runs {
            let figure = |name| figure(run, name);
            assert_eq!(figure("plan_sessions"), figure("sessions_resident"), "{run}");
            assert_eq!(figure("plan_sessions_error"), 0.0, "{run}");
            let error = figure("plan_tok_s") / figure("tok_s") - 1.0;
            assert!(figure("plan_tok_s") > 0.0 && (figure("plan_tok_s_error") - error).abs() < 1e-9, "{run}");
        }
        assert!(report["device"]["attention"]["all_f16_ns"]["median"].as_f64().is_some_and(|ns| ns > 0.0));
        assert_eq!((figure(&runs[0], "host_peak_bytes"), figure(&runs[1], "host_peak_bytes")), (0.0, 0.0));
        assert!(figure(&runs[2], "host_peak_bytes") > 0.0);
    }
    let output = home.run(&[&["bench", "capacity", "--policy", "kv", "--policy", "kcache"][..], &sizes].concat());
    let text = stdout(&output);
    for words in [
        "sessions resident",
        "all together",
        "TTFT p50",
        "ITL p99",
        "device peak (simulated)",
        "×",
        "plan: sessions",
        "plan: tok/s",
        "  error",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

#[test]
fn bench_memory_is_what_the_pages_need() {
    let home = Home::new();
    let sizes = ["bench", "memory", "--sessions", "200", "--ctx", "500"];
    for policy in ["kv", "kcache:n=8"] {
        let report = home.json(&[&sizes[..], &["--policy", policy]].concat());
        let run = &report["memory"];
        let figure = |name| figure(run, name);
        assert_eq!(figure("device_bytes") + figure("host_bytes"), figure("needed_bytes"), "{run}");
        // A few MiB of anything else weigh much beside so little; 64 sequences of 8,192 tokens are for the command.
        let grown = figure("rss_growth_bytes");
        assert!(figure("needed_bytes") > 24e6 && grown < 1.3 * figure("needed_bytes") + 4e6, "{run}");
        // And more than half of the pages are really there: none are reserved only.
        assert!(grown > 0.5 * figure("needed_bytes"), "{run}");
    }
    let text = stdout(&home.run(&sizes));
    assert!(text.contains("resident memory, growth") && text.contains("ledger, device"), "{text}");
}

#[test]
fn bench_soak_leaves_nothing() {
    let home = Home::new();
    let report = home.json(&["bench", "soak", "--for", "1500ms"]);
    let soak = &report["soak"];
    assert!(figure(soak, "sessions") > 24.0, "{soak}");
    let ended: f64 = soak["ended"].as_object().unwrap().values().filter_map(|count| count.as_f64()).sum();
    assert_eq!(ended, 2.0 * figure(soak, "sessions"), "every session is answered in both lanes, or told why not");
    assert!(soak["ended"].get("otherwise").is_none(), "{soak}");
    assert_eq!(figure(soak, "left_bytes"), 0.0);
}

#[test]
fn eval_in_f32_tells_rounding_from_policies() {
    let home = Home::new();
    let home = home.text("text.txt", 200, 0);
    let arguments = ["eval", "--text", "text.txt", "--context", "80", "--tokens", "30", "--policy", "kv", "--exact"];
    let report = home.json(&arguments);
    let runs = report["runs"].as_array().unwrap();
    assert_eq!((runs[0]["policy"].as_str(), figure(&runs[0], "kl_mean")), (Some("kv"), 0.0));
    assert_eq!(runs[1]["policy"].as_str(), Some(kcache::quality::ROUNDED));
    let rounding = figure(&runs[1], "kl_mean");
    assert!(rounding > 0.0 && rounding < 0.1, "{rounding}");
}

#[test]
fn eval_pools_several_texts() {
    let home = Home::new();
    home.text("a.txt", 200, 0).text("b.txt", 200, 3);
    let sizes = ["--text", "b.txt", "--context", "60", "--tokens", "20", "--policy", "kcache:n=4,dense=0"];
    let arguments = [&["eval", "--text", "a.txt"][..], &sizes].concat();
    let report = home.json(&arguments);
    let texts = report["texts"].as_array().unwrap();
    assert_eq!((texts[0]["text"].as_str(), texts[1]["text"].as_str()), (Some("a.txt"), Some("b.txt")));
    let kl: Vec<f64> = texts.iter().map(|text| figure(&text["runs"][0], "kl_mean")).collect();
    assert_ne!(kl[0], kl[1]);
    assert!((figure(&report["runs"][0], "kl_mean") - (kl[0] + kl[1]) / 2.0).abs() < 1e-9);

    let output = home.run(&arguments);
    let text = stdout(&output);
    for words in ["a.txt: 20 tokens", "b.txt: 20 tokens", "all 2 texts\npolicy", "full attention", "KL in nats"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

#[test]
fn eval_gives_figures_with_intervals_and_can_fail() {
    let home = Home::new();
    let home = home.text("text.txt", 300, 0);
    let sizes = ["eval", "--text", "text.txt", "--context", "100", "--tokens", "60", "--policy", "kcache:n=8,dense=1"];
    let report = home.json(&sizes);
    let run = &report["runs"][0];
    for name in ["ppl", "kl_mean", "top1", "dp_rms"] {
        let ends: Vec<f64> =
            run[format!("{name}_95")].as_array().unwrap().iter().map(|end| end.as_f64().unwrap()).collect();
        assert!((ends[0]..=ends[1]).contains(&figure(run, name)), "{name} in {run:#}");
    }
    assert!(figure(run, "kl_median") <= figure(run, "kl_p99") && figure(run, "kl_p99") <= figure(run, "kl_p999"));
    // One of two layers is dense and reads its rows from the device.
    assert_eq!(figure(run, "rows_fetched"), 4.0);
    assert_eq!(
        run["kept_mass_heads"].as_array().unwrap().iter().map(|heads| heads.as_array().unwrap().len()).sum::<usize>(),
        8
    );

    let failing = |gates: &[&str]| {
        let gates: Vec<&str> = gates.iter().flat_map(|gate| ["--fail-if", gate]).collect();
        home.run(&[&sizes[..], &gates].concat())
    };
    assert_eq!(failing(&["kl_mean>100", "top1<0"]).status.code(), Some(0));
    let output = failing(&["kl_mean>100", "rows_fetched >= 4"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("full attention"), "what was found is printed all the same");
    let expected = "kcache: kcache:n=8,dense=1: rows_fetched is 4.000000, it fails if rows_fetched>=4\n";
    assert!(stderr(&output).ends_with(expected), "{}", stderr(&output));
    let output = failing(&["speed>1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`speed` is not one of ppl, kl_mean"), "{}", stderr(&output));

    let output = home.run(&[&sizes[..], &["--markdown"]].concat());
    assert!(stdout(&output).contains("\n| policy | KL mean |"), "{}", stdout(&output));
}

#[test]
fn eval_probes_every_policy_beside_full_attention() {
    // Its tokens are single letters, so questions and answers are long.
    let tiny = Tiny { layers: LAYERS, context: 4 * CONTEXT, ..Tiny::default() };
    let home = Home { model: tiny.temp(), ..Home::new() };
    let report =
        home.json(&["eval", "--probes", "--context", "60", "--policy", "kv", "--policy", "kcache:n=4,dense=0"]);
    let probes = report["probes"].as_array().unwrap();
    assert!(probes.len() == 7 && report["runs"].as_array().unwrap().is_empty());
    for probe in probes {
        assert!(figure(probe, "asked") >= 4.0, "{probe:#}");
        let [kv, kcache] = [&probe["runs"][0], &probe["runs"][1]];
        assert_eq!((figure(kv, "right"), figure(kv, "kl_mean")), (figure(probe, "full_right"), 0.0));
        assert!(figure(kcache, "kl_mean") > 0.0);
    }
}

#[test]
fn a_tuned_profile_loses_less_than_the_same_rows_everywhere() {
    let home = Home::new();
    home.text("learn.txt", 300, 0).text("test.txt", 300, 2);
    let tuned = home.json(&[
        "tune",
        "--text",
        "learn.txt",
        "--context",
        "100",
        "--tokens",
        "100",
        "--rows",
        "6,12",
        "--out",
        "p.toml",
    ]);
    assert_eq!(tuned["splits"][1]["n"], 12);
    assert!(figure(&tuned["splits"][0], "expected_kl") < figure(&tuned["splits"][0], "expected_even_kl"));
    let written = fs::read_to_string(home.path("p.toml")).unwrap();
    assert!(written.contains("# kcache tune --text learn.txt --rows 6,12 --context 100 --tokens 100\n"), "{written}");

    let sizes = ["eval", "--text", "test.txt", "--context", "100", "--tokens", "60", "--exact"];
    let policies = ["--policy", "kcache:profile=p.toml,n=9", "--policy", "kcache:n=9,dense=0"];
    let report = home.json(&[&sizes[..], &policies].concat());
    let [profile, even] = [&report["runs"][0], &report["runs"][1]];
    assert!((figure(profile, "rows_mean") - 9.0).abs() < 0.5, "{profile:#}");
    assert!(figure(profile, "kl_mean") < figure(even, "kl_mean"), "{profile:#}\n{even:#}");

    fs::write(home.path("other.toml"), written.replacen("fingerprint = \"", "fingerprint = \"0", 1)).unwrap();
    fs::write(home.path("broken.toml"), "rows = 3\n").unwrap();
    for (policy, reason) in [
        ("kcache:profile=other.toml", "profile `other.toml` was made for another model (tiny)"),
        ("kcache:profile=default", "profile `default` was made for another model"),
        ("kcache:profile=broken.toml", "profile `broken.toml`: line 1: unknown field `rows`"),
        ("kcache:profile=absent.toml", "profile `absent.toml` cannot be read"),
    ] {
        for command in [&["eval", "--text", "test.txt", "--policy", policy][..], &["chat", "hello", "--policy", policy]]
        {
            let output = home.run(command);
            assert_eq!(
                (output.status.code(), stdout(&output).as_str()),
                (Some(2), ""),
                "{policy}: {}",
                stderr(&output)
            );
            assert!(stderr(&output).contains(reason), "{policy}: {}", stderr(&output));
        }
    }
}

#[test]
fn misuse_exits_2_with_a_reason() {
    let home = Home::new();
    home.text("short.txt", 10, 0).text("long.txt", 400, 0);
    fs::write(home.path("empty.txt"), "").unwrap();
    fs::write(home.path("binary.txt"), b"GIF\0\0\x01").unwrap();
    fs::write(home.path("latin.txt"), b"caf\xe9").unwrap();
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
        (eval("binary.txt"), "binary.txt: the file is binary"),
        (eval("latin.txt"), "latin.txt: byte 4 is not UTF-8"),
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
