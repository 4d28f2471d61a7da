//! A sequence: one session in one lane, with its cached tokens, its side of the conversation and the running answer.

use std::time::Instant;

use super::{FinishReason, Lane, Turn, Usage, sampler::Sampler};
use crate::{
    cache::SequenceCache,
    model::{LanguageModel, Message, Role, TextStream},
};

/// One session in one lane.
pub(super) struct Sequence {
    pub lane: Lane,
    pub cache: SequenceCache,
    /// The conversation as this lane sees it: the lanes' replies differ.
    pub messages: Vec<Message>,
    /// The tokens in the cache.
    pub tokens: Vec<u32>,
    /// Tokens that come next and are not in the cache: the rest of a prompt, or the token chosen last.
    pub pending: Vec<u32>,
    pub answer: Option<Answer>,
}

/// An answer in the making.
pub(super) struct Answer {
    pub turn: Turn,
    /// Earlier turns go first among equals.
    pub order: u64,
    /// Whether one computation of the prompt serves this lane and others.
    pub shared: bool,
    pub reused: usize,
    /// Prompt tokens to compute for this turn.
    pub prompt: usize,
    /// How many of them were left over from the turn before.
    left_over: usize,
    pub generated: usize,
    started: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    text: String,
    decoder: TextStream,
    sampler: Sampler,
}

/// What came of the logits.
pub(super) struct Chosen {
    pub token: u32,
    pub text: String,
    pub index: usize,
    pub itl_ms: Option<f64>,
    /// Whether the token belongs to the answer; the token that ends it does not.
    pub visible: bool,
    pub finish: Option<FinishReason>,
}

impl Sequence {
    pub fn new(lane: Lane, cache: SequenceCache, system: Option<&str>) -> Self {
        let messages = system.map(|text| Message::new(Role::System, text)).into_iter().collect();
        Self { lane, cache, messages, tokens: Vec::new(), pending: Vec::new(), answer: None }
    }

    /// Whether the sequence computes its prompt by itself.
    pub fn prefills_alone(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.generated == 0 && !answer.shared)
    }

    /// Whether the sequence waits for its next token.
    pub fn decodes(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.generated > 0)
    }

    /// Whether the sequence computes its prompt together with other lanes.
    pub fn prefills_shared(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.generated == 0 && answer.shared)
    }

    /// Prompt tokens of the running turn that are in the cache.
    pub fn prompt_done(&self) -> usize {
        self.answer.as_ref().map_or(0, |answer| answer.prompt - self.pending.len())
    }

    /// Adds a user message whose tokens follow what is there.
    pub fn begin(&mut self, message: Message, tokens: &[u32], turn: Turn, order: u64, shared: bool) {
        self.messages.push(message);
        let left_over = self.pending.len();
        self.pending.extend_from_slice(tokens);
        self.answer = Some(Answer {
            turn,
            order,
            shared,
            reused: self.cache.len(),
            prompt: self.pending.len(),
            left_over,
            generated: 0,
            started: Instant::now(),
            first_token: None,
            last_token: None,
            text: String::new(),
            decoder: TextStream::default(),
            sampler: Sampler::new(&turn.sampling),
        });
    }

    /// Notes that the first `count` pending tokens are in the cache now.
    pub fn fed(&mut self, count: usize) {
        self.tokens.extend(self.pending.drain(..count));
    }

    /// Chooses the next token of the running answer. An error means that the logits are no numbers.
    pub fn choose(&mut self, logits: &[f32], model: &LanguageModel) -> candle_core::Result<Option<Chosen>> {
        let Some(answer) = &mut self.answer else { return Ok(None) };
        let token = answer.sampler.choose(logits, &self.tokens)?;
        let now = Instant::now();
        let itl_ms = answer.last_token.map(|last| (now - last).as_secs_f64() * 1e3);
        let index = answer.generated;
        if model.tokenizer.is_end(token) && !answer.turn.ignore_eos {
            let (text, finish) = (String::new(), Some(FinishReason::Stop));
            return Ok(Some(Chosen { token, text, index, itl_ms, visible: false, finish }));
        }
        answer.first_token.get_or_insert(now);
        answer.last_token = Some(now);
        answer.generated += 1;
        self.pending.push(token);
        let finish = (answer.generated >= answer.turn.max_tokens).then_some(FinishReason::Length);
        let mut text = answer.decoder.push(&model.tokenizer, token);
        if finish.is_some() {
            text.push_str(&answer.decoder.finish());
        }
        answer.text.push_str(&text);
        Ok(Some(Chosen { token, text, index, itl_ms, visible: true, finish }))
    }

    /// Ends the running answer; what was said so far becomes part of the conversation. A turn of which nothing was
    /// computed is taken back whole.
    pub fn finish(&mut self) -> Option<Usage> {
        let answer = self.answer.take()?;
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        let usage = Usage {
            reused_tokens: answer.reused,
            prompt_tokens: answer.prompt,
            completion_tokens: answer.generated,
            ttft_ms: answer.first_token.map(|first| ms(answer.started, first)),
            total_ms: ms(answer.started, Instant::now()),
        };
        if self.tokens.len() == answer.reused {
            self.messages.pop();
            self.pending.truncate(answer.left_over);
        } else {
            self.messages.push(Message::new(Role::Assistant, answer.text));
        }
        Some(usage)
    }
}
