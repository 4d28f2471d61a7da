//! When the sessions of a workload arrive: at random, as independent people would, or evenly spaced.

use std::{fmt, str::FromStr};

use super::split_mix::SplitMix64;

/// How arrivals follow each other. The mean rate is the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// A Poisson process, as of many people who know nothing of each other: gaps are exponentially distributed, so some
    /// come in bursts. `vllm bench serve` sends its requests so too.
    #[default]
    Poisson,
    /// Every gap is the mean.
    Even,
}

impl FromStr for Arrivals {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "poisson" => Ok(Self::Poisson),
            "even" => Ok(Self::Even),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poisson => "poisson",
            Self::Even => "even",
        })
    }
}

/// The times at which sessions come, one after the other. The same seed gives the same times.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    arrivals: Arrivals,
    mean_gap_ms: f64,
    random: SplitMix64,
    next_ms: f64,
}

impl Times {
    /// `rate` is in arrivals per minute; `None` has all of them come at once.
    pub fn new(arrivals: Arrivals, rate: Option<f64>, seed: u64) -> Self {
        let mean_gap_ms = rate.map_or(0.0, |rate| 60_000.0 / rate);
        Self { arrivals, mean_gap_ms, random: SplitMix64(seed), next_ms: 0.0 }
    }

    /// When the next session comes, in ms after the first, which comes at 0.
    pub fn next_ms(&self) -> f64 {
        self.next_ms
    }

    /// It has come: on to the one after it.
    pub fn advance(&mut self) {
        self.next_ms += match self.arrivals {
            Arrivals::Even => self.mean_gap_ms,
            // The inverse of the distribution 1 − e^(−gap/mean); `unit` is below 1, so this is finite.
            Arrivals::Poisson => -self.mean_gap_ms * (-self.random.unit()).ln_1p(),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gaps(mut times: Times, count: usize) -> Vec<f64> {
        let mut last = times.next_ms();
        let mut gap = || {
            times.advance();
            let gap = times.next_ms() - last;
            last = times.next_ms();
            gap
        };
        (0..count).map(|_| gap()).collect()
    }

    proptest! {
        /// Of an exponential distribution the standard deviation is the mean, and e^-1 of all gaps are longer than it.
        /// Bounds are five standard errors wide.
        #[test]
        fn gaps_are_exponential_with_the_mean_that_was_asked_for(seed: u64, rate in 0.1..60_000.0f64) {
            const COUNT: usize = 10_000;
            let gaps = gaps(Times::new(Arrivals::Poisson, Some(rate), seed), COUNT);
            let unit = gaps.iter().map(|gap| gap * rate / 60_000.0);
            let mean = unit.clone().sum::<f64>() / COUNT as f64;
            prop_assert!((mean - 1.0).abs() < 0.05, "{mean}");
            let variance = unit.clone().map(|gap| (gap - mean).powi(2)).sum::<f64>() / COUNT as f64;
            // The fourth moment makes the standard error of the variance √8 / √COUNT.
            prop_assert!((variance - 1.0).abs() < 0.15, "{variance}");
            let long = unit.filter(|&gap| gap > 1.0).count() as f64 / COUNT as f64;
            prop_assert!((long - (-1.0f64).exp()).abs() < 0.025, "{long}");
        }
    }

    #[test]
    fn a_seed_repeats_and_another_one_does_not() {
        let of = |seed| gaps(Times::new(Arrivals::Poisson, Some(30.0), seed), 20);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn even_arrivals_are_even_and_without_a_rate_all_come_at_once() {
        assert_eq!(gaps(Times::new(Arrivals::Even, Some(30.0), 1), 3), [2_000.0; 3]);
        for arrivals in [Arrivals::Poisson, Arrivals::Even] {
            assert_eq!(gaps(Times::new(arrivals, None, 1), 3), [0.0; 3]);
        }
    }
}
