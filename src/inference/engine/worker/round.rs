//! A round: every lane prepares its next step, then a prompt that lanes share goes on, then every lane takes a step.

use std::time::Instant;

use super::Worker;
use crate::engine::{
    EventKind, Lane, SessionId, Step,
    lane::{
        LaneState,
        choices::{Choice, Choices, Failure},
        machine::Machine,
        schedule::{Ending, Watch, may_prefill},
        step::{ms, stages},
    },
    session::sequence::Sequence,
};
use crate::{
    attention::HitCounts,
    engine::FinishReason,
    model::{BatchItem, LogitRows, Reading},
};

impl Worker {
    /// One round. False when there was nothing to do.
    pub(super) fn round(&mut self) -> bool {
        self.schedule();
        self.most_held = self.most_held.max(self.held());
        let mut worked = self.shared_step();
        for lane in self.lanes.names() {
            worked |= self.lane_step(lane);
        }
        // Outside of the steps, so that comparing is no part of what a lane takes for a token.
        worked |= self.advance_pairs();
        worked || self.resolve_deadlock()
    }

    /// Prepares the next step of every lane. Afterwards every running sequence has the pages for it.
    pub(super) fn schedule(&mut self) {
        for lane in self.lanes.names() {
            let mut watch = Watch::start();
            while let Some(Ending { session, reason }) = self.schedule_lane(lane, &mut watch) {
                self.finish(session, lane, reason);
            }
            if let Some(state) = self.lanes.get_mut(lane) {
                state.scheduled(&watch);
            }
        }
        self.split_prompts();
    }

    fn schedule_lane(&mut self, lane: Lane, watch: &mut Watch) -> Option<Ending> {
        let typed_elsewhere = self.lanes.iter().any(|state| state.lane != lane && state.answers_what_was_typed());
        self.lanes.get_mut(lane)?.schedule(&mut self.machine, typed_elsewhere, watch)
    }

    /// Lanes that do not start a shared prompt together compute it each for itself.
    fn split_prompts(&mut self) {
        for (&id, session) in self.sessions.iter_mut().filter(|(_, session)| session.shares_prompt) {
            let members = || self.lanes.sequences(id).map(|(_, each)| each).filter(|each| each.answer.is_some());
            let waiting = members().all(Sequence::waits);
            let mut lens = members().map(|sequence| sequence.cache.len());
            let first = lens.next();
            let together = members().all(Sequence::prefills) && lens.all(|len| Some(len) == first);
            if !waiting && !together {
                session.shares_prompt = false;
            }
        }
    }

    /// The session whose shared prompt is computed next.
    fn next_shared_prompt(&self) -> Option<SessionId> {
        let typed_only = self.lanes.answer_what_was_typed();
        let shared = self.sessions.iter().filter(|(_, session)| session.shares_prompt).map(|(&id, _)| id);
        let ready = shared.filter(|&id| {
            self.lanes.sequences(id).any(|(_, sequence)| sequence.prefills() && may_prefill(sequence, typed_only))
        });
        ready.min_by_key(|&id| self.lanes.sequences(id).filter_map(|(_, sequence)| sequence.rank()).min())
    }

    /// Computes the next chunk of a prompt that several lanes share, once for all of them.
    fn shared_step(&mut self) -> bool {
        let Some(id) = self.next_shared_prompt() else { return false };
        self.share_prefix_everywhere(id);
        let started = Instant::now();
        let Machine { model, device, chunk, .. } = &mut self.machine;
        let members = self.lanes.sequences_mut(id).filter(|(_, sequence)| sequence.prefills());
        let mut members: Vec<(Lane, &mut Sequence)> = members.collect();
        let Some(((_, first), others)) = members.split_first_mut() else { return false };
        let take = first.pending.len().min(*chunk);
        let complete = take == first.pending.len();
        let mut hits = HitCounts::new(model.shape.layers);
        let mut batch = [BatchItem {
            tokens: &first.pending[..take],
            cache: &mut first.cache,
            copies: others.iter_mut().map(|(_, sequence)| &mut sequence.cache).collect(),
            reading: Reading::Exact,
            logits: if complete { LogitRows::Last } else { LogitRows::None },
        }];
        device.run(&mut batch, &mut hits);
        drop(batch);
        let sampling = Instant::now();
        let mut choices = Choices::default();
        let ((mut done, mut total), mut context) = ((0, 0), 0);
        let broken = device.not_finite(0..take);
        for (lane, sequence) in members {
            sequence.fed_exactly(take);
            ((done, total), context) = (sequence.progress(), sequence.cache.len());
            if let Some(place) = broken {
                choices.fail((id, lane), place.to_string());
            } else if complete {
                choices.choose(model, (id, lane), sequence, (device.logits(), None));
            }
        }
        let sampling = sampling.elapsed();
        self.shared_steps += 1;
        let step = self.shared_steps;
        self.publisher.publish(EventKind::Prefill { session: id, lane: None, step, done, total });
        self.publisher.publish(EventKind::Step(Step {
            lane: None,
            step,
            decode_rows: 0,
            prefill_rows: take,
            total_ms: ms(started.elapsed()),
            stages: stages(device.times(), sampling, started.elapsed()),
            context,
            rows_per_head: None,
            host_v_read_bytes: 0,
            device_read_bytes: 0,
            probes: 0,
            probe_read_bytes: 0,
            rows_chosen: 0,
            rows_fetched: 0,
        }));
        self.publish(choices);
        true
    }

    /// Has the lanes that share a prompt take its next tokens from other sessions, as far as all of them can.
    fn share_prefix_everywhere(&mut self, id: SessionId) {
        let member = |state: &&mut LaneState| state.sequences.get(&id).is_some_and(Sequence::prefills);
        let sources = self.lanes.iter_mut().filter(member).map(|state| Some((state.prefix_source(id)?, state)));
        let Some(mut sources) = sources.collect::<Option<Vec<_>>>() else { return };
        let Some(tokens) = sources.iter().map(|(source, _)| source.tokens).min() else { return };
        for (source, state) in &mut sources {
            source.tokens = tokens;
            state.share_prefix_within(id, *source);
        }
    }

    /// One step of a lane, if it has work.
    fn lane_step(&mut self, lane: Lane) -> bool {
        let typed_only = self.lanes.answer_what_was_typed();
        let Some(state) = self.lanes.get_mut(lane) else { return false };
        let alone = |id| self.sessions.get(&id).is_some_and(|session| !session.shares_prompt);
        let prompt = state.next_prompt(typed_only, alone);
        let Some(stepped) = state.step(&mut self.machine, prompt, self.inspected.as_mut()) else { return false };
        self.publish(stepped.choices);
        #[cfg(debug_assertions)]
        if stepped.decode_rows > 0 {
            super::fault::after_decode_step();
        }
        true
    }

    /// Tells what was chosen, and ends the answers that are complete or cannot go on.
    pub(super) fn publish(&mut self, choices: Choices) {
        for Choice { session, lane, chosen, kept_mass } in choices.made {
            let finish = chosen.finish;
            if let Some(state) = self.lanes.get_mut(lane) {
                state.deliver(session, chosen, kept_mass);
            }
            if let Some(reason) = finish {
                self.finish(session, lane, reason);
            }
        }
        for Failure { session, lane, message } in choices.failures {
            self.error(Some(lane), Some(session), message);
            if let Some(state) = self.lanes.get_mut(lane) {
                state.discard(session);
            }
            self.finish(session, lane, FinishReason::Failed);
        }
    }
}
