//! `kcache plan` for a model's file.

use super::*;

#[test]
fn a_plan_says_the_same_in_its_rows_and_below_them() {
    let home = Home { model: Tiny { context: 8192, ..Tiny::default() }.temp(), ..Home::new() };
    // A link over which chosen rows lose at every context that the model has, and win far beyond it.
    let slow = ["plan", "--policy", "kv", "--policy", "kcache:n=64,dense=0", "--itl", "none"];
    let slow = [&slow[..], &["--memory", "1GiB", "--bandwidth", "100GB/s", "--link", "2GB/s"]].concat();
    let report = home.json(&slow);
    let ctx: Vec<f64> = report["runs"].as_array().unwrap().iter().map(|run| figure(run, "ctx")).collect();
    assert_eq!(ctx, [512.0, 512.0, 4096.0, 4096.0, 8192.0, 8192.0], "no context that the model does not have");
    let wins = &report["wins_from_ctx"][0];
    assert_eq!((&wins["ctx"], figure(wins, "up_to")), (&Value::Null, 8192.0));
    let text = stdout(&home.run(&slow));
    let never = "a full lane under kcache:n=64,dense=0 is not faster than under kv at any context up to 8192 tokens\n";
    assert!(text.contains(never), "{text}");

    // Asked for a context beyond the model's, the sentence speaks of it as well.
    let far = [&slow[..], &["--ctx", "512,1048576"]].concat();
    let report = home.json(&far);
    let run = &report["runs"][3];
    assert_eq!((figure(run, "ctx"), figure(run, "wins_from_sessions")), (1_048_576.0, 1.0));
    let from = figure(&report["wins_from_ctx"][0], "ctx");
    assert!((8192.0..1_048_576.0).contains(&from), "{report:#}");
    let text = stdout(&home.run(&far));
    assert!(text.contains("(beyond the model's)") && !text.contains("not faster"), "{text}");
    assert!(
        text.contains(&format!("is faster than under kv from {from} tokens on (looked at up to 1048576)")),
        "{text}"
    );
}
