//! What a compared answer has shown: how far the two predictions of each token are apart, and what `kcache` would have
//! chosen where that is another token.

use crate::engine::Compare;

/// A turn in which both lanes are fed the same tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Comparison {
    /// KL of each token in nats, the one that ends the answer included.
    pub kl: Vec<f64>,
    /// Of these tokens those that both lanes find the likeliest.
    pub same: usize,
    /// Where `kcache` would have chosen another token.
    pub otherwise: Vec<Otherwise>,
    /// From which token on the lanes went on apart, and why.
    pub unlocked: Option<(usize, String)>,
}

/// A token that `kcache` would have chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otherwise {
    /// The index of the token in the answer.
    pub index: usize,
    /// The text it would have had; empty where it would have ended the answer.
    pub text: String,
}

impl Comparison {
    /// Takes in a token, unless it is known (a replay).
    pub fn add(&mut self, compare: &Compare) {
        if compare.index != self.kl.len() {
            return;
        }
        self.kl.push(compare.kl);
        self.same += usize::from(compare.same);
        if let Some(otherwise) = &compare.otherwise {
            self.otherwise.push(Otherwise { index: compare.index, text: otherwise.text.clone() });
        }
    }

    /// The share of the tokens that both lanes find the likeliest, in 0..=1.
    pub fn share(&self) -> Option<f64> {
        (!self.kl.is_empty()).then(|| self.same as f64 / self.kl.len() as f64)
    }

    /// Whether token `index` was given to both lanes rather than chosen by each.
    pub fn covers(&self, index: usize) -> bool {
        self.unlocked.as_ref().is_none_or(|(at, _)| index < *at)
    }

    /// Mean and 99th percentile (nearest rank) of the KL, in nats.
    pub fn kl_figures(&self) -> Option<(f64, f64)> {
        let mut sorted = self.kl.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = ((sorted.len() as f64 * 0.99).ceil() as usize).checked_sub(1)?;
        Some((sorted.iter().sum::<f64>() / sorted.len() as f64, sorted[rank]))
    }
}
