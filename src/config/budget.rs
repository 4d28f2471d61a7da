//! A device budget as people write it: `512MiB`, `1.5GiB`, a plain number of bytes, or `none`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// A device budget in bytes; `None` is no budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(pub Option<u64>);

/// Why a budget's text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a budget is `none` or a size such as `512MiB`, `1.5GiB` or a number of bytes, not `{0}`")]
pub struct BudgetError(String);

/// Binary units first: they are the ones written. `MB` is read as the decimal unit that it is.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let fail = || BudgetError(text.to_owned());
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..split], trimmed[split..].trim());
        let factor = match unit {
            "" => 1,
            _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(fail)?.1,
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(|bytes| Self(Some(bytes))).ok_or_else(fail);
        }
        let bytes = number.parse::<f64>().map_err(|_| fail())? * factor as f64;
        // Half a byte is a slip of the pen, and above 2^53 a float no longer says which byte is meant.
        if bytes.fract() != 0.0 || bytes >= (1u64 << 53) as f64 {
            return Err(fail());
        }
        Ok(Self(Some(bytes as u64)))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0 else { return f.write_str("none") };
        match UNITS[..4].iter().find(|(_, factor)| bytes >= *factor && bytes % factor == 0) {
            Some((unit, factor)) => write!(f, "{}{unit}", bytes / factor),
            None => write!(f, "{bytes}"),
        }
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Budget;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none` or a size such as `512MiB`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Budget, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Budget, E> {
                Ok(Budget(Some(bytes)))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Budget, E> {
                u64::try_from(bytes).map(|bytes| Budget(Some(bytes))).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("64 kib", 64 << 10),
            ("10MB", 10_000_000),
            ("4096", 4096),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Budget(Some(bytes))), "{text}");
        }
        assert_eq!("none".parse(), Ok(Budget(None)));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "12 apples", "-1", "0.3B", "1e9", "1.2.3MiB", "99999999999TiB"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<Option<u64>>(), shift in 0u32..40) {
            let budget = Budget(bytes.map(|b| b >> shift << shift));
            prop_assert_eq!(budget.to_string().parse(), Ok(budget));
        }
    }
}
