//! A sequence: one session in one lane, with its cached tokens, its side of the conversation and the running answer.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{sampler::Sampler, stop::Found};
use crate::engine::{FinishReason, GenerationOptions, Lane, Prefilled, Priority, Token, Usage, worker::compare::Held};
use crate::{
    cache::{Policy, SequenceCache},
    model::{ChatMessage, Detokenizer, LanguageModel, Reading, Role},
    quality::{Guard, GuardOptions, GuardState},
    text::without_mark,
};

/// One session in one lane.
pub(crate) struct Sequence {
    pub lane: Lane,
    pub cache: SequenceCache,
    /// The conversation as this lane sees it: the lanes' replies differ.
    pub messages: Vec<ChatMessage>,
    /// The tokens in the cache.
    pub tokens: Vec<u32>,
    /// Tokens that come next and are not in the cache: the rest of a prompt, or the token chosen last.
    pub pending: Vec<u32>,
    /// The first so many tokens in the cache were computed by exact attention: whoever begins with them may share them.
    pub exact: usize,
    /// Tokens that were in the cache when it was given up, and have to be computed again.
    pub lost: usize,
    /// The order of its last turn.
    pub last_turn: u64,
    pub guard: Guard,
    pub answer: Option<Answer>,
}

/// Who goes first: what was typed, then what was asked earlier. The smaller goes first.
pub(crate) type Rank = (Reverse<Priority>, u64);

/// Where an answer stands in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not started.
    Waiting,
    /// It holds the pages it needs and takes part in the steps.
    Running,
    /// It was set back.
    Preempted,
}

/// An answer in the making.
pub(crate) struct Answer {
    pub turn: GenerationOptions,
    /// Earlier turns go first among equals.
    pub order: u64,
    pub stage: Stage,
    /// Whether one computation of the prompt serves this lane and others.
    pub shared: bool,
    /// A prompt to copy when the answer starts.
    pub prefilled: Option<Prefilled>,
    /// Whether the prompt is read by policy, as if it had been generated.
    by_policy: bool,
    /// Tokens that were cached when the answer started.
    reused: usize,
    /// Tokens of the prompt to compute for this turn.
    prompt: usize,
    /// Tokens to compute before the next can be chosen, as of the last start.
    goal: usize,
    /// Tokens known before this turn.
    before: usize,
    /// Whether a message stands for this turn in the conversation.
    said: bool,
    pub generated: usize,
    /// Whether the next token is the other lane's choice as well, see `compare.rs`.
    pub locked: bool,
    /// A prediction that waits for the other lane's.
    held: Option<Held>,
    started: Instant,
    /// How long it waited before it started.
    queued: Option<Duration>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    text: String,
    /// Bytes of the text that belong to the answer for certain; in the rest a stop sequence may have begun.
    certain: usize,
    /// Bytes of the text that were told.
    told: usize,
    /// Tokens whose text is not certain: they are told later.
    untold: VecDeque<Token>,
    /// Whether a stop sequence has ended it, and the cache holds tokens of that.
    overshot: bool,
    decoder: Detokenizer,
    sampler: Sampler,
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
    pub fn new(lane: Lane, cache: SequenceCache, system: Option<&str>) -> Self {
        let messages = system.map(|text| ChatMessage::new(Role::System, without_mark(text))).into_iter().collect();
        let (tokens, pending) = (Vec::new(), Vec::new());
        let guard = Guard::default();
        Self { lane, cache, messages, tokens, pending, exact: 0, lost: 0, last_turn: 0, guard, answer: None }
    }

    /// Where its answer stands, if there is one.
    pub fn stage(&self) -> Option<Stage> {
        self.answer.as_ref().map(|answer| answer.stage)
    }

    /// Where its answer stands among others.
    pub fn rank(&self) -> Option<Rank> {
        self.answer.as_ref().map(|answer| (Reverse(answer.turn.priority), answer.order))
    }

    /// Its place among those that start or go on, unless it runs: what was typed first, then those set back, then by
    /// the order of their turns. The smaller goes first.
    pub fn turn_to_start(&self) -> Option<(Reverse<Priority>, bool, u64)> {
        let waits = match self.stage()? {
            Stage::Running => return None,
            Stage::Waiting => true,
            Stage::Preempted => false,
        };
        self.rank().map(|(priority, order)| (priority, waits, order))
    }

    /// Whether the sequence takes part in its lane's steps.
    pub fn runs(&self) -> bool {
        self.stage() == Some(Stage::Running)
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
        self.stage() == Some(Stage::Preempted) && self.reads_by_policy()
    }

    /// How its next token is read under its lane's policy: as the guard says, and probed where its position says so.
    /// Nothing but the sequence itself decides either, so company changes nothing.
    pub fn reading(&self, policy: Policy, guard: &GuardOptions) -> Reading {
        let (read, asked) = match self.guard.state() {
            GuardState::TopN | GuardState::Warned => (policy, Policy::Kv),
            GuardState::Full => (Policy::Kv, policy),
        };
        let probed = guard.probe_every > 0 && self.cache.len().is_multiple_of(guard.probe_every);
        if probed { Reading::Probed(read, asked) } else { Reading::Policy(read) }
    }

    /// Whether the sequence computes its prompt by itself.
    pub fn prefills_alone(&self) -> bool {
        self.prefills() && !self.is_shared()
    }

    /// Whether the sequence computes its prompt together with other lanes.
    pub fn prefills_shared(&self) -> bool {
        self.prefills() && self.is_shared()
    }

    /// Nothing is pending while a prediction waits for the other lane's.
    fn prefills(&self) -> bool {
        self.runs() && !self.reads_by_policy() && !self.pending.is_empty()
    }

    fn is_shared(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.shared)
    }

    /// Tokens that the running turn computes before it chooses one: how many are done, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        self.answer.as_ref().map_or((0, 0), |answer| (answer.goal.saturating_sub(self.pending.len()), answer.goal))
    }

    /// All tokens known, cached or not.
    pub fn known_tokens(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().chain(&self.pending).copied()
    }

    /// Everything known, cached or not.
    pub fn known(&self) -> usize {
        self.tokens.len() + self.pending.len()
    }

    /// The same with a computed prompt that is not copied yet.
    pub fn total(&self) -> usize {
        let prefilled = self.answer.as_ref().and_then(|answer| answer.prefilled.as_ref());
        self.known() + prefilled.map_or(0, |prefilled| prefilled.tokens().len())
    }

    /// The most tokens it will still hold in this turn, those that are cached not counted.
    pub fn to_come(&self) -> usize {
        let left = self.answer.as_ref().map_or(0, |answer| answer.turn.max_tokens.saturating_sub(answer.generated));
        // The token chosen last is never read.
        self.pending.len() + left.saturating_sub(1)
    }

    /// Adds a turn whose tokens follow what is there; `message` is what it adds to the conversation.
    pub fn begin(
        &mut self,
        message: Option<ChatMessage>,
        tokens: &[u32],
        turn: GenerationOptions,
        order: u64,
        shared: bool,
    ) {
        let (before, said) = (self.known(), message.is_some());
        self.messages.extend(message);
        self.pending.extend_from_slice(tokens);
        self.last_turn = order;
        self.answer = Some(Answer {
            sampler: Sampler::new(&turn.sampling),
            turn,
            order,
            stage: Stage::Waiting,
            shared,
            prefilled: None,
            by_policy: false,
            reused: self.cache.len(),
            prompt: self.pending.len(),
            goal: self.pending.len(),
            before,
            said,
            generated: 0,
            locked: false,
            held: None,
            started: Instant::now(),
            queued: None,
            first_token: None,
            last_token: None,
            text: String::new(),
            certain: 0,
            told: 0,
            untold: VecDeque::new(),
            overshot: false,
            decoder: Detokenizer::default(),
        });
    }

    /// Forgets all tokens: the cache has been emptied, and the conversation is computed anew.
    pub fn forget(&mut self) {
        self.tokens.clear();
        self.pending.clear();
        self.exact = 0;
        self.lost = 0;
    }

    /// Has a turn that was just begun start from a prompt that was computed before.
    pub fn begin_with(&mut self, prefilled: Prefilled) {
        if let Some(answer) = &mut self.answer {
            answer.by_policy = true;
            answer.prefilled = Some(prefilled);
        }
    }

    /// Starts the answer, or has it go on. Returns the tokens that are computed again.
    pub fn start(&mut self) -> usize {
        let again = std::mem::take(&mut self.lost).min(self.pending.len());
        if let Some(answer) = &mut self.answer {
            if answer.stage == Stage::Waiting {
                answer.reused = self.tokens.len();
                answer.prompt = self.pending.len();
                answer.queued = Some(answer.started.elapsed());
            }
            answer.goal = self.pending.len();
            answer.stage = Stage::Running;
        }
        again
    }

    /// How long its answer waited before it started.
    pub fn queued(&self) -> Option<Duration> {
        self.answer.as_ref()?.queued
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

    /// Notes that the cache was given up: what was in it has to be computed again.
    pub fn cache_lost(&mut self) {
        self.lost += self.tokens.len();
        self.tokens.append(&mut self.pending);
        std::mem::swap(&mut self.tokens, &mut self.pending);
        self.exact = 0;
    }

    /// Notes that the first `count` pending tokens are in the cache now.
    pub fn fed(&mut self, count: usize) {
        self.tokens.extend(self.pending.drain(..count));
    }

    /// The same of tokens that were computed by exact attention.
    pub fn prefilled(&mut self, count: usize) {
        let exact = self.exact == self.tokens.len();
        self.fed(count);
        if exact {
            self.exact = self.tokens.len();
        }
    }

    /// Whether its answer is locked to the other lane's.
    pub fn is_locked(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.locked)
    }

    /// Whether a prediction of its waits for the other lane's.
    pub fn holds(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.held.is_some())
    }

    /// Keeps a prediction where the answer is locked. False where it is not.
    pub fn hold(&mut self, logits: &[f32], kept_mass: Option<f32>) -> bool {
        let Some(answer) = self.answer.as_mut().filter(|answer| answer.locked) else { return false };
        answer.held = Some(Held { logits: logits.to_vec(), kept_mass });
        true
    }

    /// Puts a prediction back.
    pub fn held_again(&mut self, held: Held) {
        if let Some(answer) = &mut self.answer {
            answer.held = Some(held);
        }
    }

    /// The prediction that waited.
    pub fn take_held(&mut self) -> Option<Held> {
        self.answer.as_mut()?.held.take()
    }

    /// Ends the lock, and drops a prediction that waited.
    pub fn unlock(&mut self) {
        if let Some(answer) = &mut self.answer {
            (answer.locked, answer.held) = (false, None);
        }
    }

    /// Chooses the next token of the running answer. An error means that the logits are no numbers.
    pub fn choose(&mut self, logits: &[f32], model: &LanguageModel) -> candle_core::Result<Option<Chosen>> {
        Ok(self.sample(logits)?.and_then(|token| self.take(token, model)))
    }

    /// What the answer's sampler makes of the logits.
    pub fn sample(&mut self, logits: &[f32]) -> candle_core::Result<Option<u32>> {
        let Some(answer) = &mut self.answer else { return Ok(None) };
        // Pages that were given up while a prediction waited have their tokens pending again.
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
        if model.tokenizer.is_end(token) && !answer.turn.ignore_eos {
            let (text, finish) = (String::new(), Some(FinishReason::Stop));
            return Some(Chosen { token, text, index, itl_ms, visible: false, finish });
        }
        answer.first_token.get_or_insert(now);
        answer.last_token = Some(now);
        answer.generated += 1;
        self.pending.push(token);
        let mut finish = (answer.generated >= answer.turn.max_tokens).then_some(FinishReason::Length);
        let mut text = answer.decoder.push(&model.tokenizer, token);
        if finish.is_some() {
            text.push_str(&answer.decoder.finish());
        }
        let before = answer.text.len();
        answer.text.push_str(&text);
        answer.certain = match answer.turn.stop.look(&answer.text, answer.certain) {
            Found::Certain(certain) if finish.is_none() => certain,
            Found::Certain(_) => answer.text.len(),
            Found::Stop(at) => {
                finish = Some(FinishReason::Stop);
                answer.text.truncate(at);
                // Tokens alone have no conversation to be out of step with: they are followed as they are.
                if answer.said {
                    // The token chosen last is in no cache yet. Where it is all of the stop sequence, it is as if it had
                    // not been chosen.
                    let alone = at == before && text.as_bytes() == model.tokenizer.bytes(token);
                    answer.overshot = !alone;
                    if alone {
                        self.pending.pop();
                    }
                }
                at
            }
        };
        Some(Chosen { token, text, index, itl_ms, visible: true, finish })
    }

    /// Has a token of the answer told as soon as its text is certain.
    pub fn tell(&mut self, token: Token) {
        if let Some(answer) = &mut self.answer {
            answer.untold.push_back(token);
        }
    }

    /// The next token to tell, without text that belongs to a stop sequence.
    pub fn next_told(&mut self) -> Option<Token> {
        let answer = self.answer.as_mut()?;
        let stopped = answer.certain == answer.text.len();
        let room = answer.certain - answer.told;
        if !stopped && answer.untold.front()?.text.len() > room {
            return None;
        }
        let mut token = answer.untold.pop_front()?;
        token.text.truncate(room);
        answer.told += token.text.len();
        Some(token)
    }

    /// Whether the cache holds tokens that the running answer does not say: what follows it has to be computed from the
    /// conversation.
    pub fn overshot(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.overshot)
    }

    /// The answer ends here: all of its text is certain.
    pub fn conclude(&mut self) {
        if let Some(answer) = &mut self.answer {
            answer.certain = answer.text.len();
        }
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
            queued_ms: answer.queued.map(|queued| queued.as_secs_f64() * 1e3),
            ttft_ms: answer.first_token.map(|first| ms(answer.started, first)),
            total_ms: ms(answer.started, Instant::now()),
        };
        let nothing = answer.generated == 0 && self.tokens.len() <= answer.before;
        if nothing {
            self.pending.truncate(answer.before - self.tokens.len());
        }
        match (answer.said, nothing) {
            (true, true) => drop(self.messages.pop()),
            (true, false) => self.messages.push(ChatMessage::new(Role::Assistant, answer.text)),
            (false, _) => {}
        }
        Some(usage)
    }
}
