//! Next-token distributions and the distance between two of them.

use crate::kernels::softmax;

/// Logarithms of the probabilities of all tokens, `[vocab]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    log_p: Vec<f32>,
    top: usize,
}

impl Distribution {
    /// From logits, `[vocab]`, by a softmax whose sum is taken in f64.
    pub fn from_logits(logits: &[f32]) -> Self {
        let (top, max) = logits
            .iter()
            .enumerate()
            .fold((0, f32::NEG_INFINITY), |best, (index, &value)| if value > best.1 { (index, value) } else { best });
        let sum: f64 = logits.iter().map(|&value| f64::from(value - max).exp()).sum();
        let log_sum = max + sum.ln() as f32;
        Self { log_p: logits.iter().map(|value| value - log_sum).collect(), top }
    }

    /// The likeliest token; the first of equals.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Whether all tokens are as likely as each other, but for rounding.
    pub(crate) fn is_uniform(&self) -> bool {
        f64::from(self.log_p[self.top]) + (self.log_p.len() as f64).ln() < 1e-4
    }

    /// The logarithm of a token's probability.
    pub(crate) fn log_p(&self, token: usize) -> f32 {
        self.log_p[token]
    }
}

/// KL(reference ‖ other) in nats: what is lost when `other` stands for `reference`. Never below 0.
pub fn kl_divergence(reference: &Distribution, other: &Distribution) -> f64 {
    let sum: f64 = reference.log_p.iter().zip(&other.log_p).map(|(&p, &q)| f64::from(p).exp() * f64::from(p - q)).sum();
    sum.max(0.0)
}

/// [`kl_divergence`] straight from the logits, `[vocab]`, of `reference` and of `other`, and whether both have the same
/// likeliest token: for the middle of a step, where there is no time for an exact logarithm of everything. `weights` is
/// a buffer.
pub fn compare_logits(reference: &[f32], other: &[f32], weights: &mut Vec<f32>) -> (f64, bool) {
    let [largest, other_largest] = [reference, other].map(softmax::max);
    weights.clear();
    weights.extend_from_slice(reference);
    softmax::weights(weights, largest);
    let (mut total, mut difference) = (0.0, 0.0);
    for ((&weight, &a), &b) in weights.iter().zip(reference).zip(other) {
        total += f64::from(weight);
        difference += f64::from(weight) * f64::from(a - b);
    }
    let other_total = f64::from(softmax::total(other, other_largest));
    let kl = difference / total - f64::from(largest - other_largest) - (total / other_total).ln();
    let top = |logits: &[f32], largest| logits.iter().position(|&value| value == largest);
    (kl.max(0.0), top(reference, largest) == top(other, other_largest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn logits_are_compared_as_their_distributions_are(
            pairs in prop::collection::vec((-20.0f32..20.0, -2.0f32..2.0), 1..600),
        ) {
            let reference: Vec<f32> = pairs.iter().map(|pair| pair.0).collect();
            let other: Vec<f32> = pairs.iter().map(|pair| pair.0 + pair.1).collect();
            let (kl, same) = compare_logits(&reference, &other, &mut Vec::new());
            let [p, q] = [&reference, &other].map(|logits| Distribution::from_logits(logits));
            let expected = kl_divergence(&p, &q);
            prop_assert!((kl - expected).abs() < 2e-5 + 1e-4 * expected, "{kl} instead of {expected}");
            prop_assert_eq!(same, p.top() == q.top());
            prop_assert!(compare_logits(&reference, &reference, &mut Vec::new()).0 < 1e-6);
        }
    }

    #[test]
    fn logits_become_probabilities() {
        let distribution = Distribution::from_logits(&[1.0, 3.0, 3.0, -1e30]);
        assert_eq!(distribution.top(), 1);
        let total: f64 = distribution.log_p.iter().map(|&p| f64::from(p).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
    }

    #[test]
    fn only_equal_logits_are_uniform() {
        for (value, uniform) in [(0.0, true), (1e-6, true), (0.1, false), (-0.1, false)] {
            let mut logits = vec![-3.0; 50_000];
            logits[7..2000].fill(-3.0 + value);
            assert_eq!(Distribution::from_logits(&logits).is_uniform(), uniform, "{value}");
        }
    }

    #[test]
    fn kl_of_two_coins() {
        let coin = |p: f32| Distribution::from_logits(&[p.ln(), (1.0 - p).ln()]);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((kl_divergence(&coin(0.5), &coin(0.25)) - expected).abs() < 1e-6);
        assert_eq!(kl_divergence(&coin(0.3), &coin(0.3)), 0.0);
    }
}
