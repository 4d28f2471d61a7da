//! Made-up data that the tests of the widgets draw, and the checks that hold for all of them.

use proptest::prelude::*;
use ratatui::{buffer::Buffer, layout::Rect, style::Style, widgets::Widget};

use super::{bars::Bar, *};
use crate::{
    engine::{DISTANCE_BUCKETS, Lane, Ledger, Stages, TierBytes},
    telemetry::{Marks, Series},
    tui::{
        theme::{ColorDepth, Theme},
        widgets::units::Unit,
    },
};

const MIB: f64 = 1_048_576.0;

/// Everything a screen of charts needs.
pub(super) struct Samples {
    pub now_ms: f64,
    pub kcache_memory: Series,
    pub kv_memory: Series,
    pub kv_equivalent: Series,
    pub kcache_itl: Series,
    pub kv_itl: Series,
    pub marks: Marks,
    pub hits: Vec<Vec<u64>>,
    pub mass: Vec<f32>,
    pub kcache_ledger: Ledger,
    pub kv_ledger: Ledger,
    pub kcache_stages: Stages,
    pub kv_stages: Stages,
}

/// A number in -1..1 that looks random and is the same in every run.
fn noise(at: usize) -> f64 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

impl Samples {
    pub fn new() -> Self {
        let series = || Series::new(4096);
        let mut samples = Self {
            now_ms: 120_000.0,
            kcache_memory: series(),
            kv_memory: series(),
            kv_equivalent: series(),
            kcache_itl: series(),
            kv_itl: series(),
            marks: Marks::new(64),
            hits: Vec::new(),
            mass: (0..30)
                .map(|at| if at == 0 { 1.0 } else { (0.93 + 0.06 * noise(at) - 0.2 * f64::from(at == 13)) as f32 })
                .collect(),
            kcache_ledger: ledger(Lane::KCache, 11.4, 0.4, 11.0),
            kv_ledger: ledger(Lane::Kv, 11.4, 11.4, 0.0),
            kcache_stages: stages(18.2, 4.1, 1.9, 2.4),
            kv_stages: stages(18.4, 4.0, 0.0, 7.9),
        };
        for at in 0..1200usize {
            let t = at as f64 * 100.0;
            let tokens = at as f64 / 1200.0;
            let dropped = if at > 900 { 0.2 } else { 0.0 };
            let held = (24.0 * tokens.powf(0.7) - 24.0 * dropped).max(0.2) * MIB;
            samples.kv_memory.push(t, if (700..760).contains(&at) { None } else { Some(held) });
            samples.kcache_memory.push(t, held * 0.53);
            samples.kv_equivalent.push(t, held * 1.02);
            let slow = if at % 311 == 17 { 38.0 } else { 0.0 };
            let (kcache, kv) = (24.0 + 2.0 * noise(at) + slow, 28.0 + 9.0 * tokens + 2.5 * noise(at + 5000));
            if at % 3 == 0 {
                samples.kcache_itl.push(t, kcache);
                samples.kv_itl.push(t, kv);
            }
        }
        samples.marks.push(75_000.0, "n=64");
        samples.marks.push(98_000.0, "n=256");
        samples.marks.push(101_000.0, "tail=mean");
        for layer in 0..30usize {
            let row = |bucket: usize| {
                let recent = (-((bucket as f64 - 3.0 - noise(layer)) / 2.2).powi(2)).exp();
                let sink = if bucket == 12 { 0.5 + 0.4 * noise(layer + 99) } else { 0.0 };
                if layer == 0 || bucket > 13 { 0 } else { ((recent + sink + 0.03) * 1000.0) as u64 }
            };
            samples.hits.push((0..DISTANCE_BUCKETS).map(row).collect());
        }
        samples
    }
}

fn ledger(lane: Lane, k: f64, device_v: f64, host_v: f64) -> Ledger {
    let bytes = |mib: f64| (mib * MIB) as u64;
    let device =
        TierBytes { weights: bytes(24.0), k: bytes(k), v: bytes(device_v), tail: 23_040, workspace: bytes(1.2) };
    let host = TierBytes { v: bytes(host_v), ..TierBytes::default() };
    Ledger {
        lane,
        step: 100,
        device,
        host,
        budget_bytes: Some(bytes(32.0)),
        kv_equivalent_bytes: bytes(24.0),
        tokens: 1040,
        sequences: 3,
    }
}

fn stages(linear: f64, scores: f64, select: f64, gather: f64) -> Stages {
    Stages {
        linear_ms: linear,
        scores_ms: scores,
        select_ms: select,
        gather_ms: gather,
        prefill_ms: 0.0,
        head_ms: 3.2,
        sampling_ms: 0.3,
        other_ms: 1.1,
    }
}

/// The scales that the samples need.
pub(super) struct Axes {
    pub memory: Axis,
    pub latency: Axis,
    pub ledger: Axis,
    pub stages: Axis,
}

impl Axes {
    pub fn new() -> Self {
        Self {
            memory: Axis::nice(Unit::Bytes, 26.0 * MIB),
            latency: Axis::nice(Unit::Ms, 66.0),
            ledger: Axis::nice(Unit::Bytes, 60.0 * MIB),
            stages: Axis::nice(Unit::Ms, 36.0),
        }
    }
}

/// Everything that tests of one widget start from.
pub(super) struct Scene {
    pub theme: Theme,
    pub samples: Samples,
    pub axes: Axes,
}

const KEYS: [(&str, &str); 7] =
    [("?", "help"), ("q", "quit"), ("Tab", "next"), ("n", "new"), ("+/-", "N"), ("t", "tail"), ("space", "freeze")];

impl Scene {
    pub fn new(theme: Theme) -> Self {
        Self { theme, samples: Samples::new(), axes: Axes::new() }
    }

    pub fn span(&self) -> TimeRange {
        TimeRange { to_ms: self.samples.now_ms, length_ms: 60_000.0, now_ms: self.samples.now_ms }
    }

    pub fn memory(&self) -> TimeChart<'_> {
        let (theme, samples) = (&self.theme, &self.samples);
        TimeChart::new(Panel::new(theme, "Device memory").note("simulated"), &self.axes.memory, self.span())
            .line("kcache", &samples.kcache_memory, theme.kcache)
            .line("kv", &samples.kv_memory, theme.kv)
            .line("a KV cache", &samples.kv_equivalent, theme.kv_equivalent)
            .budget(Some(20.0 * MIB), "budget")
            .marks(&samples.marks)
    }

    pub fn latency(&self) -> TimeChart<'_> {
        let (theme, samples) = (&self.theme, &self.samples);
        TimeChart::new(Panel::new(theme, "Inter-token latency").focused(true), &self.axes.latency, self.span())
            .line("kcache", &samples.kcache_itl, theme.kcache)
            .line("kv", &samples.kv_itl, theme.kv)
            .marks(&samples.marks)
            .cursor(Some(90_500.0))
    }

    pub fn heat_map(&self) -> HeatMap<'_> {
        HeatMap::new(Panel::new(&self.theme, "Where the rows lie"), &self.samples.hits, 8192)
            .shares(Some(0.123), Some(0.61))
    }

    pub fn ledger(&self) -> StackedBars<'_> {
        let (theme, samples) = (&self.theme, &self.samples);
        StackedBars::ledger(Panel::new(theme, "Ledger"), &self.axes.ledger)
            .tier("kcache device", theme.kcache, Some(samples.kcache_ledger.device), Some(&samples.kcache_ledger))
            .tier("kcache host", theme.kcache, Some(samples.kcache_ledger.host), None)
            .tier("kv device", theme.kv, Some(samples.kv_ledger.device), Some(&samples.kv_ledger))
    }

    pub fn stages(&self) -> StackedBars<'_> {
        let (theme, samples) = (&self.theme, &self.samples);
        StackedBars::stages(Panel::new(theme, "Time of a token"), &self.axes.stages)
            .stage_times("kcache", theme.kcache, Some(&samples.kcache_stages))
            .stage_times("kv", theme.kv, Some(&samples.kv_stages))
    }

    pub fn kept_mass(&self) -> KeptMass<'_> {
        KeptMass::new(Panel::new(&self.theme, "Kept mass"), &self.samples.mass, self.theme.kcache).mean(Some(0.941))
    }

    pub fn footer(&self) -> Footer<'_> {
        Footer::new(&self.theme, &KEYS)
    }

    pub fn progress(&self) -> ProgressBar<'_> {
        ProgressBar::new(&self.theme, "minutes.md", 1234, 5120, Some(168.0))
    }

    /// Draws one of the widgets.
    pub fn draw(&self, which: usize, area: Rect, buf: &mut Buffer) {
        match which {
            0 => self.memory().render(area, buf),
            1 => self.latency().render(area, buf),
            2 => self.heat_map().render(area, buf),
            3 => self.ledger().render(area, buf),
            4 => self.stages().render(area, buf),
            5 => self.kept_mass().render(area, buf),
            6 => self.footer().render(area, buf),
            _ => self.progress().render(area, buf),
        }
    }
}

/// How many widgets [`Scene::draw`] knows.
pub(super) const WIDGETS: usize = 8;

/// Their names, in that order.
const NAMES: [&str; WIDGETS] =
    ["timechart", "timechart_cursor", "heatmap", "ledger", "stages", "layers", "footer", "progress"];

/// A widget drawn into a buffer of its own.
pub(super) fn drawn(widget: impl Widget, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    widget.render(area, &mut buf);
    buf
}

/// The text of a buffer, without styles.
pub(super) fn text(buf: &Buffer) -> String {
    let row = |y: u16| (0..buf.area.width).map(|x| buf[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..buf.area.height).map(row).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_widget_panics_or_leaves_its_area(
        which in 0..WIDGETS,
        (x, y) in (0u16..4, 0u16..4),
        (width, height) in (0u16..=120, 0u16..=50),
        mono in any::<bool>(),
    ) {
        let theme = if mono { Theme::mono() } else { Theme::dark(ColorDepth::Rgb) };
        let scene = Scene::new(theme);
        // A frame of # around the area shows whether anything was written outside.
        let whole = Rect::new(0, 0, width + 8, height + 8);
        let mut buf = Buffer::empty(whole);
        buf.content.iter_mut().for_each(|cell| { cell.set_symbol("#"); });
        let area = Rect::new(x, y, width, height);
        scene.draw(which, area, &mut buf);
        for position in whole.positions().filter(|position| !area.contains(*position)) {
            prop_assert_eq!(&buf[position], &ratatui::buffer::Cell::new("#"));
        }
        // An area that reaches beyond the buffer is drawn as far as there is a buffer.
        let mut small = Buffer::empty(Rect::new(0, 0, width / 2, height / 2));
        scene.draw(which, area, &mut small);
        prop_assert!(!mono || small.content.iter().all(|cell| cell.fg == Style::reset().fg.unwrap()));
    }
}

#[test]
fn every_widget_at_several_sizes() {
    // Large, as on a screen of 120×40, as on one of 80×24, too low for a plot, one row, and next to nothing.
    const SIZES: [(u16, u16); 7] = [(100, 22), (60, 14), (40, 9), (40, 5), (26, 4), (50, 1), (9, 2)];
    for (themed, theme) in [("", Theme::dark(ColorDepth::Rgb)), ("mono_", Theme::mono())] {
        let scene = Scene::new(theme);
        for (which, name) in NAMES.into_iter().enumerate() {
            let mut all = String::new();
            for (width, height) in SIZES {
                let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
                scene.draw(which, buf.area, &mut buf);
                all += &format!("{width}×{height}\n{}\n\n", text(&buf));
            }
            insta::assert_snapshot!(format!("{themed}{name}"), all);
        }
    }
}

proptest! {
    #[test]
    fn charts_survive_any_figures(
        values in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 0..30),
        span in prop::array::uniform3(prop::num::f64::ANY),
        [budget, cursor] in prop::array::uniform2(prop::option::of(prop::num::f64::ANY)),
        counts in prop::collection::vec(prop::collection::vec(0u64..=u64::MAX / 4096, 0..25), 0..40),
        mass in prop::collection::vec(prop::num::f32::ANY, 0..200),
        width in 0u16..100, height in 0u16..30,
    ) {
        let theme = Theme::dark(ColorDepth::Ansi16);
        let (mut series, mut marks) = (Series::new(100), Marks::new(10));
        let mut axis = Axis::new(Unit::Bytes);
        for &(t, value) in &values {
            series.push(t, value);
            marks.push(t, "n=1");
            axis.follow(t, value);
        }
        let span = TimeRange { to_ms: span[0], length_ms: span[1], now_ms: span[2] };
        let panel = Panel::new(&theme, "any");
        let chart = TimeChart::new(panel, &axis, span)
            .line("a", &series, theme.kcache)
            .line("b", &series, theme.kv)
            .budget(budget, "budget")
            .marks(&marks)
            .cursor(cursor);
        drawn(&chart, width, height);
        drawn(&HeatMap::new(panel, &counts, values.len() * 300).shares(budget, cursor), width, height);
        drawn(&KeptMass::new(panel, &mass, theme.kcache), width, height);
        let bar = Bar {
            name: "any",
            look: theme.kv,
            values: values.iter().map(|&(_, value)| value).collect(),
            limit: budget,
            kv_equivalent: cursor,
        };
        drawn(&StackedBars::stages(panel, &axis).bar(bar), width, height);
        drawn(&ProgressBar::new(&theme, "any", mass.len(), counts.len(), budget), width, height);
    }
}
