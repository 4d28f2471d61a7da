//! Knobs: policy, guard and budget of a lane, which change while tokens stream.

use super::{LaneState, preempt::Reach};
use crate::{
    cache::{Knobs, Policy, Spread},
    engine::EventKind,
    quality::GuardMode,
};

impl LaneState {
    /// Changes the policy, from the next step on.
    pub fn set_policy(&mut self, policy: Policy) {
        let old = self.cache.policy();
        let (before, after) = match (old, policy) {
            _ if old == policy => return,
            (Policy::KCache(before), Policy::KCache(after)) if old.turns_into(&policy) => (before, after),
            _ => {
                let message = format!("a lane keeps its kind of cache: {old} cannot become {policy} while it runs");
                return self.error(None, message);
            }
        };
        // Where it does not fit after all, the change itself says so.
        let _ = self.make_room(Reach::Everybody, None, |lane| lane.cache.knobs_fit(after));
        let caches = self.sequences.values_mut().map(|sequence| &mut sequence.cache);
        if let Err(full) = self.cache.set_knobs(after, caches) {
            return self.error(None, format!("the policy stays as it was: {full}"));
        }
        let change = change(&before, &after);
        self.tell_knob(change.clone());
        self.reset_guards(&format!("the policy was changed: {change}"));
    }

    /// Changes what the guard does, from the next step on.
    pub fn set_guard(&mut self, mode: GuardMode) {
        if self.cache.policy().knobs().is_none() {
            return self.error(None, "the lane reads every row: there is nothing to guard".to_owned());
        }
        if self.guard.mode == mode {
            return;
        }
        self.guard.mode = mode;
        let change = format!("guard={mode}");
        self.tell_knob(change.clone());
        self.reset_guards(&format!("the guard was changed: {change}"));
    }

    /// Changes what may be held on the device. Before its next step the lane makes that true.
    pub fn set_budget(&mut self, bytes: Option<u64>) {
        if self.cache.device().cap() == bytes {
            return;
        }
        self.cache.device_mut().set_cap(bytes);
        self.tell_knob(match bytes {
            Some(bytes) => format!("budget={:.0}MiB", bytes as f64 / f64::from(1 << 20)),
            None => "budget=none".to_owned(),
        });
    }

    fn tell_knob(&self, change: String) {
        let (lane, step, policy) = (self.lane, self.steps + 1, self.cache.policy());
        self.publisher.publish(EventKind::Knob { lane, step, change, policy });
    }
}

/// What differs between two settings of the knobs that can change, as it is written in a policy.
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
