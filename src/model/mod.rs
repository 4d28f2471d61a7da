//! A GGUF file as a model: shape, weights, tokenizer, chat template, forward pass, and where files come from.

mod card;
mod chat;
mod checksum;
mod clock;
mod error;
mod gguf;
mod header;
mod hub;
mod shape;
pub mod source;
mod stream;
mod tokenizer;
mod wheel;

pub use card::{ModelCard, TypeShare};
pub use chat::{ChatTemplate, Message, Role};
pub use error::ModelError;
pub use gguf::{Gguf, TensorView};
pub use header::Metadata;
pub use shape::{ModelShape, RopeScaling};
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
