//! Quantities as people write them: a number, and a unit from a table. Case does not matter.

use thiserror::Error;

/// A quantity that was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not {what}")]
pub struct UnitError {
    text: String,
    what: &'static str,
}

const BYTES: &[(&str, f64)] = &[
    ("TiB", 1024.0 * 1024.0 * 1024.0 * 1024.0),
    ("GiB", 1024.0 * 1024.0 * 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("KiB", 1024.0),
    ("TB", 1e12),
    ("GB", 1e9),
    ("MB", 1e6),
    ("kB", 1e3),
    ("B", 1.0),
];
const COUNTS: &[(&str, f64)] = &[("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3), ("", 1.0)];
const OPERATIONS: &[(&str, f64)] = &[("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)];

/// A size in bytes, such as `24GiB`.
pub fn bytes(text: &str) -> Result<u64, UnitError> {
    let what = "a size such as `24GiB` or `80GB`";
    whole(text, quantity(text, &[""], BYTES, what)?, what)
}

/// A bandwidth in bytes per second, such as `936GB/s`.
pub fn bandwidth(text: &str) -> Result<f64, UnitError> {
    quantity(text, &["/s"], BYTES, "a bandwidth such as `936GB/s` or `3.35TB/s`")
}

/// A rate of arithmetic in operations per second, such as `312TFLOP/s`.
pub fn operations(text: &str) -> Result<f64, UnitError> {
    quantity(text, &["/s", "S"], OPERATIONS, "a rate of arithmetic such as `312TFLOP/s`")
}

/// A count, such as `8B` or `135M`.
pub fn count(text: &str) -> Result<u64, UnitError> {
    let what = "a count such as `8B` or `135M`";
    whole(text, quantity(text, &[""], COUNTS, what)?, what)
}

/// A positive number in one of `units`, followed by one of `endings`.
fn quantity(text: &str, endings: &[&str], units: &[(&str, f64)], what: &'static str) -> Result<f64, UnitError> {
    let fail = || UnitError { text: text.to_owned(), what };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim());
    let means = |name: &str| endings.iter().any(|ending| unit.eq_ignore_ascii_case(&format!("{name}{ending}")));
    let factor = units.iter().find(|(name, _)| means(name)).ok_or_else(fail)?.1;
    let value = number.parse::<f64>().map_err(|_| fail())? * factor;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err(fail()) }
}

/// The next whole number. Beyond 2^53 not every one is a float, and nothing that is planned for is as large.
fn whole(text: &str, value: f64, what: &'static str) -> Result<u64, UnitError> {
    if (0.5..9e15).contains(&value) { Ok(value.round() as u64) } else { Err(UnitError { text: text.to_owned(), what }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_written() {
        assert_eq!(bytes("24GiB"), Ok(24 << 30));
        assert_eq!(bytes(" 1.5 gib "), Ok(3 << 29));
        assert_eq!(bytes("80GB"), Ok(80_000_000_000));
        assert_eq!(bandwidth("936GB/s"), Ok(936e9));
        assert_eq!(bandwidth("1.008tb/s"), Ok(1.008e12));
        assert_eq!(operations("989.4TFLOPS"), Ok(989.4e12));
        assert_eq!(operations("312 TFLOP/s"), Ok(312e12));
        assert_eq!(count("8B"), Ok(8_000_000_000));
        assert_eq!(count("134515008"), Ok(134_515_008));
        assert_eq!(count("1.5b"), Ok(1_500_000_000));
    }

    #[test]
    fn what_is_no_quantity_is_named() {
        for (said, text) in [
            (bytes("24").map(|_| ()), "24"),
            (bytes("0GiB").map(|_| ()), "0GiB"),
            (bytes("-1GiB").map(|_| ()), "-1GiB"),
            (bytes("none").map(|_| ()), "none"),
            (bytes("99999999999TiB").map(|_| ()), "TiB"),
            (bandwidth("936GB").map(|_| ()), "936GB"),
            (bandwidth("0GB/s").map(|_| ()), "0GB/s"),
            (bandwidth("1.2.3GB/s").map(|_| ()), "1.2.3GB/s"),
            (operations("312T").map(|_| ()), "312T"),
            (count("eight").map(|_| ()), "eight"),
            (count("").map(|_| ()), "``"),
        ] {
            let error = said.unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("such as"), "{error}");
        }
    }
}
