//! The workload that is put on the engine, as the screen knows it, and the form that asks for one.

use std::sync::Arc;

use crossterm::event::KeyCode;

use super::{figures::device_bytes_per_token, metrics::LaneMetrics};
use crate::{
    bench::{self, WorkloadSpec},
    cache::Policy,
    engine::Started,
};

/// Tokens of a page: what a session holds is whole pages.
const PAGE: u64 = crate::cache::PAGE_TOKENS as u64;

/// The load, and the form for the next one.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// The one that runs, or ran last.
    pub load: bench::Workload,
    /// What is asked for; kept from one to the next.
    pub form: Form,
    /// Whether there is text to make prompts of.
    pub ready: bool,
    /// What the command line asked for, until the engine is up.
    pub wanted: Option<WorkloadSpec>,
}

/// A field of the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Sessions,
    Context,
    Tokens,
    /// Arrivals per minute; nothing is all at once.
    Rate,
    /// How they follow each other.
    Arrivals,
    /// The seed of their times.
    Seed,
    /// Tokens that all prompts begin with.
    Shared,
    Lanes,
}

impl Field {
    /// All, in the order of the form.
    pub const ALL: [Self; 8] = [
        Self::Sessions,
        Self::Context,
        Self::Tokens,
        Self::Rate,
        Self::Arrivals,
        Self::Seed,
        Self::Shared,
        Self::Lanes,
    ];

    /// Its key in a written load.
    pub fn key(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Context => "context",
            Self::Tokens => "tokens",
            Self::Rate => "rate",
            Self::Arrivals => "arrivals",
            Self::Seed => "seed",
            Self::Shared => "shared",
            Self::Lanes => "lanes",
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Sessions => "in all; each asks once",
            Self::Context => "tokens of each prompt",
            Self::Tokens => "of each answer",
            Self::Rate => "arrivals a minute; empty: all at once",
            Self::Arrivals => "at random, or evenly spaced",
            Self::Seed => "of the random times",
            Self::Shared => "first tokens that are the same in all",
            Self::Lanes => "that answer",
        }
    }

    /// The words that it may be; none where it is a number.
    fn choices(self) -> &'static [&'static str] {
        match self {
            Self::Arrivals => &["poisson", "even"],
            Self::Lanes => &["both", "kcache", "kv"],
            _ => &[],
        }
    }
}

/// The form: what is written in each field, and which one is being written.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// In the order of [`Field::ALL`].
    pub values: [String; Field::ALL.len()],
    /// The field that hears the keys.
    pub selected: usize,
    /// What is wrong with it.
    pub error: Option<String>,
}

impl Default for Form {
    fn default() -> Self {
        Self::of(&WorkloadSpec::default())
    }
}

impl Form {
    pub(crate) fn of(spec: &WorkloadSpec) -> Self {
        let written = spec.to_string();
        let value = |field: Field| {
            let mut pieces = written.split(',').filter_map(|piece| piece.split_once('='));
            let value = pieces.find(|(key, _)| *key == field.key()).map_or("", |(_, value)| value);
            if value == "all" { String::new() } else { value.to_owned() }
        };
        Self { values: Field::ALL.map(value), selected: 0, error: None }
    }

    /// What is asked for; the error is one line.
    pub fn spec(&self) -> Result<WorkloadSpec, String> {
        let pieces = Field::ALL.iter().zip(&self.values);
        let piece = |(field, value): (&Field, &String)| match (field, value.as_str()) {
            (Field::Rate, "") => "rate=all".to_owned(),
            (field, value) => format!("{}={value}", field.key()),
        };
        let text = pieces.map(piece).collect::<Vec<_>>().join(",");
        text.parse().map_err(|error: bench::WorkloadError| error.to_string())
    }

    /// Doubles or halves the number, or takes the next word.
    fn step(&mut self, up: bool) {
        let value = &mut self.values[self.selected];
        *value = match Field::ALL[self.selected].choices() {
            choices if !choices.is_empty() => {
                let at = choices.iter().position(|name| name == value).unwrap_or(0);
                choices[(at + if up { 1 } else { choices.len() - 1 }) % choices.len()].to_owned()
            }
            _ => match value.parse::<f64>() {
                Ok(number) if up => (number * 2.0).max(1.0).to_string(),
                Ok(number) => (number / 2.0).floor().to_string(),
                Err(_) => "1".to_owned(),
            },
        };
    }

    /// Empties the field, where it is one to write in.
    pub(crate) fn clear(&mut self) {
        self.error = None;
        if Field::ALL[self.selected].choices().is_empty() {
            self.values[self.selected].clear();
        }
    }

    pub(crate) fn key(&mut self, code: KeyCode) {
        self.error = None;
        let fields = Field::ALL.len();
        let words = !Field::ALL[self.selected].choices().is_empty();
        match code {
            KeyCode::Up | KeyCode::BackTab => self.selected = (self.selected + fields - 1) % fields,
            KeyCode::Down | KeyCode::Tab => self.selected = (self.selected + 1) % fields,
            KeyCode::Left => self.step(false),
            KeyCode::Right => self.step(true),
            KeyCode::Backspace if !words => drop(self.values[self.selected].pop()),
            KeyCode::Char(' ') if words => self.step(true),
            // No number that is allowed is longer, but for seeds, of which these are enough.
            KeyCode::Char(c) if !words && (c.is_ascii_digit() || c == '.') && self.values[self.selected].len() < 8 => {
                self.values[self.selected].push(c);
            }
            _ => {}
        }
    }
}

impl Workload {
    /// With text to make prompts of, and a load to begin with.
    pub fn new(text: Arc<[u32]>, wanted: Option<WorkloadSpec>) -> Self {
        let form = wanted.as_ref().map_or_else(Form::default, Form::of);
        Self { ready: !text.is_empty(), load: bench::Workload::new(text), form, wanted }
    }

    /// Whether there is one to show in the list of sessions.
    pub(crate) fn shown(&self) -> bool {
        self.load.arrived() > 0 || self.load.is_active()
    }
}

/// How many sessions of `spec` a lane's budget holds at once, with what is there now evicted and their common beginning
/// held once; `None` where that is not known, `Some(None)` without a budget.
pub(crate) fn fit(
    spec: &WorkloadSpec,
    started: &Started,
    metrics: &LaneMetrics,
    budget: Option<u64>,
) -> Option<Option<u64>> {
    let policy = metrics.policy.as_ref()?;
    let Some(budget) = budget else { return Some(None) };
    let workspace = metrics.ledger_at(f64::INFINITY)?.device.workspace;
    let shared = spec.shared as u64 / PAGE * PAGE;
    let tokens = ((spec.context + spec.tokens) as u64).div_ceil(PAGE) * PAGE - shared;
    let sums = match policy {
        Policy::KCache(_) => [started.kv_heads, started.head_dim, size_of::<f32>()]
            .into_iter()
            .fold(started.layers, usize::saturating_mul),
        _ => 0,
    };
    let token = device_bytes_per_token(policy, started);
    let free = budget.saturating_sub(workspace.saturating_add(shared.saturating_mul(token)));
    Some(Some(free / tokens.saturating_mul(token).saturating_add(sums as u64).max(1)))
}
