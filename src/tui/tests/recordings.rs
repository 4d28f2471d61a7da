//! Recordings that nobody wrote: lines of real and made-up runs with parts of them exchanged, through the same screen.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    bench::SplitMix64,
    config::{Config, ThemeName},
    engine::Event,
    tui::{Replay, fixture, input::keymap::Key},
};

/// Recordings that are tried. More find no more that is new; each takes some milliseconds.
const RECORDINGS: usize = 250;
/// Lines of each that are changed.
const CHANGES: usize = 24;

/// Numbers at the edges of what a figure can be, and beyond.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "18446744073709551615",
    "18446744073709551614",
    "9223372036854775808",
    "9223372036854775807",
    "4294967295",
    "4294967296",
    "65535",
    "1e308",
    "-1e308",
    "1e-320",
    "0.5",
    "-0.0",
    "1e19",
];
/// Texts that are narrow, wide, long, joined, or orders to a terminal.
const TEXTS: [&str; 9] = [
    "",
    "\u{1b}[2J\u{1b}]0;x\u{7}",
    "ｶﾞｷﾞX",
    "👩‍👩‍👧‍👦\u{200b}\u{202e}",
    "e\u{301}\u{301}\u{301}",
    "\t\r\n\0",
    "kcache",
    "kv",
    "達磨",
];
const SIZES: [(u16, u16); 6] = [(80, 24), (120, 40), (200, 60), (40, 10), (1, 1), (500, 3)];
const KEYS: [&str; 16] =
    ["esc", "1", "2", "3", "4", "5", "6", "space", "left", "up", "down", "tab", "?", "enter", "right", "z"];

/// The lines of a real run, and of one in which everything happens.
fn lines() -> Vec<Value> {
    let real =
        include_str!("../../../tests/fixtures/run.jsonl").lines().map(|line| serde_json::from_str(line).unwrap());
    let parts = [fixture::events(), fixture::full(), fixture::compared(), fixture::looked_at()];
    // A load's tokens are many and all the same; every kind of event is in what is left.
    let made = parts.into_iter().flat_map(|part| part.into_iter().take(220));
    real.chain(made.map(|event| serde_json::to_value(event).unwrap())).collect()
}

struct Mutator(SplitMix64);

impl Mutator {
    fn below(&mut self, count: usize) -> usize {
        (self.0.unit() * count as f64) as usize
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Exchanges one value somewhere inside for another of its kind, now and then of another kind.
    fn change(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) if !items.is_empty() => match self.below(8) {
                0 => items.clear(),
                1 => items.truncate(items.len() / 2),
                2 => items.extend(items.clone()),
                _ => {
                    let at = self.below(items.len());
                    self.change(&mut items[at]);
                }
            },
            Value::Object(fields) if !fields.is_empty() => {
                let name = fields.keys().nth(self.below(fields.len())).unwrap().clone();
                if self.below(30) == 0 {
                    fields.remove(&name);
                } else if name != "type" {
                    self.change(fields.get_mut(&name).unwrap());
                }
            }
            Value::String(text) => *text = self.one(&TEXTS).to_owned(),
            Value::Bool(is) => *is = !*is,
            _ if self.below(20) == 0 => *value = Value::Null,
            _ => *value = serde_json::from_str(self.one(&NUMBERS)).unwrap(),
        }
    }
}

#[test]
fn no_recording_breaks_the_screen() {
    let (lines, mut random) = (lines(), Mutator(SplitMix64(13)));
    let (mut taken, mut drawn, mut broken) = (0, 0, Vec::new());
    for _ in 0..RECORDINGS {
        let mut lines = lines.clone();
        for _ in 0..CHANGES {
            let at = random.below(lines.len());
            match random.below(12) {
                0 => drop(lines.remove(at)),
                1 => {
                    let other = random.below(lines.len());
                    lines.swap(at, other);
                }
                2 => lines.insert(at, lines[at].clone()),
                _ => random.change(&mut lines[at]),
            }
        }
        // What is no event any more is refused where a recording is read.
        let events: Vec<Event> = lines
            .iter()
            .filter_map(|line| Event::deserialize(line).ok())
            .filter(|event| event.t_ms.is_finite() && event.t_ms >= 0.0)
            .collect();
        taken += events.len();
        let size = SIZES[random.below(SIZES.len())];
        let keys: Vec<Key> = (0..6).map(|_| random.one(&KEYS).parse().unwrap()).collect();
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut replay = Replay::new(&Config::default(), size).unwrap();
            events.iter().cloned().for_each(|event| replay.event(event));
            for key in keys {
                replay.key(key);
                assert!(replay.svg(ThemeName::Dark).ends_with("</svg>\n"));
                drawn += 1;
            }
        }));
        if run.is_err() {
            broken.push(size);
        }
    }
    assert!(broken.is_empty(), "{} of {RECORDINGS} recordings: see the panics above", broken.len());
    // It was no recording of nothing.
    assert!(taken > RECORDINGS * lines.len() * 9 / 10 && drawn == 6 * RECORDINGS, "{taken} {drawn}");
}
