//! Every key of the configuration: its path, how text becomes its value, and what is allowed.

use tracing_subscriber::EnvFilter;

use super::Config;
use crate::cache::Policy;

pub struct Key {
    /// Its path in the file, `screen.fps`.
    pub path: &'static str,
    /// How its value is written.
    pub form: Form,
    /// What is allowed, as the end of a sentence that begins "… is".
    pub allowed: &'static str,
    /// Whether the value that a configuration holds for it is allowed.
    pub check: fn(&Config) -> bool,
}

/// How a value is written in TOML. In the environment and in flags there are no quotes, so a key has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    /// A string that is a path: `~/` is the home folder, and in a file relative means beside that file.
    Path,
    /// A number, a truth value or a list.
    Plain,
}

/// The smallest device budget: below, not even one token of a small model fits.
const MIN_BUDGET: u64 = 1 << 20;

/// The smallest number that sampling divides by or sums up to. Logits are 32-bit numbers: divided by much less they are
/// infinite, and the answer is no answer.
const LEAST: f64 = 1e-6;

const BUDGET: &str = "`none` or a size of at least 1MiB, such as `512MiB` or `1.5GiB`";

/// Every key but those of `[keys]`, whose names are the dashboard's actions. In the order of `config.toml`.
pub const KEYS: [Key; 35] = [
    Key {
        path: "model.path",
        form: Form::Path,
        allowed: "the path of a GGUF file",
        check: |c| c.model.path.as_ref().is_none_or(|path| !path.as_os_str().is_empty()),
    },
    Key {
        path: "engine.threads",
        form: Form::Plain,
        allowed: "a whole number from 1 to 1024",
        check: |c| c.engine.threads.is_none_or(|threads| (1..=1024).contains(&threads)),
    },
    Key {
        path: "engine.context",
        form: Form::Plain,
        allowed: "a whole number of tokens, at least 16",
        check: |c| c.engine.context.is_none_or(|tokens| tokens >= 16),
    },
    Key {
        path: "engine.prefill_chunk",
        form: Form::Plain,
        allowed: "a whole number of tokens from 16 to 2048",
        check: |c| (16..=2048).contains(&c.engine.prefill_chunk),
    },
    Key {
        path: "engine.queue",
        form: Form::Plain,
        allowed: "a whole number of answers from 1 to 1000000",
        check: |c| (1..=1_000_000).contains(&c.engine.queue),
    },
    Key { path: "engine.share_prefixes", form: Form::Plain, allowed: "`true` or `false`", check: |_| true },
    Key {
        path: "engine.kernels",
        form: Form::Text,
        allowed: "one of `auto`, `avx512`, `avx2`, `portable`",
        check: |_| true,
    },
    Key {
        path: "lanes.kcache.policy",
        form: Form::Text,
        allowed: "a `kcache` policy, such as `kcache:n=128,tail=mean,dense=1,select=head`",
        check: |c| matches!(c.lanes.kcache.policy, Policy::KCache(_)),
    },
    Key {
        path: "lanes.kcache.budget",
        form: Form::Text,
        allowed: BUDGET,
        check: |c| c.lanes.kcache.budget.0.is_none_or(|bytes| bytes >= MIN_BUDGET),
    },
    Key {
        path: "lanes.kcache.host_budget",
        form: Form::Text,
        allowed: BUDGET,
        check: |c| c.lanes.kcache.host_budget.0.is_none_or(|bytes| bytes >= MIN_BUDGET),
    },
    Key {
        path: "lanes.kv.policy",
        form: Form::Text,
        allowed: "a policy that reads every row: `kv` or `kv-q8`",
        check: |c| matches!(c.lanes.kv.policy, Policy::Kv | Policy::KvQ8),
    },
    Key {
        path: "lanes.kv.budget",
        form: Form::Text,
        allowed: BUDGET,
        check: |c| c.lanes.kv.budget.0.is_none_or(|bytes| bytes >= MIN_BUDGET),
    },
    Key {
        path: "lanes.kv.host_budget",
        form: Form::Text,
        allowed: BUDGET,
        check: |c| c.lanes.kv.host_budget.0.is_none_or(|bytes| bytes >= MIN_BUDGET),
    },
    Key { path: "guard.mode", form: Form::Text, allowed: "one of `off`, `warn`, `rollback`", check: |_| true },
    Key {
        path: "guard.probe_every",
        form: Form::Plain,
        allowed: "a whole number of tokens, at most 1000000; 0 is off",
        check: |c| c.guard.probe_every <= 1_000_000,
    },
    Key {
        path: "guard.kl",
        form: Form::Plain,
        allowed: "a number of nats from 0 (not looked at) to 100",
        check: |c| (0.0..=100.0).contains(&c.guard.kl),
    },
    Key {
        path: "guard.kept_mass",
        form: Form::Plain,
        allowed: "a number from 0 (not looked at) to below 1",
        check: |c| (0.0..1.0).contains(&c.guard.kept_mass),
    },
    Key {
        path: "guard.window",
        form: Form::Plain,
        allowed: "a whole number of tokens from 1 to 1000000",
        check: |c| (1..=1_000_000).contains(&c.guard.window),
    },
    Key {
        path: "guard.back",
        form: Form::Plain,
        allowed: "a whole number of tokens, at most 1000000; 0 is never",
        check: |c| c.guard.back <= 1_000_000,
    },
    Key {
        path: "sampling.temperature",
        form: Form::Plain,
        allowed: "0 (greedy) or a number from 0.000001 to 100",
        check: |c| c.sampling.temperature == 0.0 || (LEAST..=100.0).contains(&c.sampling.temperature),
    },
    Key {
        path: "sampling.top_k",
        form: Form::Plain,
        allowed: "a whole number of tokens, at least 1",
        check: |c| c.sampling.top_k.is_none_or(|k| k >= 1),
    },
    Key {
        path: "sampling.top_p",
        form: Form::Plain,
        allowed: "a number from 0.000001 to 1",
        check: |c| c.sampling.top_p.is_none_or(|p| (LEAST..=1.0).contains(&p)),
    },
    Key {
        path: "sampling.repeat_penalty",
        form: Form::Plain,
        allowed: "a number from 0.000001 to 100; 1 is off",
        check: |c| (LEAST as f32..=100.0).contains(&c.sampling.repeat_penalty),
    },
    Key { path: "sampling.seed", form: Form::Plain, allowed: "a whole number, at least 0", check: |_| true },
    Key {
        path: "sampling.max_tokens",
        form: Form::Plain,
        allowed: "a whole number of tokens, at least 1",
        check: |c| c.sampling.max_tokens >= 1,
    },
    Key {
        path: "sampling.stop",
        form: Form::Plain,
        allowed: "a list of at most 16 texts of 1 to 256 bytes, such as `[\"###\"]`",
        check: |_| true,
    },
    Key {
        path: "screen.theme",
        form: Form::Text,
        allowed: "one of `auto`, `dark`, `light`, `mono`, `colour-blind`",
        check: |_| true,
    },
    Key { path: "screen.borders", form: Form::Text, allowed: "one of `auto`, `unicode`, `ascii`", check: |_| true },
    Key {
        path: "screen.fps",
        form: Form::Plain,
        allowed: "a whole number from 1 to 120",
        check: |c| (1..=120).contains(&c.screen.fps),
    },
    Key { path: "screen.mouse", form: Form::Plain, allowed: "`true` or `false`", check: |_| true },
    Key { path: "screen.demo", form: Form::Plain, allowed: "`true` or `false`", check: |_| true },
    Key { path: "screen.save_sessions", form: Form::Plain, allowed: "`true` or `false`", check: |_| true },
    Key {
        path: "screen.window_s",
        form: Form::Plain,
        allowed: "a whole number of seconds from 10 to 3600",
        check: |c| (10..=3600).contains(&c.screen.window_s),
    },
    Key {
        path: "log.filter",
        form: Form::Text,
        allowed: "a filter such as `info` or `kcache=debug`",
        check: |c| EnvFilter::try_new(&c.log.filter).is_ok(),
    },
    Key {
        path: "log.file",
        form: Form::Path,
        allowed: "the path of a file",
        check: |c| c.log.file.as_ref().is_none_or(|path| !path.as_os_str().is_empty()),
    },
];

impl Key {
    /// The key at `path`.
    pub fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Whether its value is a policy.
    pub fn is_policy(&self) -> bool {
        self.path.ends_with(".policy")
    }

    /// The environment variable that sets it, `KCACHE_SCREEN_FPS`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }
}

/// What every environment variable of ours begins with.
pub const PREFIX: &str = "KCACHE_";

/// Variables of ours that are not keys of the configuration, and what each is for.
pub const SPECIAL_VARIABLES: &[(&str, &str)] = &[
    ("KCACHE_CONFIG", "the configuration file, as `--config`"),
    ("KCACHE_DATA_DIR", "where models are kept, instead of the user's data folder"),
    ("KCACHE_LOG", "the log filter, short for KCACHE_LOG_FILTER"),
    ("KCACHE_NVML_LIB", "the NVML library to load, instead of the driver's"),
    #[cfg(debug_assertions)]
    (crate::engine::FAULT_VARIABLE, "debug builds only: a fault on purpose, for tests"),
];
