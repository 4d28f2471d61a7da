//! The charts: one function for each, all over the same stretch of time, with the same marks and the same cursor.

use ratatui::{buffer::Buffer, layout::Rect, style::Style, text::Span, widgets::Widget};

use super::queue;
use crate::{
    attention::DISTANCE_BUCKETS,
    engine::{Hits, Lane, Stages},
    telemetry::Series,
    tui::{
        state::{Chart, Focus, State, figures::Judge},
        theme::{SeriesLook, Theme},
        widgets::{
            Axis, HeatMap, KeptMass, Panel, StackedBars, TimeChart, Unit,
            text::right_spans,
            units::{millis, nats},
            width::{clip_words, of_spans, width},
        },
    },
};

/// Below this width titles are short.
const NARROW: u16 = 34;

/// From this width on there is room for long names in a legend.
const WIDE: u16 = 64;

pub fn draw(state: &State, theme: &Theme, chart: Chart, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let drawing = Drawing { state, theme, area, chosen: state.chart == chart && state.focus == Focus::Charts };
    match chart {
        Chart::Device => drawing.device(buf),
        Chart::Gpu => drawing.gpu(buf),
        Chart::Ledger => drawing.ledger(buf),
        Chart::HostV => drawing.host_v(buf),
        Chart::Latency => drawing.latency(buf),
        Chart::Stages => drawing.stages(buf),
        Chart::Throughput => drawing.throughput(buf),
        Chart::Divergence => drawing.divergence(buf),
        Chart::Hits => drawing.hits(buf),
        Chart::KeptMass => drawing.kept_mass(buf),
        Chart::Queue => queue::table(state, theme, drawing.panel("Queue"), area, buf),
        Chart::Host => drawing.host(buf),
    }
}

struct Drawing<'a> {
    state: &'a State,
    theme: &'a Theme,
    area: Rect,
    chosen: bool,
}

impl<'a> Drawing<'a> {
    fn panel(&self, title: &'a str) -> Panel<'a> {
        Panel::new(self.theme, title).focused(self.chosen)
    }

    fn series(&self, of: impl Fn(&'a crate::tui::state::metrics::LaneMetrics) -> &'a Series) -> [&'a Series; 2] {
        self.state.metrics.lanes.each_ref().map(of)
    }

    fn time(&self, title: &'a str, axis: &'a Axis) -> TimeChart<'a> {
        self.time_in(self.panel(title), axis)
    }

    fn time_in(&self, panel: Panel<'a>, axis: &'a Axis) -> TimeChart<'a> {
        TimeChart::new(panel, axis, self.state.span()).marks(&self.state.metrics.marks).cursor(self.state.cursor_ms())
    }

    fn both(&self, chart: TimeChart<'a>, [ours, theirs]: [&'a Series; 2]) -> TimeChart<'a> {
        chart.line("KCache", ours, self.theme.kcache).line("KV", theirs, self.theme.kv)
    }

    /// Figures on the lower frame, at the right; not where the legend has moved there.
    fn note(&self, buf: &mut Buffer, pieces: Vec<Span<'static>>) {
        if self.area.height < 4 || self.area.width < 12 {
            return;
        }
        let row = Rect { x: self.area.x + 2, y: self.area.bottom() - 1, width: self.area.width - 4, height: 1 };
        if row.columns().all(|at| buf[(at.x, at.y)].symbol() == "─") {
            // The frame is dim; what is written on it is so only where it says so itself.
            let own = |piece: Span<'static>| Span::styled(piece.content, Style::reset().patch(piece.style));
            right_spans(buf, row, pieces.into_iter().map(own).collect());
        }
    }

    fn dim(&self, text: String) -> Span<'static> {
        Span::styled(text, self.theme.dim)
    }

    fn device(&self, buf: &mut Buffer) {
        let lanes = &self.state.metrics.lanes;
        // The short title leaves room for the word that must not be missed.
        let mut panel = self.panel(if self.area.width < NARROW { "Device" } else { "Device memory" });
        if self.state.simulated() {
            panel = panel.note("simulated");
        }
        let chart = self.both(self.time_in(panel, &self.state.axes.device), self.series(|lane| &lane.device));
        let ours = &lanes[Lane::KCache as usize];
        let [budget, other] = Lane::ALL.map(|lane| self.state.budget(lane).map(|bytes| bytes as f64));
        let name = if self.area.width < WIDE { "KV eq." } else { "KV equivalent" };
        let chart = chart.line(name, &ours.kv_equivalent, self.theme.kv_equivalent);
        let chart = match budget == other {
            true => chart.budget(budget, "budget"),
            false => chart.budget(budget, "● budget").budget(other, "○ budget"),
        };
        chart.render(self.area, buf);
        if let Some(ledger) = ours.ledger_at(self.state.at_ms()) {
            let weights = Unit::Bytes.text(Some(ledger.device.weights as f64));
            self.note(buf, vec![self.dim(format!(" cache alone; weights {weights} "))]);
        }
    }

    fn ledger(&self, buf: &mut Buffer) {
        let mut panel = self.panel(if self.area.width < NARROW { "Bytes" } else { "Bytes by owner" });
        if self.state.simulated() {
            panel = panel.note("simulated");
        }
        let [ours, theirs] = self.state.metrics.lanes.each_ref().map(|lane| lane.ledger_at(self.state.at_ms()));
        // The sign before the name says which lane; the name is needed for the tier.
        let wide = self.area.width >= 52;
        let name = |long: &'static str, short| if wide { long } else { short };
        StackedBars::ledger(panel, &self.state.axes.ledger)
            .tier(name("KCache device", "device"), self.theme.kcache, ours.map(|ledger| ledger.device), ours)
            .tier(name("KCache host", "host"), self.theme.kcache, ours.map(|ledger| ledger.host), None)
            .tier(name("KV device", "device"), self.theme.kv, theirs.map(|ledger| ledger.device), theirs)
            .render(self.area, buf);
    }

    fn gpu(&self, buf: &mut Buffer) {
        let gpus = &self.state.metrics.gpus;
        let looks = [self.theme.kcache, self.theme.kv, self.theme.kv_equivalent];
        let names: Vec<String> = gpus.iter().map(|gpu| format!("{}", gpu.sample.index)).collect();
        let mut chart = self.time("GPU memory (NVML)", &self.state.axes.gpu);
        for (at, gpu) in gpus.iter().enumerate() {
            chart = chart.line(&names[at], &gpu.memory, looks[at % looks.len()]);
        }
        chart.render(self.area, buf);
        let Some(gpu) = gpus.first() else { return };
        let total = gpu.sample.memory_total_bytes.map(|bytes| bytes as f64);
        let busy = gpu.sample.utilization_percent.map(|percent| f64::from(percent) / 100.0);
        let name = &gpu.sample.name;
        let mut figures = format!(" {name} of {}, busy {} ", Unit::Bytes.text(total), Unit::Percent.text(busy));
        if let Some(why) = &gpu.sample.missing {
            let room = usize::from(self.area.width.saturating_sub(4));
            figures += &format!("· n/a: {why} ");
            if width(&figures) > room {
                // Why a figure is missing is said before those that are known.
                figures = format!(" {} ", clip_words(&format!("n/a: {why}"), room.saturating_sub(2)));
            }
        }
        self.note(buf, vec![self.dim(figures)]);
    }

    fn host_v(&self, buf: &mut Buffer) {
        let chart = self.time("V in host memory", &self.state.axes.host_v);
        self.both(chart, self.series(|lane| &lane.host_v)).render(self.area, buf);
        let (from, to) = self.state.stretch(Lane::KCache);
        let lane = &self.state.metrics.lanes[Lane::KCache as usize];
        let read = Unit::Bytes.text(lane.host_read.mean(from, to));
        let rows = Unit::Plain.text(self.state.figures().rows);
        self.note(buf, vec![self.dim(format!(" a step reads {read}, {rows} rows a head "))]);
    }

    fn latency(&self, buf: &mut Buffer) {
        let figures = self.state.figures().step_ms;
        let mut chart = self.time("ms per token", &self.state.axes.latency).bare();
        // While frozen the cursor reads single steps.
        if self.state.cursor_ms().is_none() {
            chart = chart.figures(figures.map(|pair| pair.map(|(p50, _)| p50)));
        }
        self.both(chart, self.series(|lane| &lane.step_ms)).render(self.area, buf);
        let mut pieces = vec![self.dim(" p50/p99".to_owned())];
        for lane in Lane::ALL {
            let look = self.theme.lane(lane);
            let text = match figures[lane as usize] {
                Some((p50, p99)) => format!("{}/{}", millis(p50), millis(p99)),
                None => "n/a".to_owned(),
            };
            pieces.push(Span::styled(format!(" {} {text:>9} ", look.symbol), look.style));
        }
        self.note(buf, pieces);
    }

    fn stages(&self, buf: &mut Buffer) {
        let means = Lane::ALL.map(|lane| {
            let (from, to) = self.state.stretch(lane);
            let stages = &self.state.metrics.lanes[lane as usize].stages;
            let [linear_ms, scores_ms, select_ms, gather_ms, prefill_ms, head_ms, sampling_ms, other_ms] =
                stages.each_ref().map(|series| series.mean(from, to).unwrap_or(0.0));
            let any = stages[0].mean(from, to).is_some();
            any.then_some(Stages {
                linear_ms,
                scores_ms,
                select_ms,
                gather_ms,
                prefill_ms,
                head_ms,
                sampling_ms,
                other_ms,
            })
        });
        let top =
            means.iter().flatten().map(|stages| stages.named().iter().map(|(_, ms)| ms).sum()).fold(1.0, f64::max);
        let axis = Axis::nice(Unit::Ms, top);
        let [ours, theirs] = &means;
        StackedBars::stages(self.panel("ms per token by stage"), &axis)
            .stage_times("KCache", self.theme.kcache, ours.as_ref())
            .stage_times("KV", self.theme.kv, theirs.as_ref())
            .render(self.area, buf);
    }

    fn throughput(&self, buf: &mut Buffer) {
        let title = if self.area.width < NARROW { "tok/s" } else { "Tokens per second" };
        let figures = self.state.figures();
        let chart = self.time(title, &self.state.axes.throughput).bare().figures(figures.tok_s);
        self.both(chart, self.series(|lane| &lane.tok_s)).render(self.area, buf);
        let number = |value| Unit::TokensPerSecond.parts(value).0;
        let prefill = number(figures.prefill_tok_s);
        let mut pieces = vec![self.dim(" delivered".to_owned())];
        for lane in Lane::ALL {
            let look = self.theme.lane(lane);
            let rate = number(figures.delivered[lane as usize].tok_s());
            pieces.push(Span::styled(format!(" {} {rate:>4} ", look.symbol), look.style));
        }
        let used = of_spans(&pieces);
        let prefill = format!(" prefill {prefill} ");
        if used + prefill.len() + 4 <= usize::from(self.area.width) {
            pieces.push(self.dim(prefill));
        }
        self.note(buf, pieces);
    }

    fn divergence(&self, buf: &mut Buffer) {
        let metrics = &self.state.metrics;
        let nats_too = if self.area.width < NARROW { "" } else { ", in nats" };
        let title = format!("KL to {}{nats_too}", self.state.lane_name(Lane::Kv));
        let panel = Panel::new(self.theme, &title).focused(self.chosen);
        let chart = TimeChart::new(panel, &self.state.axes.kl, self.state.span())
            .marks(&metrics.marks)
            .cursor(self.state.cursor_ms());
        chart.line("token", &metrics.kl, self.theme.kcache).render(self.area, buf);
        // The chart is of what was compared; probes are none of it.
        let quality = self.state.figures().quality.filter(|quality| quality.judge == Judge::Compare);
        let agreed = Unit::Percent.text(quality.map(|quality| quality.share()));
        let [mean, p99] = [quality.and_then(|quality| quality.kl), quality.and_then(|quality| quality.kl_p99)]
            .map(|kl| kl.map_or("n/a".to_owned(), nats));
        let count = quality.map_or(0, |quality| quality.of);
        let notes = [
            format!(" mean {mean}  p99 {p99}  agree {agreed} of {count} tokens "),
            format!(" mean {mean}  p99 {p99}  agree {agreed} "),
            format!(" {mean}, agree {agreed} "),
        ];
        let fits = |text: &String| width(text) + 4 <= usize::from(self.area.width);
        let fitting = notes.into_iter().find(fits);
        self.note(buf, fitting.map(|text| self.dim(text)).into_iter().collect());
    }

    fn hits(&self, buf: &mut Buffer) {
        let (from, to) = self.state.stretch(Lane::KCache);
        let lane = &self.state.metrics.lanes[Lane::KCache as usize];
        let sum = Sum::of(lane.hits_in(from, to));
        let context = lane.tokens.max(from, to).unwrap_or(0.0) as usize;
        let longest = context.max(sum.reach());
        let since = self.since();
        HeatMap::new(self.panel("Where the rows lie"), &sum.distance, longest)
            .since(&since)
            .shares(sum.share(sum.sink), sum.share(sum.recent))
            .render(self.area, buf);
    }

    fn kept_mass(&self, buf: &mut Buffer) {
        let (from, to) = self.state.stretch(Lane::KCache);
        let mass = Sum::of(self.state.metrics.lanes[Lane::KCache as usize].hits_in(from, to)).kept_mass();
        let mean = self.state.figures().kept;
        KeptMass::new(self.panel("Kept mass by layer"), &mass, self.theme.kcache)
            .mean(mean)
            .since(&self.since())
            .render(self.area, buf);
    }

    /// Since when figures of the KCache lane hold: `since n=256`, or `yet`.
    fn since(&self) -> String {
        self.state.last_change(Lane::KCache).map_or("yet".to_owned(), |label| format!("since {label}"))
    }

    fn host(&self, buf: &mut Buffer) {
        let metrics = &self.state.metrics;
        let plain = |symbol, style: Style| SeriesLook { style, symbol, ..self.theme.kcache };
        let chart = self.time("Host CPU", &self.state.axes.cpu);
        chart
            .line("kcache", &metrics.process_cpu, plain("▪", self.theme.good))
            .line("all", &metrics.cpu, SeriesLook { symbol: "▫", ..self.theme.kv_equivalent })
            .render(self.area, buf);
        let bytes = |value: Option<u64>| Unit::Bytes.text(value.map(|value| value as f64));
        let host = metrics.host.as_ref();
        let memory = Unit::Bytes.text(metrics.rss.at(self.state.at_ms()));
        let used = bytes(host.and_then(|host| host.memory_used_bytes));
        let total = bytes(host.and_then(|host| host.memory_total_bytes));
        self.note(buf, vec![self.dim(format!(" memory {memory}, machine {used} of {total} "))]);
    }
}

/// Several `hits` events as one.
struct Sum {
    distance: Vec<Vec<u64>>,
    /// Rows among the first positions, among the last ones, and all.
    sink: f64,
    recent: f64,
    rows: f64,
    /// The kept mass of each layer, added over tokens, and the tokens.
    kept: Vec<f64>,
    tokens: f64,
}

impl Sum {
    fn of<'a>(events: impl Iterator<Item = &'a Hits>) -> Self {
        let mut sum = Self { distance: Vec::new(), sink: 0.0, recent: 0.0, rows: 0.0, kept: Vec::new(), tokens: 0.0 };
        for hits in events {
            if sum.distance.len() < hits.distance.len() {
                sum.distance.resize(hits.distance.len(), vec![0; DISTANCE_BUCKETS]);
            }
            for (into, from) in sum.distance.iter_mut().zip(&hits.distance) {
                into.iter_mut().zip(from).for_each(|(into, from)| *into = into.saturating_add(*from));
            }
            // The shares are of the rows, the kept mass of the tokens.
            let rows = hits.distance.iter().flatten().sum::<u64>() as f64;
            sum.sink += hits.sink_share * rows;
            sum.recent += hits.recent_share * rows;
            sum.rows += rows;
            let tokens = hits.tokens as f64;
            sum.kept.resize(sum.kept.len().max(hits.kept_mass.len()), 0.0);
            sum.kept.iter_mut().zip(&hits.kept_mass).for_each(|(sum, kept)| *sum += f64::from(*kept) * tokens);
            sum.tokens += tokens;
        }
        sum
    }

    fn share(&self, rows: f64) -> Option<f64> {
        (self.rows > 0.0).then(|| rows / self.rows)
    }

    /// The mean kept mass of each layer; nothing where there was no token.
    fn kept_mass(&self) -> Vec<f32> {
        let mean = |kept: &f64| (kept / self.tokens) as f32;
        if self.tokens > 0.0 { self.kept.iter().map(mean).collect() } else { Vec::new() }
    }

    /// The farthest distance at which a row lay.
    fn reach(&self) -> usize {
        let last = self.distance.iter().filter_map(|layer| layer.iter().rposition(|&count| count > 0)).max();
        last.map_or(0, |bucket| 1 << bucket)
    }
}
