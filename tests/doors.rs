//! What goes in and out of the program: nothing that comes from a file is carried out by a terminal, nobody reading any
//! more is no crash, limits are told in one line, and settings are kept where they were found.

#![cfg(unix)]

#[path = "support/home.rs"]
mod home;
#[path = "support/tiny.rs"]
mod tiny;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use candle_core::quantized::gguf_file::Value as Metadata;
use home::{Home, fine, stderr, stdout};
use serde_json::Value;
use tiny::Tiny;

/// A home with a model in it, `m.gguf`.
fn home_with(tiny: &Tiny) -> Home {
    let home = Home::new();
    tiny.temp().persist(home.path().join("m.gguf")).unwrap();
    home
}

fn small() -> Home {
    home_with(&Tiny { endless: true, ..Tiny::default() })
}

/// A run that takes a moment.
fn kcache(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(arguments);
    command.env("KCACHE_SAMPLING_MAX_TOKENS", "4").env("KCACHE_MODEL_PATH", "m.gguf");
    command
}

fn run(home: &Home, arguments: &[&str]) -> Output {
    kcache(home, arguments).output().unwrap()
}

/// A text of many words.
fn write_text(home: &Home) {
    fs::write(home.path().join("text.txt"), "the hello of an ear in the inn and on the hill. ".repeat(60)).unwrap();
}

/// Commands of every kind that run on the model in `home`, with what is needed for a text.
const COMMANDS: [&[&str]; 16] = [
    &["chat", "hello"],
    &["chat", "hello", "--json"],
    &["--headless", "--say", "hello"],
    &["plan", "--ctx", "128"],
    &["plan", "--device", "rtx-4090", "--json"],
    &["bench", "--ctx", "64", "--gen", "4"],
    &["eval", "--text", "text.txt", "--context", "64", "--tokens", "8"],
    &["tune", "--text", "text.txt", "--context", "64", "--tokens", "8", "--rows", "8"],
    &["model", "info"],
    &["model", "list"],
    &["config", "print"],
    &["config", "print", "--json"],
    &["doctor"],
    &["completions", "bash"],
    &["--help"],
    &["model", "info", "none.gguf"],
];

#[track_caller]
fn harmless(bytes: &[u8], what: &str) {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let acts = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(acts), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("kcache: all is well")), "{what}: {text}");
}

/// What a model's file might say to a terminal.
const EVIL: &str = "tiny\x1b[2J\x1b]0;owned\x07\u{9b}31m\u{7f}\u{202e}\r\nkcache: all is well";

#[test]
fn nothing_that_a_model_says_is_carried_out_or_forges_a_line() {
    let text = |text: &str| Metadata::String(text.to_owned());
    let named = Tiny {
        metadata: vec![("general.name".into(), text(EVIL)), ("general.license".into(), text(EVIL))],
        endless: true,
        ..Tiny::default()
    };
    let home = home_with(&named);
    write_text(&home);
    for arguments in COMMANDS {
        let output = run(&home, arguments);
        harmless(&output.stdout, &format!("{arguments:?}"));
        harmless(&output.stderr, &format!("{arguments:?}"));
    }
    let info = stdout(&run(&home, &["model", "info"]));
    assert!(info.contains(r"tiny\u{1b}[2J") && info.contains(r"\n"), "{info}");
    let info: Value = serde_json::from_str(&stdout(&run(&home, &["model", "info", "--json"]))).unwrap();
    assert_eq!(info["licence"], EVIL, "JSON means what the file says");

    // What the template says when it fails, and what kind of a model it is not.
    let raising = Tiny {
        chat_template: Some(format!("{{{{ raise_exception({:?}) }}}}", "\x1b[31mno\nkcache: all is well")),
        ..Tiny::default()
    };
    let other = Tiny { metadata: vec![("general.architecture".into(), text(EVIL))], ..Tiny::default() };
    for tiny in [raising, other] {
        let home = home_with(&tiny);
        for arguments in [&["chat", "hello"][..], &["chat", "hello", "--json"], &["--headless", "--say", "hello"]] {
            let output = run(&home, arguments);
            assert_ne!(output.status.code(), Some(0));
            harmless(&output.stdout, &format!("{arguments:?}"));
            harmless(&output.stderr, &format!("{arguments:?}"));
        }
    }
}

#[test]
fn an_answer_keeps_its_lines_and_nothing_else_of_a_terminal() {
    // A random model says every byte sooner or later, ESC among them.
    let home = home_with(&Tiny { endless: true, context: 2_000, ..Tiny::default() });
    let said = |seed: usize, more: &[&str]| {
        let mut command = home.command(&["chat", "hello", "--temperature", "3", "--max-tokens", "600"]);
        command.args(["--model", "m.gguf", "--seed", &seed.to_string()]).args(more).output().unwrap()
    };
    let raw = (1..).map(|seed| (seed, said(seed, &["--json"]))).find_map(|(seed, output)| {
        harmless(&output.stdout, "JSON");
        let reply: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let text = reply["text"].as_str().unwrap().to_owned();
        (text.contains('\x1b') && text.contains('\n')).then_some((seed, text))
    });
    let (seed, raw) = raw.unwrap();
    let shown = said(seed, &[]);
    harmless(&shown.stdout, "an answer");
    let shown = stdout(&shown);
    assert!(shown.contains(r"\u{1b}"), "{shown}");
    assert_eq!(shown.trim_end().matches('\n').count(), raw.trim_end().matches('\n').count());
}

#[test]
fn what_was_typed_is_repeated_harmlessly() {
    let home = Home::new();
    for arguments in [&["\x1b[2J"][..], &["--no\x1b[2J"], &["config", "print", "--threads", "a\nkcache: all is well"]] {
        let output = home.run(arguments);
        assert_eq!(output.status.code(), Some(2));
        harmless(&output.stderr, &format!("{arguments:?}"));
    }
}

/// The end of a pipe that nobody reads.
fn nobody() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn nobody_reading_any_more_is_no_crash() {
    let home = small();
    write_text(&home);
    let more: [&[&str]; 3] = [&["--nonsense"], &["--version"], &["chat", "hello", "--policy", "nonsense"]];
    for arguments in COMMANDS.iter().chain(&more) {
        for (out, err) in [(false, true), (true, true)] {
            let pipe = |closed| if closed { nobody() } else { Stdio::null() };
            let mut command = kcache(&home, arguments);
            // A line on stderr even where all is well.
            command.env("KCACHE_SCREEN_FPSS", "1");
            let status = command.stdout(pipe(out)).stderr(pipe(err)).status().unwrap();
            assert!(matches!(status.code(), Some(0..=2)), "{arguments:?} with {out} {err}: {status}");
            assert_eq!(status.signal(), None);
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_that_nobody_reads_is_no_second_one() {
    let home = small();
    let mut command = kcache(&home, &["chat", "hello"]);
    let status = command.env("KCACHE_FAULT", "engine-panic").stdout(Stdio::null()).stderr(nobody()).status().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(1), None));
}

#[test]
fn too_few_files_are_told_in_one_line() {
    let home = small();
    write_text(&home);
    let limited = |arguments: &[&str], files: usize| {
        let plain = kcache(&home, arguments);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\"")).arg(plain.get_program());
        command.args(plain.get_args()).current_dir(home.path());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.output().unwrap()
    };
    for arguments in COMMANDS {
        let output = limited(arguments, 12);
        let works = ["config", "doctor", "completions", "--help"].contains(&arguments[0]);
        if works {
            assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {}", output.status);
        } else {
            let said = stderr(&output);
            assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{arguments:?}: {said}");
            assert!(said.contains("more files can be opened here") && said.contains("ulimit -n"), "{said}");
        }
    }
    // What the line says is enough, with some for what whoever runs the tests has left open.
    for arguments in COMMANDS.iter().filter(|arguments| ["chat", "--headless", "eval"].contains(&arguments[0])) {
        let output = limited(arguments, 48);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_service_called_kcache_stops_nothing() {
    let home = small();
    let service =
        [("KCACHE_SERVICE_HOST", "10.0.0.11"), ("KCACHE_PORT", "tcp://10.0.0.11:80"), ("KCACHE_THREADS", "1")];
    for arguments in [&["config", "print"][..], &["--headless", "--say", "hello"]] {
        let output = kcache(&home, arguments).envs(service).output().unwrap();
        let said = stderr(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(0), 2), "{said}");
        assert!(
            said.contains("kcache: KCACHE_THREADS: unknown variable; did you mean KCACHE_ENGINE_THREADS?"),
            "{said}"
        );
        assert!(said.contains("KCACHE_PORT, KCACHE_SERVICE_HOST: unknown variables, left aside"), "{said}");
    }
    let output = kcache(&home, &["config", "print"]).env("KCACHE_ENGINE_THREADS", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_has_no_end_or_no_sense_is_refused_in_one_line() {
    let home = small();
    fs::write(home.path().join("zero.toml"), "lanes.kcache.policy = \"kcache:profile=/dev/zero\"\n").unwrap();
    for (arguments, reason) in [
        (&["config", "print", "--config", "/dev/zero"][..], "/dev/zero: cannot be read: it has more than 1 MiB"),
        (&["config", "validate", "zero.toml"], "zero.toml:1: lanes.kcache.policy: profile `/dev/zero` cannot be read"),
        (&["chat", "hello", "--policy", "kcache:profile=/dev/zero"], "profile `/dev/zero` cannot be read: it has more"),
        (&["eval", "--text", "/dev/zero"], "/dev/zero: cannot be read: it has more than 256 MiB"),
        (
            &["plan", "--measured", "/dev/zero", "--device", "h100"],
            "/dev/zero: cannot be read: it has more than 64 MiB",
        ),
        (&["picture", "--from", "/dev/zero"], "/dev/zero:1: the line is too long for an event"),
        (&["chat", "-"], "standard input: cannot be read: it has more than 4 MiB"),
        (&["chat", "hello", "--policy", "kcache:n=1,n=2"], "policy `kcache:n=1,n=2`: `n` is given twice"),
        (&["--headless", "--load", "sessions=1,sessions=2"], "`sessions` is given twice"),
        (
            &["chat", "hello", "--temperature", "1e-39"],
            "--temperature: sampling.temperature is 0 (greedy) or a number from",
        ),
        (&["chat", "hello", "--top-p", "1e-320"], "--top-p: sampling.top_p is a number from 0.000001 to 1"),
        (&["--headless", "--policy", "kv"], "--policy: lanes.kcache.policy is a `kcache` policy"),
        (&["--headless", "--policy", "kcache:n=0"], "--policy: lanes.kcache.policy: policy `kcache:n=0`: n is a whole"),
    ] {
        let zero = File::open("/dev/zero").unwrap();
        let output = kcache(&home, arguments).stdin(zero).output().unwrap();
        let said = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
    let output = kcache(&home, &["config", "print"]).env("KCACHE_SAMPLING_TEMPERATURE", "1e-39").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    // The smallest that is allowed works.
    let least = ["chat", "hello", "--temperature", "0.000001", "--top-p", "0.000001", "--repeat-penalty", "0.000001"];
    assert!(!fine(&run(&home, &least)).is_empty());
}

#[test]
fn a_model_file_may_have_any_name() {
    let home = Home::new();
    let name = OsStr::from_bytes(b"m\xff\x1b.gguf");
    Tiny { endless: true, ..Tiny::default() }.temp().persist(home.path().join(name)).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("KCACHE_SAMPLING_MAX_TOKENS", "4").arg("--model").arg(name).output().unwrap()
    };
    let json = |arguments: &[&str]| -> Value {
        let output = run(arguments);
        harmless(&output.stdout, "JSON");
        serde_json::from_str(&fine(&output)).unwrap()
    };
    assert!(!fine(&run(&["chat", "hello"])).is_empty());
    assert_eq!(json(&["chat", "hello", "--json"])["usage"]["completion_tokens"], 4);
    assert_eq!(json(&["model", "info", "--json"])["path"], "m\\xff\x1b.gguf");
    assert_eq!(json(&["config", "print", "--json"])["config"]["model"]["path"], "m\\xff\x1b.gguf");
    harmless(&run(&["config", "print"]).stdout, "config print");
    let variable: OsString = name.to_owned();
    let output = home.command(&["model", "info"]).env("KCACHE_MODEL_PATH", variable).output().unwrap();
    harmless(&output.stdout, "model info");
    assert!(fine(&output).contains(r"\u{1b}.gguf"));
}

#[test]
fn a_profile_is_found_beside_the_file_that_names_it_and_tune_says_what_to_write() {
    let home = small();
    write_text(&home);
    fs::create_dir(home.path().join("etc")).unwrap();
    let tune =
        ["tune", "--text", "text.txt", "--context", "64", "--tokens", "16", "--rows", "8", "--out", "etc/p.toml"];
    let output = run(&home, &tune);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let profile = home.path().canonicalize().unwrap().join("etc/p.toml");
    let line = format!("policy = \"kcache:profile={}\"", profile.display());
    assert!(said.contains("kcache: [lanes.kcache]\n") && said.contains(&line), "{said}");

    let file = home.path().join("etc/c.toml");
    let validate = || run(&home, &["config", "validate", "etc/c.toml"]);
    let policy = |more: &[&str]| {
        let output = run(&home, &[&["--headless", "--say", "hello", "--config", "etc/c.toml"], more].concat());
        let first: Value = serde_json::from_str(fine(&output).lines().next().unwrap()).unwrap();
        first["lanes"].as_array().unwrap().iter().find(|lane| lane["lane"] == "kcache").unwrap()["policy"].clone()
    };
    // As `tune` says it, and beside the file.
    for written in [line.as_str(), "policy = \"kcache:n=8,profile=p.toml\""] {
        fs::write(&file, format!("model.path = \"../m.gguf\"\n[lanes.kcache]\n{written}\n")).unwrap();
        assert_eq!(fine(&validate()), "etc/c.toml: fine\n");
        assert!(policy(&[]).as_str().unwrap().contains("p.toml"));
    }
    // A flag counts from where the program runs.
    assert!(policy(&["--policy", "kcache:profile=etc/p.toml"]).as_str().unwrap().ends_with("profile=etc/p.toml"));
    // A profile that is not there, is none, or is another model's.
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/profiles/smollm2-135m-instruct-q4_1.toml");
    for (name, reason) in [("q.toml", "cannot be read"), ("c.toml", "make one with"), (default, "another model")] {
        fs::write(&file, format!("model.path = \"../m.gguf\"\n[lanes.kcache]\npolicy = \"kcache:profile={name}\"\n"))
            .unwrap();
        let output = validate();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(
            stderr(&output).starts_with("kcache: etc/c.toml:3: lanes.kcache.policy: profile `"),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
    // Without a model it says whose the profile is.
    fs::write(&file, format!("lanes.kcache.policy = \"kcache:profile={default}\"\n")).unwrap();
    let output = home.run(&["config", "validate", "etc/c.toml"]);
    assert!(fine(&output).contains("its profile is for SmolLM2"), "{}", stdout(&output));
}

#[test]
fn a_setting_is_kept_and_comments_survive() {
    let home = Home::new();
    let path = fine(&home.run(&["config", "init"]));
    let path = Path::new(path.trim_end());
    let before = fs::read_to_string(path).unwrap();
    let set = |key: &str, value: &str| home.run(&["config", "set", key, value]);
    assert_eq!(fine(&set("screen.fps", "7")), format!("{}: screen.fps = 7\n", path.display()));
    fine(&set("lanes.kcache.policy", "kcache:n=64"));
    let after = fs::read_to_string(path).unwrap();
    let changed: Vec<_> = before.lines().zip(after.lines()).filter(|(before, after)| before != after).collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    let print: Value = serde_json::from_str(&fine(&home.run(&["config", "print", "--json"]))).unwrap();
    assert_eq!(
        (&print["config"]["screen"]["fps"], &print["config"]["lanes"]["kcache"]["policy"]),
        (&7.into(), &"kcache:n=64,tail=mean,select=head".into())
    );

    for (key, value, reason) in [
        ("screen.fpss", "7", "unknown key `screen.fpss`; did you mean `screen.fps`?"),
        ("screen.fps", "0", "screen.fps is a whole number from 1 to 120, not `0`"),
        ("keys.quit", "hyper-q", "`hyper-q` is not a key"),
        ("keys.fly", "f9", "`fly` is not an action"),
        ("lanes.kcache.policy", "kcache:profile=none.toml", "cannot be read"),
    ] {
        let output = set(key, value);
        assert_eq!(output.status.code(), Some(2), "{key}");
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(path).unwrap(), after, "{key}");
    }
    // A file that is not there yet, and a variable that goes before it.
    let mut command = home.command(&["config", "set", "screen.demo", "false", "--config", "new/c.toml", "--json"]);
    let output = command.env("KCACHE_SCREEN_DEMO", "true").output().unwrap();
    assert!(stderr(&output).contains("KCACHE_SCREEN_DEMO is set, and goes before the file"), "{}", stderr(&output));
    let said: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&said["key"], &said["value"]), (&"screen.demo".into(), &"false".into()));
    assert_eq!(fs::read_to_string(home.path().join("new/c.toml")).unwrap(), "[screen]\ndemo = false\n");
}
