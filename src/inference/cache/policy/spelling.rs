//! Reads and writes the spelling of a policy: `FromStr` and `Display` are inverse to each other.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::{Format, Knobs, Mass, Policy, Profile, Select, Spread, Tail};

/// Why a policy's text was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("policy `{text}`: {why}")]
pub struct PolicyError {
    text: String,
    why: String,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kv => f.write_str("kv"),
            Self::KvQ8 => f.write_str("kv-q8"),
            Self::KCache(Knobs { n, tail, dense, select, k, p, spread, buffer }) => {
                write!(f, "kcache:n={n},tail={tail}")?;
                // Without it, dense layers are those of the model's default.
                if *spread != Spread::BuiltIn {
                    write!(f, ",dense={dense}")?;
                }
                write!(f, ",select={select}")?;
                // What every lane had before there was a choice is not said.
                if *k != Format::F16 {
                    write!(f, ",k={k}")?;
                }
                if let Some(p) = p {
                    write!(f, ",p={p}")?;
                }
                if *buffer > 0 {
                    write!(f, ",buffer={buffer}")?;
                }
                if let Spread::Profile(profile) = spread { write!(f, ",profile={}", profile.name()) } else { Ok(()) }
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
            ("kv-q8", "") => return Ok(Self::KvQ8),
            ("kv" | "kv-q8", _) => return Err(fail(format!("`{kind}` has no keys"))),
            ("kcache", "paper") => return Ok(Self::KCache(Knobs::PAPER)),
            ("kcache", _) => {}
            _ => return Err(fail("expected `kv`, `kv-q8` or `kcache`, for example `kcache:n=128,tail=mean`".into())),
        }
        let mut knobs = Knobs::default();
        let (mut dense, mut named) = (None, None);
        let mut said = Vec::new();
        for part in keys.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| fail(format!("`{part}` is not `key=value`")))?;
            if said.contains(&key) {
                return Err(fail(format!("`{key}` is given twice")));
            }
            said.push(key);
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
                    let layers = value.parse();
                    dense = Some(layers.map_err(|_| fail(format!("dense is a whole number of layers, not `{value}`")))?)
                }
                "select" => {
                    knobs.select = match value {
                        "head" => Select::Head,
                        "group" => Select::Group,
                        _ => return Err(fail(format!("select is head or group, not `{value}`"))),
                    }
                }
                "k" => {
                    knobs.k = match value {
                        "f16" => Format::F16,
                        "q8" => Format::Q8,
                        _ => return Err(fail(format!("k is f16 or q8, not `{value}`"))),
                    }
                }
                "p" => {
                    let share = value.parse().ok().and_then(Mass::new);
                    let complain = || fail(format!("p is a share above 0 and at most 1, not `{value}`"));
                    knobs.p = Some(share.ok_or_else(complain)?)
                }
                "buffer" => {
                    knobs.buffer = value.parse().ok().filter(|&rows| rows <= Knobs::MOST_BUFFERED).ok_or_else(|| {
                        fail(format!("buffer is a whole number of rows up to {}, not `{value}`", Knobs::MOST_BUFFERED))
                    })?
                }
                "profile" => {
                    named = match value {
                        "" => return Err(fail("profile is `default` or the path of a file".into())),
                        name => Some(Profile::named(name)),
                    }
                }
                _ => return Err(fail(format!("`{key}` is not one of n, tail, dense, select, k, p, buffer, profile"))),
            }
        }
        (knobs.spread, knobs.dense) = match (named, knobs.p, dense) {
            (Some(_), Some(_), _) => return Err(fail("p and profile are two ways to spread rows: take one".into())),
            // A profile spreads rows over all layers; dense ones are extra.
            (Some(profile), None, dense) => (Spread::Profile(profile), dense.unwrap_or(0)),
            (None, None, None) => (Spread::BuiltIn, knobs.dense),
            (None, _, dense) => (Spread::Even, dense.unwrap_or(knobs.dense)),
        };
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
