//! Text while it is generated: a character that is spread over several tokens is held back until it is whole.

use super::Tokenizer;

/// Decodes token by token. The parts it gives out are together exactly [`Tokenizer::decode`] of all tokens.
#[derive(Debug, Default)]
pub struct Detokenizer {
    pending: Utf8Buffer,
}

impl Detokenizer {
    /// The text that is complete with token `id`; may be empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.pending.push(tokenizer.bytes(id))
    }

    /// What is left at the end: U+FFFD for a character that was never completed.
    pub fn finish(&mut self) -> String {
        self.pending.finish()
    }
}

/// Bytes of at most one incomplete character.
#[derive(Debug, Default)]
struct Utf8Buffer(Vec<u8>);

impl Utf8Buffer {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.0.utf8_chunks() {
            let end = done + chunk.valid().len() + chunk.invalid().len();
            text.push_str(chunk.valid());
            // Invalid bytes at the very end may still become a character; elsewhere they never will.
            if end == self.0.len() && may_continue(chunk.invalid()) {
                done += chunk.valid().len();
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            done = end;
        }
        self.0.drain(..done);
        text
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// Whether `bytes` are a character so far.
fn may_continue(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_of_any_bytes_are_the_whole(bytes: Vec<u8>, cuts in prop::collection::vec(1usize..5, 0..40)) {
            let mut buffer = Utf8Buffer::default();
            let (mut text, mut rest) = (String::new(), &bytes[..]);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (part, after) = rest.split_at(cut.min(rest.len()));
                text += &buffer.push(part);
                prop_assert!(buffer.0.len() < 4, "only one character is held back");
                rest = after;
            }
            text += &buffer.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_character_appears_when_it_is_whole() {
        let mut buffer = Utf8Buffer::default();
        let parts: Vec<_> = "🙂é".bytes().map(|byte| buffer.push(&[byte])).collect();
        assert_eq!(parts, ["", "", "", "🙂", "", "é"]);
        assert_eq!(buffer.finish(), "");
    }
}
