//! `kcache bench` and what is below it.

use super::*;

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
    assert!(figure(soak, "rss_left_bytes") > 1e6, "{soak}");
    let ended: f64 = soak["ended"].as_object().unwrap().values().filter_map(|count| count.as_f64()).sum();
    assert_eq!(ended, 2.0 * figure(soak, "sessions"), "every session is answered in both lanes, or told why not");
    assert!(soak["ended"].get("otherwise").is_none(), "{soak}");
    assert_eq!(figure(soak, "left_bytes"), 0.0);
    assert!(figure(soak, "booked_early_bytes").max(figure(soak, "booked_late_bytes")) > 0.0, "{soak}");
}
