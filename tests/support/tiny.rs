//! Tiny llama models with random weights, written as GGUF files: any shape, any type, a real byte-level tokenizer and a
//! chat template. The same settings give the same file.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::Path,
};

use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Value},
    },
};

/// The settings of a tiny model.
#[derive(Debug, Clone)]
pub struct Tiny {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub ffn: usize,
    pub context: usize,
    /// At least [`Tiny::MIN_VOCAB`].
    pub vocab: usize,
    /// Rows of the embedding and of the output head, where there are not as many as tokens.
    pub rows: Option<usize>,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// The type of all matrices; vectors are F32. Its block must divide `hidden`, `ffn` and `heads * head_dim`.
    pub dtype: GgmlDType,
    /// Whether the matrices, rounded to `dtype`, are stored as F32: the same model for an oracle that rounds nothing.
    pub widened: bool,
    pub rope_base: f32,
    pub seed: u64,
    /// Whether the tokens that end an answer have embeddings of zeros and so, where the output is tied, logits of 0:
    /// among hundreds of random ones the largest is never theirs, and a greedy answer goes on for ever.
    pub endless: bool,
    pub chat_template: Option<String>,
    /// Metadata to add or to replace.
    pub metadata: Vec<(String, Value)>,
    /// Metadata to leave out.
    pub without: Vec<String>,
    /// Tensors to damage: bytes that are put over theirs, from a byte on.
    pub damage: Vec<(String, usize, Vec<u8>)>,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            layers: 2,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            ffn: 128,
            context: 512,
            vocab: 320,
            rows: None,
            tied: true,
            dtype: GgmlDType::F32,
            widened: false,
            rope_base: 10_000.0,
            seed: 1,
            endless: false,
            chat_template: Some(CHATML.to_owned()),
            metadata: Vec::new(),
            without: Vec::new(),
            damage: Vec::new(),
        }
    }
}

/// A template in the manner of the default model's, without a system message of its own.
pub const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
                          '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' \
                          }}{% endif %}";

const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [(&str, &str); 16] = [
    ("t", "h"),
    ("i", "n"),
    ("e", "r"),
    ("a", "n"),
    ("o", "n"),
    ("Ġ", "t"),
    ("Ġ", "a"),
    ("Ġ", "s"),
    ("h", "e"),
    ("l", "l"),
    ("Ġ", "th"),
    ("Ġ", "he"),
    ("he", "ll"),
    ("Ġth", "e"),
    ("in", "g"),
    ("hell", "o"),
];

impl Tiny {
    /// Control tokens, bytes and merges.
    pub const MIN_VOCAB: usize = CONTROL.len() + 256 + MERGES.len();

    /// Writes the model to `path`.
    pub fn write(&self, path: &Path) {
        let metadata = self.metadata();
        let tensors = self.tensors();
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut file = BufWriter::new(File::create(path).expect("the model file can be created"));
        gguf_file::write(&mut file, &metadata, &tensors).expect("the model file can be written");
        drop(file);
        let mut file = File::options().read(true).write(true).open(path).expect("the model file can be opened again");
        let written = gguf_file::Content::read(&mut file).expect("what was written is read back");
        for (tensor, at, bytes) in &self.damage {
            let start = written.tensor_data_offset + written.tensor_infos[tensor].offset + *at as u64;
            file.seek(SeekFrom::Start(start)).and_then(|_| file.write_all(bytes)).expect("the tensor can be damaged");
        }
    }

    /// Writes the model to a temporary file, which is removed with the value returned.
    pub fn temp(&self) -> tempfile::TempPath {
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().expect("there is a temporary folder");
        let path = file.into_temp_path();
        self.write(&path);
        path
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let size = |value: usize| Value::U32(value as u32);
        let text = |value: &str| Value::String(value.to_owned());
        let mut tokens: Vec<String> = CONTROL.iter().map(|token| (*token).to_owned()).collect();
        tokens.extend((0..=u8::MAX).map(byte_token));
        tokens.extend(MERGES.iter().map(|(left, right)| format!("{left}{right}")));
        assert!(self.vocab >= Self::MIN_VOCAB, "a vocabulary of {} is too small", self.vocab);
        tokens.extend((tokens.len()..self.vocab).map(|id| format!("<unused{id}>")));
        let kinds = (0..self.vocab).map(|id| Value::I32(if id < CONTROL.len() { 3 } else { 1 })).collect();
        let merges = MERGES.iter().map(|(left, right)| Value::String(format!("{left} {right}"))).collect();

        let mut entries: Vec<(&str, Value)> = vec![
            ("general.architecture", text("llama")),
            ("general.name", text("tiny")),
            ("llama.block_count", size(self.layers)),
            ("llama.context_length", size(self.context)),
            ("llama.embedding_length", size(self.hidden)),
            ("llama.feed_forward_length", size(self.ffn)),
            ("llama.attention.head_count", size(self.heads)),
            ("llama.attention.head_count_kv", size(self.kv_heads)),
            ("llama.attention.key_length", size(self.head_dim)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("llama.rope.dimension_count", size(self.head_dim)),
            ("llama.rope.freq_base", Value::F32(self.rope_base)),
            ("llama.vocab_size", size(self.vocab)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", Value::Array(tokens.into_iter().map(Value::String).collect())),
            ("tokenizer.ggml.token_type", Value::Array(kinds)),
            ("tokenizer.ggml.merges", Value::Array(merges)),
            ("tokenizer.ggml.bos_token_id", Value::U32(1)),
            ("tokenizer.ggml.eos_token_id", Value::U32(2)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ];
        if let Some(template) = &self.chat_template {
            entries.push(("tokenizer.chat_template", text(template)));
        }
        let mut entries: Vec<(String, Value)> =
            entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        entries.retain(|(key, _)| !self.without.contains(key) && !self.metadata.iter().any(|(other, _)| other == key));
        entries.extend(self.metadata.iter().cloned());
        entries
    }

    fn tensors(&self) -> Vec<(String, QTensor)> {
        let mut random = Random(self.seed);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let vocab = self.rows.unwrap_or(self.vocab);
        let mut embedding = random.values(vocab, self.hidden);
        if self.endless {
            for end in [0, 2] {
                embedding[end * self.hidden..][..self.hidden].fill(0.0);
            }
        }
        let embedding = self.matrix(embedding, vocab, self.hidden);
        let mut tensors = vec![("token_embd.weight".to_owned(), embedding)];
        for layer in 0..self.layers {
            let mut matrix = |part: &str, rows, cols| {
                tensors
                    .push((format!("blk.{layer}.{part}.weight"), self.matrix(random.values(rows, cols), rows, cols)));
            };
            matrix("attn_q", q, self.hidden);
            matrix("attn_k", kv, self.hidden);
            matrix("attn_v", kv, self.hidden);
            matrix("attn_output", self.hidden, q);
            matrix("ffn_gate", self.ffn, self.hidden);
            matrix("ffn_up", self.ffn, self.hidden);
            matrix("ffn_down", self.hidden, self.ffn);
            for part in ["attn_norm", "ffn_norm"] {
                tensors.push((format!("blk.{layer}.{part}.weight"), random.norm(self.hidden)));
            }
        }
        tensors.push(("output_norm.weight".to_owned(), random.norm(self.hidden)));
        if !self.tied {
            let output = random.values(vocab, self.hidden);
            tensors.push(("output.weight".to_owned(), self.matrix(output, vocab, self.hidden)));
        }
        tensors
    }

    fn matrix(&self, values: Vec<f32>, rows: usize, cols: usize) -> QTensor {
        let rounded = quantised(values, &[rows, cols], self.dtype);
        if !self.widened {
            return rounded;
        }
        let values = rounded.dequantize(&Device::Cpu).and_then(|values| values.flatten_all()?.to_vec1());
        quantised(values.expect("every type has values"), &[rows, cols], GgmlDType::F32)
    }
}

/// GPT-2's printable stand-in for a byte.
fn byte_token(byte: u8) -> String {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte).to_string();
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).expect("far below the surrogates").to_string()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// Uniform in -1..1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Values large enough for attention to be peaked rather than even.
    fn values(&mut self, rows: usize, cols: usize) -> Vec<f32> {
        let scale = 3.0 / (cols as f32).sqrt();
        (0..rows * cols).map(|_| self.next() * scale).collect()
    }

    fn norm(&mut self, len: usize) -> QTensor {
        let values: Vec<f32> = (0..len).map(|_| 1.0 + 0.1 * self.next()).collect();
        quantised(values, &[len], GgmlDType::F32)
    }
}

fn quantised(values: Vec<f32>, shape: &[usize], dtype: GgmlDType) -> QTensor {
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values as the shape has");
    QTensor::quantize(&tensor, dtype).expect("the type's block divides the shape")
}
