//! The shape of a llama model, read from the metadata and checked against the tensors.

use half::f16;
use serde::Serialize;

use super::{Gguf, ModelError, source};

/// The sizes and constants that the forward pass needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelShape {
    /// The name of a known model, else the model's own name, else its file's.
    pub name: String,
    /// `llama`.
    pub architecture: String,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer: `heads` is MHA, 1 is MQA, in between is GQA.
    pub kv_heads: usize,
    /// Values in one head's vector.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The longest context the model was made for, in tokens.
    pub context: usize,
    /// Leading values of each head's vector that are rotated, in interleaved pairs.
    pub rope_dims: usize,
    /// Base of the rotation's frequencies.
    pub rope_base: f32,
    /// How positions are stretched.
    pub rope_scaling: RopeScaling,
    /// Epsilon of the RMS norms.
    pub norm_eps: f32,
    /// Whether the output head is the embedding.
    pub tied_output: bool,
}

/// How positions are stretched for contexts longer than the model was first trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every position is divided by `factor`.
    Linear {
        /// At least 1.
        factor: f32,
    },
}

const ARCHITECTURE: &str = "llama";
/// No model is near it, and products of three sizes below it cannot overflow.
const MAX_SIZE: usize = 1 << 20;
/// The longest context that is believed, in tokens: no model's is as long.
const MAX_CONTEXT: usize = 1 << 24;

impl ModelShape {
    /// Reads the shape, refuses what is not computed here, and checks that every tensor is there in its size.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let architecture = gguf.str("general.architecture")?;
        if architecture != ARCHITECTURE {
            return Err(ModelError::Architecture { architecture: architecture.to_owned() });
        }
        let known = source::KNOWN.iter().find(|known| gguf.path().file_name() == Some(known.file_name.as_ref()));
        let name = match (known, gguf.find::<&str>("general.name")?) {
            // What a converter wrote into the file is often a list of training runs.
            (Some(known), _) => known.name.to_owned(),
            (None, Some(name)) if !name.trim().is_empty() => name.trim().to_owned(),
            _ => gguf.path().file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let heads = positive(gguf, "llama.attention.head_count")?;
        let hidden = positive(gguf, "llama.embedding_length")?;
        let head_dim = match gguf.find("llama.attention.key_length")? {
            Some(dim) => dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(impossible("llama.attention.head_count", format!("{heads} heads do not divide {hidden}")));
            }
        };
        let shape = Self {
            name,
            architecture: ARCHITECTURE.to_owned(),
            layers: positive(gguf, "llama.block_count")?,
            hidden,
            heads,
            kv_heads: gguf.find("llama.attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            ffn: positive(gguf, "llama.feed_forward_length")?,
            // The embedding decides: `llama.vocab_size` is not in every file.
            vocab: gguf.tensor("token_embd.weight")?.rows,
            context: positive(gguf, "llama.context_length")?,
            rope_dims: gguf.find("llama.rope.dimension_count")?.unwrap_or(head_dim),
            rope_base: gguf.find("llama.rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: rope_scaling(gguf)?,
            norm_eps: gguf.f32("llama.attention.layer_norm_rms_epsilon")?,
            tied_output: !gguf.has_tensor("output.weight"),
        };
        shape.check(gguf)?;
        shape.check_tensors(gguf)?;
        Ok(shape)
    }

    /// Bytes that K and V of one token take over all layers, in f16.
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * self.k_bytes_per_token()
    }

    /// Bytes that K (or V) of one token takes over all layers, in f16.
    pub(crate) fn k_bytes_per_token(&self) -> u64 {
        (self.layers * self.kv_heads * self.head_dim * size_of::<f16>()) as u64
    }

    fn check(&self, gguf: &Gguf) -> Result<(), ModelError> {
        let Self { layers, hidden, heads, kv_heads, head_dim, ffn, rope_dims, vocab, .. } = *self;
        if let Some(size) = [layers, hidden, heads, kv_heads, head_dim, ffn].into_iter().find(|&size| size > MAX_SIZE) {
            return Err(impossible("general.architecture", format!("a llama with a size of {size}")));
        }
        if self.context > MAX_CONTEXT {
            let why = format!("{} tokens are more than any model was made for; {MAX_CONTEXT} are read", self.context);
            return Err(impossible("llama.context_length", why));
        }
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let why = format!("{heads} query heads cannot share {kv_heads} KV heads evenly");
            return Err(impossible("llama.attention.head_count_kv", why));
        }
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            let why = format!("a head of {head_dim} values has no pairs to rotate");
            return Err(impossible("llama.attention.key_length", why));
        }
        if let Some(value_dim) = gguf.find::<usize>("llama.attention.value_length")?
            && value_dim != head_dim
        {
            return Err(unsupported(&format!("heads of {head_dim} values in K and {value_dim} in V")));
        }
        if rope_dims == 0 || !rope_dims.is_multiple_of(2) || rope_dims > head_dim {
            let why = format!("{rope_dims} rotated values do not fit a head of {head_dim}");
            return Err(impossible("llama.rope.dimension_count", why));
        }
        if !(self.rope_base.is_finite() && self.rope_base > 1.0) {
            return Err(impossible("llama.rope.freq_base", format!("{} is no base", self.rope_base)));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            let why = format!("{} is no epsilon", self.norm_eps);
            return Err(impossible("llama.attention.layer_norm_rms_epsilon", why));
        }
        if let Some(said) = gguf.find::<usize>("llama.vocab_size")?
            && said != vocab
        {
            return Err(impossible("llama.vocab_size", format!("it is {said}, the embedding has {vocab} rows")));
        }
        match gguf.find::<usize>("llama.expert_count")? {
            Some(experts) if experts > 0 => Err(unsupported(&format!("a mixture of {experts} experts"))),
            _ => Ok(()),
        }
    }

    /// Every tensor of the model with its rows and columns, in the order of the forward pass.
    pub fn tensors(&self) -> impl Iterator<Item = (String, usize, usize)> + '_ {
        let Self { hidden, ffn, vocab, .. } = *self;
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let block = [
            ("attn_norm", 1, hidden),
            ("attn_q", q, hidden),
            ("attn_k", kv, hidden),
            ("attn_v", kv, hidden),
            ("attn_output", hidden, q),
            ("ffn_norm", 1, hidden),
            ("ffn_gate", ffn, hidden),
            ("ffn_up", ffn, hidden),
            ("ffn_down", hidden, ffn),
        ];
        let blocks = (0..self.layers).flat_map(move |layer| {
            block.into_iter().map(move |(part, rows, cols)| (format!("blk.{layer}.{part}.weight"), rows, cols))
        });
        let output = (!self.tied_output).then(|| ("output.weight".to_owned(), vocab, hidden));
        std::iter::once(("token_embd.weight".to_owned(), vocab, hidden))
            .chain(blocks)
            .chain([("output_norm.weight".to_owned(), 1, hidden)])
            .chain(output)
    }

    /// A missing tensor, one of another size, or one nobody would use all mean that the result would be wrong.
    fn check_tensors(&self, gguf: &Gguf) -> Result<(), ModelError> {
        let mut known = std::collections::HashSet::new();
        for (name, rows, cols) in self.tensors() {
            let tensor = gguf.tensor(&name)?;
            if (tensor.rows, tensor.cols) != (rows, cols) {
                let size = |rows, cols| format!("{rows}×{cols}");
                let (found, expected) = (size(tensor.rows, tensor.cols), size(rows, cols));
                return Err(ModelError::TensorShape { name, found, expected });
            }
            known.insert(name);
        }
        match gguf.tensor_names().find(|name| !known.contains(*name)) {
            None => Ok(()),
            Some(name) if name.ends_with(".bias") => Err(unsupported(&format!("biases (tensor `{name}`)"))),
            Some(name) => Err(unsupported(&format!("tensor `{name}`"))),
        }
    }
}

fn rope_scaling(gguf: &Gguf) -> Result<RopeScaling, ModelError> {
    // Llama 3.1 and later keep their per-frequency stretch in a tensor and name no type.
    if let Some(name) = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"]
        .into_iter()
        .find(|name| gguf.has_tensor(name))
    {
        return Err(unsupported(&format!("rope frequencies stretched one by one (tensor `{name}`)")));
    }
    let key = "llama.rope.scaling.factor";
    match gguf.find::<&str>("llama.rope.scaling.type")? {
        None | Some("none") => match gguf.find::<f32>("llama.rope.scale_linear")? {
            Some(factor) => linear("llama.rope.scale_linear", factor),
            None => Ok(RopeScaling::None),
        },
        Some("linear") => linear(key, gguf.f32(key)?),
        Some(other) => Err(unsupported(&format!("rope scaling of type `{other}`"))),
    }
}

fn linear(key: &str, factor: f32) -> Result<RopeScaling, ModelError> {
    if !(factor.is_finite() && factor >= 1.0) {
        return Err(impossible(key, format!("{factor} does not stretch positions")));
    }
    Ok(if factor == 1.0 { RopeScaling::None } else { RopeScaling::Linear { factor } })
}

fn positive(gguf: &Gguf, key: &str) -> Result<usize, ModelError> {
    match gguf.usize(key)? {
        0 => Err(impossible(key, "it is 0".to_owned())),
        value => Ok(value),
    }
}

fn impossible(key: &str, why: String) -> ModelError {
    ModelError::Impossible { key: key.to_owned(), why }
}

fn unsupported(what: &str) -> ModelError {
    ModelError::Unsupported { what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::gguf_file::Value;

    use super::*;
    use crate::model::tiny::Tiny;

    fn shape_of(tiny: &Tiny) -> Result<ModelShape, ModelError> {
        ModelShape::from_gguf(&Gguf::open(&tiny.temp())?)
    }

    fn with(key: &str, value: Value) -> Tiny {
        Tiny { metadata: vec![(key.to_owned(), value)], ..Tiny::default() }
    }

    #[test]
    fn shapes_come_from_the_file() {
        for (heads, kv_heads, head_dim, tied) in
            [(4, 4, 16, true), (4, 2, 32, false), (4, 1, 8, true), (3, 1, 64, false)]
        {
            let shape = shape_of(&Tiny { heads, kv_heads, head_dim, tied, ..Tiny::default() }).unwrap();
            assert_eq!((shape.heads, shape.kv_heads, shape.head_dim), (heads, kv_heads, head_dim));
            assert_eq!(shape.tied_output, tied);
            assert_eq!((shape.layers, shape.hidden, shape.ffn, shape.vocab, shape.context), (2, 64, 128, 320, 512));
            assert_eq!(shape.kv_bytes_per_token(), (2 * 2 * 2 * kv_heads * head_dim) as u64);
        }
    }

    #[test]
    fn missing_keys_take_the_formats_defaults() {
        let without = [
            "llama.attention.head_count_kv",
            "llama.attention.key_length",
            "llama.rope.dimension_count",
            "llama.rope.freq_base",
            "llama.vocab_size",
            "general.name",
        ];
        let tiny = Tiny { kv_heads: 4, without: without.map(str::to_owned).to_vec(), ..Tiny::default() };
        let shape = shape_of(&tiny).unwrap();
        assert_eq!((shape.kv_heads, shape.head_dim, shape.rope_dims, shape.rope_base), (4, 16, 16, 10_000.0));
        assert!(!shape.name.is_empty() && shape.name != "tiny");
    }

    #[test]
    fn linear_rope_scaling_is_read() {
        let mut tiny = with("llama.rope.scaling.type", Value::String("linear".into()));
        tiny.metadata.push(("llama.rope.scaling.factor".into(), Value::F32(4.0)));
        assert_eq!(shape_of(&tiny).unwrap().rope_scaling, RopeScaling::Linear { factor: 4.0 });
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let cases = [
            (with("general.architecture", Value::String("mamba".into())), "mamba"),
            (with("llama.rope.scaling.type", Value::String("yarn".into())), "yarn"),
            (with("llama.expert_count", Value::U32(8)), "8 experts"),
            (with("llama.attention.head_count_kv", Value::U32(3)), "head_count_kv"),
            (with("llama.attention.key_length", Value::U32(15)), "15"),
            (with("llama.attention.value_length", Value::U32(32)), "32 in V"),
            (with("llama.rope.dimension_count", Value::U32(18)), "dimension_count"),
            (with("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)), "epsilon"),
            (with("llama.block_count", Value::U32(0)), "block_count"),
            (with("llama.block_count", Value::U32(u32::MAX)), "size"),
            (with("llama.block_count", Value::U32(3)), "blk.2."),
            (with("llama.block_count", Value::U32(1)), "blk.1."),
            (with("llama.feed_forward_length", Value::U32(160)), "160×64"),
            (with("llama.vocab_size", Value::U32(321)), "vocab_size"),
            (with("llama.context_length", Value::U32(1_000_000_000)), "1000000000 tokens"),
            (with("llama.context_length", Value::U64(u64::MAX)), "tokens"),
            (Tiny { without: vec!["llama.context_length".into()], ..Tiny::default() }, "context_length"),
        ];
        for (tiny, word) in cases {
            let error = shape_of(&tiny).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
