//! Text to lines of a given width: wrapped between words, measured in terminal cells.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use super::width::{Glyph, glyphs};

/// A piece of text in one style.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The text; may hold line breaks.
    pub text: &'a str,
    pub style: Style,
}

/// Wraps `pieces`, read as one text, to lines of at most `width` cells. A word that is longer than a line is broken.
/// The text is written as [`width`](super::width) says: a model's text must not command the terminal.
pub fn wrap(pieces: &[Piece<'_>], width: usize) -> Vec<Line<'static>> {
    let mut wrapper = Wrapper::new(width.max(1));
    for piece in pieces {
        for (at, line) in piece.text.split('\n').enumerate() {
            if at > 0 {
                wrapper.end_word();
                wrapper.end_line();
            }
            let line = line.strip_suffix('\r').unwrap_or(line);
            glyphs(line).for_each(|glyph| wrapper.glyph(&glyph, piece.style));
        }
    }
    wrapper.finish()
}

/// Wraps one text in one style.
pub fn wrap_text(text: &str, style: Style, width: usize) -> Vec<Line<'static>> {
    wrap(&[Piece { text, style }], width)
}

struct Wrapper {
    width: usize,
    lines: Vec<Line<'static>>,
    line: Vec<Span<'static>>,
    line_width: usize,
    word: Vec<Span<'static>>,
    word_width: usize,
}

impl Wrapper {
    fn new(width: usize) -> Self {
        Self { width, lines: Vec::new(), line: Vec::new(), line_width: 0, word: Vec::new(), word_width: 0 }
    }

    fn glyph(&mut self, glyph: &Glyph<'_>, style: Style) {
        if glyph.symbol == " " {
            return self.space(style);
        }
        if glyph.cells > self.width {
            return;
        }
        if self.word_width + glyph.cells > self.width {
            self.end_word();
            self.end_line();
        }
        push(&mut self.word, &glyph.symbol, style);
        self.word_width += glyph.cells;
    }

    fn space(&mut self, style: Style) {
        self.end_word();
        // A space at the end of a full line is the line's end.
        if self.line_width < self.width {
            push(&mut self.line, " ", style);
            self.line_width += 1;
        }
    }

    fn end_word(&mut self) {
        if self.line_width + self.word_width > self.width {
            self.end_line();
        }
        for span in self.word.drain(..) {
            push(&mut self.line, &span.content, span.style);
        }
        self.line_width += self.word_width;
        self.word_width = 0;
    }

    fn end_line(&mut self) {
        self.lines.push(Line::from(std::mem::take(&mut self.line)));
        self.line_width = 0;
    }

    fn finish(mut self) -> Vec<Line<'static>> {
        self.end_word();
        self.end_line();
        self.lines
    }
}

fn push(spans: &mut Vec<Span<'static>>, text: &str, style: Style) {
    match spans.last_mut().filter(|last| last.style == style) {
        Some(last) => last.content.to_mut().push_str(text),
        None => spans.push(Span::styled(text.to_owned(), style)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str, width: usize) -> Vec<String> {
        wrap_text(text, Style::new(), width).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn breaks_between_words_and_inside_long_ones() {
        assert_eq!(lines("the quick brown fox", 10), ["the quick ", "brown fox"]);
        assert_eq!(lines("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(lines("a\n\nb", 9), ["a", "", "b"]);
        assert_eq!(lines("", 9), [""]);
    }

    #[test]
    fn wide_and_joined_characters_count_as_the_terminal_counts_them() {
        assert_eq!(lines("你好世界", 4), ["你好", "世界"]);
        assert_eq!(lines("e\u{301}e\u{301}e\u{301}", 2), ["e\u{301}e\u{301}", "e\u{301}"]);
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(lines("a\u{1b}[31mb\u{7}", 20), ["a[31mb"]);
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide_and_no_word_is_lost(text in "[a-zé你🙂 \n]{0,120}", width in 2usize..30) {
            let wrapped = lines(&text, width);
            prop_assert!(wrapped.iter().all(|line| crate::tui::widgets::width::width(line) <= width));
            let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(squeeze(&wrapped.concat()), squeeze(&text));
        }
    }
}
