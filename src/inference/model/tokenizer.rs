//! Text to tokens and back, exactly as the model was trained: byte-level BPE rebuilt from the vocabulary in the file.
//!
//! Control tokens (`<|im_end|>` and the like) are never made from ordinary text: [`Tokenizer::encode`] spells them out
//! as characters. Only those that a chat template wrote become tokens: see `chat_template.rs`.

use std::collections::HashMap;

use tokenizers::{
    PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as Pipeline,
    models::bpe::BPE,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{Gguf, ModelError};

/// A model's tokenizer.
pub struct Tokenizer {
    pipeline: Pipeline,
    vocabulary: Vocabulary,
    added: Added,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    ends: Vec<u32>,
}

/// A part of a text, as [`Tokenizer::split_control`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Plain(&'t str),
    Control(u32),
}

impl Tokenizer {
    /// Rebuilds the tokenizer of a model file. A kind that is not known exactly is refused.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let model = gguf.str("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(ModelError::Tokenizer {
                what: format!("tokenizer `{model}`"),
                why: "byte-level BPE, `gpt2`, is".to_owned(),
            });
        }
        let pre = Pre::named(gguf.find::<&str>("tokenizer.ggml.pre")?.unwrap_or("default"))?;

        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        let kinds = match gguf.find::<Vec<i32>>("tokenizer.ggml.token_type")? {
            Some(kinds) if kinds.len() != tokens.len() => {
                let why = format!("{} kinds for {} tokens", kinds.len(), tokens.len());
                return Err(ModelError::Impossible { key: "tokenizer.ggml.token_type".to_owned(), why });
            }
            Some(kinds) => kinds,
            None => vec![NORMAL; tokens.len()],
        };
        let key = "tokenizer.ggml.merges";
        let merges: Vec<_> = gguf
            .strings(key)?
            .into_iter()
            .map(|merge| {
                let (left, right) = merge.split_once(' ').ok_or_else(|| ModelError::Impossible {
                    key: key.to_owned(),
                    why: format!("`{merge}` is not two tokens"),
                })?;
                Ok((left.to_owned(), right.to_owned()))
            })
            .collect::<Result<_, ModelError>>()?;

        // Ids are u32 in every file; a list longer than that would not fit one.
        let ids = || tokens.iter().zip(0u32..).map(|(token, id)| ((*token).to_owned(), id));
        let by_text: HashMap<String, u32> = ids().collect();
        let bytes = ByteChars::new();
        // Vocabularies do leave out bytes that their training text never had (the default model's has no U+0004), but
        // one without letters is not byte-level at all.
        let mut expected = (b' '..=b'~').chain([b'\n']);
        if let Some(missing) = expected.find(|&byte| !by_text.contains_key(&bytes.char_of(byte).to_string())) {
            let why = format!("`{}` has no token", missing.escape_ascii());
            return Err(ModelError::Impossible { key: "tokenizer.ggml.tokens".to_owned(), why });
        }
        let vocabulary = Vocabulary::new(&tokens, &kinds, &bytes);
        let added = Added::new(&tokens, &kinds);

        let id_under = |key: &str| -> Result<Option<u32>, ModelError> {
            match gguf.find::<u32>(key)? {
                Some(id) if id as usize >= tokens.len() => {
                    let why = format!("{id} is beyond the {} tokens", tokens.len());
                    Err(ModelError::Impossible { key: key.to_owned(), why })
                }
                id => Ok(id),
            }
        };
        let bos = id_under("tokenizer.ggml.bos_token_id")?;
        let eos = id_under("tokenizer.ggml.eos_token_id")?;
        let mut ends = Vec::from_iter(eos);
        ends.extend(id_under("tokenizer.ggml.eot_token_id")?);
        ends.extend(id_under("tokenizer.ggml.eom_token_id")?);
        ends.extend(
            END_SPELLINGS
                .iter()
                .filter_map(|text| by_text.get(*text).copied().filter(|&id| kinds[id as usize] == CONTROL)),
        );
        ends.sort_unstable();
        ends.dedup();
        let add_bos = gguf.find("tokenizer.ggml.add_bos_token")?.unwrap_or(pre.adds_bos);

        let bpe = BPE::builder()
            .vocab_and_merges(ids().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .ignore_merges(pre.ignores_merges)
            .build()
            .map_err(|error| ModelError::Impossible { key: key.to_owned(), why: error.to_string() })?;
        let mut pipeline = Pipeline::new(bpe);
        pipeline.with_pre_tokenizer(Some(pre.stages));
        Ok(Self { pipeline, vocabulary, added, bos, eos, add_bos, ends })
    }

    /// The tokens of a plain text. Spellings of control tokens in it stay characters. A byte that the vocabulary has no
    /// token for is left out, as the reference implementation does.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.encode_into(text, &mut ids);
        ids
    }

    /// The tokens of a text in which spellings of control tokens mean the tokens.
    #[cfg(test)]
    pub(crate) fn encode_with_control(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in self.split_control(text) {
            match piece {
                Piece::Plain(text) => self.encode_into(text, &mut ids),
                Piece::Control(id) => ids.push(id),
            }
        }
        ids
    }

    /// The text of `ids`, control tokens left out, incomplete UTF-8 as U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The text of one token by itself, a control token as it is spelled.
    pub(crate) fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.vocabulary.spelling(id)).into_owned()
    }

    /// Whether generation ends with this token.
    pub(crate) fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// Whether this is a control token: never made from ordinary text, never part of an answer's text.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.is_control(id)
    }

    /// The token that stands before a text, for models that were trained with one.
    pub fn bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// How many tokens there are.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The spelling of the BOS token, whether or not texts begin with it (chat templates may ask for it).
    pub(super) fn bos_text(&self) -> String {
        self.bos.map(|id| self.token_text(id)).unwrap_or_default()
    }

    /// The spelling of the EOS token.
    pub(super) fn eos_text(&self) -> String {
        self.eos.map(|id| self.token_text(id)).unwrap_or_default()
    }

    /// The bytes a token adds to a text: none for a control token or an id beyond the vocabulary.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        if self.is_control(id) { &[] } else { self.vocabulary.spelling(id) }
    }

    /// Splits a text at the spellings of control tokens, the longest first where several begin at one place.
    pub(super) fn split_control<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        self.added.split(text, |token| token.control)
    }

    /// Whether `text` begins with the spelling of a control token.
    pub(super) fn starts_with_control(&self, text: &str) -> bool {
        self.added.at(text, |token| token.control).is_some()
    }

    /// Control tokens with this spelling.
    pub(super) fn has_control(&self, spelling: &str) -> bool {
        self.added.at(spelling, |token| token.control && token.text == spelling).is_some()
    }

    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        for piece in self.added.split(text, |token| !token.control) {
            match piece {
                Piece::Control(id) => ids.push(id),
                Piece::Plain(text) => {
                    // Fails only with dropout or a rule for unknown tokens, and this BPE has neither.
                    let encoding = self.pipeline.encode_fast(text, false).expect("plain BPE encodes any text");
                    ids.extend_from_slice(encoding.get_ids());
                }
            }
        }
    }
}

/// Kinds of tokens, as `tokenizer.ggml.token_type` numbers them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Control tokens that end a turn or a text under these names, whether or not the metadata says so.
const END_SPELLINGS: [&str; 7] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "</s>"];

/// How a text is cut before BPE.
struct Pre {
    stages: Sequence,
    ignores_merges: bool,
    adds_bos: bool,
}

impl Pre {
    fn named(name: &str) -> Result<Self, ModelError> {
        let split = |pattern: &str| -> PreTokenizerWrapper {
            Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
                .expect("a fixed pattern")
                .into()
        };
        // With the regex of GPT-2, or after another one that has already cut the text.
        let bytes = |use_regex| -> PreTokenizerWrapper { ByteLevel::new(false, true, use_regex).into() };
        let stages = match name {
            "gpt-2" | "gpt2" => vec![bytes(true)],
            "smollm" => vec![split(r"\p{N}"), bytes(true)],
            "llama-bpe" => vec![split(LLAMA_3), bytes(false)],
            _ => {
                return Err(ModelError::Tokenizer {
                    what: format!("pre-tokenizer `{name}`"),
                    why: "`smollm`, `gpt-2` and `llama-bpe` are".to_owned(),
                });
            }
        };
        let llama = name == "llama-bpe";
        Ok(Self { stages: Sequence::new(stages), ignores_merges: llama, adds_bos: llama })
    }
}

/// The published pattern of Llama 3.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// GPT-2's table: every byte as a printable character, so that BPE works on text.
struct ByteChars {
    chars: [char; 256],
    bytes: HashMap<char, u8>,
}

impl ByteChars {
    fn new() -> Self {
        let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        // Bytes that do not print take the characters from U+0100 on, in their own order.
        let mut spare = ('\u{100}'..).take(256);
        let chars = std::array::from_fn(|byte| match byte as u8 {
            byte if printable(byte) => char::from(byte),
            _ => spare.next().unwrap_or_default(),
        });
        Self { chars, bytes: (0..=u8::MAX).map(|byte| (chars[usize::from(byte)], byte)).collect() }
    }

    fn char_of(&self, byte: u8) -> char {
        self.chars[usize::from(byte)]
    }
}

/// The bytes of every token, end to end.
struct Vocabulary {
    bytes: Vec<u8>,
    /// `starts[id]..starts[id + 1]` are the bytes of `id`.
    starts: Vec<u32>,
    control: Vec<bool>,
}

impl Vocabulary {
    fn new(tokens: &[&str], kinds: &[i32], table: &ByteChars) -> Self {
        let mut bytes = Vec::new();
        let mut starts = vec![0];
        for (token, &kind) in tokens.iter().zip(kinds) {
            let encoded: Option<Vec<u8>> = token.chars().map(|c| table.bytes.get(&c).copied()).collect();
            match encoded {
                Some(encoded) if kind == NORMAL => bytes.extend_from_slice(&encoded),
                // Added tokens are spelled as they are.
                _ => bytes.extend_from_slice(token.as_bytes()),
            }
            starts.push(bytes.len() as u32);
        }
        Self { bytes, starts, control: kinds.iter().map(|&kind| kind == CONTROL).collect() }
    }

    fn len(&self) -> usize {
        self.control.len()
    }

    fn spelling(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..id as usize + 2) {
            Some(&[start, end]) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).is_some_and(|&control| control)
    }
}

/// Tokens that are found in a text as they are spelled, before BPE: control tokens and those a user defined.
struct Added {
    /// By first byte, each list with the longest spelling first.
    by_first: [Vec<AddedToken>; 256],
}

struct AddedToken {
    text: String,
    id: u32,
    control: bool,
}

impl Added {
    fn new(tokens: &[&str], kinds: &[i32]) -> Self {
        let mut by_first = [const { Vec::new() }; 256];
        for ((text, &kind), id) in tokens.iter().zip(kinds).zip(0..) {
            // A spelling of one character could not be told from ordinary text.
            if matches!(kind, CONTROL | USER_DEFINED) && text.chars().nth(1).is_some() {
                let token = AddedToken { text: (*text).to_owned(), id, control: kind == CONTROL };
                by_first[usize::from(text.as_bytes()[0])].push(token);
            }
        }
        for tokens in &mut by_first {
            tokens.sort_by_key(|token: &AddedToken| std::cmp::Reverse(token.text.len()));
        }
        Self { by_first }
    }

    /// The longest wanted token that `text` begins with.
    fn at(&self, text: &str, wanted: impl Fn(&AddedToken) -> bool) -> Option<&AddedToken> {
        let tokens = &self.by_first[usize::from(*text.as_bytes().first()?)];
        tokens.iter().find(|token| wanted(token) && text.starts_with(&token.text))
    }

    fn split<'t>(&self, text: &'t str, wanted: impl Fn(&AddedToken) -> bool) -> Vec<Piece<'t>> {
        let mut pieces = Vec::new();
        let (mut plain, mut at) = (0, 0);
        while at < text.len() {
            // A token begins with a whole character, so looking at bytes inside of one finds none.
            let found = if text.is_char_boundary(at) { self.at(&text[at..], &wanted) } else { None };
            let Some(token) = found else {
                at += 1;
                continue;
            };
            if plain < at {
                pieces.push(Piece::Plain(&text[plain..at]));
            }
            pieces.push(Piece::Control(token.id));
            at += token.text.len();
            plain = at;
        }
        if plain < text.len() {
            pieces.push(Piece::Plain(&text[plain..]));
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
