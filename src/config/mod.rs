//! `config.toml`, environment and flags as one checked structure: flags > `KCACHE_…` > user's file > default.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{cache::Policy, engine::Sampling};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which model.
    pub model: ModelConfig,
    /// How it is run.
    pub engine: EngineConfig,
    /// The two lanes.
    pub lanes: LanesConfig,
    /// How tokens are chosen.
    pub sampling: SamplingConfig,
    /// How the dashboard looks and behaves.
    pub screen: ScreenConfig,
    /// Key bindings that differ from the default: action name → keys (`"ctrl-n"`, `"f2"`, `"?"`).
    pub keys: BTreeMap<String, Vec<String>>,
    /// The log file.
    pub log: LogConfig,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A GGUF file; `None` is the default model, fetched where it is missing.
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
}

/// `[lanes.kcache]` and `[lanes.kv]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LanesConfig {
    /// The lane under test.
    pub kcache: LaneConfig,
    /// The baseline.
    pub kv: LaneConfig,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneConfig {
    /// Its policy.
    pub policy: Policy,
    /// Its device budget (`"512MiB"`, bytes as a number, `"none"`).
    pub budget: Budget,
}

/// A device budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(pub Option<u64>);

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
}

/// `[screen]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScreenConfig {
    /// `auto`, `dark`, `light`, `mono` or `colour-blind`.
    pub theme: ThemeName,
    /// The most frames drawn per second.
    pub fps: u32,
    /// Whether the mouse is captured.
    pub mouse: bool,
    /// Whether a first start opens the demo sessions.
    pub demo: bool,
    /// Seconds that charts look back.
    pub window_s: u32,
}

/// Names of the themes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThemeName {
    /// From the terminal: `mono` under `NO_COLOR`, else `dark`.
    #[default]
    Auto,
    /// For dark backgrounds.
    Dark,
    /// For light backgrounds.
    Light,
    /// No colour, only bold, dim and reverse.
    Mono,
    /// Colours that differ for every kind of colour vision.
    ColourBlind,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A `tracing` filter: `info`, `kcache=debug`.
    pub filter: String,
    /// The file; `None` is the user's state folder.
    pub file: Option<PathBuf>,
}
