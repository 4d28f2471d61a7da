//! Several texts as one result.

use super::{Evaluation, Score};

impl Evaluation {
    /// The result over all the tokens of several evaluations of the same policies on equally many tokens each; `None`
    /// of none.
    pub fn pooled(evaluations: &[Self]) -> Option<Self> {
        let first = evaluations.first()?;
        let scores = (0..first.scores.len())
            .map(|index| {
                let of: Vec<&Score> = evaluations.iter().map(|evaluation| &evaluation.scores[index]).collect();
                let layers = of[0].kept_mass.len();
                Score {
                    policy: of[0].policy.clone(),
                    ppl: geometric_mean(of.iter().map(|score| score.ppl)),
                    kl: of.iter().flat_map(|score| &score.kl).copied().collect(),
                    top1: mean(of.iter().map(|score| score.top1)),
                    rows_mean: mean(of.iter().map(|score| score.rows_mean)),
                    kept_mass: (0..layers)
                        .map(|layer| mean(of.iter().map(|score| f64::from(score.kept_mass[layer]))) as f32)
                        .collect(),
                }
            })
            .collect();
        let full_ppl = geometric_mean(evaluations.iter().map(|evaluation| evaluation.full_ppl));
        Some(Self { full_ppl, scores })
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// A perplexity is the exponential of a mean; of equally many tokens each, theirs is that of the means' mean.
fn geometric_mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    mean(values.map(f64::ln)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_texts_are_one_of_twice_the_tokens() {
        let evaluation = |full_ppl, ppl, kl: [f64; 2], top1, kept: f32| Evaluation {
            full_ppl,
            scores: vec![Score {
                policy: "kcache".into(),
                ppl,
                kl: kl.to_vec(),
                top1,
                rows_mean: 10.0,
                kept_mass: vec![1.0, kept],
            }],
        };
        let texts = [evaluation(4.0, 8.0, [0.0, 1.0], 1.0, 0.5), evaluation(16.0, 32.0, [2.0, 3.0], 0.5, 1.0)];
        let pooled = Evaluation::pooled(&texts).unwrap();
        let score = &pooled.scores[0];
        assert!((pooled.full_ppl - 8.0).abs() < 1e-9 && (score.ppl - 16.0).abs() < 1e-9);
        assert_eq!((score.kl_mean(), score.top1, score.rows_mean), (1.5, 0.75, 10.0));
        assert_eq!(score.kept_mass, [1.0, 0.75]);
        assert_eq!(Evaluation::pooled(&[]), None);
        assert_eq!(Evaluation::pooled(&texts[..1]).as_ref().map(|one| one.scores[0].kl.len()), Some(2));
    }
}
