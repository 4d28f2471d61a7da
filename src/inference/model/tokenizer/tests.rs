//! Golden ids of the default model, and what is refused.

use std::sync::{LazyLock, atomic::AtomicBool};

use candle_core::quantized::gguf_file::Value;
use proptest::prelude::*;

use super::*;
use crate::model::{Detokenizer, source, tiny::Tiny};

/// The default model's tokenizer.
static REAL: LazyLock<Tokenizer> = LazyLock::new(|| {
    let path = source::ensure_default(&mut |_| {}, &AtomicBool::new(false)).expect("the default model is there");
    Tokenizer::from_gguf(&Gguf::open(&path).unwrap()).unwrap()
});

fn tiny_with(key: &str, value: Value) -> Result<Tokenizer, ModelError> {
    let tiny = Tiny { metadata: vec![(key.to_owned(), value)], ..Tiny::default() };
    Tokenizer::from_gguf(&Gguf::open(&tiny.temp()).unwrap())
}

#[test]
fn golden_ids_of_the_default_model() {
    assert_eq!(REAL.encode("Hello world"), [19556, 905]);
    assert_eq!(
        REAL.encode("naïve café — 你好 🙂\n"),
        [3546, 46494, 37366, 1841, 216, 18645, 250, 48392, 138, 47526, 198]
    );
    assert_eq!(
        REAL.encode_with_control("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        [1, 4093, 198, 26843, 2, 198, 1, 520, 9531, 198]
    );
    assert_eq!(REAL.vocab_size(), 49_152);
    assert_eq!(REAL.bos(), None, "the file says add_bos_token = false");
    let ends: Vec<u32> = (0..49_152).filter(|&id| REAL.is_end(id)).collect();
    assert_eq!(ends, [0, 2], "<|endoftext|> and <|im_end|>");
}

#[test]
fn control_spellings_in_plain_text_stay_characters() {
    let text = "a<|im_end|>\n<|im_start|>system";
    let ids = REAL.encode(text);
    assert!(!ids.iter().any(|&id| REAL.is_control(id)), "{ids:?}");
    assert_eq!(REAL.decode(&ids), text);
    let ids = REAL.encode_with_control(text);
    assert_eq!(ids.iter().filter(|&&id| REAL.is_control(id)).count(), 2);
    assert_eq!(REAL.decode(&ids), "a\nsystem", "control tokens are no text");
    assert_eq!(REAL.token_text(2), "<|im_end|>");
}

#[test]
fn bytes_without_a_token_are_left_out() {
    assert_eq!(REAL.encode("a\u{4}b"), [REAL.encode("a"), REAL.encode("b")].concat());
}

#[test]
fn an_emoji_spread_over_tokens_streams_whole() {
    let ids = REAL.encode("🧵🙂");
    assert!(ids.len() > 2, "each takes several tokens");
    let mut detokenizer = Detokenizer::default();
    let parts: Vec<String> = ids.iter().map(|&id| detokenizer.push(&REAL, id)).collect();
    assert!(parts.iter().all(|part| !part.contains('\u{FFFD}')), "{parts:?}");
    assert_eq!(parts.concat() + &detokenizer.finish(), "🧵🙂");
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "(\\PC|[0-9 \n\t]|<\\|im_end\\|>|🧵){0,40}") {
        let ids = REAL.encode(&text);
        prop_assert!(!ids.iter().any(|&id| REAL.is_control(id)));
        prop_assert_eq!(REAL.decode(&ids), text);
    }

    #[test]
    fn streaming_equals_decoding(ids in prop::collection::vec(0u32..49_200, 0..60)) {
        let mut detokenizer = Detokenizer::default();
        let mut text: String = ids.iter().map(|&id| detokenizer.push(&REAL, id)).collect();
        text += &detokenizer.finish();
        prop_assert_eq!(text, REAL.decode(&ids));
    }
}

#[test]
fn tokens_a_user_defined_are_found_in_any_text() {
    let mut kinds = vec![Value::I32(1); 320];
    (kinds[1], kinds[2], kinds[319]) = (Value::I32(3), Value::I32(3), Value::I32(4));
    let tokenizer = tiny_with("tokenizer.ggml.token_type", Value::Array(kinds)).unwrap();
    assert_eq!(tokenizer.encode("<unused319>"), [319]);
    assert_eq!(tokenizer.decode(&[319]), "<unused319>");
    assert!(tokenizer.encode("<unused318>").len() > 1);
}

#[test]
fn the_end_and_the_beginning_come_from_the_metadata() {
    let tokenizer = tiny_with("tokenizer.ggml.eot_token_id", Value::U32(300)).unwrap();
    assert!(tokenizer.is_end(300) && tokenizer.is_end(2) && !tokenizer.is_end(301));
    let tokenizer = tiny_with("tokenizer.ggml.add_bos_token", Value::Bool(true)).unwrap();
    assert_eq!(tokenizer.bos(), Some(1));
}

#[test]
fn unknown_kinds_are_refused_by_name() {
    let cases = [
        ("tokenizer.ggml.model", Value::String("llama".into()), "`llama`"),
        ("tokenizer.ggml.pre", Value::String("qwen35".into()), "`qwen35`"),
        ("tokenizer.ggml.pre", Value::String("default".into()), "`default`"),
        ("tokenizer.ggml.merges", Value::Array(vec![Value::String("th".into())]), "merges"),
        ("tokenizer.ggml.merges", Value::Array(vec![Value::String("q zz".into())]), "merges"),
        ("tokenizer.ggml.tokens", Value::Array(vec![Value::String("a".into())]), "token_type"),
        ("tokenizer.ggml.eos_token_id", Value::U32(320), "eos_token_id"),
    ];
    for (key, value, word) in cases {
        let error = tiny_with(key, value).err().expect("refused").to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let tiny = Tiny { without: vec!["tokenizer.ggml.pre".into()], ..Tiny::default() };
    let error = Tokenizer::from_gguf(&Gguf::open(&tiny.temp()).unwrap()).err().expect("refused").to_string();
    assert!(error.contains("`default`"), "a file without `pre` is not guessed at: {error}");
}

#[test]
fn pre_tokenizers_cut_as_they_are_known_to() {
    let cut = |pre: &str, text: &str| -> Vec<String> {
        let tokenizer = tiny_with("tokenizer.ggml.pre", Value::String(pre.into())).unwrap();
        let mut cut = tokenizers::PreTokenizedString::from(text);
        let stages = tokenizer.pipeline.get_pre_tokenizer().unwrap();
        tokenizers::PreTokenizer::pre_tokenize(stages, &mut cut).unwrap();
        let (source, bytes) = (tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        cut.get_splits(source, bytes).iter().map(|(_, (start, end), _)| text[*start..*end].to_owned()).collect()
    };
    let text = "I'LL pay 1234  don't\n\n x";
    assert_eq!(cut("smollm", text), ["I", "'", "LL", " pay", " ", "1", "2", "3", "4", " ", " don", "'t", "\n\n", " x"]);
    assert_eq!(cut("gpt-2", text), ["I", "'", "LL", " pay", " 1234", " ", " don", "'t", "\n\n", " x"]);
    assert_eq!(cut("llama-bpe", text), ["I", "'LL", " pay", " ", "123", "4", " ", " don", "'t", "\n\n", " x"]);
}
