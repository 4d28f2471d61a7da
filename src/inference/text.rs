//! Text files in any encoding: UTF-8, or what is used elsewhere, for Japanese above all.
//!
//! A byte order mark says what follows it. Without one a text is UTF-8 where it can be. Everything else is a guess, by
//! how often letters follow each other in a language (chardetng), and the caller is told which encoding it was.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE};
use thiserror::Error;

/// The byte order mark. Inside a text it is an invisible character; at its beginning it is no part of it.
const MARK: char = '\u{feff}';

/// A text as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it says, without a byte order mark.
    pub text: String,
    /// The name of its encoding where that is not UTF-8.
    pub encoding: Option<&'static str>,
}

impl Text {
    /// What to tell whoever named `file`, where its encoding was not UTF-8.
    pub fn notice(&self, file: &str) -> Option<String> {
        self.encoding.map(|encoding| format!("{file} is not in UTF-8; it is read as {encoding}"))
    }
}

/// Why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// Characters that no text has.
    #[error("it is binary; a text is needed, best in UTF-8")]
    Binary,
    /// Most of it is UTF-8, but not all.
    #[error("byte {0} is not UTF-8, but most of the rest is: it is damaged; save it again as UTF-8")]
    Damaged(usize),
}

/// What `bytes` say.
///
/// # Errors
///
/// When they are no text in any encoding that is known, or damaged UTF-8.
pub fn decode(bytes: &[u8]) -> Result<Text, TextError> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        let text = whole(encoding, &bytes[mark..]).filter(|text| !text.contains('\0'));
        return text.map(|text| named(text, encoding)).ok_or(TextError::Binary);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => utf16(bytes).ok_or(TextError::Binary),
        // It switches between character sets by escape sequences of ASCII characters.
        Ok(text) if text.is_ascii() && ["\x1b$B", "\x1b$@"].iter().any(|escape| text.contains(escape)) => {
            Ok(readable(ISO_2022_JP, bytes).unwrap_or_else(|| named(text.to_owned(), UTF_8)))
        }
        Ok(text) => Ok(named(text.to_owned(), UTF_8)),
        Err(_) if bytes.contains(&0) => utf16(bytes).ok_or(TextError::Binary),
        Err(error) if is_damaged(bytes) => Err(TextError::Damaged(error.valid_up_to() + 1)),
        Err(_) => {
            let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
            detector.feed(bytes, true);
            let guess = detector.guess(None, Utf8Detection::Deny);
            readable(guess, bytes).ok_or(TextError::Binary)
        }
    }
}

/// A text that somebody typed, or that stands in a flag, without the byte order mark of the file it was copied from.
pub fn without_mark(text: &str) -> &str {
    text.trim_start_matches(MARK)
}

fn named(text: String, encoding: &'static Encoding) -> Text {
    let text = if text.starts_with(MARK) { without_mark(&text).to_owned() } else { text };
    Text { text, encoding: (encoding != UTF_8).then(|| encoding.name()) }
}

/// UTF-16 without a mark. Nearly any bytes are UTF-16, of rare characters; a text is mostly Latin letters or kana.
fn utf16(bytes: &[u8]) -> Option<Text> {
    let usual = |c: &char| matches!(c, '\t'..='~' | '\u{3000}'..='\u{30ff}');
    let mut texts = [UTF_16LE, UTF_16BE].into_iter().filter_map(|encoding| readable(encoding, bytes));
    texts.find(|text| 2 * text.text.chars().filter(usual).count() > text.text.chars().count())
}

/// All of `bytes`, if no part of them is foreign to `encoding`.
fn whole(encoding: &'static Encoding, bytes: &[u8]) -> Option<String> {
    encoding.decode_without_bom_handling_and_without_replacement(bytes).map(|text| text.into_owned())
}

/// The same if it is a text: a wrong guess shows in control characters.
fn readable(encoding: &'static Encoding, bytes: &[u8]) -> Option<Text> {
    let foreign = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c');
    whole(encoding, bytes).filter(|text| !text.contains(foreign)).map(|text| named(text, encoding))
}

/// Whether more of the characters beyond ASCII are UTF-8 than are not.
fn is_damaged(bytes: &[u8]) -> bool {
    let (mut right, mut wrong) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        right += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        wrong += usize::from(!chunk.invalid().is_empty());
    }
    right > wrong
}

#[cfg(test)]
mod tests {
    use encoding_rs::{EUC_JP, EUC_KR, GBK, SHIFT_JIS, WINDOWS_1251, WINDOWS_1252};
    use proptest::prelude::*;

    use super::*;

    const JAPANESE: &str = "吾輩は猫である。名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。ABC 123\n";

    fn decoded(bytes: &[u8]) -> (String, Option<&'static str>) {
        let text = decode(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:x?}"));
        (text.text, text.encoding)
    }

    fn utf16_bytes(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn texts_are_read_in_the_encoding_they_are_in() {
        for (text, encoding, name) in [
            (JAPANESE, SHIFT_JIS, "Shift_JIS"),
            ("こんにちは、世界。", SHIFT_JIS, "Shift_JIS"),
            (JAPANESE, EUC_JP, "EUC-JP"),
            ("こんにちは、世界。", EUC_JP, "EUC-JP"),
            ("こんにちは、世界。", ISO_2022_JP, "ISO-2022-JP"),
            ("안녕하세요, 세계! 오늘은 날씨가 좋습니다.", EUC_KR, "EUC-KR"),
            ("今天天气很好，我们去公园散步吧。", GBK, "GBK"),
            ("Ein schöner Tag für Müßiggänger in Köln.", WINDOWS_1252, "windows-1252"),
            ("Сегодня хорошая погода, пойдём гулять.", WINDOWS_1251, "windows-1251"),
        ] {
            let (bytes, _, unmappable) = encoding.encode(text);
            assert!(!unmappable, "{name}");
            assert_eq!(decoded(&bytes), (text.to_owned(), Some(name)));
        }
        assert_eq!(decoded(JAPANESE.as_bytes()), (JAPANESE.to_owned(), None));
        assert_eq!(decoded(b""), (String::new(), None));
        assert_eq!(decoded(b"a \x1b[31mred\x1b[0m word").1, None, "colours of a terminal are UTF-8");
    }

    #[test]
    fn marks_say_the_encoding_and_are_no_part_of_the_text() {
        for (bytes, name) in [
            ([b"\xef\xbb\xbf", JAPANESE.as_bytes()].concat(), None),
            (utf16_bytes(&format!("\u{feff}{JAPANESE}"), u16::to_le_bytes), Some("UTF-16LE")),
            (utf16_bytes(&format!("\u{feff}{JAPANESE}"), u16::to_be_bytes), Some("UTF-16BE")),
            (utf16_bytes(JAPANESE, u16::to_le_bytes), Some("UTF-16LE")),
            (utf16_bytes(JAPANESE, u16::to_be_bytes), Some("UTF-16BE")),
        ] {
            assert_eq!(decoded(&bytes), (JAPANESE.to_owned(), name));
        }
        assert_eq!(decoded(&utf16_bytes("Hello,\r\nworld", u16::to_le_bytes)).1, Some("UTF-16LE"));
        assert_eq!(decoded(&utf16_bytes("Hello,\r\nworld", u16::to_be_bytes)).1, Some("UTF-16BE"));
        assert_eq!(decoded("\u{feff}\u{feff}a".as_bytes()).0, "a");
        assert_eq!(without_mark("\u{feff}a\u{feff}"), "a\u{feff}");
        let text = decode(&SHIFT_JIS.encode(JAPANESE).0).unwrap();
        assert_eq!(text.notice("neko.txt").unwrap(), "neko.txt is not in UTF-8; it is read as Shift_JIS");
        assert_eq!(decode(b"a").unwrap().notice("a"), None);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x02\0\0\0\x01\0\x08\x06\0\0\0\xf4\x78\xd4\xfa";
        let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0\x40\x10\0\0\0\0\0\0";
        for bytes in [&png[..], elf, b"\x89\xff\x00", b"GIF\0\0\x01", b"\xff\xfea", b"\x1f\x8b\x08\x01\x99\x02\xfe\xed"]
        {
            assert_eq!(decode(bytes), Err(TextError::Binary), "{bytes:x?}");
        }
        let cut = &JAPANESE.as_bytes()[..10];
        assert!(matches!(decode(cut), Err(TextError::Damaged(_))));
        assert_eq!(decode("naïve café \u{fffd}".as_bytes()).map(|text| text.encoding), Ok(None));
        assert_eq!(decode(b"na\xc3\xafve caf\xc3\xa9 \xff"), Err(TextError::Damaged(14)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_text_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(text) = decode(&bytes) {
                prop_assert!(!text.text.starts_with(MARK) && !text.text.contains('\0'));
            }
        }

        #[test]
        fn utf8_stays_itself(text in "[^\0\u{1b}]{0,60}") {
            prop_assert_eq!(decoded(text.as_bytes()), (without_mark(&text).to_owned(), None));
        }
    }
}
