//! A GGUF file as a model: shape, weights, tokenizer, chat template, forward pass, and where files come from.

mod card;
mod chat;
mod clock;
mod error;
mod forward;
mod gguf;
mod header;
mod language_model;
mod not_finite;
mod shape;
pub mod source;
mod span;
mod stream;
mod template;
mod tokenizer;
mod weights;

pub use card::{ModelCard, TypeShare};
pub use chat::{ChatTemplate, Message, Role};
pub(crate) use clock::strftime_now;
pub use error::ModelError;
pub use forward::{Forward, StepSize};
pub use gguf::{Gguf, TensorView};
pub use header::Metadata;
pub use language_model::LanguageModel;
pub use not_finite::NotFinite;
pub use shape::{ModelShape, RopeScaling};
pub use span::{LogitRows, PassTimes, Reading, Span, Traffic};
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
pub use weights::{LayerWeights, Weights};

#[cfg(test)]
#[path = "../../tests/support/tiny.rs"]
pub(crate) mod tiny;
