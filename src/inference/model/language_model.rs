//! A whole model: everything that is the same for all lanes and sessions.

use std::path::Path;

use super::{ChatTemplate, Gguf, ModelError, ModelShape, RopeScaling, Tokenizer, Weights};
use crate::{
    attention::HeadShape,
    cache::{CacheShape, ModelId},
    kernels::RopeTable,
};

/// Shape, weights, tokenizer and chat template of one file.
pub struct LanguageModel {
    /// Sizes and constants.
    pub shape: ModelShape,
    /// The weights.
    pub weights: Weights,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Conversations to prompts.
    pub chat: ChatTemplate,
    /// Sines and cosines of the rotary positions.
    pub rope: RopeTable,
    context: usize,
    id: ModelId,
}

/// What a file holds beside its weights.
pub(super) struct Parts {
    pub shape: ModelShape,
    pub tokenizer: Tokenizer,
    pub chat: ChatTemplate,
}

impl Parts {
    /// Reads and checks everything that can be known without reading the weights.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let shape = ModelShape::from_gguf(gguf)?;
        Weights::check(gguf, &shape)?;
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        // More rows than tokens only fill up a block. A token without a row could not be computed.
        let (tokens, rows) = (tokenizer.vocab_size(), shape.vocab);
        if tokens > rows {
            let why = format!("{tokens} tokens for an embedding of {rows} rows");
            return Err(ModelError::Impossible { key: "tokenizer.ggml.tokens".to_owned(), why });
        }
        let chat = ChatTemplate::from_gguf(gguf, &tokenizer)?;
        Ok(Self { shape, tokenizer, chat })
    }
}

impl LanguageModel {
    /// What [`open`](Self::open) would refuse in a file, told without loading it; else its shape.
    pub fn check(gguf: &Gguf) -> Result<ModelShape, ModelError> {
        let shape = Parts::from_gguf(gguf)?.shape;
        Weights::check_values(gguf, &shape)?;
        Ok(shape)
    }

    /// Loads a GGUF file. `context` shortens the model's own longest context, in tokens.
    pub fn open(path: &Path, context: Option<usize>) -> Result<Self, ModelError> {
        let gguf = Gguf::open(path)?;
        let Parts { shape, tokenizer, chat } = Parts::from_gguf(&gguf)?;
        let weights = Weights::from_gguf(&gguf, &shape)?;
        let context = context.map_or(shape.context, |wanted| wanted.min(shape.context));
        let factors = match shape.rope_scaling {
            RopeScaling::None => None,
            RopeScaling::Linear { factor } => Some(vec![factor; shape.rope_dims / 2]),
        };
        let rope = RopeTable::new(shape.rope_dims, shape.rope_base, context, factors.as_deref());
        let id = ModelId { fingerprint: gguf.fingerprint(), layers: shape.layers, heads: shape.heads };
        Ok(Self { shape, weights, tokenizer, chat, rope, context, id })
    }

    /// The name of the output head's tensor.
    pub(crate) fn head_tensor(&self) -> &'static str {
        if self.shape.tied_output { "token_embd.weight" } else { "output.weight" }
    }

    /// The longest context, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What a profile has to fit.
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// The sizes attention works with.
    pub(crate) fn head_shape(&self) -> HeadShape {
        let ModelShape { heads, kv_heads, head_dim, .. } = self.shape;
        HeadShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
    }

    /// The sizes the cache works with.
    pub fn cache_shape(&self) -> CacheShape {
        let ModelShape { layers, kv_heads, head_dim, .. } = self.shape;
        CacheShape { layers, kv_heads, head_dim }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, gguf_file::Value};

    use super::*;
    use crate::model::{ChatMessage, Role, tiny::Tiny};

    fn with(key: &str, value: Value) -> Tiny {
        Tiny { metadata: vec![(key.to_owned(), value)], ..Tiny::default() }
    }

    #[test]
    fn what_cannot_be_opened_is_told_without_loading_it() {
        let texts = |texts: &[&str]| Value::Array(texts.iter().map(|&text| Value::String(text.into())).collect());
        let cases = [
            (Tiny { rows: Some(300), without: vec!["llama.vocab_size".into()], ..Tiny::default() }, "320 tokens for"),
            (with("llama.context_length", Value::U32(1_000_000_000)), "context_length"),
            (with("tokenizer.ggml.eos_token_id", Value::U32(320)), "eos_token_id"),
            (with("tokenizer.ggml.model", Value::String("llama".into())), "tokenizer `llama`"),
            (with("tokenizer.ggml.merges", texts(&["not-two"])), "merges"),
            (Tiny { chat_template: Some("{% for %}".into()), ..Tiny::default() }, "chat template"),
            (Tiny { dtype: GgmlDType::Q8_1, ..Tiny::default() }, "Q8_1"),
            // candle panics where a row has an odd number of these blocks.
            (Tiny { dtype: GgmlDType::Q5_1, hidden: 32, ..Tiny::default() }, "odd number of Q5_1"),
            (Tiny { dtype: GgmlDType::Q5_0, hidden: 96, ..Tiny::default() }, "odd number of Q5_0"),
        ];
        for (tiny, word) in cases {
            let path = tiny.temp();
            let told = LanguageModel::check(&Gguf::open(&path).unwrap()).expect_err(word).to_string();
            assert!(told.contains(word) && told.lines().count() == 1, "{word}: {told}");
            assert_eq!(LanguageModel::open(&path, None).err().map(|error| error.to_string()), Some(told));
        }
        let padded = Tiny { rows: Some(352), without: vec!["llama.vocab_size".into()], ..Tiny::default() };
        let model = LanguageModel::open(&padded.temp(), None).unwrap();
        assert_eq!((model.shape.vocab, model.tokenizer.vocab_size()), (352, 320));
        let hello = [ChatMessage::new(Role::User, "hello")];
        assert!(model.chat.prompt(&model.tokenizer, &hello).is_ok());
    }

    #[test]
    fn a_context_of_millions_takes_no_memory_before_it_is_used() {
        let context = 10 << 20;
        let model = LanguageModel::open(&Tiny { context, ..Tiny::default() }.temp(), None).unwrap();
        assert_eq!((model.context(), model.rope.context()), (context, context));
    }
}
