//! What a chart over time must show at any size and in any theme.

use ratatui::style::Color;

use super::*;
use crate::tui::{
    theme::{ColorDepth, Theme},
    widgets::{Unit, samples},
};

/// Two level lines far apart, and the rows in which they are drawn.
fn level_lines(theme: &Theme) -> (Buffer, u16, u16) {
    let (mut upper, mut lower) = (Series::new(1000), Series::new(1000));
    for at in 0..600 {
        upper.push(f64::from(at) * 100.0, 90.0);
        lower.push(f64::from(at) * 100.0, 20.0);
    }
    let axis = Axis::nice(Unit::Ms, 100.0);
    let span = TimeRange { to_ms: 60_000.0, length_ms: 60_000.0, now_ms: 60_000.0 };
    let chart = TimeChart::new(Panel::new(theme, "x"), &axis, span)
        .line("kcache", &lower, theme.kcache)
        .line("kv", &upper, theme.kv);
    let buf = samples::drawn(&chart, 60, 14);
    let row_of = |symbol| (1..13).find(|&y| (0..60).any(|x| buf[(x, y)].symbol() == symbol)).unwrap();
    let rows = (row_of("●"), row_of("○"));
    (buf, rows.0, rows.1)
}

fn dots(buf: &Buffer, y: u16) -> Vec<u32> {
    let codes = (12..56).map(|x| u32::from(buf[(x, y)].symbol().chars().next().unwrap_or(' ')));
    codes.map(|code| code.saturating_sub(0x2800)).collect()
}

#[test]
fn the_baseline_is_dashed_and_kcache_is_solid_in_every_theme() {
    for theme in [Theme::dark(ColorDepth::Ansi16), Theme::mono()] {
        let (buf, kcache, kv) = level_lines(&theme);
        let (solid, dashed) = (dots(&buf, kcache), dots(&buf, kv));
        assert!(solid.iter().all(|dots| dots.count_ones() == 2), "{solid:?}");
        // Of eight columns of dots the dashes take five: four cells hold five dots.
        let mut per_period =
            dashed.chunks_exact(4).map(|cells| cells.iter().map(|dots| dots.count_ones()).sum::<u32>());
        assert!(per_period.all(|dots| dots == 5), "{dashed:?}");
    }
}

#[test]
fn a_line_has_its_lanes_colour() {
    let (buf, kcache, kv) = level_lines(&Theme::dark(ColorDepth::Ansi16));
    assert_eq!(
        (buf[(30, kcache)].fg, (29..33).map(|x| buf[(x, kv)].fg).find(|&fg| fg != Color::Reset)),
        (Color::Cyan, Some(Color::LightMagenta))
    );
}

#[test]
fn moving_on_by_a_column_moves_the_picture_by_a_column() {
    let theme = Theme::mono();
    let mut series = Series::new(1000);
    (0..900u32).for_each(|at| series.push(f64::from(at) * 70.0, f64::from(at * at % 97)));
    let axis = Axis::nice(Unit::Ms, 100.0);
    let plot = |to_ms: f64| {
        let span = TimeRange { to_ms, length_ms: 49_000.0, now_ms: to_ms };
        let chart = TimeChart::new(Panel::new(&theme, "x"), &axis, span).line("kv", &series, theme.kv);
        samples::drawn(&chart, 59, 14)
    };
    // 59 columns less frame and gutter leave 49, so a column is a second.
    let (before, after) = (plot(60_500.0), plot(61_500.0));
    for y in 1..12 {
        let row =
            |buf: &Buffer, from: u16, to: u16| (from..to).map(|x| buf[(x, y)].symbol().to_owned()).collect::<Vec<_>>();
        assert_eq!(row(&before, 12, 56), row(&after, 11, 55), "row {y}");
    }
}

/// Wherever a knob is changed: what is named is named whole, and the sign of the line is seen.
#[test]
fn a_sign_does_not_cover_the_name_of_a_mark() {
    let theme = Theme::mono();
    let mut series = Series::new(100);
    (0..=60).for_each(|at| series.push(f64::from(at) * 1000.0, 100.0));
    let axis = Axis::nice(Unit::Ms, 100.0);
    let span = TimeRange { to_ms: 60_000.0, length_ms: 60_000.0, now_ms: 60_000.0 };
    for second in 2..=60 {
        let mut marks = Marks::new(4);
        marks.push(f64::from(second) * 1000.0, "n=256");
        let chart = TimeChart::new(Panel::new(&theme, "x"), &axis, span).line("kv", &series, theme.kv).marks(&marks);
        let screen = samples::text(&samples::drawn(&chart, 60, 14));
        let top = screen.lines().nth(1).unwrap();
        assert!(top.contains("n=256") && top.contains('○'), "{second} s: {top}");
    }
}

#[test]
fn the_legend_reads_at_the_cursor() {
    let scene = samples::Scene::new(Theme::mono());
    let [now, then] =
        [None, Some(60_000.0)].map(|cursor| samples::text(&samples::drawn(&scene.memory().cursor(cursor), 120, 12)));
    let value = |at| Unit::Bytes.fixed(scene.samples.kcache_memory.at(at));
    assert!(now.contains(&format!("● kcache {}", value(120_000.0))), "{now}");
    assert!(then.contains(&format!("● kcache {}", value(60_000.0))) && then.contains(" -60s "), "{then}");
}
