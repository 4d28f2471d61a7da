//! Next-token distributions and the distance between two of them.

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

    /// The logarithm of a token's probability.
    pub fn log_p(&self, token: usize) -> f32 {
        self.log_p[token]
    }
}

/// KL(reference ‖ other) in nats: what is lost when `other` stands for `reference`. Never below 0.
pub fn kl_divergence(reference: &Distribution, other: &Distribution) -> f64 {
    let sum: f64 = reference.log_p.iter().zip(&other.log_p).map(|(&p, &q)| f64::from(p).exp() * f64::from(p - q)).sum();
    sum.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_probabilities() {
        let distribution = Distribution::from_logits(&[1.0, 3.0, 3.0, -1e30]);
        assert_eq!(distribution.top(), 1);
        let total: f64 = distribution.log_p.iter().map(|&p| f64::from(p).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
    }

    #[test]
    fn kl_of_two_coins() {
        let coin = |p: f32| Distribution::from_logits(&[p.ln(), (1.0 - p).ln()]);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((kl_divergence(&coin(0.5), &coin(0.25)) - expected).abs() < 1e-6);
        assert_eq!(kl_divergence(&coin(0.3), &coin(0.3)), 0.0);
    }
}
