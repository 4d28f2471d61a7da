//! Text from elsewhere, made safe for a terminal: control characters are shown instead of carried out.
//!
//! A model's file, a text and an error can hold anything: escape sequences that move the cursor or change the window's
//! title, line breaks that make one message look like two, and overrides that reverse the order of letters.

use std::borrow::Cow;

/// One line: line breaks and tabs are shown as well.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| acts(c) || matches!(c, '\n' | '\t' | '\u{2028}' | '\u{2029}'),
        |out, c| {
            out.extend(c.escape_default());
        },
    )
}

/// Text of several lines: line breaks and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, acts, |out, c| out.extend(c.escape_default()))
}

/// A JSON document that means the same: what JSON leaves as it is inside strings, such as DEL, is escaped as well.
pub fn json(text: &str) -> Cow<'_, str> {
    // All of them are in the basic plane, so four digits are enough.
    escaped(text, acts, |out, c| out.push_str(&format!("\\u{:04x}", u32::from(c))))
}

/// Whether a terminal does something at a character instead of showing it: C0 and C1 controls and DEL, but for line
/// breaks and tabs, and what overrides the direction of letters.
fn acts(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_bad(c) { escape(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_given_nothing_to_carry_out() {
        let bad = "a\x1b[2J\x07b\u{9b}31m\r\n\tc\u{7f} \u{202e}é🙂";
        let shown = r"a\u{1b}[2J\u{7}b\u{9b}31m\r";
        assert_eq!(lines(bad), format!("{shown}\n\tc\\u{{7f}} \\u{{202e}}é🙂"));
        assert_eq!(line(bad), format!(r"{shown}\n\tc\u{{7f}} \u{{202e}}é🙂"));
        assert_eq!(line("a\u{2028}b"), r"a\u{2028}b");
        for good in ["", "héllo, 世界 👩‍🚀", "שלום\u{200f}", "a\\nb"] {
            assert!(matches!(line(good), Cow::Borrowed(same) if same == good));
        }
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({ "a\u{85}": "\x1b\u{7f}\u{9b}\u{202e}\n é" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = json(&text);
        assert!(!safe.chars().any(acts), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }
}
