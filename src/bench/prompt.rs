//! Prompts made of ordinary tokens: the same on every machine, different for every sequence.

use super::SplitMix64;
use crate::model::LanguageModel;

/// Makes prompts for one model.
pub(super) struct Prompts {
    /// Tokens that do not control the model, in the order of the vocabulary.
    ordinary: Vec<u32>,
}

impl Prompts {
    pub(super) fn new(model: &LanguageModel) -> Self {
        let all = 0..model.shape.vocab.min(model.tokenizer.vocab_size()) as u32;
        Self { ordinary: all.filter(|&id| !model.tokenizer.is_control(id)).collect() }
    }

    /// The first `count` tokens of prompt number `index`.
    ///
    /// Tokens are drawn so that the logarithms of their places are even. A byte-pair vocabulary numbers its merges by
    /// how often they occurred, so this comes near to the frequencies of a text (Zipf's law).
    pub(super) fn tokens(&self, index: usize, count: usize) -> Vec<u32> {
        let mut random = SplitMix64(index as u64);
        let places = self.ordinary.len() as f64;
        let draw = || {
            let place = places.powf(random.unit()) as usize;
            self.ordinary[place.clamp(1, self.ordinary.len()) - 1]
        };
        std::iter::repeat_with(draw).take(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_fixed_distinct_and_ordinary() {
        let prompts = Prompts { ordinary: (3..1000).collect() };
        let (first, second) = (prompts.tokens(0, 500), prompts.tokens(1, 500));
        assert_eq!(first, prompts.tokens(0, 500));
        assert_eq!(first[..100], prompts.tokens(0, 100));
        assert_ne!(first, second);
        assert!(first.iter().chain(&second).all(|id| (3..1000).contains(id)));
        // Half of a text by Zipf's law is made of the first √1000 tokens.
        let frequent = first.iter().filter(|&&id| id < 3 + 32).count();
        assert!((200..300).contains(&frequent), "{frequent}");
    }
}
