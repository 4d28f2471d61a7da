//! A lane's policy: how it keeps and reads its cache, and the one spelling of it used everywhere.
//!
//! `kv` keeps K and V on the device and reads every row. `kcache` keeps K on the device and V in host memory, and
//! reads only the N rows with the largest attention weight (He & Wu, arXiv 2404.18057, section 3). The written form is
//! `kcache:n=128,tail=mean,dense=1,select=head,k=f16` with every key optional, and `kcache:paper` for the published
//! method. [`Policy::from_str`] and [`Policy`]'s `Display` are inverse to each other.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// How a lane keeps and reads its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Keys and values on the device, every row read: the baseline.
    Kv,
    /// Keys on the device, values in host memory, the top N rows read.
    KCache(Knobs),
}

/// The parts of a `kcache` policy that an operator turns, also while tokens stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Knobs {
    /// Rows each query head reads per token, at least 1.
    pub n: usize,
    /// What stands for the rows that were not read.
    pub tail: Tail,
    /// The first `dense` layers keep V on the device and read every row.
    pub dense: usize,
    /// Whether each query head chooses its own rows or the heads that share a KV head choose together.
    pub select: Select,
}

impl Default for Knobs {
    /// The product's default, chosen by measurement: see the quality table in the README.
    fn default() -> Self {
        Self { n: 128, tail: Tail::Mean, dense: 1, select: Select::Head }
    }
}

impl Knobs {
    /// The method as published: the N largest weights, nothing for the rest, no dense layer.
    pub const PAPER: Self = Self { n: 128, tail: Tail::None, dense: 0, select: Select::Head };
}

/// What stands for the rows that were not selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tail {
    /// Nothing; the kept weights stay as they are (the paper).
    None,
    /// The kept weights are divided by the kept mass.
    Renorm,
    /// The missing mass times the mean of all V rows so far.
    Mean,
}

/// Which query heads choose together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Select {
    /// Every query head chooses its own N rows (the paper).
    Head,
    /// The query heads of one KV head share one set of N rows, chosen by their summed weights.
    Group,
}

/// Why a policy's text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("policy `{text}`: {why}")]
pub struct PolicyError {
    text: String,
    why: String,
}

impl Policy {
    /// The layers, of `layers` in all, whose V stays on the device.
    pub fn device_v_layers(&self, layers: usize) -> usize {
        match self {
            Self::Kv => layers,
            Self::KCache(knobs) => knobs.dense.min(layers),
        }
    }

    /// The knobs of a `kcache` policy.
    pub fn knobs(&self) -> Option<&Knobs> {
        match self {
            Self::Kv => None,
            Self::KCache(knobs) => Some(knobs),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kv => f.write_str("kv"),
            Self::KCache(Knobs { n, tail, dense, select }) => {
                write!(f, "kcache:n={n},tail={tail},dense={dense},select={select}")
            }
        }
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Renorm => "renorm",
            Self::Mean => "mean",
        })
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Group => "group",
        })
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let fail = |why: String| PolicyError { text: text.to_owned(), why };
        let (kind, keys) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        match (kind, keys) {
            ("kv", "") => return Ok(Self::Kv),
            ("kv", _) => return Err(fail("`kv` has no keys".into())),
            ("kcache", "paper") => return Ok(Self::KCache(Knobs::PAPER)),
            ("kcache", _) => {}
            _ => return Err(fail("expected `kv` or `kcache`, for example `kcache:n=128,tail=mean`".into())),
        }
        let mut knobs = Knobs::default();
        for part in keys.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| fail(format!("`{part}` is not `key=value`")))?;
            match key {
                "n" => {
                    knobs.n = value
                        .parse()
                        .ok()
                        .filter(|&n| n >= 1)
                        .ok_or_else(|| fail(format!("n is a whole number of rows, at least 1, not `{value}`")))?
                }
                "tail" => {
                    knobs.tail = match value {
                        "none" => Tail::None,
                        "renorm" => Tail::Renorm,
                        "mean" => Tail::Mean,
                        _ => return Err(fail(format!("tail is none, renorm or mean, not `{value}`"))),
                    }
                }
                "dense" => {
                    knobs.dense =
                        value.parse().map_err(|_| fail(format!("dense is a whole number of layers, not `{value}`")))?
                }
                "select" => {
                    knobs.select = match value {
                        "head" => Select::Head,
                        "group" => Select::Group,
                        _ => return Err(fail(format!("select is head or group, not `{value}`"))),
                    }
                }
                "k" if value == "f16" => {}
                "k" => return Err(fail(format!("k is f16, not `{value}`"))),
                _ => return Err(fail(format!("`{key}` is not one of n, tail, dense, select, k"))),
            }
        }
        Ok(Self::KCache(knobs))
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_optional() {
        assert_eq!("kv".parse(), Ok(Policy::Kv));
        assert_eq!("kcache".parse(), Ok(Policy::KCache(Knobs::default())));
        assert_eq!("kcache:paper".parse(), Ok(Policy::KCache(Knobs::PAPER)));
        assert_eq!(
            "kcache:select=group, n=7,k=f16".parse(),
            Ok(Policy::KCache(Knobs { n: 7, select: Select::Group, ..Knobs::default() }))
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for n in [1, 128, 100_000] {
            for tail in [Tail::None, Tail::Renorm, Tail::Mean] {
                for select in [Select::Head, Select::Group] {
                    let policy = Policy::KCache(Knobs { n, tail, dense: n % 5, select });
                    assert_eq!(policy.to_string().parse(), Ok(policy));
                }
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("", "expected"),
            ("kv:n=3", "no keys"),
            ("kcache:n=0", "at least 1"),
            ("kcache:n", "key=value"),
            ("kcache:tail=max", "renorm"),
            ("kcache:rows=3", "rows"),
            ("kcache:k=q8", "f16"),
        ] {
            let error = text.parse::<Policy>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
