//! Why a model cannot be used: one line each, with what is wrong and what to do.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::kernels::LinearError;

/// Why a model file cannot be used.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ModelError {
    /// The file cannot be read at all.
    #[error("cannot open model `{}`: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The file is something else, or a version of GGUF that is not read.
    #[error("`{}` is not a model this program reads: {why}", path.display())]
    NotGguf { path: PathBuf, why: String },
    /// The file ends too early.
    #[error("model `{}` is incomplete: it ends at byte {found}, within {what}; fetch it again", path.display())]
    Truncated {
        path: PathBuf,
        /// Which part is cut off.
        what: String,
        /// Bytes the file has.
        found: u64,
    },
    /// The file contradicts itself.
    #[error("model `{}` is damaged: {why}; fetch it again", path.display())]
    Damaged { path: PathBuf, why: String },
    /// A tensor's bytes cannot be used as weights.
    #[error("tensor `{tensor}`: {source}")]
    Weights { tensor: String, source: LinearError },
    /// A tensor has a type that cannot be computed with.
    #[error(
        "tensor `{tensor}` has type {kind}, which is not supported; take a file quantised as Q4_0, Q4_1, Q5_0, Q5_1, \
         Q8_0, Q2_K to Q6_K, F16, BF16 or F32"
    )]
    TensorType { tensor: String, kind: String },
    /// A metadata key is not in the file.
    #[error("the model file has no `{key}`")]
    MissingKey { key: String },
    /// A metadata key holds another kind of value.
    #[error("`{key}` in the model file is not {expected}")]
    WrongKind { key: String, expected: &'static str },
    /// A metadata value that cannot be.
    #[error("`{key}` in the model file cannot be: {why}")]
    Impossible { key: String, why: String },
    /// A tensor is not in the file.
    #[error("the model file has no tensor `{name}`")]
    MissingTensor { name: String },
    /// A tensor has another size than the metadata promises.
    #[error("tensor `{name}` is {found}, but the metadata says {expected}")]
    TensorShape {
        name: String,
        /// Rows × columns in the file.
        found: String,
        /// Rows × columns by the metadata.
        expected: String,
    },
    /// The architecture is not one that is computed here.
    #[error("architecture `{architecture}` is not supported; supported is `llama` (Llama, SmolLM2, TinyLlama, …)")]
    Architecture { architecture: String },
    /// The model needs something that is not computed here.
    #[error("this model needs {what}, which is not supported")]
    Unsupported { what: String },
    /// The tokenizer cannot be rebuilt exactly.
    #[error("{what} is not supported ({why}); a near miss would answer worse without saying so, so it is refused")]
    Tokenizer {
        /// The kind of tokenizer or pre-tokenizer, with its name.
        what: String,
        why: String,
    },
    /// The chat template cannot be used.
    #[error("the model's chat template: {why}")]
    Template { why: String },
    /// The template writes earlier turns differently once a new one follows: the whole prompt has to be computed again.
    #[error("the model's chat template rewrites earlier turns, so the conversation cannot be continued in place")]
    NoContinuation,
}
