//! The message being written: a multi-line editor with a history and an attached document.

use crossterm::event::KeyEvent;
use ratatui_textarea::{CursorMove, TextArea};

use crate::engine::Document;

/// The most messages a history keeps.
const HISTORY: usize = 200;

/// The message being written in one session.
#[derive(Debug, Clone, Default)]
pub struct Input {
    area: TextArea<'static>,
    history: Vec<String>,
    browsing: Option<usize>,
    /// A document that goes with the message.
    pub document: Option<Document>,
}

impl Input {
    /// What is written.
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

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.area.is_empty()
    }

    /// Takes a key that no binding wanted.
    pub fn key(&mut self, event: KeyEvent) {
        if self.area.input(event) {
            self.browsing = None;
        }
    }

    /// Inserts pasted text; line breaks of every kind become `\n`, other control characters are left out.
    pub fn paste(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let text: String = text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect();
        self.area.insert_str(text);
        self.browsing = None;
    }

    /// Begins a new line.
    pub fn newline(&mut self) {
        self.area.insert_newline();
    }

    /// Replaces what is written.
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

    /// Shows the message before, from an empty input or while browsing; else moves the cursor up.
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

    /// Shows the next message while browsing, an empty input after the last; else moves the cursor down.
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

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyModifiers};

    use super::*;

    fn typed(input: &mut Input, text: &str) {
        text.chars().for_each(|c| input.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)));
    }

    #[test]
    fn history_is_browsed_from_an_empty_input_only() {
        let mut input = Input::default();
        for text in ["one", "two\nlines", "two\nlines", " "] {
            input.set(text);
            input.take();
        }
        input.previous();
        assert_eq!(input.text(), "two\nlines");
        input.previous();
        input.previous();
        assert_eq!(input.text(), "one");
        input.next();
        input.next();
        assert!(input.is_empty());

        typed(&mut input, "mine");
        input.previous();
        assert_eq!(input.text(), "mine");
    }

    #[test]
    fn pasted_text_keeps_its_lines_and_loses_its_escapes() {
        let mut input = Input::default();
        input.paste("a\r\nb\rc\u{1b}[31m");
        assert_eq!(input.text(), "a\nb\nc[31m");
    }
}
