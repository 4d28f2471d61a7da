//! A GGUF file as a model: shape, weights, tokenizer, chat template, forward pass, and where files come from.

mod batch_item;
mod chat_template;
mod clock;
mod detokenizer;
mod device;
mod error;
mod forward;
mod gguf;
mod header;
mod language_model;
mod model_info;
mod not_finite;
mod shape;
pub mod source;
mod template;
mod tokenizer;
mod weights;

pub use batch_item::{BatchItem, LogitRows, PassTimes, Reading, Traffic};
pub use chat_template::{ChatMessage, ChatTemplate, Role};
pub use clock::strftime_now;
pub(crate) use detokenizer::Detokenizer;
pub use device::{CpuDevice, Device};
pub use error::ModelError;
pub use forward::{Forward, StepSize};
pub use gguf::{Gguf, TensorView};
pub use header::Metadata;
pub use language_model::LanguageModel;
pub use model_info::{ModelInfo, TypeShare};
pub use not_finite::NotFinite;
pub use shape::{ModelShape, RopeScaling};
pub use tokenizer::Tokenizer;
pub(crate) use weights::LayerWeights;
pub use weights::Weights;

#[cfg(test)]
#[path = "../../../tests/support/tiny.rs"]
pub(crate) mod tiny;
