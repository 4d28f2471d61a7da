//! Choosing the next token from the logits, with candle's sampler.

use candle_core::{Device, Tensor};
use candle_transformers::{
    generation::{LogitsProcessor, Sampling as Method},
    utils::apply_repeat_penalty,
};

use crate::engine::Sampling;
use crate::kernels::softmax::max;

/// Tokens back that the repeat penalty looks.
const PENALTY_WINDOW: usize = 64;

/// The sampler of one answer. Two samplers with the same settings and seed choose the same from the same logits.
pub struct Sampler {
    processor: LogitsProcessor,
    repeat_penalty: f32,
    greedy: bool,
}

impl Sampler {
    /// A sampler at the beginning of an answer.
    pub fn new(sampling: &Sampling) -> Self {
        let Sampling { temperature, top_k, top_p, repeat_penalty, seed } = *sampling;
        let method = match (temperature > 0.0, top_k, top_p) {
            (false, _, _) => Method::ArgMax,
            (true, None, None) => Method::All { temperature },
            (true, Some(k), None) => Method::TopK { k, temperature },
            (true, None, Some(p)) => Method::TopP { p, temperature },
            (true, Some(k), Some(p)) => Method::TopKThenTopP { k, p, temperature },
        };
        let greedy = temperature <= 0.0 && repeat_penalty == 1.0;
        Self { processor: LogitsProcessor::from_sampling(seed, method), repeat_penalty, greedy }
    }

    /// The next token after `context`, from its logits, `[vocab]`. An error means that the logits are no prediction.
    pub fn choose(&mut self, logits: &[f32], context: &[u32]) -> candle_core::Result<u32> {
        let most = max(logits);
        let first = logits.iter().position(|&logit| logit == most).filter(|_| most.is_finite());
        let mistake = |what: &str| candle_core::Error::Msg(what.to_owned());
        let first = first.ok_or_else(|| mistake("the largest logit is not finite"))?;
        // The second logit tells in all other cases.
        if first == 0 && logits.len() > 1 && logits.iter().all(|&logit| logit == most) {
            return Err(mistake("all logits are equal"));
        }
        // The first of the largest, as candle chooses, without a copy of the logits: with dozens of sequences that is
        // milliseconds.
        if self.greedy {
            return Ok(first as u32);
        }
        let mut logits = Tensor::from_slice(logits, logits.len(), &Device::Cpu)?;
        if self.repeat_penalty != 1.0 {
            let recent = &context[context.len().saturating_sub(PENALTY_WINDOW)..];
            logits = apply_repeat_penalty(&logits, self.repeat_penalty, recent)?;
        }
        self.processor.sample(&logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.5, 2.0, 1.9, -1.0];

    #[test]
    fn greedy_takes_the_largest_and_the_penalty_moves_it() {
        let mut greedy = Sampler::new(&Sampling::default());
        assert_eq!(greedy.choose(&LOGITS, &[]).unwrap(), 1);
        let mut fresh = Sampler::new(&Sampling { repeat_penalty: 1.5, ..Sampling::default() });
        assert_eq!(fresh.choose(&LOGITS, &[1]).unwrap(), 2);
    }

    #[test]
    fn what_is_no_prediction_is_an_error() {
        for sampling in [Sampling::default(), Sampling { temperature: 1.0, ..Sampling::default() }] {
            for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [1.0, f32::INFINITY, 2.0], [0.5; 3]] {
                assert!(Sampler::new(&sampling).choose(&logits, &[]).is_err(), "{logits:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_chooses_the_same() {
        let sampling = Sampling { temperature: 1.0, top_k: Some(3), top_p: Some(0.95), seed: 7, ..Sampling::default() };
        let draw = |sampling: &Sampling| -> Vec<u32> {
            let mut sampler = Sampler::new(sampling);
            (0..50).map(|_| sampler.choose(&LOGITS, &[]).unwrap()).collect()
        };
        let tokens = draw(&sampling);
        assert_eq!(tokens, draw(&sampling));
        assert_ne!(tokens, draw(&Sampling { seed: 8, ..sampling }));
        assert!(tokens.iter().all(|&token| token < 3), "top_k leaves three");
    }
}
