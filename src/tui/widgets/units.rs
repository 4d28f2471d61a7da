//! Figures as text: three significant digits, a width that does not change with the value, and `n/a` for unknown.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown as B, KiB, MiB, GiB or TiB.
    Bytes,
    /// Milliseconds, shown as ms, s or h.
    Ms,
    /// Tokens per second.
    TokensPerSecond,
    /// Things, shown as 999, 1.2k, 12k or 3.4M.
    Count,
    /// A fraction of 1, shown in percent.
    Percent,
    Plain,
    /// A KL divergence, in nats.
    Nats,
}

/// Characters of the number itself; every unit keeps to it for values from 0 on.
const DIGITS: usize = 4;

impl Unit {
    /// The number and its unit, apart. Values that are missing or not finite are `n/a`.
    pub fn parts(self, value: Option<f64>) -> (String, &'static str) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return ("n/a".into(), "") };
        match self {
            Self::Bytes => {
                let names = ["B", "KiB", "MiB", "GiB", "TiB"];
                let (mut scaled, mut at) = (value, 0);
                while scaled.abs() >= 1023.5 && at + 1 < names.len() {
                    scaled /= 1024.0;
                    at += 1;
                }
                (if at == 0 { format!("{scaled:.0}") } else { three(scaled) }, names[at])
            }
            Self::Ms if value.abs() < 999.5 => (three(value), "ms"),
            Self::Ms if value.abs() < 9_999_500.0 => (three(value / 1000.0), "s"),
            Self::Ms => (three(value / 3_600_000.0), "h"),
            Self::TokensPerSecond if value.abs() < 999.5 => (three(value), "tok/s"),
            Self::TokensPerSecond => (shortened(value), "tok/s"),
            Self::Count => (shortened(value), ""),
            Self::Percent => (three(value * 100.0), "%"),
            Self::Plain => (three(value), ""),
            // Most are small: `.002`, `.021`, `.570`, `6.13`.
            Self::Nats if value.abs() < 0.9995 => (format!("{value:.3}").replacen("0.", ".", 1), ""),
            Self::Nats => (three(value), ""),
        }
    }

    /// As it stands in a sentence: `12.3 MiB`.
    pub fn text(self, value: Option<f64>) -> String {
        let (number, unit) = self.parts(value);
        if unit.is_empty() { number } else { format!("{number} {unit}") }
    }

    /// Always [`Unit::width`] wide for values from 0 on: numbers end in one column, units begin in one.
    pub fn fixed(self, value: Option<f64>) -> String {
        let (number, unit) = self.parts(value);
        match self.suffix_width() {
            0 => format!("{number:>DIGITS$}"),
            width => format!("{number:>DIGITS$} {unit:<width$}"),
        }
    }

    /// As it stands at a tick of an axis: no zeros after the point that say nothing.
    pub fn tick(self, value: f64) -> String {
        if value == 0.0 {
            return "0".into();
        }
        let (number, unit) = self.parts(Some(value));
        let number =
            if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number.as_str() };
        match self {
            Self::TokensPerSecond => number.to_owned(),
            _ if unit.is_empty() => number.to_owned(),
            _ => format!("{number} {unit}"),
        }
    }

    /// Columns that [`Unit::fixed`] takes.
    pub const fn width(self) -> usize {
        match self.suffix_width() {
            0 => DIGITS,
            width => DIGITS + 1 + width,
        }
    }

    const fn suffix_width(self) -> usize {
        match self {
            Self::Bytes => 3,
            Self::Ms => 2,
            Self::TokensPerSecond => 5,
            Self::Percent => 1,
            Self::Count | Self::Plain | Self::Nats => 0,
        }
    }
}

/// Milliseconds without their unit, whatever their size: `8.24`, `31.5`, `1240`.
pub fn millis(ms: f64) -> String {
    match ms {
        ..9.995 => format!("{ms:.2}"),
        ..99.95 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// Three significant digits: `1.23`, `12.3`, `123`.
fn three(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A count in at most four characters: `999`, `1.2k`, `12k`, `3.4M`.
fn shortened(value: f64) -> String {
    let (mut scaled, mut suffixes) = (value, ["k", "M", "G", "T"].iter());
    let mut suffix = "";
    while scaled.abs() >= 999.5 {
        let Some(next) = suffixes.next() else { break };
        scaled /= 1000.0;
        suffix = next;
    }
    if suffix.is_empty() || scaled.abs() >= 9.95 {
        format!("{scaled:.0}{suffix}")
    } else {
        format!("{scaled:.1}{suffix}")
    }
}

/// A span of time as people say it: `<1 s`, `42 s`, `3 min 20 s`, `2 h 5 min`; `n/a` for unknown.
pub fn duration(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) else { return "n/a".into() };
    match seconds.round() as u64 {
        0 => "<1 s".into(),
        s @ 1..=99 => format!("{s} s"),
        s @ 100..=5999 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

/// `5,012`
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A KL in nats, in as many digits as tell small ones apart: `0.0013`, `0.021`, `0.57`, `6.1`.
pub fn nats(kl: f64) -> String {
    match kl {
        ..0.000_05 => "0".into(),
        ..0.009_95 => format!("{kl:.4}"),
        ..0.0995 => format!("{kl:.3}"),
        ..0.995 => format!("{kl:.2}"),
        _ => format!("{kl:.1}"),
    }
}

/// A time in the queue in at most six columns: `250 ms`, `4.2 s`, `35 s`, `12 min`.
pub fn waited(ms: Option<f64>) -> String {
    match ms {
        None => "n/a".to_owned(),
        Some(ms @ ..999.5) => format!("{ms:.0} ms"),
        Some(ms @ ..9_950.0) => format!("{:.1} s", ms / 1e3),
        Some(ms @ ..999_500.0) => format!("{:.0} s", ms / 1e3),
        Some(ms) => format!("{:.0} min", ms / 60e3),
    }
}

/// A count in at most four characters.
pub fn count(number: u64) -> String {
    Unit::Count.text(Some(number as f64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Unit; 7] =
        [Unit::Bytes, Unit::Ms, Unit::TokensPerSecond, Unit::Count, Unit::Percent, Unit::Plain, Unit::Nats];

    #[test]
    fn three_significant_digits() {
        for (unit, value, text) in [
            (Unit::Bytes, 0.0, "0 B"),
            (Unit::Bytes, 1023.0, "1023 B"),
            (Unit::Bytes, 1024.0, "1.00 KiB"),
            (Unit::Bytes, 98_362_432.0, "93.8 MiB"),
            (Unit::Bytes, 1_048_575.0, "1.00 MiB"),
            (Unit::Ms, 9.996, "10.0 ms"),
            (Unit::Ms, 999.6, "1.00 s"),
            (Unit::TokensPerSecond, 12.34, "12.3 tok/s"),
            (Unit::TokensPerSecond, 1234.0, "1.2k tok/s"),
            (Unit::Count, 999.0, "999"),
            (Unit::Count, 1234.0, "1.2k"),
            (Unit::Count, 9_960.0, "10k"),
            (Unit::Count, 999_900.0, "1.0M"),
            (Unit::Percent, 0.1234, "12.3 %"),
            (Unit::Percent, 1.0, "100 %"),
            (Unit::Nats, 0.0213, ".021"),
            (Unit::Nats, 6.127, "6.13"),
        ] {
            assert_eq!(unit.text(Some(value)), text);
        }
        assert_eq!(Unit::Bytes.text(None), "n/a");
        assert_eq!(Unit::Ms.text(Some(f64::NAN)), "n/a");
        assert_eq!(Unit::Bytes.fixed(None), " n/a    ");
        assert_eq!(Unit::Bytes.fixed(Some(24e6)), "22.9 MiB");
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(Unit::Bytes.tick(16.0 * 1024.0 * 1024.0), "16 MiB");
        assert_eq!(Unit::Ms.tick(2.5), "2.5 ms");
        assert_eq!(Unit::Ms.tick(100.0), "100 ms");
        assert_eq!(Unit::Ms.tick(0.0), "0");
    }

    #[test]
    fn durations_read_like_speech() {
        let cases = [(0.2, "<1 s"), (42.0, "42 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 05 min")];
        assert!(cases.iter().all(|&(seconds, text)| duration(Some(seconds)) == text));
        assert_eq!(duration(Some(f64::INFINITY)), "n/a");
    }

    proptest! {
        #[test]
        fn width_never_changes(exponent in -3.0..9.0f64) {
            for unit in ALL {
                let text = unit.fixed(Some(10f64.powf(exponent)));
                // A percentage above 9999 % or a bare number above 9999 is nothing that is ever shown.
                if !matches!(unit, Unit::Percent | Unit::Plain | Unit::Nats) || exponent < 1.9 {
                    prop_assert_eq!(text.chars().count(), unit.width(), "{:?}: {}", unit, text);
                }
            }
        }
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 5012, 1_234_567].map(thousands), ["0", "999", "1,000", "5,012", "1,234,567"]);
    }

    #[test]
    fn small_divergences_are_told_apart() {
        let texts = [0.0, 0.0013, 0.021, 0.57, 6.13].map(nats);
        assert_eq!(texts, ["0", "0.0013", "0.021", "0.57", "6.1"]);
    }
}
