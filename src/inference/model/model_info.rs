//! What a model file says about itself, for `kcache model info`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{ChatMessage, Gguf, ModelError, ModelShape, Role, Weights, language_model::Parts};
use crate::files;

/// A model file in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// The file.
    #[serde(serialize_with = "files::serialize")]
    pub path: PathBuf,
    /// Its bytes.
    pub file_bytes: u64,
    /// The licence, as the file names it.
    pub licence: Option<String>,
    /// Weights, counted one by one.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub(crate) tensor_bytes: u64,
    /// The tensors by type, the largest share first.
    pub types: Vec<TypeShare>,
    /// Sizes and constants.
    pub shape: ModelShape,
    /// Bytes that K and V of one token take in f16; half of it is K.
    pub kv_bytes_per_token: u64,
    /// Bytes that K and V of the longest context take in f16.
    pub kv_bytes_full_context: u64,
    /// The kinds of tokenizer and pre-tokenizer.
    pub tokenizer: String,
    /// Whether the file brings a chat template.
    pub chat_template: bool,
    /// Why no conversation can be had with it, where that is so.
    pub refused: Option<String>,
}

/// The tensors of one type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TypeShare {
    /// The type, as ggml writes it.
    pub dtype: String,
    /// How many tensors.
    pub tensors: usize,
    /// Their weights.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ModelInfo {
    /// Reads it from an open file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let shape = ModelShape::from_gguf(gguf)?;
        let mut types: BTreeMap<String, TypeShare> = BTreeMap::new();
        for name in gguf.tensor_names() {
            let tensor = gguf.tensor(name)?;
            let dtype = format!("{:?}", tensor.dtype);
            let share = types.entry(dtype.clone()).or_insert(TypeShare { dtype, tensors: 0, parameters: 0, bytes: 0 });
            share.tensors += 1;
            share.parameters += (tensor.rows * tensor.cols) as u64;
            share.bytes += tensor.bytes.len() as u64;
        }
        let mut types: Vec<_> = types.into_values().collect();
        types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        let text = |key| gguf.find::<&str>(key).map(|text| text.map(str::to_owned));
        let kind = text("tokenizer.ggml.model")?.unwrap_or_else(|| "none".to_owned());
        let pre = text("tokenizer.ggml.pre")?;
        Ok(Self {
            path: gguf.path().to_owned(),
            file_bytes: gguf.file_bytes(),
            licence: text("general.license")?,
            parameters: types.iter().map(|share| share.parameters).sum(),
            tensor_bytes: types.iter().map(|share| share.bytes).sum(),
            types,
            kv_bytes_per_token: shape.kv_bytes_per_token(),
            kv_bytes_full_context: shape.kv_bytes_per_token() * shape.context as u64,
            shape,
            tokenizer: pre.map_or(kind.clone(), |pre| format!("{kind}, {pre}")),
            chat_template: text("tokenizer.chat_template")?.is_some(),
            refused: refusal(gguf).map(|error| error.to_string()),
        })
    }
}

/// What a start with this file, or the first message to it, would end with.
fn refusal(gguf: &Gguf) -> Option<ModelError> {
    let parts = match Parts::from_gguf(gguf) {
        Ok(parts) => parts,
        Err(error) => return Some(error),
    };
    if let Err(error) = Weights::check_values(gguf, &parts.shape) {
        return Some(error);
    }
    let talk = [ChatMessage::new(Role::System, "Be brief."), ChatMessage::new(Role::User, "Hello")];
    let prompt = |messages| parts.chat.prompt(&parts.tokenizer, messages).err();
    // Some templates know no system message, and some need one.
    prompt(&talk[1..]).filter(|_| prompt(&talk).is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::model::source;

    #[test]
    fn the_default_models_card() {
        let path = source::ensure_default(&mut |_| {}, &AtomicBool::new(false)).expect("the default model is there");
        let info = ModelInfo::from_gguf(&Gguf::open(&path).unwrap()).unwrap();
        assert_eq!(info.parameters, 134_515_008);
        assert_eq!((info.kv_bytes_per_token, info.kv_bytes_full_context), (23_040, 23_040 * 8192));
        assert_eq!(info.licence.as_deref(), Some("apache-2.0"));
        let types: Vec<_> = info.types.iter().map(|share| (share.dtype.as_str(), share.tensors)).collect();
        assert_eq!(types, [("Q4_1", 210), ("Q8_0", 1), ("F32", 61)]);
        assert_eq!(info.refused, None);
        assert!(info.tensor_bytes < info.file_bytes && info.tensor_bytes > info.file_bytes * 9 / 10);
        let shape = &info.shape;
        assert_eq!((shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim), (30, 576, 9, 3, 64));
        assert_eq!((shape.ffn, shape.vocab, shape.context, shape.tied_output), (1536, 49_152, 8192, true));
        assert_eq!((shape.rope_base, info.tokenizer.as_str(), info.chat_template), (100_000.0, "gpt2, smollm", true));
    }
}
