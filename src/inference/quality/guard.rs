//! The guard of a session decides whether its answers may go on by top-N.
//!
//! It is a state machine without I/O. Every decoded token says what mass the chosen rows held and, where it was probed,
//! how far the policy was from exact attention. Both are averaged over a window of tokens. A figure is past its bound
//! when its mean is and most of its values are, so that one odd token is no reason. Then the guard warns, or has the
//! session read every row. It judges from a quarter of a window on, so that short answers are judged too. To go back to
//! top-N it takes a whole window with clearly better figures, so that it does not swing between the two.
//!
//! A guard lives as long as its session: an answer begins with what the guard knows from the one before.

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize};

/// What the guard does about figures past their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardMode {
    /// Nothing.
    #[default]
    Off,
    /// It says so.
    Warn,
    /// It has the session read every row.
    Rollback,
}

impl fmt::Display for GuardMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Rollback => "rollback",
        })
    }
}

/// What a guard watches, and what it does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardOptions {
    /// What it does.
    pub mode: GuardMode,
    /// A token is probed at every position that this divides; 0 for never.
    pub probe_every: usize,
    /// The largest mean KL(exact ‖ policy), in nats; 0 where it is not looked at.
    pub kl: f64,
    /// The smallest mean share of the softmax that the chosen rows hold; 0 where it is not looked at.
    pub kept_mass: f64,
    /// Tokens over which figures are averaged, at least 1.
    pub window: usize,
    /// Tokens after which a session that reads every row may return to top-N; 0 for never.
    pub back: usize,
}

impl GuardOptions {
    /// No probes and no guard.
    pub const OFF: Self =
        Self { mode: GuardMode::Off, probe_every: 0, kl: 0.25, kept_mass: 0.5, window: 64, back: 256 };
}

/// How a session reads, as its guard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// As the policy says, and nothing is wrong.
    #[default]
    TopN,
    /// As the policy says, although figures are past their bounds.
    Warned,
    /// Every row.
    Full,
}

impl fmt::Display for GuardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TopN => "top-N",
            Self::Warned => "warned",
            Self::Full => "full attention",
        })
    }
}

/// What is known of one decoded token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observed {
    /// The share of the softmax that the policy's rows held, or would have held.
    pub kept_mass: Option<f64>,
    /// KL(exact ‖ policy) in nats.
    pub kl: Option<f64>,
}

/// A change of the guard's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The state from the next token on.
    pub state: GuardState,
    /// Why, in one line with the figures.
    pub reason: String,
    /// The mean KL of the window, in nats, where it was probed.
    pub kl: Option<f64>,
    /// The mean kept mass of the window, where rows were chosen.
    pub kept_mass: Option<f64>,
}

/// The guard of one session.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    state: GuardState,
    /// Tokens since the state began.
    tokens: usize,
    kl: Values,
    kept: Values,
}

impl Guard {
    /// How the session reads.
    pub fn state(&self) -> GuardState {
        self.state
    }

    /// Takes in a token; what changes from the next one on, if anything does.
    pub(crate) fn observe(&mut self, options: &GuardOptions, observed: Observed) -> Option<Verdict> {
        self.tokens += 1;
        self.kl.take(self.tokens, observed.kl, options.window);
        self.kept.take(self.tokens, observed.kept_mass, options.window);
        let next = self.next(options);
        (next != self.state).then(|| self.turn(options, next))
    }

    /// Begins anew: the policy was turned. What changes by that, if anything does.
    pub fn reset(&mut self, reason: &str) -> Option<Verdict> {
        let changed = self.state != GuardState::TopN;
        *self = Self::default();
        changed.then(|| Verdict { state: self.state, reason: reason.to_owned(), kl: None, kept_mass: None })
    }

    fn next(&self, options: &GuardOptions) -> GuardState {
        let whole = self.tokens >= options.window;
        // Of less than a window a single value is no mean.
        let enough = |values: &Values| whole || (self.tokens >= options.window.div_ceil(4) && values.len() > 1);
        let kl_past = || enough(&self.kl) && self.kl.past(|kl| kl > options.kl);
        let kept_past = || enough(&self.kept) && self.kept.past(|kept| kept < options.kept_mass);
        let past = (options.kl > 0.0 && kl_past()) || kept_past();
        match (self.state, options.mode) {
            (_, GuardMode::Off) => GuardState::TopN,
            (GuardState::Full, GuardMode::Warn) => GuardState::TopN,
            (GuardState::Full, GuardMode::Rollback) => {
                let may = whole && options.back > 0 && self.tokens >= options.back;
                if may && self.recovered(options) { GuardState::TopN } else { GuardState::Full }
            }
            (_, GuardMode::Rollback) if past => GuardState::Full,
            (GuardState::TopN, GuardMode::Warn) if past => GuardState::Warned,
            (GuardState::Warned, _) if whole && self.recovered(options) => GuardState::TopN,
            (state, _) => state,
        }
    }

    /// Whether everything that is looked at was measured, and is clearly within its bound: half the KL, and a quarter
    /// of the way from the least mass to all of it.
    fn recovered(&self, options: &GuardOptions) -> bool {
        let kl = options.kl <= 0.0 || self.kl.mean().is_some_and(|kl| kl <= options.kl / 2.0);
        let least = options.kept_mass + (1.0 - options.kept_mass) / 4.0;
        let kept = options.kept_mass <= 0.0 || self.kept.mean().is_some_and(|kept| kept >= least);
        kl && kept
    }

    fn turn(&mut self, options: &GuardOptions, state: GuardState) -> Verdict {
        let (kl, kept_mass) = (self.kl.mean(), self.kept.mean());
        let mut figures = Vec::new();
        if let Some(kl) = kl.filter(|_| options.kl > 0.0) {
            figures.push(format!("KL {kl:.3} (bound {}, {})", options.kl, count(self.kl.len(), "probe")));
        }
        if let Some(kept) = kept_mass.filter(|_| options.kept_mass > 0.0) {
            figures.push(format!("kept mass {kept:.2} (bound {})", options.kept_mass));
        }
        let reason = match (options.mode, figures.is_empty()) {
            (GuardMode::Off, _) => "the guard was turned off".to_owned(),
            (_, true) => "nothing measured".to_owned(),
            (_, false) => {
                format!("{} over {}", figures.join(", "), count(self.tokens.min(options.window), "token"))
            }
        };
        *self = Self { state, ..Self::default() };
        Verdict { state, reason, kl, kept_mass }
    }
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Values of the last tokens, each with its token.
#[derive(Debug, Clone, Default)]
struct Values(VecDeque<(usize, f64)>);

impl Values {
    fn take(&mut self, token: usize, value: Option<f64>, window: usize) {
        self.0.extend(value.map(|value| (token, value)));
        while self.0.front().is_some_and(|(at, _)| at + window <= token) {
            self.0.pop_front();
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.iter().map(|(_, value)| value).sum::<f64>() / self.0.len() as f64)
    }

    /// Whether the mean and most of the values are past a bound.
    fn past(&self, bound: impl Fn(f64) -> bool) -> bool {
        let past = self.0.iter().filter(|(_, value)| bound(*value)).count();
        2 * past > self.0.len() && self.mean().is_some_and(bound)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: GuardOptions =
        GuardOptions { mode: GuardMode::Rollback, probe_every: 2, kl: 0.5, kept_mass: 0.6, window: 4, back: 6 };

    /// Has a guard see tokens, of which every second was probed; the states after each, and the last verdict.
    fn states(options: &GuardOptions, tokens: &[(f64, f64)]) -> (Vec<GuardState>, Option<Verdict>) {
        let (mut guard, mut last) = (Guard::default(), None);
        let states = tokens.iter().enumerate().map(|(at, &(kl, kept))| {
            // A session that reads every row knows the policy's mass only where it was probed.
            let probed = at % 2 == 1;
            let kept_mass = (guard.state() != GuardState::Full || probed).then_some(kept);
            last = guard.observe(options, Observed { kept_mass, kl: probed.then_some(kl) }).or(last.take());
            guard.state()
        });
        (states.collect(), last)
    }

    #[test]
    fn it_turns_when_its_figures_say_so() {
        use GuardState::{Full, TopN, Warned};
        let (good, bad, thin) = ((0.01, 0.9), (0.9, 0.9), (0.01, 0.3));
        let warn = GuardOptions { mode: GuardMode::Warn, ..OPTIONS };
        let off = GuardOptions { mode: GuardMode::Off, ..OPTIONS };
        let stays = GuardOptions { back: 0, ..OPTIONS };
        let long = GuardOptions { window: 16, ..OPTIONS };
        let (no_kl, no_mass) = (GuardOptions { kl: 0.0, ..OPTIONS }, GuardOptions { kept_mass: 0.0, ..OPTIONS });
        for (name, options, tokens, expected) in [
            ("good figures", OPTIONS, vec![good; 20], TopN),
            ("one odd token", OPTIONS, [vec![good; 9], vec![(50.0, 0.9); 1], vec![good; 9]].concat(), TopN),
            ("one probe", OPTIONS, vec![bad; 3], TopN),
            ("two probes", OPTIONS, vec![bad; 4], Full),
            ("not yet a quarter of a window", long, vec![thin; 3], TopN),
            ("a quarter of a window with too little mass", long, vec![thin; 4], Full),
            ("a quarter of a window with one probe", long, vec![bad; 3], TopN),
            ("a quarter of a window with two probes", long, vec![bad; 4], Full),
            ("one token with too little mass", OPTIONS, vec![thin; 1], TopN),
            ("too little mass", OPTIONS, vec![thin; 2], Full),
            ("a window of one token", GuardOptions { window: 1, ..OPTIONS }, vec![thin; 1], Full),
            ("it may return", OPTIONS, [vec![bad; 4], vec![good; 6]].concat(), TopN),
            ("not too early", OPTIONS, [vec![bad; 4], vec![good; 5]].concat(), Full),
            ("better, but not clearly", OPTIONS, [vec![bad; 4], vec![(0.4, 0.9); 20]].concat(), Full),
            ("enough mass, but not clearly", OPTIONS, [vec![bad; 4], vec![(0.01, 0.65); 20]].concat(), Full),
            ("no way back", stays, [vec![bad; 4], vec![good; 50]].concat(), Full),
            ("only told", warn, vec![bad; 4], Warned),
            ("over again", warn, [vec![bad; 4], vec![good; 4]].concat(), TopN),
            ("off", off, vec![bad; 50], TopN),
            ("KL is not looked at", no_kl, vec![bad; 50], TopN),
            ("KL is not looked at, mass is", no_kl, vec![thin; 4], Full),
            ("mass is not looked at", no_mass, vec![thin; 50], TopN),
            ("mass is not looked at, KL is", no_mass, vec![bad; 4], Full),
        ] {
            assert_eq!(states(&options, &tokens).0.last(), Some(&expected), "{name}");
        }
    }

    #[test]
    fn the_reason_has_the_figures() {
        let (_, verdict) = states(&OPTIONS, &[(0.9, 0.9); 4]);
        let verdict = verdict.unwrap();
        assert_eq!(verdict.reason, "KL 0.900 (bound 0.5, 2 probes), kept mass 0.90 (bound 0.6) over 4 tokens");
        assert_eq!((verdict.state, verdict.kl), (GuardState::Full, Some(0.9)));
    }

    #[test]
    fn without_probes_nothing_brings_it_back() {
        let mut guard = Guard::default();
        let options = GuardOptions { probe_every: 0, ..OPTIONS };
        let kept = |kept| Observed { kept_mass: Some(kept), kl: None };
        assert!((0..4).filter_map(|_| guard.observe(&options, kept(0.1))).count() == 1);
        assert_eq!(guard.state(), GuardState::Full);
        assert!((0..100).all(|_| guard.observe(&options, Observed::default()).is_none()));
        // A knob does.
        assert_eq!(guard.reset("n=256").map(|verdict| verdict.state), Some(GuardState::TopN));
        assert_eq!(guard.reset("n=512"), None);
    }

    #[test]
    fn a_turned_mode_acts_on_those_that_were_rolled_back() {
        for (mode, state) in [(GuardMode::Off, GuardState::TopN), (GuardMode::Warn, GuardState::TopN)] {
            let mut guard = Guard::default();
            let bad = Observed { kept_mass: Some(0.1), kl: Some(2.0) };
            assert!((0..4).filter_map(|_| guard.observe(&OPTIONS, bad)).count() == 1);
            let turned = GuardOptions { mode, ..OPTIONS };
            let verdicts: Vec<_> = (0..4).filter_map(|_| guard.observe(&turned, Observed::default())).collect();
            assert_eq!(verdicts.first().map(|verdict| verdict.state), Some(state), "{mode}");
        }
    }

    fn tokens() -> impl Strategy<Value = Vec<(f64, f64)>> {
        let token = prop_oneof![Just((0.01, 0.95)), Just((0.9, 0.9)), Just((0.1, 0.2)), (0.0..2.0f64, 0.0..1.0f64)];
        // Runs, as real figures have them.
        prop::collection::vec((token, 1usize..12), 1..20)
            .prop_map(|runs| runs.into_iter().flat_map(|(token, count)| vec![token; count]).collect())
    }

    proptest! {
        #[test]
        fn it_keeps_its_word(tokens in tokens(), window in 1usize..9, back in 0usize..20, rollback: bool) {
            let mode = if rollback { GuardMode::Rollback } else { GuardMode::Warn };
            let options = GuardOptions { mode, window, back, ..OPTIONS };
            let (states, _) = states(&options, &tokens);
            let mut began = 0;
            let mut state = GuardState::TopN;
            for (at, &next) in states.iter().enumerate() {
                let never = if rollback { GuardState::Warned } else { GuardState::Full };
                prop_assert_ne!(next, never);
                if next != state {
                    // A quarter of a window is seen before something is wrong, a whole one before it is well again, and
                    // the way back takes its time.
                    let least = if next == GuardState::TopN { window } else { window.div_ceil(4) };
                    prop_assert!(at + 1 - began >= least);
                    prop_assert!(state != GuardState::Full || (back > 0 && at + 1 - began >= back));
                    (state, began) = (next, at + 1);
                }
            }
        }

        #[test]
        fn what_stays_past_a_bound_is_caught_and_what_stays_within_is_left_alone(
            (past, within) in (0.51..9.0f64, 0.0..0.5f64),
            kept in 0.6..1.0f64,
            window in 2usize..40,
        ) {
            let options = GuardOptions { window, ..OPTIONS };
            let caught = states(&options, &vec![(past, kept); window]).0;
            // Every second token is probed, and two probes are needed where the window is longer than they take.
            let first = window.min(window.div_ceil(4).max(4)) - 1;
            prop_assert_eq!(caught.iter().position(|&state| state == GuardState::Full), Some(first));
            let left = states(&options, &vec![(within, kept); 3 * window]).0;
            prop_assert!(left.iter().all(|&state| state == GuardState::TopN));
        }
    }
}
