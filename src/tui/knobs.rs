//! Turning the KCache lane's policy while tokens stream.

use crate::{
    cache::{Knobs, Policy, Select, Spread, Tail},
    engine::{Lane, Op},
};

use super::{action::Action, command::Command, state::State};

/// Turns the knob that an action is for. Several presses in a row build on each other, confirmed or not.
pub fn turn(state: &mut State, action: Action) -> Vec<Command> {
    let Some(Policy::KCache(knobs)) = state.policy() else {
        state.toast("this lane has no knobs: its policy is kv", true);
        return Vec::new();
    };
    let (most_rows, layers) = state.started.as_ref().map_or((usize::MAX, usize::MAX), |s| (s.context, s.layers));
    let Knobs { n, tail, dense, select, .. } = knobs;
    let turned = match action {
        Action::NDouble => Knobs { n: n.saturating_mul(2).min(most_rows.max(n)), ..knobs },
        Action::NHalve => Knobs { n: (n / 2).max(1), ..knobs },
        Action::NUp => Knobs { n: (n + 1).min(most_rows.max(n)), ..knobs },
        Action::NDown => Knobs { n: (n - 1).max(1), ..knobs },
        Action::TailCycle => Knobs {
            tail: match tail {
                Tail::None => Tail::Renorm,
                Tail::Renorm => Tail::Mean,
                Tail::Mean => Tail::None,
            },
            ..knobs
        },
        Action::DenseUp => Knobs { dense: (dense + 1).min(layers.max(dense)), ..knobs },
        Action::DenseDown => Knobs { dense: dense.saturating_sub(1), ..knobs },
        Action::SelectCycle => Knobs {
            select: match select {
                Select::Head => Select::Group,
                Select::Group => Select::Head,
            },
            ..knobs
        },
        _ => knobs,
    };
    set(state, turned)
}

/// Asks for these knobs. Where they do not say how rows are spread, that stays as it is.
pub fn set(state: &mut State, mut knobs: Knobs) -> Vec<Command> {
    if let (Spread::BuiltIn, Some(Policy::KCache(now))) = (knobs.spread, state.policy()) {
        (knobs.spread, knobs.dense) = (now.spread, now.dense);
    }
    let policy = Policy::KCache(knobs);
    if state.policy() == Some(policy) {
        return Vec::new();
    }
    if let Some(now) = state.policy().filter(|now| !now.turns_into(&policy)) {
        state.toast(format!("a lane keeps how it stores keys: {now} cannot become {policy}"), true);
        return Vec::new();
    }
    if state.stopped.is_some() {
        state.toast("the engine has ended; its knobs turn nothing", true);
        return Vec::new();
    }
    state.wanted = Some(policy);
    vec![Command::Engine(Op::SetPolicy { lane: Lane::KCache, policy })]
}
