//! A sequence: one session in one lane, with its cached tokens, its side of the conversation and the running answer.

use std::{
    cmp::Reverse,
    mem,
    time::{Duration, Instant},
};

use super::{
    answer::{Answer, Held, Pairing, Rank, Stage},
    answer_text::Stop,
    prefilled::Prefilled,
};
use crate::engine::{FinishReason, GenerationOptions, Priority, Token, Usage};
use crate::{
    cache::{Policy, SequenceCache},
    model::{ChatMessage, LanguageModel, Reading, Role},
    quality::{Guard, GuardOptions, GuardState},
    text::without_mark,
};

pub(crate) struct Sequence {
    pub cache: SequenceCache,
    /// The conversation as this lane sees it: the lanes' replies differ.
    pub messages: Vec<ChatMessage>,
    /// The tokens in the cache.
    pub tokens: Vec<u32>,
    /// Tokens that come next and are not in the cache: the rest of a prompt, or the token chosen last.
    pub pending: Vec<u32>,
    /// The first so many tokens in the cache were computed by exact attention: whoever begins with them may share them.
    pub exact: usize,
    /// Tokens that were in the cache when it was evicted, and have to be computed again.
    lost: usize,
    /// The order of its last answer.
    pub last_order: u64,
    pub guard: Guard,
    pub answer: Option<Answer>,
}

/// What came of the logits.
pub(crate) struct Chosen {
    pub token: u32,
    pub text: String,
    pub index: usize,
    pub itl_ms: Option<f64>,
    /// Whether the token belongs to the answer; the token that ends it does not.
    pub visible: bool,
    pub finish: Option<FinishReason>,
}

impl Sequence {
    pub fn new(cache: SequenceCache, system: Option<&str>) -> Self {
        Self {
            cache,
            messages: system.map(|text| ChatMessage::new(Role::System, without_mark(text))).into_iter().collect(),
            tokens: Vec::new(),
            pending: Vec::new(),
            exact: 0,
            lost: 0,
            last_order: 0,
            guard: Guard::default(),
            answer: None,
        }
    }

    /// Where its answer stands, if there is one.
    pub fn stage(&self) -> Option<&Stage> {
        self.answer.as_ref().map(|answer| &answer.stage)
    }

    /// Where its answer stands among others.
    pub fn rank(&self) -> Option<Rank> {
        self.answer.as_ref().map(Answer::rank)
    }

    pub fn priority(&self) -> Option<Priority> {
        self.answer.as_ref().map(|answer| answer.options.priority)
    }

    /// Its place among those that start or go on, unless it runs: what was typed first, then preempted answers, then by
    /// the order in which they were asked for. The smaller goes first.
    pub fn place_to_start(&self) -> Option<(Reverse<Priority>, bool, u64)> {
        let waits = match self.stage()? {
            Stage::Running { .. } => return None,
            Stage::Waiting { .. } => true,
            Stage::Preempted { .. } => false,
        };
        self.rank().map(|(priority, order)| (priority, waits, order))
    }

    /// Whether its answer has not started.
    pub fn waits(&self) -> bool {
        matches!(self.stage(), Some(Stage::Waiting { .. }))
    }

    /// Whether the sequence takes part in its lane's steps.
    pub fn runs(&self) -> bool {
        matches!(self.stage(), Some(Stage::Running { .. }))
    }

    pub fn is_preempted(&self) -> bool {
        matches!(self.stage(), Some(Stage::Preempted { .. }))
    }

    /// Whether a running sequence has one token to be read as its lane's policy says.
    fn reads_by_policy(&self) -> bool {
        let decoding = self.answer.as_ref().is_some_and(|answer| answer.generated > 0 || answer.by_policy);
        decoding && self.pending.len() == 1
    }

    /// Whether the sequence waits for its next token.
    pub fn decodes(&self) -> bool {
        self.runs() && self.reads_by_policy()
    }

    /// Whether it would, once it runs again.
    pub fn decodes_when_back(&self) -> bool {
        self.is_preempted() && self.reads_by_policy()
    }

    /// Whether the sequence computes its prompt. Nothing is pending while a prediction waits for the other lane's.
    pub fn prefills(&self) -> bool {
        self.runs() && !self.reads_by_policy() && !self.pending.is_empty()
    }

    /// How its next token is read under its lane's policy: as the guard says, and probed where its position says so.
    /// Only the sequence itself decides either, so results do not depend on what else is in the batch.
    pub fn reading(&self, policy: Policy, guard: &GuardOptions) -> Reading {
        let (read, asked) = match self.guard.state() {
            GuardState::TopN | GuardState::Warned => (policy, Policy::Kv),
            GuardState::Full => (Policy::Kv, policy),
        };
        let probed = guard.probe_every > 0 && self.cache.len().is_multiple_of(guard.probe_every);
        if probed { Reading::Probed(read, asked) } else { Reading::Policy(read) }
    }

    /// Tokens that the answer computes before it chooses one: how many are done, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        self.answer.as_ref().map_or((0, 0), |answer| (answer.goal.saturating_sub(self.pending.len()), answer.goal))
    }

    /// Tokens that its answer has.
    pub fn generated(&self) -> usize {
        self.answer.as_ref().map_or(0, |answer| answer.generated)
    }

    /// All tokens known, cached or not.
    pub fn known_tokens(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().chain(&self.pending).copied()
    }

    /// How many tokens are known, cached or not.
    pub fn known(&self) -> usize {
        self.tokens.len() + self.pending.len()
    }

    /// The same with a computed prompt that is not copied yet.
    pub fn total(&self) -> usize {
        self.known() + self.prefilled().map_or(0, |prefilled| prefilled.tokens().len())
    }

    /// The most tokens it will still hold with this answer, those that are cached not counted.
    pub fn to_come(&self) -> usize {
        let left = self.answer.as_ref().map_or(0, |answer| answer.options.max_tokens.saturating_sub(answer.generated));
        // The token chosen last is never read.
        self.pending.len() + left.saturating_sub(1)
    }

    /// Has an answer wait whose tokens follow what is there; `message` is what it adds to the conversation.
    pub fn begin(&mut self, message: Option<ChatMessage>, tokens: &[u32], options: GenerationOptions, order: u64) {
        let (before, has_message) = (self.known(), message.is_some());
        self.messages.extend(message);
        self.pending.extend_from_slice(tokens);
        self.last_order = order;
        let mut answer = Answer::new(options, order, has_message, before, self.pending.len());
        answer.reused = self.cache.len();
        self.answer = Some(answer);
    }

    /// Has the answer that waits start from a prompt that was computed before.
    pub fn begin_with(&mut self, prefilled: Prefilled) {
        if let Some(answer) = &mut self.answer {
            answer.by_policy = true;
            answer.stage = Stage::Waiting { prefilled: Some(prefilled) };
        }
    }

    /// A computed prompt that is copied when the answer starts.
    pub fn prefilled(&self) -> Option<&Prefilled> {
        match self.stage()? {
            Stage::Waiting { prefilled } => prefilled.as_ref(),
            Stage::Running { .. } | Stage::Preempted { .. } => None,
        }
    }

    pub fn take_prefilled(&mut self) -> Option<Prefilled> {
        match &mut self.answer.as_mut()?.stage {
            Stage::Waiting { prefilled } => prefilled.take(),
            Stage::Running { .. } | Stage::Preempted { .. } => None,
        }
    }

    /// Forgets all tokens: the cache has been emptied, and the conversation is computed anew.
    pub fn forget(&mut self) {
        self.tokens.clear();
        self.pending.clear();
        self.exact = 0;
        self.lost = 0;
    }

    /// Starts the answer, or has it go on. Returns how many tokens are computed again.
    pub fn start(&mut self) -> usize {
        let again = mem::take(&mut self.lost).min(self.pending.len());
        if let Some(answer) = &mut self.answer {
            let queued = answer.queued().unwrap_or_else(|| {
                answer.reused = self.tokens.len();
                answer.prompt = self.pending.len();
                answer.asked.elapsed()
            });
            answer.goal = self.pending.len();
            answer.stage = Stage::Running { queued };
        }
        again
    }

    /// Has the running answer wait until it can go on.
    pub fn preempt(&mut self) {
        if let Some(answer) = &mut self.answer
            && let Stage::Running { queued } = answer.stage
        {
            answer.stage = Stage::Preempted { queued };
        }
    }

    /// How long its answer waited before it started.
    pub fn queued(&self) -> Option<Duration> {
        self.answer.as_ref()?.queued()
    }

    /// Notes that the next `count` pending tokens are in the cache because another sequence had them.
    pub fn prefix_shared(&mut self, count: usize) {
        self.fed(count);
        self.exact = self.tokens.len();
        self.lost = self.lost.saturating_sub(count);
        if let Some(answer) = &mut self.answer
            && answer.generated == 0
        {
            answer.reused += count;
            answer.prompt = answer.prompt.saturating_sub(count);
            answer.goal = answer.goal.saturating_sub(count);
        }
    }

    /// Notes that a computed prompt was copied into the cache.
    pub fn copied(&mut self, prefilled: &Prefilled) {
        self.tokens.extend_from_slice(prefilled.tokens());
        self.exact = self.tokens.len();
    }

    /// Notes that the cache was evicted: what was in it has to be computed again.
    pub fn cache_lost(&mut self) {
        self.lost += self.tokens.len();
        self.tokens.append(&mut self.pending);
        mem::swap(&mut self.tokens, &mut self.pending);
        self.exact = 0;
    }

    /// Notes that the first `count` pending tokens are in the cache now.
    pub fn fed(&mut self, count: usize) {
        self.tokens.extend(self.pending.drain(..count));
    }

    /// The same of tokens that were computed by exact attention.
    pub fn fed_exactly(&mut self, count: usize) {
        let exact = self.exact == self.tokens.len();
        self.fed(count);
        if exact {
            self.exact = self.tokens.len();
        }
    }

    /// Locks its answer to the other lane's. False where there is no answer.
    pub fn lock(&mut self) -> bool {
        self.pair(Pairing::Locked)
    }

    /// Ends the lock, and drops a prediction that waited.
    pub fn unlock(&mut self) {
        self.pair(Pairing::Alone);
    }

    fn pair(&mut self, pairing: Pairing) -> bool {
        self.answer.as_mut().map(|answer| answer.pairing = pairing).is_some()
    }

    pub fn is_locked(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !matches!(answer.pairing, Pairing::Alone))
    }

    /// Whether a prediction of its waits for the other lane's.
    pub fn holds(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| matches!(answer.pairing, Pairing::Holding(_)))
    }

    /// Keeps a prediction where the answer is locked. False where it is not.
    pub fn hold(&mut self, logits: &[f32], kept_mass: Option<f32>) -> bool {
        self.is_locked() && self.pair(Pairing::Holding(Held { logits: logits.to_vec(), kept_mass }))
    }

    /// Puts a prediction back.
    pub fn hold_again(&mut self, held: Held) {
        self.pair(Pairing::Holding(held));
    }

    /// The prediction that waited; the lock stays.
    pub fn take_held(&mut self) -> Option<Held> {
        let pairing = &mut self.answer.as_mut()?.pairing;
        match mem::replace(pairing, Pairing::Locked) {
            Pairing::Holding(held) => Some(held),
            other => {
                *pairing = other;
                None
            }
        }
    }

    /// Chooses the next token of the running answer. An error means that the logits are no numbers.
    pub fn choose(&mut self, logits: &[f32], model: &LanguageModel) -> candle_core::Result<Option<Chosen>> {
        Ok(self.sample(logits)?.and_then(|token| self.take(token, model)))
    }

    /// What the answer's sampler makes of the logits.
    pub fn sample(&mut self, logits: &[f32]) -> candle_core::Result<Option<u32>> {
        let Some(answer) = &mut self.answer else { return Ok(None) };
        // Pages that were evicted while a prediction waited have their tokens pending again.
        if self.pending.is_empty() {
            return answer.sampler.choose(logits, &self.tokens).map(Some);
        }
        let known: Vec<u32> = self.tokens.iter().chain(&self.pending).copied().collect();
        answer.sampler.choose(logits, &known).map(Some)
    }

    /// Adds a token to the running answer.
    pub fn take(&mut self, token: u32, model: &LanguageModel) -> Option<Chosen> {
        let answer = self.answer.as_mut()?;
        let now = Instant::now();
        let itl_ms = answer.last_token.map(|last| (now - last).as_secs_f64() * 1e3);
        let index = answer.generated;
        if model.tokenizer.is_end(token) && !answer.options.ignore_eos {
            let (text, finish) = (String::new(), Some(FinishReason::Stop));
            return Some(Chosen { token, text, index, itl_ms, visible: false, finish });
        }
        answer.first_token.get_or_insert(now);
        answer.last_token = Some(now);
        answer.generated += 1;
        self.pending.push(token);
        let last = answer.generated >= answer.options.max_tokens;
        let added = answer.text.push(&model.tokenizer, token, last, &answer.options.stop);
        // Tokens alone have no conversation to be out of step with: they are followed as they are.
        match &added.stop {
            // The token chosen last is in no cache yet: it is as if it had not been chosen.
            Some(Stop::BeforeToken) if answer.has_message => drop(self.pending.pop()),
            Some(Stop::Elsewhere) if answer.has_message => answer.overshot = true,
            _ => {}
        }
        let finish = match added.stop {
            Some(_) => Some(FinishReason::Stop),
            None => last.then_some(FinishReason::Length),
        };
        Some(Chosen { token, text: added.text, index, itl_ms, visible: true, finish })
    }

    /// Has a token of the answer told as soon as its text is certain.
    pub fn tell(&mut self, token: Token) {
        if let Some(answer) = &mut self.answer {
            answer.text.tell(token);
        }
    }

    /// The next token to tell, without text that belongs to a stop sequence.
    pub fn next_told(&mut self) -> Option<Token> {
        self.answer.as_mut()?.text.next_told()
    }

    /// Whether the cache holds tokens that the running answer does not say: what follows it has to be computed from the
    /// conversation.
    pub fn overshot(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.overshot)
    }

    /// The answer ends here: all of its text is certain.
    pub fn conclude(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.text.conclude();
        }
    }

    /// Ends the running answer; what was said so far becomes part of the conversation. An answer of which nothing was
    /// computed is taken back together with its message.
    pub fn finish(&mut self) -> Option<Usage> {
        let answer = self.answer.take()?;
        let usage = answer.usage();
        let nothing = answer.generated == 0 && self.tokens.len() <= answer.before;
        if nothing {
            self.pending.truncate(answer.before - self.tokens.len());
        }
        match (answer.has_message, nothing) {
            (true, true) => drop(self.messages.pop()),
            (true, false) => self.messages.push(ChatMessage::new(Role::Assistant, answer.text.into_string())),
            (false, _) => {}
        }
        Some(usage)
    }
}
