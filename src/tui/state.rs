//! Everything the dashboard knows. Changed by `update` alone, read by `view`.

use std::collections::BTreeSet;

use crate::{
    cache::Policy,
    config::{Config, LanesConfig, ThemeName},
    engine::{Lane, Queue, Sampling, SessionId, Started, StopSequences},
};

pub use self::screen::{Chart, Focus, Frozen, Overlay, Preset};

use self::{
    attention::AttentionView, axes::Axes, composer::Composer, demo::Demo, draw_cost::Observer, figures::Figures,
    metrics::Metrics, session::Session, workload::Workload,
};
use super::{input::keymap::Keymap, widgets::TimeRange};

/// The shortest and the longest time that charts show, in milliseconds.
pub const WINDOW_MS: (f64, f64) = (5_000.0, 3_600_000.0);
/// The time that charts show at first, in milliseconds; it grows with the run, up to the configured one.
const FIRST_WINDOW_MS: f64 = 15_000.0;
/// A notice stays this long, in milliseconds.
pub const TOAST_MS: f64 = 6_000.0;
/// Notices kept at most.
const TOASTS: usize = 8;

/// The state of the dashboard.
#[derive(Debug, Clone)]
pub struct State {
    pub keymap: Keymap,
    /// How typed messages are answered.
    pub sampling: Sampling,
    /// The most tokens of an answer.
    pub max_tokens: usize,
    /// Texts before which answers end.
    pub stop: StopSequences,
    /// The lanes as they were configured at the start.
    pub configured: LanesConfig,
    /// The model and the lanes; `None` before the engine is up.
    pub started: Option<Started>,
    /// The sessions, oldest first.
    pub sessions: Vec<Session>,
    pub selected: usize,
    /// Sessions that were closed here; what still comes of them is ignored.
    pub closed: BTreeSet<SessionId>,
    /// The message being written while there is no session.
    pub spare_composer: Composer,
    pub metrics: Metrics,
    /// What the attention view knows.
    pub attention: AttentionView,
    /// The scales of the charts.
    pub axes: Axes,
    /// The policy asked for last, while the engine has not confirmed it.
    pub wanted: Option<Policy>,
    /// Device budgets that were asked for and not yet confirmed, lane by lane.
    pub wanted_budgets: [Option<Option<u64>>; 2],
    /// The pane that hears the keys.
    pub focus: Focus,
    /// Whether the composer had the focus before a preset without one was shown.
    pub was_writing: bool,
    pub preset: Preset,
    /// Whether the focused pane has the whole screen.
    pub expanded: bool,
    pub chart: Chart,
    /// What lies over the panes.
    pub overlay: Overlay,
    pub theme: ThemeName,
    /// Milliseconds since the dashboard started.
    pub clock_ms: f64,
    /// The newest moment heard of from the engine, in its milliseconds.
    pub engine_ms: f64,
    pub frozen: Option<Frozen>,
    /// The most time that charts show, in milliseconds; see [`State::shown_ms`].
    pub window_ms: f64,
    /// Whether the user has chosen that time.
    pub zoomed: bool,
    pub configured_window_ms: f64,
    /// Notices, oldest first.
    pub toasts: Vec<Toast>,
    /// Why the engine has ended, once it has; `Some(None)` is an ordinary end.
    pub stopped: Option<Option<String>>,
    /// What the dashboard itself costs.
    pub observer: Observer,
    /// Whether a recorded run is shown: nothing here is computed now, and the screen costs an engine nothing.
    pub recorded: bool,
    /// Telemetry events that the screen has missed.
    pub dropped: u64,
    /// When ctrl-c was pressed last, by [`State::clock_ms`].
    pub interrupted_ms: Option<f64>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// The questions that the program asks by itself.
    pub demo: Demo,
    /// The load that is put on the engine, and the form for the next.
    pub workload: Workload,
    /// Whether the user has done anything yet; until then a line says what there is to see.
    pub greeted: bool,
    /// Whether something changed since the last frame.
    pub changed: bool,
    /// The id of the next session.
    pub next_id: u32,
}

/// A notice of one line.
#[derive(Debug, Clone, PartialEq)]
pub struct Toast {
    pub text: String,
    pub error: bool,
    /// When it goes, by [`State::clock_ms`].
    pub until_ms: f64,
}

impl State {
    /// The state before anything happened.
    pub fn new(config: &Config, keymap: Keymap, demo: Demo) -> Self {
        let sampling = &config.sampling;
        let window_ms = (f64::from(config.screen.window_s) * 1_000.0).clamp(WINDOW_MS.0, WINDOW_MS.1);
        Self {
            keymap,
            sampling: sampling.sampling(),
            max_tokens: sampling.max_tokens,
            stop: sampling.stop.clone(),
            configured: config.lanes.clone(),
            started: None,
            sessions: Vec::new(),
            selected: 0,
            closed: BTreeSet::new(),
            spare_composer: Composer::default(),
            metrics: Metrics::default(),
            attention: AttentionView::default(),
            axes: Axes::default(),
            wanted: None,
            wanted_budgets: [None; 2],
            focus: Focus::Composer,
            was_writing: false,
            preset: Preset::Both,
            expanded: false,
            chart: Chart::Device,
            overlay: Overlay::None,
            theme: config.screen.theme,
            clock_ms: 0.0,
            engine_ms: 0.0,
            frozen: None,
            window_ms,
            zoomed: false,
            configured_window_ms: window_ms,
            toasts: Vec::new(),
            stopped: None,
            observer: Observer::default(),
            recorded: false,
            dropped: 0,
            interrupted_ms: None,
            size: (0, 0),
            demo,
            workload: Workload::default(),
            greeted: false,
            changed: true,
            next_id: 1,
        }
    }

    pub fn session(&self) -> Option<&Session> {
        self.sessions.get(self.selected)
    }

    /// The session on show, to be changed.
    pub fn session_mut(&mut self) -> Option<&mut Session> {
        self.sessions.get_mut(self.selected)
    }

    /// A session by its id.
    pub fn by_id(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    pub fn composer(&self) -> &Composer {
        self.session().map_or(&self.spare_composer, |session| &session.composer)
    }

    /// The message being written, to be changed.
    pub fn composer_mut(&mut self) -> &mut Composer {
        match self.sessions.get_mut(self.selected) {
            Some(session) => &mut session.composer,
            None => &mut self.spare_composer,
        }
    }

    /// The KCache lane's policy as it was asked for last.
    pub fn policy(&self) -> Option<Policy> {
        self.wanted.or(self.metrics.lanes[Lane::KCache as usize].policy)
    }

    /// A lane's queue at the moment that figures speak of.
    pub fn queue(&self, lane: Lane) -> Option<&Queue> {
        self.metrics.lanes[lane as usize].queue_at(self.at_ms())
    }

    /// How a lane is called on the screen.
    pub fn lane_name(&self, lane: Lane) -> String {
        match (lane, self.metrics.lanes[lane as usize].policy) {
            (Lane::KCache, None | Some(Policy::KCache(_))) => "KCache".into(),
            (Lane::Kv, None | Some(Policy::Kv)) => "KV".into(),
            (_, Some(policy)) => policy.to_string(),
        }
    }

    /// A lane's device budget as it was asked for last.
    pub fn budget(&self, lane: Lane) -> Option<u64> {
        self.wanted_budgets[lane as usize].unwrap_or(self.metrics.lanes[lane as usize].budget_bytes)
    }

    /// Whether the device tier is only an account.
    pub fn simulated(&self) -> bool {
        self.started.as_ref().is_some_and(|started| started.simulated)
    }

    /// The time on the charts, in milliseconds: what was chosen, or for a young run as much as there is to show.
    pub fn shown_ms(&self) -> f64 {
        if self.zoomed {
            return self.window_ms;
        }
        // 15, 20, 30, 40, 60, 80, 120 s and so on: round times, and never much of it empty.
        let end_ms = self.frozen.map_or(self.engine_ms, |frozen| frozen.end_ms);
        let doubled = std::iter::successors(Some(FIRST_WINDOW_MS), |shown| Some(shown * 2.0));
        let mut sizes = doubled.flat_map(|shown| [shown, shown / 3.0 * 4.0]);
        sizes.find(|&shown| shown >= end_ms || shown >= self.window_ms).unwrap_or(self.window_ms).min(self.window_ms)
    }

    /// The stretch of time on the charts.
    pub fn span(&self) -> TimeRange {
        let to_ms = self.frozen.map_or(self.engine_ms, |frozen| frozen.end_ms);
        TimeRange { to_ms, length_ms: self.shown_ms(), now_ms: self.engine_ms }
    }

    /// The moment under the cursor, while frozen.
    pub fn cursor_ms(&self) -> Option<f64> {
        self.frozen.map(|frozen| frozen.cursor_ms)
    }

    /// The moment that figures speak of: the cursor's while frozen, else now.
    pub fn at_ms(&self) -> f64 {
        self.cursor_ms().unwrap_or(self.engine_ms)
    }

    /// The stretch of time that a lane's figures are taken from: up to now or to the cursor, as far back as the charts
    /// reach but not beyond the last change of a knob; see [`Metrics::last_change`].
    pub fn stretch(&self, lane: Lane) -> (f64, f64) {
        let at = self.at_ms();
        self.metrics.stretch(lane, at - self.shown_ms(), at)
    }

    /// The figures of the moment.
    pub fn figures(&self) -> Figures {
        let at = self.at_ms();
        Figures::new(&self.metrics, self.started.as_ref(), at - self.shown_ms(), at)
    }

    /// The knob with which a lane's figures begin, as it was changed: `n=256`; `None` where they begin with the charts.
    pub fn last_change(&self, lane: Lane) -> Option<&str> {
        let (from, to) = self.stretch(lane);
        let change = self.metrics.last_change(lane, to).filter(|mark| mark.t_ms >= from);
        change.map(|mark| mark.label.as_str())
    }

    /// The charts there are, in the order of the screen.
    pub fn charts(&self) -> Vec<Chart> {
        let mut charts = vec![Chart::Device];
        if !self.metrics.gpus.is_empty() {
            charts.push(Chart::Gpu);
        }
        if !self.metrics.kl.is_empty() {
            charts.push(Chart::Divergence);
        }
        charts.extend([
            Chart::Latency,
            Chart::Hits,
            Chart::Throughput,
            Chart::KeptMass,
            Chart::Stages,
            Chart::Ledger,
            Chart::HostV,
            Chart::Queue,
            Chart::Host,
        ]);
        charts
    }

    /// Says something for a few seconds.
    pub fn toast(&mut self, text: impl Into<String>, error: bool) {
        let text = text.into().lines().next().unwrap_or_default().to_owned();
        if self.toasts.len() == TOASTS {
            self.toasts.remove(0);
        }
        self.toasts.push(Toast { text, error, until_ms: self.clock_ms + TOAST_MS });
    }
}

pub(crate) mod attention;
pub(crate) mod axes;
pub(crate) mod comparison;
pub(crate) mod composer;
pub mod demo;
pub(crate) mod draw_cost;
pub mod figures;
pub mod metrics;
pub(crate) mod screen;
pub(crate) mod session;
pub(crate) mod transcript;
pub(crate) mod workload;
