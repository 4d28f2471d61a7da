//! Which layer wins, and how mistakes in each are named.

use super::*;
use crate::config::{DEFAULT_TOML, ThemeName};
use proptest::prelude::*;
use std::fs;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    // A file of its own, so that the configuration of whoever runs the tests plays no part.
    let base = [("KCACHE_CONFIG", "/dev/null")];
    base.iter().chain(pairs).map(|(name, value)| (name.into(), value.into())).collect()
}

fn mistakes(text: &str) -> Vec<String> {
    let mut layers = Layers::default();
    layers.read(Path::new("c.toml"), text);
    layers.mistakes.iter().map(Mistake::to_string).collect()
}

#[test]
fn the_commented_default_is_the_default() {
    assert_eq!(toml::from_str::<Config>(DEFAULT_TOML).unwrap(), Config::default());
    assert_eq!(mistakes(DEFAULT_TOML), [""; 0]);
    let read = Layers::gather(&Overrides::default(), env(&[])).unwrap().config().unwrap();
    assert_eq!(read, Config::default());
}

/// A key that is left out by default stands in the file as a comment; without its `# ` it has to be allowed.
#[test]
fn every_key_stands_in_the_default_file() {
    let open: String = DEFAULT_TOML
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut layers = Layers::default();
    layers.read(Path::new("c.toml"), &open);
    assert_eq!(layers.mistakes, []);
    let set: Vec<_> = KEYS.iter().filter(|key| layers.setting(key.path).is_none()).map(|key| key.path).collect();
    assert_eq!(set, [""; 0]);
}

#[test]
fn a_higher_layer_wins_and_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "engine.threads = 1\nengine.prefill_chunk = 64\nscreen.fps = 5\n").unwrap();
    let mut overrides = Overrides::with_file(Some(file.clone()));
    overrides.set("--threads", "engine.threads", Some(3)).set("--model", "model.path", None::<String>);
    let environment = env(&[
        ("KCACHE_ENGINE_THREADS", "2"),
        ("KCACHE_ENGINE_PREFILL_CHUNK", "32"),
        ("KCACHE_SCREEN_THEME", "mono"),
        ("KCACHE_SCREEN_DEMO", "false"),
        ("KCACHE_SCREEN_FPS", ""),
    ]);
    let layers = Layers::gather(&overrides, environment).unwrap();
    let config = layers.config().unwrap();
    assert_eq!(config.engine.threads, Some(3));
    assert_eq!(config.engine.prefill_chunk, 32);
    assert_eq!(config.screen.fps, 5);
    assert_eq!(config.screen.theme, ThemeName::Mono);
    assert!(!config.screen.demo);
    assert_eq!(layers.setting("engine.threads"), Some(("3", &Origin::Flag("--threads"))));
    assert_eq!(layers.setting("screen.fps"), Some(("5", &Origin::File(file, Some(3)))));
    assert_eq!(layers.setting("screen.mouse"), None);
}

#[test]
fn the_log_filter_has_a_short_name() {
    let config = |pairs| Layers::gather(&Overrides::default(), env(pairs)).unwrap().config().unwrap();
    assert_eq!(config(&[("KCACHE_LOG", "debug")]).log.filter, "debug");
    assert_eq!(config(&[("KCACHE_LOG", "debug"), ("KCACHE_LOG_FILTER", "warn")]).log.filter, "warn");
}

#[test]
fn mistakes_are_named_with_line_and_remedy() {
    for (text, line) in [
        ("\n[screen]\nfpss = 3", "c.toml:3: unknown key `screen.fpss`; did you mean `screen.fps`?"),
        (
            "[screen]\ncolour = 3",
            "c.toml:2: unknown key `screen.colour`; [screen] has theme, borders, fps, mouse, demo, save_sessions, window_s",
        ),
        (
            "[server]",
            "c.toml:1: unknown key `server`; there are model, engine, lanes, guard, sampling, screen, log and keys",
        ),
        ("screen = 3", "c.toml:1: `screen` is a section, written `[screen]`"),
        ("[screen]\nfps = 0", "c.toml:2: screen.fps is a whole number from 1 to 120, not `0`"),
        ("[screen]\nfps = \"fast\"", "c.toml:2: screen.fps is a whole number from 1 to 120, not `fast`"),
        ("sampling.top_p = 1.5", "c.toml:1: sampling.top_p is a number from 0.000001 to 1, not `1.5`"),
        (
            "sampling.temperature = nan",
            "c.toml:1: sampling.temperature is 0 (greedy) or a number from 0.000001 to 100, not `nan`",
        ),
        (
            "sampling.temperature = 1e-39",
            "c.toml:1: sampling.temperature is 0 (greedy) or a number from 0.000001 to 100, not `1e-39`",
        ),
        ("sampling.top_p = 1e-320", "c.toml:1: sampling.top_p is a number from 0.000001 to 1, not `1e-320`"),
        (
            "sampling.repeat_penalty = 1e-40",
            "c.toml:1: sampling.repeat_penalty is a number from 0.000001 to 100; 1 is off, not `1e-40`",
        ),
        ("engine.threads = -1", "c.toml:1: engine.threads is a whole number from 1 to 1024, not `-1`"),
        (
            "lanes.kv.policy = \"kcache\"",
            "c.toml:1: lanes.kv.policy is a policy that reads every row: `kv` or `kv-q8`, not `kcache`",
        ),
        (
            "lanes.kcache.policy = \"kcache:n=0\"",
            "c.toml:1: lanes.kcache.policy: policy `kcache:n=0`: n is a whole number of rows, at least 1, not `0`",
        ),
        (
            "lanes.kv = { budget = \"3KiB\" }",
            "c.toml:1: lanes.kv.budget is `none` or a size of at least 1MiB, such as `512MiB` or `1.5GiB`, not `3KiB`",
        ),
        ("[keys]\nquit = \"q\"", "c.toml:2: keys.quit is a list of keys, such as `[\"ctrl-q\", \"f10\"]`, not `\"q\"`"),
        (
            "log.filter = \"kcache=loud\"",
            "c.toml:1: log.filter is a filter such as `info` or `kcache=debug`, not `kcache=loud`",
        ),
        ("model.path = \"\"", "c.toml:1: model.path is the path of a GGUF file, not ``"),
    ] {
        assert_eq!(mistakes(text), [line]);
    }
    let broken = mistakes("[screen]\nfps = \n");
    assert!(broken.len() == 1 && broken[0].starts_with("c.toml:2: "), "{broken:?}");
    assert_eq!(mistakes("screen.fps = 0\nscreen.window_s = 1\n").len(), 2);
}

#[test]
fn unknown_variables_are_named_and_refuse_nothing() {
    let warnings =
        |pairs: &[(&str, &str)]| Layers::gather(&Overrides::default(), env(pairs)).unwrap().warnings().to_vec();
    for (name, remedy) in [
        ("KCACHE_SCREEN_FPSS", "did you mean KCACHE_SCREEN_FPS?"),
        ("KCACHE_THREADS", "did you mean KCACHE_ENGINE_THREADS?"),
        ("KCACHE_NVMLLIB", "did you mean KCACHE_NVML_LIB?"),
        ("KCACHE_CONFG", "did you mean KCACHE_CONFIG?"),
        ("KCACHE_SOMETHING_ELSE", "`kcache config print` shows every key"),
    ] {
        let said = warnings(&[(name, "1")]);
        assert!(said.len() == 1 && said[0].starts_with(name) && said[0].contains(remedy), "{said:?}");
    }
    assert_eq!(warnings(&[("KCACHE_DATA_DIR", "/x"), ("OTHER", "1")]), [""; 0]);
    // What Kubernetes sets beside a service that is called kcache.
    let service = [
        ("KCACHE_PORT", "tcp://10.0.0.11:8080"),
        ("KCACHE_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
        ("KCACHE_PORT_8080_TCP_ADDR", "10.0.0.11"),
        ("KCACHE_SERVICE_HOST", "10.0.0.11"),
        ("KCACHE_SERVICE_PORT", "8080"),
    ];
    let said = warnings(&service);
    assert!(said.len() == 1 && !said[0].contains("did you mean"), "{said:?}");
    assert!(service.iter().all(|(name, _)| said[0].contains(name)), "{said:?}");
    // A known one is still checked.
    let error = Layers::gather(&Overrides::default(), env(&[("KCACHE_SCREEN_FPS", "fast"), service[0]])).unwrap_err();
    assert!(error.to_string().starts_with("KCACHE_SCREEN_FPS: screen.fps is a whole number"), "{error}");
}

#[test]
fn a_file_without_an_end_is_refused() {
    let error = Layers::from_file(Path::new("/dev/zero")).unwrap_err().to_string();
    assert_eq!(error, "/dev/zero: cannot be read: it has more than 1 MiB");
}

#[cfg(unix)]
#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(OsStr::from_bytes(b"m\xff.gguf"));
    let mut overrides = Overrides::default();
    overrides.set_path("--model", "model.path", Some(path));
    let mut environment = env(&[]);
    environment.push(("KCACHE_LOG_FILE".into(), path.into()));
    let layers = Layers::gather(&overrides, environment).unwrap();
    let config = layers.config().unwrap();
    assert_eq!((config.model.path.as_deref(), config.log.file.as_deref()), (Some(path), Some(path)));
    assert_eq!(serde_json::to_value(&config).unwrap()["model"]["path"], r"m\xff.gguf");
    let error =
        Layers::gather(&overrides, [("KCACHE_SCREEN_THEME".into(), path.into()), env(&[])[0].clone()]).unwrap_err();
    assert!(error.to_string().contains(r"not `m\xff.gguf`"), "{error}");
}

#[test]
fn a_file_that_was_asked_for_has_to_be_there() {
    let overrides = Overrides::with_file(Some("/nonexistent/c.toml".into()));
    let error = Layers::gather(&overrides, env(&[])).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/c.toml: cannot be read"), "{error}");
}

#[test]
fn paths_in_a_file_stand_beside_it() {
    let mut layers = Layers::default();
    layers.read(Path::new("/etc/k/c.toml"), "model.path = \"m.gguf\"\nlog.file = \"/var/log/k\"");
    let policy = |text: &str| {
        let mut layers = Layers::default();
        layers.read(Path::new("/etc/k/c.toml"), &format!("lanes.kcache.policy = \"{text}\""));
        layers.setting("lanes.kcache.policy").unwrap().0.to_owned()
    };
    assert_eq!(policy("kcache:n=9,profile=p.toml"), "\"kcache:n=9,profile=/etc/k/p.toml\"");
    assert_eq!(policy("kcache:profile=../p.toml,n=9"), "\"kcache:profile=/etc/k/../p.toml,n=9\"");
    for same in ["kcache:profile=default", "kcache:profile=/p.toml,dense=1", "kcache:n=9", "kcache", "kcache:paper"] {
        assert_eq!(policy(same), format!("\"{same}\""));
    }
    let config = layers.config().unwrap();
    assert_eq!(config.model.path, Some("/etc/k/m.gguf".into()));
    assert_eq!(config.log.file, Some("/var/log/k".into()));
    assert!(!expand_home("~/x").starts_with('~'));
}

proptest! {
    #[test]
    fn any_text_of_a_path_comes_through(text in "[^\0]{1,40}") {
        prop_assume!(!text.starts_with("~/"));
        let mut overrides = Overrides::default();
        overrides.set("--model", "model.path", Some(&text));
        let config = Layers::gather(&overrides, env(&[])).unwrap().config().unwrap();
        prop_assert_eq!(config.model.path, Some(PathBuf::from(text)));
    }

    #[test]
    fn no_file_makes_it_panic(text in "(\\[|\\]|[a-z.=\"\n# 0-9{}]|screen|fps|lanes|keys){0,40}") {
        mistakes(&text);
    }
}
