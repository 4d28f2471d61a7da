//! Every theme can be read, and nothing is told by hue alone.

use super::*;

fn env(no_color: &str, colorterm: &str, term: &str, colorfgbg: &str) -> TerminalEnv {
    let some = |text: &str| Some(text.to_owned());
    TerminalEnv {
        no_color: some(no_color),
        colorterm: some(colorterm),
        term: some(term),
        colorfgbg: some(colorfgbg),
        ..TerminalEnv::default()
    }
}

fn all() -> Vec<Theme> {
    [ColorDepth::Ansi16, ColorDepth::Indexed256, ColorDepth::Rgb]
        .into_iter()
        .flat_map(|depth| {
            [
                Theme::dark(depth),
                Theme::light(depth),
                Theme::colour_blind(depth, false),
                Theme::colour_blind(depth, true),
            ]
        })
        .chain([Theme::mono()])
        .collect()
}

#[test]
fn the_terminal_decides() {
    let dark = Theme::resolve(ThemeName::Auto, &TerminalEnv::default());
    assert_eq!(dark, Theme::dark(ColorDepth::Ansi16));
    let auto = |env| Theme::resolve(ThemeName::Auto, &env);
    assert_eq!(auto(env("1", "truecolor", "xterm", "")), Theme::mono());
    assert_eq!(auto(env("", "", "dumb", "")), Theme::mono());
    assert_eq!(auto(env("", "truecolor", "xterm", "0;15")), Theme::light(ColorDepth::Rgb));
    assert_eq!(auto(env("", "24bit", "xterm", "15;0")), Theme::dark(ColorDepth::Rgb));
    assert_eq!(auto(env("", "", "tmux-256color", "")), Theme::dark(ColorDepth::Indexed256));
    let named = Theme::resolve(ThemeName::Dark, &env("1", "", "xterm", ""));
    assert_eq!(named, Theme::dark(ColorDepth::Ansi16), "a theme asked for by name goes before NO_COLOR");
}

#[test]
fn series_never_differ_by_hue_alone() {
    for theme in all() {
        assert_eq!((theme.kcache.pattern, theme.kcache.symbol), (Pattern::Solid, "●"));
        assert_eq!((theme.kv.pattern, theme.kv.symbol), (Pattern::Dashed, "○"));
        assert_eq!((theme.kv_equivalent.pattern, theme.kv_equivalent.symbol), (Pattern::Dotted, "◌"));
    }
}

#[test]
fn sixteen_colours_unless_the_terminal_has_more() {
    let is_ansi = |colour: Color| !matches!(colour, Color::Rgb(..) | Color::Indexed(_));
    for theme in all().into_iter().filter(|theme| theme.depth != ColorDepth::Mono) {
        let fills = theme.stages.iter().chain(&theme.owners).flat_map(|fill| [fill.colour, fill.ink]);
        let roles = [theme.kcache.style, theme.kv.style, theme.good, theme.warn, theme.bad, theme.mark];
        let roles = roles.iter().filter_map(|style| style.fg).chain(fills);
        let mut colours: Vec<_> = roles.chain([theme.foreground, theme.background]).collect();
        if let Heat::Colours(ramp) = &theme.heat {
            colours.extend(&ramp[1..]);
        }
        let few = theme.depth == ColorDepth::Ansi16;
        assert!(colours.iter().all(|&colour| is_ansi(colour) == few), "{theme:?}");
    }
}

#[test]
fn every_style_can_be_read_on_the_background_that_its_theme_paints() {
    for theme in all().into_iter().filter(|theme| theme.depth != ColorDepth::Mono) {
        let styles = [
            ("text", theme.text),
            ("dim", theme.dim),
            ("title", theme.title),
            ("kcache", theme.kcache.style),
            ("kv", theme.kv.style),
            ("kv_equivalent", theme.kv_equivalent.style),
            ("good", theme.good),
            ("warn", theme.warn),
            ("bad", theme.bad),
            ("mark", theme.mark),
            ("budget", theme.budget),
            ("knob", theme.knob),
            ("key", theme.key),
            ("focus", theme.focus),
        ];
        for (name, style) in styles {
            let ratio = legibility(style.fg.unwrap_or(theme.foreground), theme.background).unwrap();
            assert!(ratio >= 4.5, "{name}: {ratio:.2} in {theme:?}");
        }
        for fill in theme.stages.iter().chain(&theme.owners) {
            assert!(legibility(fill.colour, fill.ink).unwrap() >= 4.5, "{fill:?} in {theme:?}");
        }
        if let Heat::Colours(ramp) = &theme.heat {
            assert!(ramp[1..].iter().all(|&step| legibility(step, ink(step)).unwrap() >= 4.5), "{theme:?}");
        }
    }
}

#[test]
fn ascii_is_chosen_by_the_locale_and_by_what_is_asked_for() {
    let env = |locale: &str| TerminalEnv { locale: Some(locale.into()), ..TerminalEnv::default() };
    let ascii = |borders, env: &TerminalEnv| Theme::mono().with_borders(borders, env).ascii;
    for (locale, plain) in [
        ("en_US.UTF-8", false),
        ("C.utf8", false),
        ("UTF-8", false),
        ("ja_JP.UTF-8@cjkwide", true),
        ("ja_JP.EUC-JP", true),
        ("de_DE", true),
        ("C", true),
        ("POSIX", true),
    ] {
        assert_eq!(ascii(Borders::Auto, &env(locale)), plain, "{locale}");
        assert!(ascii(Borders::Ascii, &env(locale)) && !ascii(Borders::Unicode, &env(locale)));
    }
    assert!(!ascii(Borders::Auto, &TerminalEnv::default()), "nothing said");
    let wide = TerminalEnv { ambiguous_is_wide: true, ..env("en_US.UTF-8") };
    assert!(ascii(Borders::Auto, &wide));
}

#[test]
fn mono_has_no_colour_and_parts_differ() {
    let theme = Theme::mono();
    let Theme { text, dim, frame, focus, title, good, warn, bad, mark, budget, cursor, selection, knob, key, .. } =
        theme;
    let series = [theme.kcache.style, theme.kv.style, theme.kv_equivalent.style];
    let roles = [text, dim, frame, focus, title, good, warn, bad, mark, budget, cursor, selection, knob, key];
    assert!(roles.iter().chain(&series).all(|style| style.fg.is_none() && style.bg.is_none()));
    for fills in [&theme.stages[..], &theme.owners[..]] {
        assert!(fills.iter().all(|fill| fill.colour == Color::Reset && fill.ink == Color::Reset));
        let glyphs: std::collections::HashSet<_> = fills.iter().map(|fill| fill.glyph).collect();
        assert_eq!(glyphs.len(), fills.len());
    }
}

#[test]
fn heat_has_steps_and_tells_little_from_nothing() {
    for theme in all() {
        assert!(theme.heat.steps() >= if theme.depth == ColorDepth::Mono { 5 } else { 8 });
        let top = theme.heat.steps() - 1;
        assert_eq!([-1.0, 0.0, f64::NAN, 1e-9, 1.0, 9.0].map(|i| theme.heat.step(i)), [0, 0, 0, 1, top, top]);
    }
}
