//! A lane's policy: how it keeps and reads its cache, and the one spelling of it that is used everywhere.
//!
//! - `kv` keeps K and V on the device and reads every row; `kv-q8` does the same with both as 8-bit blocks.
//! - `kcache` keeps K on the device and V in host memory, and reads only the N rows with the largest attention weight
//!   (He & Wu, arXiv 2404.18057, section 3).
//!
//! The written form is `kcache:n=128,tail=mean,dense=1,select=head,k=f16,p=0.9,buffer=256,profile=FILE`, every key
//! optional; `kcache:paper` is the published method. Without `dense`, `p` and `profile` it means the profile that comes
//! with the program for the model, or the default where there is none: [`Policy::on`]. `spelling.rs` reads and writes
//! it.

mod spelling;

use std::fmt;

pub use self::spelling::PolicyError;
use super::{Format, ModelId, Profile, ProfileError, profile::SplitOf};

/// How a lane keeps and reads its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Keys and values on the device, every row read: the baseline.
    Kv,
    /// The same with keys and values as 8-bit blocks.
    KvQ8,
    /// Keys on the device, values in host memory, the top N rows read.
    KCache(Knobs),
}

/// The parts of a `kcache` policy. All but `k` and `buffer` can be turned while tokens stream.
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
    /// How keys are stored. Stays as it is while a lane runs: its pages are of this format.
    pub k: Format,
    /// Each head reads as few rows as hold this share of its softmax, and no more than `n`.
    pub p: Option<Mass>,
    /// How `n` is spread over the heads.
    pub spread: Spread,
    /// Rows that each KV head of a layer keeps on the device of those it chose lately; 0 for none. Stays as it is while
    /// a lane runs, as `k` does.
    pub buffer: usize,
}

/// How rows are spread over the query heads of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spread {
    /// By the profile that comes with the program where it is the model's, else evenly with the default's dense layers.
    /// [`Policy::on`] turns it into one of the others.
    BuiltIn,
    /// Every head reads `n`.
    Even,
    /// By a profile; `n` is the mean.
    Profile(Profile),
}

/// A share of the softmax, above 0 and at most 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mass(u32);

impl Mass {
    /// `share` rounded to millionths; `None` outside 0 < share ≤ 1.
    pub fn new(share: f64) -> Option<Self> {
        let millionths = (share * 1e6).round();
        (1.0..=1e6).contains(&millionths).then_some(Self(millionths as u32))
    }

    /// The share.
    pub fn get(self) -> f32 {
        (f64::from(self.0) / 1e6) as f32
    }
}

impl fmt::Display for Mass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1e6)
    }
}

impl Default for Knobs {
    /// The product's default, chosen by measurement: see the quality table in the README.
    fn default() -> Self {
        Self { spread: Spread::BuiltIn, ..Self::EVEN }
    }
}

impl Knobs {
    /// The method as published: the N largest weights, nothing for the rest, no dense layer.
    pub const PAPER: Self = Self { tail: Tail::None, dense: 0, ..Self::EVEN };

    /// The default for a model without a profile.
    pub const EVEN: Self = Self {
        n: 128,
        tail: Tail::Mean,
        dense: 1,
        select: Select::Head,
        k: Format::F16,
        p: None,
        spread: Spread::Even,
        buffer: 0,
    };

    /// The most rows that a KV head can keep.
    pub(crate) const MOST_BUFFERED: usize = u16::MAX as usize;

    /// What the heads of a layer read by the profile; `None` where rows are spread evenly.
    pub fn split(&self, layer: usize) -> Option<SplitOf> {
        match self.spread {
            Spread::Profile(profile) => profile.layer(self.n, layer),
            Spread::BuiltIn | Spread::Even => None,
        }
    }
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

impl Policy {
    /// The layers, of `layers` in all, whose V stays on the device.
    pub fn device_v_layers(&self, layers: usize) -> usize {
        match self {
            Self::Kv | Self::KvQ8 => layers,
            Self::KCache(knobs) => knobs.dense.min(layers),
        }
    }

    /// How keys and how values are stored.
    pub fn formats(&self) -> [Format; 2] {
        match self {
            Self::Kv => [Format::F16; 2],
            Self::KvQ8 => [Format::Q8; 2],
            // V stays 16-bit: host memory is large, and only a few rows of it are read.
            Self::KCache(knobs) => [knobs.k, Format::F16],
        }
    }

    /// Whether a lane can change to `other` while it runs: its pages have to stay what they are.
    pub fn turns_into(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::KCache(old), Self::KCache(new)) => old.k == new.k && old.buffer == new.buffer,
            (old, new) => old == new,
        }
    }

    /// The policy on a model: its profile is read and found to be the model's, and where none is named the built-in one
    /// is taken if it is the model's. Every policy goes through here before it acts.
    pub fn on(self, model: &ModelId) -> Result<Self, ProfileError> {
        let Self::KCache(knobs) = self else { return Ok(self) };
        let knobs = match knobs.spread {
            Spread::Even => knobs,
            Spread::Profile(profile) => {
                profile.load(model)?;
                knobs
            }
            Spread::BuiltIn => match Profile::built_in(model) {
                Some(profile) => Knobs { dense: 0, spread: Spread::Profile(profile), ..knobs },
                None => Knobs { spread: Spread::Even, ..knobs },
            },
        };
        Ok(Self::KCache(knobs))
    }

    /// The knobs of a `kcache` policy.
    pub fn knobs(&self) -> Option<&Knobs> {
        match self {
            Self::Kv | Self::KvQ8 => None,
            Self::KCache(knobs) => Some(knobs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_optional() {
        assert_eq!("kv".parse(), Ok(Policy::Kv));
        assert_eq!("kv-q8".parse(), Ok(Policy::KvQ8));
        assert_eq!("kcache:k=q8".parse(), Ok(Policy::KCache(Knobs { k: Format::Q8, ..Knobs::default() })));
        assert_eq!("kcache".parse(), Ok(Policy::KCache(Knobs::default())));
        assert_eq!("kcache:paper".parse(), Ok(Policy::KCache(Knobs::PAPER)));
        assert_eq!(
            "kcache:select=group, n=7,k=f16".parse(),
            Ok(Policy::KCache(Knobs { n: 7, select: Select::Group, ..Knobs::default() }))
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let even = Knobs { spread: Spread::Even, ..Knobs::default() };
        for n in [1, 128, 100_000] {
            for tail in [Tail::None, Tail::Renorm, Tail::Mean] {
                for select in [Select::Head, Select::Group] {
                    for k in [Format::F16, Format::Q8] {
                        let policy = Policy::KCache(Knobs { n, tail, dense: n % 5, select, k, ..even });
                        assert_eq!(policy.to_string().parse(), Ok(policy));
                        assert_eq!(policy.to_string().ends_with(",k=q8"), k == Format::Q8);
                    }
                }
            }
        }
        let profile = Spread::Profile(Profile::named("some/file.toml"));
        let shares = [0.9, 0.999, 1.0, 1e-6].map(|p| Knobs { p: Mass::new(p), ..even });
        let others = [Knobs::default(), Knobs::EVEN, Knobs::PAPER, Knobs { n: 7, dense: 0, spread: profile, ..even }];
        let buffered = others.map(|knobs| Knobs { buffer: 300, ..knobs });
        let others = others.into_iter().chain(buffered).chain(shares).map(Policy::KCache);
        for policy in [Policy::Kv, Policy::KvQ8].into_iter().chain(others) {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }

    #[test]
    fn rows_are_spread_as_the_keys_say() {
        let knobs = |text: &str| *text.parse::<Policy>().unwrap().knobs().unwrap();
        let of = |text: &str| (knobs(text).spread, knobs(text).dense);
        assert_eq!(of("kcache:n=9,select=group"), (Spread::BuiltIn, 1));
        assert_eq!(of("kcache:dense=1"), (Spread::Even, 1));
        assert_eq!(of("kcache:p=0.9"), (Spread::Even, 1));
        assert_eq!(of("kcache:paper"), (Spread::Even, 0));
        let profile = Spread::Profile(Profile::named("default"));
        assert_eq!(of("kcache:profile=default"), (profile, 0));
        assert_eq!(of("kcache:profile=default,dense=2"), (profile, 2));
        assert!((knobs("kcache:p=0.9").p.unwrap().get() - 0.9).abs() < 1e-6);
    }

    #[test]
    fn a_policy_meets_its_model() {
        let other = ModelId { fingerprint: "of some other model".into(), layers: 2, heads: 4 };
        let on = |text: &str| text.parse::<Policy>().unwrap().on(&other).map_err(|error| error.to_string());
        assert_eq!(
            on("kcache:n=9"),
            Ok(Policy::KCache(Knobs { n: 9, ..Knobs::EVEN })),
            "the default without a profile"
        );
        for same in ["kv", "kv-q8", "kcache:paper", "kcache:p=0.5,dense=3"] {
            assert_eq!(on(same), same.parse().map_err(|error: PolicyError| error.to_string()));
        }
        assert!(on("kcache:profile=default").unwrap_err().contains("another model"));
        assert!(on("kcache:profile=no/such.toml").unwrap_err().contains("`no/such.toml` cannot be read"));
    }

    #[test]
    fn a_lane_keeps_its_formats() {
        let policy = |text: &str| text.parse::<Policy>().unwrap();
        for (from, to, turns) in [
            ("kcache:n=1", "kcache:n=2,dense=7", true),
            ("kcache:k=q8", "kcache:k=q8,n=9", true),
            ("kcache:k=q8", "kcache", false),
            ("kcache:buffer=64", "kcache:buffer=64,n=9", true),
            ("kcache:buffer=64", "kcache", false),
            ("kv", "kv-q8", false),
            ("kv-q8", "kcache:k=q8", false),
            ("kv-q8", "kv-q8", true),
        ] {
            assert_eq!(policy(from).turns_into(&policy(to)), turns, "{from} into {to}");
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
            ("kv-q8:k=q8", "`kv-q8` has no keys"),
            ("kcache:k=q4", "f16 or q8"),
            ("kcache:p=0", "at most 1"),
            ("kcache:buffer=-1", "up to 65535"),
            ("kcache:buffer=65536", "up to 65535"),
            ("kcache:p=1.1", "at most 1"),
            ("kcache:p=NaN", "at most 1"),
            ("kcache:profile=", "path of a file"),
            ("kcache:profile=a,p=0.5", "take one"),
            ("kcache:n=1,n=2", "`n` is given twice"),
            ("kcache:tail=mean,n=1,tail=mean", "`tail` is given twice"),
        ] {
            let error = text.parse::<Policy>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
