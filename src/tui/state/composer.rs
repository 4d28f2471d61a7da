//! The message being written: a multi-line editor with a history and an attached document.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui_textarea::{CursorMove, TextArea};
use unicode_segmentation::UnicodeSegmentation;

use crate::engine::Document;

/// The most messages a history keeps.
const HISTORY: usize = 200;

/// The message being written in one session.
#[derive(Debug, Clone, Default)]
pub struct Composer {
    area: TextArea<'static>,
    history: Vec<String>,
    browsing: Option<usize>,
    /// A document that goes with the message.
    pub document: Option<Document>,
}

impl Composer {
    pub fn text(&self) -> String {
        self.area.lines().join("\n")
    }

    /// The lines as they are written.
    pub fn lines(&self) -> &[String] {
        self.area.lines()
    }

    /// Line and character of the cursor.
    pub fn cursor(&self) -> (usize, usize) {
        let cursor = self.area.cursor();
        (cursor.0, cursor.1)
    }

    pub fn is_empty(&self) -> bool {
        self.area.is_empty()
    }

    /// Takes a key that no binding wanted. What a reader takes for one character is one here as well, of however many
    /// code points it is made.
    pub fn key(&mut self, event: KeyEvent) {
        let control = event.modifiers == KeyModifiers::CONTROL;
        let plain = event.modifiers.is_empty();
        let changed = match event.code {
            KeyCode::Char('u') if control => self.area.delete_line_by_head(),
            // Where ctrl-u is the shell's, this is too: ctrl-_ reaches a program as ctrl-7.
            KeyCode::Char('_' | '7') if control => self.area.undo(),
            KeyCode::Backspace if plain => self.delete_before(),
            KeyCode::Char('h') if control => self.delete_before(),
            KeyCode::Delete if plain => self.delete_after(),
            KeyCode::Char('d') if control => self.delete_after(),
            KeyCode::Left if plain => self.step(CursorMove::Back, self.before()),
            KeyCode::Char('b') if control => self.step(CursorMove::Back, self.before()),
            KeyCode::Right if plain => self.step(CursorMove::Forward, self.after()),
            KeyCode::Char('f') if control => self.step(CursorMove::Forward, self.after()),
            _ => self.area.input(event),
        };
        if changed {
            self.browsing = None;
        }
    }

    /// Code points of the character before the cursor; 1 at the beginning of a line, for the line break.
    fn before(&self) -> usize {
        let (line, column) = self.cursor();
        let before: String = self.area.lines()[line].chars().take(column).collect();
        before.grapheme_indices(true).next_back().map_or(1, |(_, cluster)| cluster.chars().count())
    }

    /// Code points of the character after the cursor; 1 at the end of a line, for the line break.
    fn after(&self) -> usize {
        let (line, column) = self.cursor();
        let after: String = self.area.lines()[line].chars().skip(column).collect();
        after.grapheme_indices(true).next().map_or(1, |(_, cluster)| cluster.chars().count())
    }

    fn delete_before(&mut self) -> bool {
        match self.before() {
            1 => self.area.delete_char(),
            points => {
                self.step(CursorMove::Back, points);
                self.area.delete_str(points)
            }
        }
    }

    fn delete_after(&mut self) -> bool {
        match self.after() {
            1 => self.area.delete_next_char(),
            points => self.area.delete_str(points),
        }
    }

    /// Moves the cursor; nothing that is written changes.
    fn step(&mut self, to: CursorMove, points: usize) -> bool {
        self.area.cancel_selection();
        (0..points).for_each(|_| self.area.move_cursor(to));
        false
    }

    /// Inserts pasted text; line breaks of every kind become `\n`, other control characters are left out.
    pub fn paste(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let text: String = text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect();
        self.area.insert_str(text);
        self.browsing = None;
    }

    pub fn newline(&mut self) {
        self.area.insert_newline();
    }

    pub fn set(&mut self, text: &str) {
        self.area = TextArea::new(text.split('\n').map(str::to_owned).collect());
        self.area.move_cursor(CursorMove::Bottom);
        self.area.move_cursor(CursorMove::End);
    }

    /// Puts back what was taken out and not sent, before what is written by now.
    pub fn restore(&mut self, text: &str, document: Option<Document>) {
        let now = self.text();
        self.set(&if now.is_empty() { text.to_owned() } else { format!("{text}\n{now}") });
        self.document = self.document.take().or(document);
    }

    /// Takes the text out and remembers it.
    pub fn take(&mut self) -> String {
        let text = self.text();
        if !text.trim().is_empty() && self.history.last() != Some(&text) {
            self.history.push(text.clone());
            if self.history.len() > HISTORY {
                self.history.remove(0);
            }
        }
        self.browsing = None;
        self.area = TextArea::default();
        text
    }

    /// Shows the message before, from an empty composer or while browsing; else moves the cursor up.
    pub fn previous(&mut self) {
        let at = match self.browsing {
            Some(at) => at.saturating_sub(1),
            None if self.is_empty() && !self.history.is_empty() => self.history.len() - 1,
            None => return self.area.move_cursor(CursorMove::Up),
        };
        let text = self.history[at].clone();
        self.set(&text);
        self.browsing = Some(at);
    }

    /// Shows the next message while browsing, an empty composer after the last; else moves the cursor down.
    pub fn next(&mut self) {
        let Some(at) = self.browsing else { return self.area.move_cursor(CursorMove::Down) };
        match self.history.get(at + 1).cloned() {
            Some(text) => {
                self.set(&text);
                self.browsing = Some(at + 1);
            }
            None => {
                self.area = TextArea::default();
                self.browsing = None;
            }
        }
    }
}

/// Takes the last character away, of however many code points it is made.
pub fn pop(text: &mut String) {
    text.truncate(text.grapheme_indices(true).next_back().map_or(0, |(at, _)| at));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(composer: &mut Composer, text: &str) {
        text.chars().for_each(|c| composer.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)));
    }

    #[test]
    fn history_is_browsed_from_an_empty_input_only() {
        let mut composer = Composer::default();
        for text in ["one", "two\nlines", "two\nlines", " "] {
            composer.set(text);
            composer.take();
        }
        composer.previous();
        assert_eq!(composer.text(), "two\nlines");
        composer.previous();
        composer.previous();
        assert_eq!(composer.text(), "one");
        composer.next();
        composer.next();
        assert!(composer.is_empty());

        typed(&mut composer, "mine");
        composer.previous();
        assert_eq!(composer.text(), "mine");
    }

    #[test]
    fn pasted_text_keeps_its_lines_and_loses_its_escapes() {
        let mut composer = Composer::default();
        composer.paste("a\r\nb\rc\u{1b}[31m");
        assert_eq!(composer.text(), "a\nb\nc[31m");
    }

    fn control(c: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)
    }

    #[test]
    fn ctrl_u_clears_to_the_beginning_of_the_line_and_is_undone() {
        let mut composer = Composer::default();
        typed(&mut composer, "one two");
        composer.newline();
        typed(&mut composer, "three four");
        (0..4).for_each(|_| composer.key(KeyEvent::new(KeyCode::Left, KeyModifiers::NONE)));
        composer.key(control('u'));
        assert_eq!(composer.text(), "one two\nfour");
        composer.key(control('7'));
        assert_eq!(composer.text(), "one two\nthree four");
        // From an empty line on it takes the line break, and then the line before.
        (0..3).for_each(|_| composer.key(control('u')));
        assert_eq!(composer.text(), "four");
    }

    #[test]
    fn joined_characters_are_deleted_and_stepped_over_whole() {
        for joined in ["👨‍👩‍👧‍👦", "👍🏽", "🇯🇵", "e\u{301}", "が", "ｶﾞ", "\u{1112}\u{1161}\u{11ab}", "❤\u{fe0f}"]
        {
            let mut composer = Composer::default();
            composer.paste(&format!("a{joined}b"));
            let press = |composer: &mut Composer, code| composer.key(KeyEvent::new(code, KeyModifiers::NONE));
            press(&mut composer, KeyCode::Left);
            press(&mut composer, KeyCode::Left);
            assert_eq!(composer.cursor(), (0, 1), "{joined}");
            press(&mut composer, KeyCode::Right);
            press(&mut composer, KeyCode::Backspace);
            assert_eq!(composer.text(), "ab", "{joined}");
            composer.paste(joined);
            press(&mut composer, KeyCode::Left);
            press(&mut composer, KeyCode::Delete);
            assert_eq!((composer.text().as_str(), composer.cursor()), ("ab", (0, 1)), "{joined}");
            let mut name = format!("a{joined}");
            pop(&mut name);
            assert_eq!(name, "a", "{joined}");
        }
    }

    #[test]
    fn a_line_break_is_deleted_from_both_sides() {
        let mut composer = Composer::default();
        composer.paste("a\nb");
        composer.key(KeyEvent::new(KeyCode::Left, KeyModifiers::NONE));
        composer.key(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
        assert_eq!(composer.text(), "ab");
        composer.newline();
        composer.key(KeyEvent::new(KeyCode::Left, KeyModifiers::NONE));
        composer.key(KeyEvent::new(KeyCode::Delete, KeyModifiers::NONE));
        assert_eq!(composer.text(), "ab");
    }
}
