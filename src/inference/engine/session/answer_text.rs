//! The text of an answer in the making: what of it is certain, and which of its tokens were told.

use std::collections::VecDeque;

use super::stop::{Found, StopSequences};
use crate::{
    engine::Token,
    model::{Detokenizer, Tokenizer},
};

#[derive(Default)]
pub(super) struct AnswerText {
    all: String,
    /// Bytes that belong to the answer for certain; in the rest a stop sequence may have begun.
    certain: usize,
    /// Bytes that were told.
    told: usize,
    /// Tokens whose text is not certain: they are told later.
    untold: VecDeque<Token>,
    decoder: Detokenizer,
}

/// What a token added.
pub(super) struct Added {
    pub text: String,
    pub stop: Option<Stop>,
}

/// Where a stop sequence has ended the answer.
pub(super) enum Stop {
    /// Before the token, which is all of the stop sequence.
    BeforeToken,
    /// Elsewhere: tokens before this one, or a part of it, belong to the stop sequence.
    Elsewhere,
}

impl AnswerText {
    /// Adds a token; after the `last` one everything is certain.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32, last: bool, stops: &StopSequences) -> Added {
        let mut text = self.decoder.push(tokenizer, token);
        if last {
            text.push_str(&self.decoder.finish());
        }
        let before = self.all.len();
        self.all.push_str(&text);
        let mut stop = None;
        self.certain = match stops.look(&self.all, self.certain) {
            Found::Certain(certain) if !last => certain,
            Found::Certain(_) => self.all.len(),
            Found::Stop(at) => {
                self.all.truncate(at);
                let alone = at == before && text.as_bytes() == tokenizer.bytes(token);
                stop = Some(if alone { Stop::BeforeToken } else { Stop::Elsewhere });
                at
            }
        };
        Added { text, stop }
    }

    /// Has a token told as soon as its text is certain.
    pub fn tell(&mut self, token: Token) {
        self.untold.push_back(token);
    }

    /// The next token to tell, without text that belongs to a stop sequence.
    pub fn next_told(&mut self) -> Option<Token> {
        let stopped = self.certain == self.all.len();
        let room = self.certain - self.told;
        if !stopped && self.untold.front()?.text.len() > room {
            return None;
        }
        let mut token = self.untold.pop_front()?;
        token.text.truncate(room);
        self.told += token.text.len();
        Some(token)
    }

    /// The answer ends here: all of its text is certain.
    pub fn conclude(&mut self) {
        self.certain = self.all.len();
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.all
    }
}
