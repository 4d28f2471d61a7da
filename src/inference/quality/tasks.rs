//! Evaluation tasks that a small model can do, to see what a policy loses of them: copying a list, looking values up at
//! several depths, and counting, at which top-N attention is known to be bad because every row matters.
//!
//! A task is a long context followed by questions with their answers. It is evaluated like any text: the answers are
//! fed whatever was predicted, and only the tokens of answers count. A policy's score has a meaning only beside the
//! score of full attention on the same answers.

use std::ops::{ControlFlow, Range};

use super::{EvalError, EvalOptions, Score, evaluate, kl_mean};
use crate::{
    kernels::Pool,
    model::{LanguageModel, Tokenizer},
    progress::Progress,
};

/// The context and the questions of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: &'static str,
    /// Context, questions and answers.
    tokens: Vec<u32>,
    /// Tokens of context.
    context: usize,
    /// The tokens of answers, among `tokens`.
    answers: Vec<Range<usize>>,
}

/// How one policy did.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskScore {
    /// The policy, as it was spelled.
    pub policy: String,
    /// The share of the answers' tokens that were the likeliest.
    pub right: f64,
    /// Mean KL(full attention ‖ policy) over the answers' tokens, in nats.
    pub kl_mean: f64,
}

/// How all policies did in one task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The task.
    pub task: &'static str,
    /// Tokens of answers.
    pub asked: usize,
    /// The share of them that were the likeliest under full attention.
    pub full_right: f64,
    /// The policies, in order.
    pub scores: Vec<TaskScore>,
}

const WORDS: [&str; 24] = [
    "apple", "river", "stone", "candle", "garden", "silver", "window", "bread", "horse", "paper", "bridge", "cloud",
    "hammer", "island", "jacket", "kettle", "lemon", "mirror", "needle", "orange", "pencil", "rabbit", "saddle",
    "table",
];
/// Nothing else in a context is called so.
const KEYS: [&str; 6] = ["Berlin", "Mexico", "Tokyo", "Egypt", "Canada", "Venice"];
const PLACES: [&str; 5] = ["at the harbour", "in the old town", "by the lake", "on the hill", "near the station"];

/// The tasks, each with about `context` tokens of context.
pub fn tasks(tokenizer: &Tokenizer, context: usize) -> Vec<Task> {
    let mut found = vec![copy(tokenizer, context)];
    for (name, depth) in [
        ("look up at 10 %", 0.1),
        ("look up at 30 %", 0.3),
        ("look up at 50 %", 0.5),
        ("look up at 70 %", 0.7),
        ("look up at 90 %", 0.9),
    ] {
        found.push(look_up(tokenizer, context, name, depth));
    }
    found.push(count(tokenizer, context));
    found
}

/// A list at the beginning, written down once more at the end.
fn copy(tokenizer: &Tokenizer, context: usize) -> Task {
    let list = || (0..40).map(|at| WORDS[(at * 7 + at / 5) % WORDS.len()]);
    let mut script = Script::new(tokenizer, "copy a list");
    script.say("The list:\n");
    list().for_each(|word| script.say(&format!("- {word}\n")));
    script.fill(context);
    script.say("The same list again:\n");
    script.ends_context();
    for (at, word) in list().enumerate() {
        script.say("-");
        // Where the list begins nobody can know.
        if at == 0 {
            script.say(&format!(" {word}"))
        } else {
            script.ask(&format!(" {word}"))
        }
        script.say("\n");
    }
    script.task
}

/// Keys with values at one depth of the context, asked for at its end.
fn look_up(tokenizer: &Tokenizer, context: usize, name: &'static str, depth: f64) -> Task {
    let pair = |at: usize| (KEYS[at], WORDS[(at * 11 + 3) % WORDS.len()]);
    let mut script = Script::new(tokenizer, name);
    script.fill((context as f64 * depth) as usize);
    for at in 0..KEYS.len() {
        let (key, value) = pair(at);
        script.say(&format!("{key} {value}.\n"));
    }
    script.fill(context);
    script.ends_context();
    for at in [3, 5, 0, 4, 2, 1] {
        let (key, value) = pair(at);
        script.say(key);
        script.ask(&format!(" {value}"));
        script.say(".\n");
    }
    script.task
}

/// Words of very different frequencies, to be named by how often they stand in the context: no few positions tell.
fn count(tokenizer: &Tokenizer, context: usize) -> Task {
    const OFTEN: [(&str, usize); 6] =
        [("river", 32), ("bread", 16), ("horse", 8), ("cloud", 4), ("lemon", 2), ("table", 1)];
    let total: usize = OFTEN.iter().map(|(_, often)| often).sum();
    let mut script = Script::new(tokenizer, "count words");
    script.say("Words:");
    for at in 0.. {
        if script.task.tokens.len() >= context {
            break;
        }
        // Steps by a number without a common divisor mix the words evenly.
        let mut place = at * 37 % total;
        let word = OFTEN.iter().find(|(_, often)| {
            let found = place < *often;
            place = place.saturating_sub(*often);
            found
        });
        script.say(&format!(" {}", word.map_or(OFTEN[0].0, |(word, _)| word)));
    }
    script.say(".\n");
    script.ends_context();
    script.say("The same words once each, the most frequent first, the rarest last:");
    for (word, _) in OFTEN {
        script.ask(&format!(" {word}"));
        script.say(",");
    }
    script.say("\n");
    script.task
}

/// A task while it is written.
struct Script<'a> {
    tokenizer: &'a Tokenizer,
    task: Task,
    notes: usize,
}

impl<'a> Script<'a> {
    fn new(tokenizer: &'a Tokenizer, name: &'static str) -> Self {
        let tokens = tokenizer.bos().into_iter().collect();
        Self { tokenizer, task: Task { name, tokens, context: 0, answers: Vec::new() }, notes: 0 }
    }

    fn say(&mut self, text: &str) {
        self.task.tokens.extend(self.tokenizer.encode(text));
    }

    fn ask(&mut self, answer: &str) {
        let from = self.task.tokens.len();
        self.say(answer);
        self.task.answers.push(from..self.task.tokens.len());
    }

    /// Sentences of no use, until there are `tokens`.
    fn fill(&mut self, tokens: usize) {
        while self.task.tokens.len() < tokens {
            let (note, place) = (self.notes + 1, PLACES[self.notes * 3 % PLACES.len()]);
            let (some, others) = (WORDS[self.notes * 13 % WORDS.len()], WORDS[(self.notes * 17 + 5) % WORDS.len()]);
            self.say(&format!("Note {note}: {place} somebody left a {some} beside a {others}.\n"));
            self.notes += 1;
        }
    }

    fn ends_context(&mut self) {
        self.task.context = self.task.tokens.len();
    }
}

impl Task {
    /// Evaluates the policies of `options` on it; context and tokens are the task's own.
    pub fn run(
        &self,
        model: &LanguageModel,
        pool: &Pool,
        options: &EvalOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<TaskResult, EvalError> {
        let tokens = self.tokens.len() - self.context - 1;
        let options = EvalOptions { context: self.context, tokens, ..options.clone() };
        let evaluation = evaluate(model, pool, &self.tokens, &options, progress)?;
        // What is predicted at a token is the one after it.
        let asked: Vec<usize> = self.answers.iter().cloned().flatten().map(|at| at - self.context - 1).collect();
        let right = |score: &Score, which: usize| {
            asked.iter().filter(|&&at| score.tokens[at].right[which]).count() as f64 / asked.len() as f64
        };
        let of = |score: &Score| {
            let answers: Vec<_> = asked.iter().map(|&at| score.tokens[at]).collect();
            TaskScore { policy: score.policy.clone(), right: right(score, 0), kl_mean: kl_mean(&answers) }
        };
        Ok(TaskResult {
            task: self.name,
            asked: asked.len(),
            full_right: evaluation.scores.first().map_or(f64::NAN, |score| right(score, 1)),
            scores: evaluation.scores.iter().map(of).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny::Tiny;

    #[test]
    fn answers_stand_behind_their_questions_and_in_the_context() {
        let model = LanguageModel::open(&Tiny::default().temp(), None).unwrap();
        let found = tasks(&model.tokenizer, 4000);
        assert_eq!(found.len(), 7);
        for task in &found {
            assert!((4000..4600).contains(&task.context), "{}: {}", task.name, task.context);
            assert!(task.answers.len() >= 4 && task.answers.is_sorted_by(|a, b| a.end <= b.start), "{}", task.name);
            assert!(task.answers[0].start > task.context && task.answers.last().unwrap().end < task.tokens.len());
            if task.name != "count words" {
                let context = &task.tokens[..task.context];
                for answer in &task.answers {
                    // With what stands before it, so that it is no accident.
                    let line = &task.tokens[answer.start - 1..answer.end];
                    assert!(context.windows(line.len()).any(|part| part == line), "{}", task.name);
                }
            }
        }
    }

    #[test]
    fn a_lookup_lies_at_its_depth() {
        let model = LanguageModel::open(&Tiny::default().temp(), None).unwrap();
        let key = model.tokenizer.encode("Berlin");
        for (depth, name) in [(0.1, "a"), (0.9, "b")] {
            let task = look_up(&model.tokenizer, 9000, name, depth);
            let at = task.tokens.windows(key.len()).position(|part| part == key).unwrap();
            assert!((at as f64 / 9000.0 - depth).abs() < 0.02, "{at}");
        }
    }
}
