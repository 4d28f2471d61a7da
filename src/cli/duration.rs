//! A time as people write it on the command line.

use std::time::Duration;

/// Reads `500ms`, `30s`, `2m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a number and ms, s, m or h, such as 30s".into()),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("`{number}` is no number"))?;
    let time = Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())?;
    // A year is as good as for ever, and no clock overflows with it.
    let longest = Duration::from_secs(365 * 24 * 3600);
    if time.is_zero() || time > longest {
        return Err("a time is more than nothing and at most a year".into());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_their_unit() {
        let ms = |text: &str| duration(text).map(|time| time.as_millis());
        assert_eq!(
            ["500ms", "30s", "2m", "1.5s", "1h"].map(ms),
            [Ok(500), Ok(30_000), Ok(120_000), Ok(1_500), Ok(3_600_000)]
        );
        for text in ["", "30", "s", "-3s", "0s", "NaNs", "3 days", "1e99s", "5sec"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
