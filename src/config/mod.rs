//! `config.toml`, environment and flags as one checked structure: flags > `KCACHE_…` > user's file > default.
//!
//! [`Config`] is what the program reads. [`Layers`] gathers each value that somebody set, with where it came from, and
//! names each mistake with its place. [`keys::KEYS`] says what is allowed for each key.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    cache::{Knobs, Policy},
    engine::{GenerationOptions, Lane, Sampling, StopSequences},
    files,
    quality::{GuardMode, GuardOptions},
};

mod budget;
pub mod folders;
mod keep;
pub mod keys;
mod layers;
mod mistake;
mod origin;
mod overrides;

pub use budget::{Budget, BudgetError};
pub use keep::{KeepError, Kept, keep, keep_changed};
pub use layers::Layers;
pub use mistake::{ConfigError, Mistake};
pub use origin::Origin;
pub use overrides::Overrides;

/// The commented default, as it stands at the top of the repository. `kcache config init` writes it out.
pub const DEFAULT_TOML: &str = include_str!("../../config.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub model: ModelConfig,
    pub engine: EngineConfig,
    pub lanes: LanesConfig,
    /// How answers of the lane under test are probed and guarded.
    pub guard: GuardConfig,
    /// How tokens are chosen.
    pub sampling: SamplingConfig,
    /// How the dashboard looks and behaves.
    pub screen: ScreenConfig,
    pub log: LogConfig,
    /// Key bindings that differ from the default: action name → keys (`"ctrl-n"`, `"f2"`, `"?"`).
    pub keys: BTreeMap<String, Vec<String>>,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A GGUF file; `None` is the default model, fetched where it is missing.
    #[serde(serialize_with = "files::serialize_some")]
    pub path: Option<PathBuf>,
}

/// `[engine]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Threads that compute; `None` is one per physical core, less one for the screen above two.
    pub threads: Option<usize>,
    /// The longest context in tokens; `None` is the model's own.
    pub context: Option<usize>,
    /// Prompt tokens computed in one step.
    pub prefill_chunk: usize,
    /// Answers that may wait in a lane before messages are refused.
    pub queue: usize,
    /// Whether sessions that begin with the same tokens hold the same pages.
    pub share_prefixes: bool,
    /// Which of the kernels run.
    pub kernels: Kernels,
}

/// Which kernels run, of those that the CPU has the instructions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    #[default]
    Auto,
    /// Those for AVX-512. A CPU without is refused.
    Avx512,
    /// Those for AVX2, to see what a CPU without AVX-512 would do.
    Avx2,
    /// Those without vector instructions of their own, to see what they gain.
    Portable,
}

/// `[lanes.kcache]` and `[lanes.kv]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "LanesFile")]
pub struct LanesConfig {
    pub kcache: LaneConfig,
    pub kv: LaneConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneConfig {
    pub policy: Policy,
    /// Its device budget (`"512MiB"`, bytes as a number, `"none"`).
    pub budget: Budget,
    /// What it may hold in host memory, likewise.
    pub host_budget: Budget,
}

/// Lanes as a file may write them: what is left out is that lane's default, and the two lanes' defaults differ.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LanesFile {
    kcache: LaneFile,
    kv: LaneFile,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LaneFile {
    policy: Option<Policy>,
    budget: Option<Budget>,
    host_budget: Option<Budget>,
}

impl From<LanesFile> for LanesConfig {
    fn from(file: LanesFile) -> Self {
        let fill = |lane: LaneFile, default: LaneConfig| LaneConfig {
            policy: lane.policy.unwrap_or(default.policy),
            budget: lane.budget.unwrap_or(default.budget),
            host_budget: lane.host_budget.unwrap_or(default.host_budget),
        };
        let default = Self::default();
        Self { kcache: fill(file.kcache, default.kcache), kv: fill(file.kv, default.kv) }
    }
}

/// `[guard]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// `off`, `warn` or `rollback`.
    pub mode: GuardMode,
    /// A token is probed at every position that this divides; 0 for never.
    pub probe_every: usize,
    /// The largest mean KL in nats; 0 where it is not looked at.
    pub kl: f64,
    /// The smallest mean kept mass; 0 where it is not looked at.
    pub kept_mass: f64,
    /// Tokens over which figures are averaged.
    pub window: usize,
    /// Tokens of full attention before top-N may return; 0 for never.
    pub back: usize,
}

impl Default for GuardConfig {
    fn default() -> Self {
        let GuardOptions { kl, kept_mass, window, back, .. } = GuardOptions::OFF;
        Self { mode: GuardMode::Warn, probe_every: 16, kl, kept_mass, window, back }
    }
}

impl GuardConfig {
    /// The part that an engine takes.
    pub fn options(&self) -> GuardOptions {
        let Self { mode, probe_every, kl, kept_mass, window, back } = *self;
        GuardOptions { mode, probe_every, kl, kept_mass, window, back }
    }
}

/// `[sampling]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// 0 is greedy.
    pub temperature: f64,
    /// Keep only the likeliest `top_k` tokens.
    pub top_k: Option<usize>,
    /// Keep only the likeliest tokens up to this sum of probability.
    pub top_p: Option<f64>,
    /// 1 is off.
    pub repeat_penalty: f32,
    /// The same seed gives the same text.
    pub seed: u64,
    /// The most tokens of one answer.
    pub max_tokens: usize,
    /// Texts before which an answer ends.
    pub stop: StopSequences,
}

/// `[screen]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScreenConfig {
    /// `auto`, `dark`, `light`, `mono` or `colour-blind`.
    pub theme: ThemeName,
    /// `auto`, `unicode` or `ascii`.
    pub borders: Borders,
    /// The most frames drawn per second.
    pub fps: u32,
    /// Whether the mouse is captured.
    pub mouse: bool,
    /// Whether a start opens the demo sessions.
    pub demo: bool,
    /// Whether closing keeps the sessions for the next start.
    pub save_sessions: bool,
    /// Seconds that charts look back.
    pub window_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ThemeName {
    /// From the terminal: `mono` under `NO_COLOR`, else `dark`.
    #[default]
    Auto,
    Dark,
    Light,
    /// No colour, only bold, dim and reverse.
    Mono,
    /// Colours that differ for every kind of colour vision.
    ColourBlind,
}

/// What lines, blocks and signs are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Borders {
    /// From the terminal: `ascii` where the locale is not UTF-8 or ambiguous characters are wide, else `unicode`.
    #[default]
    Auto,
    /// Box lines, blocks and braille.
    Unicode,
    Ascii,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A `tracing` filter: `info`, `kcache=debug`.
    pub filter: String,
    /// The file; `None` is the user's state folder.
    #[serde(serialize_with = "files::serialize_some")]
    pub file: Option<PathBuf>,
}

impl Default for Config {
    /// What an empty file means; the same as [`DEFAULT_TOML`].
    fn default() -> Self {
        Self {
            model: ModelConfig::default(),
            engine: EngineConfig::default(),
            lanes: LanesConfig::default(),
            guard: GuardConfig::default(),
            sampling: SamplingConfig::default(),
            screen: ScreenConfig::default(),
            log: LogConfig::default(),
            keys: BTreeMap::new(),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            threads: None,
            context: None,
            prefill_chunk: 128,
            queue: 256,
            share_prefixes: true,
            kernels: Kernels::Auto,
        }
    }
}

impl Default for LanesConfig {
    fn default() -> Self {
        let budget = Budget(Some(512 << 20));
        Self {
            kcache: LaneConfig { policy: Policy::KCache(Knobs::default()), budget, host_budget: Budget(None) },
            kv: LaneConfig { policy: Policy::Kv, budget, host_budget: Budget(None) },
        }
    }
}

impl Default for SamplingConfig {
    /// Greedy, so that two lanes differ by their policy alone.
    fn default() -> Self {
        let Sampling { temperature, top_k, top_p, repeat_penalty, seed } = Sampling::default();
        let stop = StopSequences::default();
        Self { temperature, top_k, top_p, repeat_penalty, seed, max_tokens: 256, stop }
    }
}

impl Default for ScreenConfig {
    fn default() -> Self {
        Self {
            theme: ThemeName::Auto,
            borders: Borders::Auto,
            fps: 20,
            mouse: false,
            demo: true,
            save_sessions: false,
            window_s: 120,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), file: None }
    }
}

impl SamplingConfig {
    /// How an answer is made under it.
    pub fn turn(&self) -> GenerationOptions {
        let (max_tokens, stop) = (self.max_tokens, self.stop.clone());
        GenerationOptions { sampling: self.sampling(), max_tokens, stop, ..GenerationOptions::default() }
    }

    /// The part that an engine's turn carries.
    pub fn sampling(&self) -> Sampling {
        let Self { temperature, top_k, top_p, repeat_penalty, seed, max_tokens: _, stop: _ } = *self;
        Sampling { temperature, top_k, top_p, repeat_penalty, seed }
    }
}

impl LanesConfig {
    /// What one lane is configured to be.
    pub fn get(&self, lane: Lane) -> &LaneConfig {
        match lane {
            Lane::KCache => &self.kcache,
            Lane::Kv => &self.kv,
        }
    }
}

impl Config {
    /// Everything that flags, this process's environment and the user's file say, over the default.
    ///
    /// # Errors
    ///
    /// Every unknown key and impossible value, each named with its place and what is allowed there.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Layers::gather(overrides, std::env::vars_os())?.config()
    }
}
