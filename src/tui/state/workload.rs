//! The load as the screen knows it: the form that asks for it, and what its keys do.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    bench::{Load, WorkloadSpec},
    engine::{EventKind, Lane},
};

use super::{Overlay, State, figures::device_bytes_per_token};
use crate::tui::{
    command::Command,
    input::{
        action::{Action, Scope},
        keymap::Key,
    },
};

/// Tokens of a page: what a session holds is whole pages.
const PAGE: u64 = crate::cache::PAGE_TOKENS as u64;

/// The load, and the form for the next one.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    /// The one that runs, or ran last.
    pub load: Load,
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
    /// Sessions in all.
    Sessions,
    /// Tokens of each prompt.
    Context,
    /// Tokens of each answer.
    Tokens,
    /// Arrivals per minute; nothing is all at once.
    Rate,
    /// How they follow each other.
    Arrivals,
    /// The seed of their times.
    Seed,
    /// Tokens that all prompts begin with.
    Shared,
    /// The lanes.
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

    /// What it means.
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
    fn of(spec: &WorkloadSpec) -> Self {
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
        text.parse().map_err(|error: crate::bench::LoadError| error.to_string())
    }

    /// Doubles or halves the number, or takes the next word.
    fn turn(&mut self, up: bool) {
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
    fn clear(&mut self) {
        self.error = None;
        if Field::ALL[self.selected].choices().is_empty() {
            self.values[self.selected].clear();
        }
    }

    fn key(&mut self, code: KeyCode) {
        self.error = None;
        let fields = Field::ALL.len();
        let words = !Field::ALL[self.selected].choices().is_empty();
        match code {
            KeyCode::Up | KeyCode::BackTab => self.selected = (self.selected + fields - 1) % fields,
            KeyCode::Down | KeyCode::Tab => self.selected = (self.selected + 1) % fields,
            KeyCode::Left => self.turn(false),
            KeyCode::Right => self.turn(true),
            KeyCode::Backspace if !words => drop(self.values[self.selected].pop()),
            KeyCode::Char(' ') if words => self.turn(true),
            // No number that is allowed is longer, but for seeds, of which these are enough.
            KeyCode::Char(c) if !words && (c.is_ascii_digit() || c == '.') && self.values[self.selected].len() < 8 => {
                self.values[self.selected].push(c);
            }
            _ => {}
        }
    }
}

impl Loads {
    /// With text to make prompts of, and a load to begin with.
    pub fn new(text: Arc<[u32]>, wanted: Option<WorkloadSpec>) -> Self {
        let form = wanted.as_ref().map_or_else(Form::default, Form::of);
        Self { ready: !text.is_empty(), load: Load::new(text), form, wanted }
    }
}

/// Shows the form, or what becomes of the load that runs.
pub fn open(state: &mut State) {
    if state.stopped.is_some() {
        state.toast("the engine has ended; nothing can be asked any more", true);
    } else if state.started.is_none() || !state.loads.ready {
        state.toast("there is no engine yet to put a load on", true);
    } else {
        state.overlay = Overlay::Load;
    }
}

/// Takes in a key while that is shown.
pub fn key(state: &mut State, event: KeyEvent) -> Vec<Command> {
    // The key that opened it, also the plain letter: there are none to be typed here.
    let same = state.keymap.action(Scope::Charts, Key::from_event(&event)) == Some(Action::Load);
    if state.loads.load.is_active() {
        match event.code {
            KeyCode::Esc | KeyCode::Enter => state.overlay = Overlay::None,
            _ if same && state.loads.load.is_coming() => state.loads.load.stop(),
            _ if same => return state.loads.load.cancel().into_iter().map(Command::Engine).collect(),
            _ => {}
        }
        return Vec::new();
    }
    match event.code {
        KeyCode::Esc => state.overlay = Overlay::None,
        _ if same => state.overlay = Overlay::None,
        KeyCode::Enter => match state.loads.form.spec().and_then(|spec| start(state, spec)) {
            Ok(commands) => {
                state.overlay = Overlay::None;
                return commands;
            }
            Err(error) => state.loads.form.error = Some(error),
        },
        KeyCode::Char('u') if event.modifiers.contains(KeyModifiers::CONTROL) => state.loads.form.clear(),
        code => state.loads.form.key(code),
    }
    Vec::new()
}

/// Starts a load.
///
/// # Errors
///
/// One line: another one runs, or the model's context is too short.
pub fn start(state: &mut State, spec: WorkloadSpec) -> Result<Vec<Command>, String> {
    let Some(started) = state.started.as_ref().filter(|_| state.loads.ready && state.stopped.is_none()) else {
        return Err("there is no engine to put a load on".into());
    };
    if state.loads.load.is_active() {
        return Err("a load runs already: stop it first".into());
    }
    spec.check(started.context).map_err(|error| error.to_string())?;
    state.loads.form = Form { selected: state.loads.form.selected, ..Form::of(&spec) };
    state.loads.load.start(spec);
    state.greeted = true;
    Ok(tick(state))
}

/// The sessions that are due.
pub fn tick(state: &mut State) -> Vec<Command> {
    let mut commands = Vec::new();
    if state.started.is_some()
        && let Some(spec) = state.loads.wanted.take()
    {
        match start(state, spec) {
            Ok(first) => commands.extend(first),
            Err(error) => state.toast(error, true),
        }
    }
    let due = state.loads.load.due(state.clock_ms);
    state.changed |= !due.is_empty();
    commands.extend(due.into_iter().map(Command::Engine));
    commands
}

/// Takes in an event; `None` where it is about no load.
pub fn note(state: &mut State, event: &EventKind) -> Option<Vec<Command>> {
    let active = state.loads.load.is_active();
    let ops = state.loads.load.note(event)?;
    if active && !state.loads.load.is_active() {
        state.toast(state.loads.load.summary(), false);
    }
    Some(ops.into_iter().map(Command::Engine).collect())
}

/// How many sessions of `spec` a lane's budget holds at once, with what is there now given up and their common beginning
/// held once; `None` where that is not known, `Some(None)` without a budget.
pub fn fit(state: &State, spec: &WorkloadSpec, lane: Lane) -> Option<Option<u64>> {
    let metrics = &state.metrics.lanes[lane as usize];
    let started = state.started.as_ref()?;
    let policy = metrics.policy.as_ref()?;
    let Some(budget) = state.budget(lane) else { return Some(None) };
    let workspace = metrics.ledger_at(f64::INFINITY)?.device.workspace;
    let shared = spec.shared as u64 / PAGE * PAGE;
    let tokens = ((spec.context + spec.tokens) as u64).div_ceil(PAGE) * PAGE - shared;
    let sums = match policy {
        crate::cache::Policy::KCache(_) => [started.kv_heads, started.head_dim, size_of::<f32>()]
            .into_iter()
            .fold(started.layers, usize::saturating_mul),
        _ => 0,
    };
    let token = device_bytes_per_token(policy, started);
    let free = budget.saturating_sub(workspace.saturating_add(shared.saturating_mul(token)));
    Some(Some(free / tokens.saturating_mul(token).saturating_add(sums as u64).max(1)))
}
