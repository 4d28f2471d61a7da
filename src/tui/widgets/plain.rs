//! Text for the world outside of the screen.

/// A text without characters that a terminal would carry out instead of showing; line breaks and tabs stay.
pub fn plain(text: &str) -> String {
    text.chars().filter(|&c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}
