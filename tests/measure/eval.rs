//! `kcache eval`, and `kcache tune`, which it judges.

use candle_core::quantized::GgmlDType;

use super::*;

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
fn every_kind_of_kernels_computes_the_same_model() {
    let home = Home::new();
    home.text("text.txt", 300, 0);
    let sizes = ["eval", "--json", "--text", "text.txt", "--context", "150", "--tokens", "60"];
    let policies = ["--policy", "kv", "--policy", "kcache:n=8,dense=0,k=q8"];
    let evaluate = |kernels: &str| -> Value {
        let output =
            home.command(&[&sizes[..], &policies].concat()).env("KCACHE_ENGINE_KERNELS", kernels).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let fastest = evaluate("auto");
    for kernels in ["avx2", "portable"] {
        let report = evaluate(kernels);
        let ran = report["machine"]["kernels"].as_str().unwrap();
        // None faster than asked for; a lesser CPU has lesser ones.
        assert!(ran == kernels || ran == "portable", "{ran} instead of {kernels}");
        for (run, fastest) in report["runs"].as_array().unwrap().iter().zip(fastest["runs"].as_array().unwrap()) {
            let (ppl, same) = (figure(run, "ppl"), figure(fastest, "ppl"));
            assert!((ppl / same - 1.0).abs() < 2e-3, "{kernels}: perplexity {ppl} and {same}");
        }
    }
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
    for split in tuned["splits"].as_array().unwrap() {
        assert!(figure(split, "expected_kl") < figure(split, "expected_even_kl"));
        assert!(figure(split, "held_out_kl") > 0.0 && figure(split, "held_out_even_kl") > 0.0, "{split:#}");
    }
    assert_eq!((figure(&tuned, "learnt_tokens"), figure(&tuned, "held_out_tokens")), (100.0, 25.0));
    let written = fs::read_to_string(home.path("p.toml")).unwrap();
    assert!(written.contains("# kcache tune --text learn.txt --rows 6,12 --context 100 --tokens 100\n"), "{written}");

    let said = |context: &str| {
        let sizes = ["--context", context, "--tokens", "100", "--rows", "6"];
        stdout(&home.run(&[&["tune", "--text", "learn.txt", "--out", "q.toml"], &sizes[..]].concat()))
    };
    let text = said("100");
    assert!(
        text.contains("learnt: on the 100 tokens that the profile was made from") && text.contains("the 25 tokens")
    );
    let columns = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        columns(&text).contains("mean rows held out even, held out learnt even, learnt fewest rows most rows 6 "),
        "{text}"
    );
    let text = said("400");
    assert!(
        text.contains("held out: n/a, no text has a quarter more") && columns(&text).contains(" 6 n/a n/a "),
        "{text}"
    );

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

/// Models that compute nothing sensible, each with what has to be said about it.
fn broken() -> Vec<(&'static str, Tiny)> {
    let tiny = |dtype, tensor: &str, at: usize, bytes: Vec<u8>| {
        let damage = vec![(tensor.to_owned(), at, bytes)];
        Tiny { layers: LAYERS, context: CONTEXT, dtype, damage, ..Tiny::default() }
    };
    // Of 34 bytes, 32 weights; the scales of a row of 64.
    let scale = |value: half::f16, blocks: usize| {
        let mut bytes = [&value.to_le_bytes()[..], &[100; 32]].concat().repeat(blocks);
        bytes.truncate(bytes.len() - 32);
        bytes
    };
    let random: Vec<u8> = (0..2000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let huge = |count: usize| 1e38f32.to_le_bytes().repeat(count);
    vec![
        (
            "tensor `blk.1.ffn_up.weight`: an infinity or NaN",
            tiny(GgmlDType::Q8_0, "blk.1.ffn_up.weight", 34 * 5, scale(half::f16::INFINITY, 1)),
        ),
        ("tensor `blk.0.attn_q.weight`: an infinity or NaN", tiny(GgmlDType::Q4_1, "blk.0.attn_q.weight", 0, random)),
        (
            "tensor `blk.1.attn_norm.weight`: an infinity or NaN",
            tiny(GgmlDType::Q8_0, "blk.1.attn_norm.weight", 8, f32::NAN.to_le_bytes().to_vec()),
        ),
        // Finite, and keys of it are more than 16-bit floats can hold.
        (
            "layer 1 of the model computes an infinity",
            tiny(GgmlDType::Q8_0, "blk.1.attn_k.weight", 0, scale(half::f16::MAX, 2)),
        ),
        ("layer 0 of the model computes an infinity", tiny(GgmlDType::F32, "blk.0.attn_q.weight", 0, huge(640))),
        ("layer 1 of the model computes an infinity", tiny(GgmlDType::F32, "blk.1.ffn_up.weight", 0, huge(640))),
        ("all predictions are uniform", tiny(GgmlDType::Q8_0, "output_norm.weight", 0, vec![0; 256])),
    ]
}

#[test]
fn a_broken_model_passes_no_gate_and_gives_no_empty_answer() {
    for (reason, tiny) in broken() {
        let home = Home { model: tiny.temp(), ..Home::new() };
        home.text("text.txt", 200, 0);
        let sizes =
            ["eval", "--text", "text.txt", "--context", "60", "--tokens", "20", "--policy", "kcache:n=8,dense=0"];
        for more in [&["--fail-if", "kl_mean>9"][..], &["--exact"]] {
            let output = home.run(&[&sizes[..], more].concat());
            assert!(matches!(output.status.code(), Some(1 | 2)), "{reason}: {output:?}");
            assert_eq!(stdout(&output), "", "{reason}");
            let last = stderr(&output).lines().last().unwrap_or_default().to_owned();
            assert!(last.starts_with("kcache: ") && last.contains(reason), "{reason}: {}", stderr(&output));
        }
        let reason =
            reason.replace("all predictions are uniform", "no next token can be chosen (all logits are equal)");
        for temperature in ["0", "0.8"] {
            let output = home.run(&["chat", "hello", "--temperature", temperature]);
            assert!(matches!(output.status.code(), Some(1 | 2)), "{reason}: {output:?}");
            assert_eq!(stdout(&output), "", "{reason}");
            assert!(stderr(&output).contains(&reason), "{reason}: {}", stderr(&output));
        }
    }
}
