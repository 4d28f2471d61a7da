//! The description of a workload:
//! `sessions=16,context=1024,tokens=64,rate=30,arrivals=poisson,seed=0,shared=0,lanes=both`.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::Arrivals;
use crate::engine::Lane;

/// The most sessions of one load.
const MOST_SESSIONS: usize = 100_000;
/// The slowest arrivals, per minute: one in sixteen hours.
const LEAST_RATE: f64 = 0.001;
/// The fastest arrivals, per minute.
const MOST_RATE: f64 = 60_000.0;

/// What a load is to be. Written as `key=value,…`, every key optional.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadSpec {
    /// Sessions in all; each asks once.
    pub sessions: usize,
    /// Tokens of each prompt.
    pub context: usize,
    /// Tokens of each answer; the end that the model would choose is ignored.
    pub tokens: usize,
    /// Arrivals per minute, on average, the first at once; `None` has all of them arrive at once.
    pub rate: Option<f64>,
    /// How they follow each other.
    pub arrivals: Arrivals,
    /// The seed of their times.
    pub seed: u64,
    /// The first so many tokens are the same in all prompts; no other beginnings are.
    pub shared: usize,
    pub lanes: Vec<Lane>,
}

/// Why a load cannot be.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum WorkloadError {
    /// A piece that is no `key=value`, or a key that is not known.
    #[error(
        "`{0}` is nothing of a load: write sessions=16,context=1024,tokens=64,rate=30,arrivals=poisson,seed=0,shared=0,lanes=both"
    )]
    Unknown(String),
    /// A key that was given before.
    #[error("`{0}` is given twice: write it once")]
    Twice(String),
    /// A value that is not allowed.
    #[error("{key} is {allowed}, not `{value}`")]
    Value { key: &'static str, value: String, allowed: &'static str },
    /// A prompt that is all shared.
    #[error("shared={shared} leaves nothing of context={context} to a session: make it smaller")]
    Shared {
        /// Tokens that are the same.
        shared: usize,
        /// Tokens of a prompt.
        context: usize,
    },
    /// Prompt and answer are longer than the model's context.
    #[error("context={context} and tokens={tokens} are more than the model's context of {most}: make one smaller")]
    Context {
        /// Tokens of a prompt.
        context: usize,
        /// Tokens of an answer.
        tokens: usize,
        /// Tokens of the model's context.
        most: usize,
    },
}

impl Default for WorkloadSpec {
    fn default() -> Self {
        Self {
            sessions: 16,
            context: 1024,
            tokens: 64,
            rate: None,
            arrivals: Arrivals::default(),
            seed: 0,
            shared: 0,
            lanes: Lane::ALL.to_vec(),
        }
    }
}

impl WorkloadSpec {
    /// Whether a model of `context` tokens can answer it.
    ///
    /// # Errors
    ///
    /// Prompt and answer that are longer.
    pub fn check(&self, context: usize) -> Result<(), WorkloadError> {
        if self.context + self.tokens > context {
            return Err(WorkloadError::Context { context: self.context, tokens: self.tokens, most: context });
        }
        Ok(())
    }
}

impl FromStr for WorkloadSpec {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        let mut spec = Self::default();
        let mut said = Vec::new();
        for piece in text.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
            let Some((key, value)) = piece.split_once('=') else {
                return Err(WorkloadError::Unknown(piece.to_owned()));
            };
            let (key, value) = (key.trim(), value.trim());
            if said.contains(&key) {
                return Err(WorkloadError::Twice(key.to_owned()));
            }
            said.push(key);
            let wrong = |key, allowed| WorkloadError::Value { key, value: value.to_owned(), allowed };
            let whole = |key, allowed, least: usize, most: usize| {
                let number = value.parse().ok().filter(|number| (least..=most).contains(number));
                number.ok_or_else(|| wrong(key, allowed))
            };
            let tokens = "a whole number of tokens, at least 1";
            match key {
                "sessions" => {
                    spec.sessions = whole("sessions", "a whole number from 1 to 100000", 1, MOST_SESSIONS)?;
                }
                "context" => spec.context = whole("context", tokens, 1, 1 << 24)?,
                "tokens" => spec.tokens = whole("tokens", tokens, 1, 1 << 24)?,
                "shared" => spec.shared = whole("shared", "a whole number of tokens", 0, 1 << 24)?,
                "rate" if value == "all" => spec.rate = None,
                "rate" => {
                    let rate = value.parse().ok().filter(|rate| (LEAST_RATE..=MOST_RATE).contains(rate));
                    let allowed = "a number of arrivals per minute from 0.001 to 60000, or `all` for all at once";
                    spec.rate = Some(rate.ok_or_else(|| wrong("rate", allowed))?);
                }
                "arrivals" => {
                    spec.arrivals = value.parse().map_err(|()| wrong("arrivals", "`poisson` or `even`"))?;
                }
                "seed" => {
                    spec.seed = value.parse().map_err(|_| wrong("seed", "a whole number, at least 0"))?;
                }
                "lanes" => {
                    spec.lanes = match value {
                        "both" => Lane::ALL.to_vec(),
                        "kcache" => vec![Lane::KCache],
                        "kv" => vec![Lane::Kv],
                        _ => return Err(wrong("lanes", "`both`, `kcache` or `kv`")),
                    }
                }
                _ => return Err(WorkloadError::Unknown(piece.to_owned())),
            }
        }
        if spec.shared >= spec.context {
            return Err(WorkloadError::Shared { shared: spec.shared, context: spec.context });
        }
        Ok(spec)
    }
}

impl fmt::Display for WorkloadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, context, tokens, rate, arrivals, seed, shared, lanes } = self;
        let rate = rate.map_or("all".to_owned(), |rate| rate.to_string());
        let lanes = match lanes.as_slice() {
            [lane] => lane.to_string(),
            _ => "both".to_owned(),
        };
        write!(
            f,
            "sessions={sessions},context={context},tokens={tokens},rate={rate},arrivals={arrivals},seed={seed},\
             shared={shared},lanes={lanes}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_the_default() {
        assert_eq!("".parse(), Ok(WorkloadSpec::default()));
        let text = "sessions=3,context=512,tokens=8,rate=7.5,arrivals=even,seed=9,shared=64,lanes=kv";
        let spec: WorkloadSpec = text.parse().unwrap();
        assert_eq!((spec.sessions, spec.rate, spec.lanes.as_slice()), (3, Some(7.5), &[Lane::Kv][..]));
        assert_eq!(
            (spec.arrivals, spec.seed, WorkloadSpec::default().arrivals),
            (Arrivals::Even, 9, Arrivals::Poisson)
        );
        assert_eq!(spec.to_string(), text);
        assert_eq!(WorkloadSpec::default().to_string().parse(), Ok(WorkloadSpec::default()));
    }

    #[test]
    fn mistakes_are_one_line_that_says_what_is_allowed() {
        for (text, word) in [
            ("sessions=0", "from 1 to 100000"),
            ("sessions", "context=1024"),
            ("speed=3", "rate=30"),
            ("rate=0", "`all`"),
            ("rate=1e-320", "from 0.001"),
            ("rate=1,rate=2", "`rate` is given twice"),
            ("rate=NaN", "`all`"),
            ("tokens=-1", "at least 1"),
            ("lanes=all", "`both`"),
            ("arrivals=random", "`poisson` or `even`"),
            ("seed=-1", "at least 0"),
            ("context=64,shared=64", "smaller"),
        ] {
            let error = text.parse::<WorkloadSpec>().unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        }
        let spec = WorkloadSpec::default();
        assert_eq!(spec.check(spec.context + spec.tokens), Ok(()));
        assert!(spec.check(spec.context + spec.tokens - 1).is_err());
    }
}
