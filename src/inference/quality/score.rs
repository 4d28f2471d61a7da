//! What a policy costs, token by token, and the figures that are made of it.

use super::bootstrap;

/// One token of the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// KL(full attention ‖ policy) in nats.
    pub kl: f64,
    /// Whether both find the same likeliest token.
    pub same: bool,
    /// Whether the likeliest token is the text's: under the policy, and under full attention.
    pub right: [bool; 2],
    /// The logarithm of the probability of the text's token: under the policy, and under full attention.
    pub(crate) log_p: [f32; 2],
}

/// One policy's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The policy, as it was spelled.
    pub policy: String,
    /// Every token that was compared.
    pub tokens: Vec<TokenScore>,
    /// V rows that a head read per token, dense layers counted.
    pub rows_mean: f64,
    /// V rows that were fetched from the host tier, per token and query head.
    pub rows_fetched: f64,
    /// The softmax mass that the selected rows held, `[layers][heads]`.
    pub kept_mass: Vec<Vec<f32>>,
}

/// A figure by its name in JSON.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// The name, which stays.
    pub name: &'static str,
    /// Its value.
    pub of: fn(&Score) -> f64,
}

/// All figures that are one number.
pub const FIGURES: [Figure; 11] = [
    Figure { name: "ppl", of: |score| ppl(&score.tokens) },
    Figure { name: "kl_mean", of: |score| kl_mean(&score.tokens) },
    Figure { name: "kl_median", of: |score| score.kl_quantile(0.5) },
    Figure { name: "kl_p99", of: |score| score.kl_quantile(0.99) },
    Figure { name: "kl_p999", of: |score| score.kl_quantile(0.999) },
    Figure { name: "top1", of: |score| top1(&score.tokens) },
    Figure { name: "dp_rms", of: |score| dp_rms(&score.tokens) },
    Figure { name: "rows_mean", of: |score| score.rows_mean },
    Figure { name: "rows_fetched", of: |score| score.rows_fetched },
    Figure { name: "kept_mass_mean", of: |score| score.kept_mass_mean() },
    Figure { name: "kept_mass_least", of: |score| score.least_layer().map_or(1.0, |(_, kept)| f64::from(kept)) },
];

/// A figure of the tokens of a run.
pub type Estimate = fn(&[TokenScore]) -> f64;

/// Figures of single tokens, which have an interval.
pub const ESTIMATES: [(&str, Estimate); 4] = [("ppl", ppl), ("kl_mean", kl_mean), ("top1", top1), ("dp_rms", dp_rms)];

/// Perplexity: the exponential of the mean negative log-probability of the text's tokens.
pub fn ppl(tokens: &[TokenScore]) -> f64 {
    (-mean(tokens, |token| f64::from(token.log_p[0]))).exp()
}

/// The perplexity of full attention on the same tokens.
pub fn full_ppl(tokens: &[TokenScore]) -> f64 {
    (-mean(tokens, |token| f64::from(token.log_p[1]))).exp()
}

/// Mean KL in nats.
pub fn kl_mean(tokens: &[TokenScore]) -> f64 {
    mean(tokens, |token| token.kl)
}

/// The share of tokens at which both find the same likeliest token.
pub fn top1(tokens: &[TokenScore]) -> f64 {
    mean(tokens, |token| f64::from(u8::from(token.same)))
}

/// The root of the mean square by which the probability of the text's token differs.
pub fn dp_rms(tokens: &[TokenScore]) -> f64 {
    let difference = |token: &TokenScore| f64::from(token.log_p[0]).exp() - f64::from(token.log_p[1]).exp();
    mean(tokens, |token| difference(token).powi(2)).sqrt()
}

fn mean(tokens: &[TokenScore], of: impl Fn(&TokenScore) -> f64) -> f64 {
    tokens.iter().map(of).sum::<f64>() / tokens.len() as f64
}

impl Score {
    /// The figure called `name`.
    pub fn figure(&self, name: &str) -> Option<f64> {
        FIGURES.iter().find(|figure| figure.name == name).map(|figure| (figure.of)(self))
    }

    /// The `q`-quantile of the KL, in nats; `q` in 0..=1. The smallest value that at least that share does not exceed.
    pub(crate) fn kl_quantile(&self, q: f64) -> f64 {
        let mut sorted: Vec<f64> = self.tokens.iter().map(|token| token.kl).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    /// The 95 % interval of an estimate over texts like these, by bootstrap.
    pub fn interval(&self, of: fn(&[TokenScore]) -> f64) -> [f64; 2] {
        bootstrap::interval(&self.tokens, of)
    }

    /// The kept mass of each layer, mean over its heads.
    pub fn layers_kept(&self) -> Vec<f32> {
        self.kept_mass.iter().map(|heads| heads.iter().sum::<f32>() / heads.len() as f32).collect()
    }

    /// The kept mass, mean over all heads.
    pub fn kept_mass_mean(&self) -> f64 {
        let layers = self.layers_kept();
        layers.iter().map(|&kept| f64::from(kept)).sum::<f64>() / layers.len() as f64
    }

    /// The layer that keeps least, and what it keeps.
    pub fn least_layer(&self) -> Option<(usize, f32)> {
        self.layers_kept().into_iter().enumerate().min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(tokens: Vec<TokenScore>) -> Score {
        Score {
            policy: "kcache".into(),
            tokens,
            rows_mean: 8.0,
            rows_fetched: 4.0,
            kept_mass: vec![vec![1.0, 0.5], vec![0.25, 0.25]],
        }
    }

    #[test]
    fn figures_are_what_their_names_say() {
        let token = |kl, same, p: [f32; 2]| TokenScore { kl, same, right: [same, true], log_p: p.map(f32::ln) };
        let tokens = vec![token(0.1, true, [0.5, 0.25]), token(0.3, false, [0.125, 0.125])];
        assert!((full_ppl(&tokens) - 32f64.sqrt()).abs() < 1e-5);
        let score = score(tokens);
        for (name, expected) in [
            ("ppl", 4.0),
            ("kl_mean", 0.2),
            ("kl_median", 0.1),
            ("kl_p99", 0.3),
            ("kl_p999", 0.3),
            ("top1", 0.5),
            ("dp_rms", 0.25 / 2f64.sqrt()),
            ("rows_mean", 8.0),
            ("rows_fetched", 4.0),
            ("kept_mass_mean", 0.5),
            ("kept_mass_least", 0.25),
        ] {
            let found = score.figure(name).unwrap();
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        }
        assert_eq!(score.figure("speed"), None);
        assert_eq!(score.least_layer(), Some((1, 0.25)));
        for (name, _) in ESTIMATES {
            assert!(score.figure(name).is_some(), "{name}");
        }
    }
}
