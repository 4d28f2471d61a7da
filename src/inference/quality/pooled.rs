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
                let heads = |layer: usize| 0..of[0].kept_mass[layer].len();
                let kept = |layer: usize, head: usize| {
                    mean(of.iter().map(|score| f64::from(score.kept_mass[layer][head]))) as f32
                };
                Score {
                    policy: of[0].policy.clone(),
                    tokens: of.iter().flat_map(|score| &score.tokens).copied().collect(),
                    rows_mean: mean(of.iter().map(|score| score.rows_mean)),
                    rows_fetched: mean(of.iter().map(|score| score.rows_fetched)),
                    kept_mass: (0..of[0].kept_mass.len())
                        .map(|layer| heads(layer).map(|head| kept(layer, head)).collect())
                        .collect(),
                }
            })
            .collect();
        Some(Self { scores })
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::TokenScore;

    #[test]
    fn two_texts_are_one_of_twice_the_tokens() {
        let evaluation = |ppl: f32, kl: [f64; 2], same, kept: f32| Evaluation {
            scores: vec![Score {
                policy: "kcache".into(),
                tokens: kl.map(|kl| TokenScore { kl, same, right: [same; 2], log_p: [-ppl.ln(); 2] }).to_vec(),
                rows_mean: 10.0,
                rows_fetched: f64::from(kept),
                kept_mass: vec![vec![1.0, 0.0], vec![kept, kept]],
            }],
        };
        let texts = [evaluation(8.0, [0.0, 1.0], true, 0.5), evaluation(32.0, [2.0, 3.0], false, 1.0)];
        let pooled = Evaluation::pooled(&texts).unwrap();
        let score = &pooled.scores[0];
        assert!((score.figure("ppl").unwrap() - 16.0).abs() < 1e-4);
        assert!((pooled.full_ppl().unwrap() - 16.0).abs() < 1e-4);
        assert_eq!((score.figure("kl_mean"), score.figure("top1")), (Some(1.5), Some(0.5)));
        assert_eq!((score.rows_mean, score.rows_fetched), (10.0, 0.75));
        assert_eq!(score.kept_mass, [[1.0, 0.0], [0.75, 0.75]]);
        assert_eq!(Evaluation::pooled(&[]), None);
        assert_eq!(Evaluation::pooled(&texts[..1]).as_ref().map(|one| one.scores[0].tokens.len()), Some(2));
    }
}
