//! A model, whole: everything that is the same for all lanes and sessions.

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

impl LanguageModel {
    /// Loads a GGUF file. `context` shortens the model's own longest context, in tokens.
    pub fn open(path: &Path, context: Option<usize>) -> Result<Self, ModelError> {
        let gguf = Gguf::open(path)?;
        let shape = ModelShape::from_gguf(&gguf)?;
        let weights = Weights::from_gguf(&gguf, &shape)?;
        let tokenizer = Tokenizer::from_gguf(&gguf)?;
        let chat = ChatTemplate::from_gguf(&gguf, &tokenizer)?;
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
    pub fn head_tensor(&self) -> &'static str {
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
    pub fn head_shape(&self) -> HeadShape {
        let ModelShape { heads, kv_heads, head_dim, .. } = self.shape;
        HeadShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
    }

    /// The sizes the cache works with.
    pub fn cache_shape(&self) -> CacheShape {
        let ModelShape { layers, kv_heads, head_dim, .. } = self.shape;
        CacheShape { layers, kv_heads, head_dim }
    }
}
