//! Knobs: policies and budgets that change while tokens stream.

use super::{Worker, preempt::Reach};
use crate::engine::{EventKind, Lane, lane::guard::guarded};
use crate::{
    cache::{Knobs, Policy, Spread},
    quality::GuardMode,
};

impl Worker {
    /// Turns a lane's policy, from its next step on.
    pub(crate) fn set_policy(&mut self, lane: Lane, policy: Policy) {
        let policy = match policy.on(self.model.id()) {
            Ok(policy) => policy,
            Err(error) => return self.error(Some(lane), None, format!("the policy stays as it was: {error}")),
        };
        let Some(index) = self.lanes.iter().position(|state| state.lane == lane) else { return };
        if let (Policy::KCache(old), Policy::KCache(new)) = (self.lanes[index].cache.policy(), policy)
            && Policy::KCache(old).turns_into(&policy)
        {
            let fits = |worker: &Self| worker.lanes[index].cache.knobs_fit(new);
            // Where it does not fit after all, turning it says so.
            let _ = self.make_room(index, Reach::Everybody, None, fits);
        }
        let state = &mut self.lanes[index];
        let step = state.steps + 1;
        let sequences = self.sessions.values_mut().filter_map(|session| session.sequence_mut(lane));
        let change = match (state.cache.policy(), policy) {
            (Policy::KCache(old), Policy::KCache(new)) if old != new && Policy::KCache(old).turns_into(&policy) => {
                match state.cache.set_knobs(new, sequences.map(|sequence| &mut sequence.cache)) {
                    Ok(()) => change(&old, &new),
                    Err(full) => return self.error(Some(lane), None, format!("the policy stays as it was: {full}")),
                }
            }
            (old, new) if old == new => return,
            (old, new) => {
                let message = format!("a lane keeps its kind of cache: {old} cannot become {new} while it runs");
                return self.error(Some(lane), None, message);
            }
        };
        self.publisher.publish(EventKind::Knob { lane, step, change: change.clone(), policy });
        self.reset_guards(index, &format!("the policy was turned: {change}"));
    }

    /// Turns what a lane's guard does.
    pub(crate) fn set_guard(&mut self, lane: Lane, mode: GuardMode) {
        let Some(index) = self.lanes.iter().position(|state| state.lane == lane) else { return };
        let state = &mut self.lanes[index];
        if state.cache.policy().knobs().is_none() {
            let message = "the lane reads every row: there is nothing to guard".to_owned();
            return self.error(Some(lane), None, message);
        }
        if state.guard.mode == mode {
            return;
        }
        state.guard.mode = mode;
        let (step, policy) = (state.steps + 1, state.cache.policy());
        let change = format!("guard={mode}");
        self.publisher.publish(EventKind::Knob { lane, step, change: change.clone(), policy });
        self.reset_guards(index, &format!("the guard was turned: {change}"));
    }

    /// Has every guard of a lane begin anew.
    fn reset_guards(&mut self, index: usize, reason: &str) {
        let state = &mut self.lanes[index];
        let mut changes = Vec::new();
        for (&id, session) in &mut self.sessions {
            let Some(sequence) = session.sequence_mut(state.lane) else { continue };
            let verdict = sequence.guard.reset(reason);
            changes.extend(verdict.map(|verdict| guarded(state, id, sequence, verdict)));
        }
        changes.into_iter().for_each(|change| self.publisher.publish(EventKind::Guard(change)));
    }

    /// Changes what a lane may hold on the device. Before its next step the lane makes that true.
    pub(crate) fn set_budget(&mut self, lane: Lane, bytes: Option<u64>) {
        let Some(state) = self.lanes.iter_mut().find(|state| state.lane == lane) else { return };
        if state.cache.device().cap() == bytes {
            return;
        }
        state.cache.device_mut().set_cap(bytes);
        let (step, policy) = (state.steps + 1, state.cache.policy());
        let change = match bytes {
            Some(bytes) => format!("budget={:.0}MiB", bytes as f64 / f64::from(1 << 20)),
            None => "budget=none".to_owned(),
        };
        self.publisher.publish(EventKind::Knob { lane, step, change, policy });
    }
}

/// What differs between two settings of the knobs that turn, as it is written in a policy.
fn change(old: &Knobs, new: &Knobs) -> String {
    let mut changes = Vec::new();
    if old.n != new.n {
        changes.push(format!("n={}", new.n));
    }
    if old.tail != new.tail {
        changes.push(format!("tail={}", new.tail));
    }
    if old.dense != new.dense {
        changes.push(format!("dense={}", new.dense));
    }
    if old.select != new.select {
        changes.push(format!("select={}", new.select));
    }
    if old.p != new.p {
        changes.push(new.p.map_or_else(|| "p=none".to_owned(), |p| format!("p={p}")));
    }
    if old.spread != new.spread {
        changes.push(match new.spread {
            Spread::Profile(profile) => format!("profile={}", profile.name()),
            Spread::BuiltIn | Spread::Even => "profile=none".to_owned(),
        });
    }
    changes.join(",")
}
