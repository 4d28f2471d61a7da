//! What can be asked of the engine. Requests go in through a bounded channel and are handled between steps.

use crate::engine::{Lane, Prefilled, SessionId, StopSequences};
use crate::{cache::Policy, model::ChatMessage, quality::GuardMode, text::without_mark};

/// One request to the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Opens a session with one empty sequence in each of `lanes`. The id is chosen by the caller and must be new.
    Open {
        /// The id under which every later request and event names the session.
        session: SessionId,
        /// What the user calls it.
        name: String,
        /// The system message; `None` leaves it to the model's chat template.
        system: Option<String>,
        /// The lanes that run it.
        lanes: Vec<Lane>,
    },
    /// Gives a session another system message. Nothing may have been said in it yet.
    SetSystem {
        /// Which session.
        session: SessionId,
        /// The system message.
        system: String,
    },
    /// Renames a session.
    Rename {
        /// Which session.
        session: SessionId,
        /// Its new name.
        name: String,
    },
    /// Adds a user message and has every lane of the session answer it.
    SubmitMessage {
        /// Which session; it must not be answering.
        session: SessionId,
        /// A document the message is about; it stands before the text in the prompt.
        document: Option<Document>,
        /// What the user wrote.
        text: String,
        /// How to answer.
        options: GenerationOptions,
    },
    /// The same with tokens instead of a message, outside of any chat template: for benchmarks and for load.
    SubmitTokens {
        /// Which session; it must not be answering.
        session: SessionId,
        /// A prompt computed before, which is copied into every lane when the answer starts there; then nothing may have
        /// been said yet, and `tokens` are read by policy, as if they had been generated.
        prefilled: Option<Prefilled>,
        /// The tokens that follow; at least one.
        tokens: Vec<u32>,
        /// How to answer.
        options: GenerationOptions,
        /// Whether the session is closed once its answers have ended.
        once: bool,
    },
    /// Gives a lane of a session its side of an earlier conversation. Nothing may have been said in it yet, and nothing is
    /// computed before the next message: then all of it is, by prefill.
    RestoreHistory {
        /// Which session.
        session: SessionId,
        /// Which of its lanes.
        lane: Lane,
        /// What was said, oldest first; answers are those of this lane.
        messages: Vec<ChatMessage>,
    },
    /// Stops the answer of one lane, or of all, keeping what was said so far. Also takes back a message that still waits.
    Stop {
        /// Which session.
        session: SessionId,
        /// Which lane; `None` for all.
        lane: Option<Lane>,
    },
    /// Ends a session and gives its pages back.
    Close {
        /// Which session.
        session: SessionId,
    },
    /// Switches compare mode: from the session's next answer on both lanes are fed the same tokens, those that `kv`
    /// chooses, and every token is followed by a `compare` event. Where the lanes were not fed the same so far, the
    /// `kcache` lane takes over what `kv` has said. Switched off, answers go on as each lane chooses.
    Compare {
        /// Which session; it must run in both lanes.
        session: SessionId,
        /// On or off.
        on: bool,
    },
    /// Looks at a session in a lane, in place of what was looked at before: `text` events tell its tokens, and from its
    /// next token on a `read` event says what each token read, and now and then a `coverage` event what more or fewer
    /// rows would hold. What looking takes is no part of the step's time. `None` looks at nothing.
    Inspect(Option<(SessionId, Lane)>),
    /// Changes a lane's policy; acts from the lane's next step. A change of `dense` moves V pages between the tiers;
    /// where they do not fit, answers are preempted for them.
    /// A lane keeps its kind of cache: `kv` stays `kv`, `kcache` stays `kcache` with the same `k`.
    SetPolicy {
        /// Which lane.
        lane: Lane,
        /// What it shall be from now on.
        policy: Policy,
    },
    /// Sets a lane's device budget in bytes; `None` lifts it. Where more is held, idle sessions' pages are moved away and
    /// answers are preempted until it fits, before the lane's next step.
    SetBudget {
        /// Which lane.
        lane: Lane,
        /// Bytes of K, V, tail and workspace the lane may hold on the device.
        bytes: Option<u64>,
    },
    /// Changes what the guard of a lane does; acts from the lane's next step.
    SetGuard {
        /// Which lane.
        lane: Lane,
        /// What it does from now on.
        mode: GuardMode,
    },
    /// Stops every answer, closes every session and ends the engine thread.
    Shutdown,
}

/// A text file that a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The file's name, for the screen.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Document {
    /// The message that is made of `text` and the document that it is about: the document stands before it. Neither
    /// begins with a byte order mark.
    pub fn before(document: Option<&Self>, text: &str) -> String {
        let text = without_mark(text);
        match document {
            Some(document) => format!("{}\n\n{text}", without_mark(&document.text).trim_end()),
            None => text.to_owned(),
        }
    }
}

/// How a message is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationOptions {
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// Whether generation goes on past the end-of-sequence token (benchmarks).
    pub ignore_eos: bool,
    /// The answer ends before the first of these texts, of which nothing is told. What follows it in the conversation
    /// follows the answer as it was told.
    pub stop: StopSequences,
    /// Who goes first where lanes must choose.
    pub priority: Priority,
}

/// Who goes first. What a person typed goes before what the program asked by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Started by the program (the demo).
    Background,
    /// Typed by a person.
    #[default]
    Typed,
}

/// How the next token is chosen from the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; otherwise the logits are divided by it.
    pub temperature: f64,
    /// Keep only the `top_k` likeliest tokens.
    pub top_k: Option<usize>,
    /// Keep only the likeliest tokens whose probabilities reach this sum, in (0, 1].
    pub top_p: Option<f64>,
    /// Divides the logits of tokens seen in the last 64; 1 is off.
    pub repeat_penalty: f32,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy, so that two lanes differ by their policy alone.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, repeat_penalty: 1.0, seed: 0 }
    }
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            max_tokens: 256,
            ignore_eos: false,
            stop: StopSequences::default(),
            priority: Priority::Typed,
        }
    }
}
