//! Changing the KCache lane's policy while tokens stream.

use crate::{
    cache::{Knobs, Policy, Select, Spread, Tail},
    config::Budget,
    engine::{Lane, Request},
    quality::GuardMode,
};

use crate::tui::{
    command::Command,
    input::action::Action,
    state::{Focus, State},
    widgets::Unit,
};

/// Budgets change in whole steps of this.
const MIB: u64 = 1 << 20;

/// Changes the knob that an action is for. Several presses in a row build on each other, confirmed or not.
pub fn change(state: &mut State, action: Action) -> Vec<Command> {
    let Some(Policy::KCache(knobs)) = state.policy() else {
        state.toast("this lane has no knobs: its policy is kv", true);
        return Vec::new();
    };
    let (most_rows, layers) = state.started.as_ref().map_or((usize::MAX, usize::MAX), |s| (s.context, s.layers));
    let Knobs { n, tail, dense, select, .. } = knobs;
    let changed = match action {
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
    set(state, changed)
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
        state.toast(format!("a lane keeps how it stores keys and rows: {now} cannot become {policy}"), true);
        return Vec::new();
    }
    if state.stopped.is_some() {
        state.toast("the engine has ended; its knobs change nothing", true);
        return Vec::new();
    }
    state.wanted = Some(policy);
    vec![Command::Engine(Request::SetPolicy { lane: Lane::KCache, policy })]
}

/// Asks for another mode of the KCache lane's guard.
pub fn guard(state: &mut State, mode: GuardMode) -> Vec<Command> {
    if state.stopped.is_some() {
        state.toast("the engine has ended; its knobs change nothing", true);
        return Vec::new();
    }
    vec![Command::Engine(Request::SetGuard { lane: Lane::KCache, mode })]
}

/// Asks for the policy and the budgets, as they are now, to be kept in the user's configuration.
pub fn keep(state: &mut State) -> Vec<Command> {
    let (Some(Policy::KCache(mut now)), Some(started)) = (state.policy(), &state.started) else {
        state.toast("there is nothing to keep before the engine has started", true);
        return Vec::new();
    };
    let began = started.lanes.iter().find(|card| card.lane == Lane::KCache).map(|card| card.policy);
    // What the start made of the configured policy on this model stays unsaid: on another one it may be something else.
    if let (Some(Policy::KCache(began)), Policy::KCache(configured)) = (began, state.configured.kcache.policy)
        && (now.spread, now.dense) == (began.spread, began.dense)
    {
        (now.spread, now.dense) = (configured.spread, configured.dense);
    }
    let budget = |lane| Budget(state.budget(lane)).to_string();
    let settings = [
        ("lanes.kcache.policy", Policy::KCache(now).to_string()),
        ("lanes.kcache.budget", budget(Lane::KCache)),
        ("lanes.kv.budget", budget(Lane::Kv)),
    ];
    vec![Command::KeepSettings(settings.map(|(path, value)| (path.to_owned(), value)).into())]
}

/// Changes device budgets: that of the lane whose transcript is focused, else those of both.
pub fn budget(state: &mut State, action: Action) -> Vec<Command> {
    if state.stopped.is_some() {
        state.toast("the engine has ended; its knobs change nothing", true);
        return Vec::new();
    }
    let lanes = match state.focus {
        Focus::Transcript(lane) => vec![lane],
        _ => Lane::ALL.to_vec(),
    };
    let mut commands = Vec::new();
    let mut said = Vec::new();
    for lane in lanes {
        let now = state.budget(lane);
        let ledger = state.metrics.lanes[lane as usize].ledger_at(f64::INFINITY);
        let held = ledger.map_or(0, |ledger| ledger.device.cache());
        let wanted = budget_after(action, now, held);
        said.push(match wanted {
            Some(bytes) => format!("{} {}", state.lane_name(lane), Unit::Bytes.text(Some(bytes as f64))),
            None => format!("{} none", state.lane_name(lane)),
        });
        if wanted != now {
            state.wanted_budgets[lane as usize] = Some(wanted);
            commands.push(Command::Engine(Request::SetBudget { lane, bytes: wanted }));
        }
    }
    let simulated = if state.simulated() { ", simulated" } else { "" };
    state.toast(format!("device budget{simulated}: {}", said.join(", ")), false);
    commands
}

/// The budget after a change, in whole MiB.
fn budget_after(action: Action, now: Option<u64>, held: u64) -> Option<u64> {
    match (action, now) {
        // The first cap is what is there: the next page is one too many.
        (Action::BudgetDown, None) => Some(held.div_ceil(MIB).max(1) * MIB),
        (Action::BudgetDown, Some(bytes)) => Some((bytes.div_ceil(MIB) - bytes.div_ceil(MIB).div_ceil(8)).max(1) * MIB),
        (Action::BudgetUp, Some(bytes)) => Some((bytes / MIB + (bytes / MIB).div_ceil(8).max(1)) * MIB),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_move_by_eighths_of_whole_mebibytes() {
        let mib = |count| Some(count * MIB);
        assert_eq!(budget_after(Action::BudgetDown, mib(64), 0), mib(56));
        assert_eq!(budget_after(Action::BudgetDown, mib(3), 0), mib(2));
        assert_eq!(budget_after(Action::BudgetDown, mib(1), 0), mib(1));
        assert_eq!(budget_after(Action::BudgetDown, Some(64 * MIB - 5), 0), mib(56));
        assert_eq!(budget_after(Action::BudgetUp, mib(64), 0), mib(72));
        assert_eq!(budget_after(Action::BudgetUp, mib(1), 0), mib(2));
        assert_eq!(budget_after(Action::BudgetUp, Some(5), 0), mib(1));
        assert_eq!(budget_after(Action::BudgetUp, None, 9 * MIB), None);
        assert_eq!(budget_after(Action::BudgetDown, None, 9 * MIB + 1), mib(10));
        assert_eq!(budget_after(Action::BudgetDown, None, 0), mib(1));
        assert_eq!(budget_after(Action::BudgetNone, mib(64), 0), None);
    }
}
