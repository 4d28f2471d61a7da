//! One step: schedule, forward pass, choice of the next tokens, and the events about it.

use std::time::{Duration, Instant};

use super::{Worker, schedule::may_prefill};
use crate::engine::{
    EventKind, FinishReason, Lane, SessionId, Stages, Step, Token,
    lane::guard::Findings,
    session::{
        Session,
        sequence::{Chosen, Sequence},
    },
};
use crate::{
    attention::HitCounts,
    cache::SequenceCache,
    model::{BatchItem, LanguageModel, LogitRows, PassTimes, Reading},
};

/// A token that was chosen, and for whom.
pub(crate) struct Outcome {
    pub session: SessionId,
    pub lane: Lane,
    pub chosen: Chosen,
    pub kept_mass: Option<f32>,
}

impl Worker {
    /// Computes the next chunk of a prompt that several lanes share, once for all of them.
    pub(crate) fn shared_step(&mut self) -> bool {
        let typed_only = self.sessions.values().any(Session::answers_what_was_typed);
        let shared = self.sessions.iter().filter(|(_, session)| {
            session.sequences.iter().any(|sequence| sequence.prefills_shared() && may_prefill(sequence, typed_only))
        });
        let next = shared.min_by_key(|(_, session)| session.sequences.iter().filter_map(Sequence::rank).min());
        let Some((&id, _)) = next else { return false };
        self.share_prefix_shared(id);
        let started = Instant::now();
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let mut members: Vec<&mut Sequence> =
            session.sequences.iter_mut().filter(|sequence| sequence.prefills_shared()).collect();
        let Some((first, others)) = members.split_first_mut() else { return false };
        let take = first.pending.len().min(self.chunk);
        let complete = take == first.pending.len();
        let mut hits = HitCounts::new(self.model.shape.layers);
        let mut spans = [BatchItem {
            tokens: &first.pending[..take],
            cache: &mut first.cache,
            copies: others.iter_mut().map(|sequence| &mut sequence.cache).collect(),
            reading: Reading::Exact,
            logits: if complete { LogitRows::Last } else { LogitRows::None },
        }];
        self.forward.run(&self.model, &self.pool, &mut spans, &mut hits);
        let sampling = Instant::now();
        let mut outcomes = Vec::new();
        let mut failures = Vec::new();
        let (mut progress, mut context) = ((0, 0), 0);
        let broken = self.forward.not_finite(0..take);
        for sequence in members {
            sequence.prefilled(take);
            (progress, context) = (sequence.progress(), sequence.cache.len());
            if let Some(place) = broken {
                failures.push((id, sequence.lane, place.to_string()));
            } else if complete {
                match choose(&self.model, id, sequence, self.forward.logits(), None) {
                    Ok(outcome) => outcomes.extend(outcome),
                    Err(message) => failures.push((id, sequence.lane, message)),
                }
            }
        }
        let sampling = sampling.elapsed();
        self.shared_steps += 1;
        let (done, total) = progress;
        let step = self.shared_steps;
        self.publisher.publish(EventKind::Prefill { session: id, lane: None, step, done, total });
        self.publisher.publish(EventKind::Step(Step {
            lane: None,
            step,
            decode_rows: 0,
            prefill_rows: take,
            total_ms: ms(started.elapsed()),
            stages: stages(self.forward.times(), sampling, started.elapsed()),
            context,
            rows_per_head: None,
            host_v_read_bytes: 0,
            device_read_bytes: 0,
            probes: 0,
            probe_read_bytes: 0,
            rows_chosen: 0,
            rows_fetched: 0,
        }));
        self.publish(outcomes, failures);
        true
    }

    /// One step of a lane: a token for every sequence that decodes, and at most one chunk of a prompt.
    pub(crate) fn lane_step(&mut self, index: usize) -> bool {
        // What preparing the step took is part of it.
        let started = Instant::now() - self.lanes[index].scheduling;
        let lane = self.lanes[index].lane;
        let typed_only = self.sessions.values().any(Session::answers_what_was_typed);
        let next_prompt = self
            .sessions
            .iter()
            .flat_map(|(id, session)| session.sequences.iter().map(move |sequence| (id, sequence)))
            .filter(|(_, sequence)| sequence.lane == lane && sequence.prefills_alone())
            .filter(|(_, sequence)| may_prefill(sequence, typed_only))
            .min_by_key(|(_, sequence)| sequence.rank())
            .map(|(id, _)| *id);
        if let Some(id) = next_prompt {
            self.share_prefix_next(index, id);
        }
        let state = &mut self.lanes[index];
        let policy = state.cache.policy();

        let mut decoding: Vec<(SessionId, &mut Sequence)> = Vec::new();
        let mut prompt: Option<(SessionId, &mut Sequence)> = None;
        for (&id, session) in &mut self.sessions {
            let Some(sequence) = session.sequence_mut(lane) else { continue };
            if sequence.decodes() {
                decoding.push((id, sequence));
            } else if next_prompt == Some(id) {
                prompt = Some((id, sequence));
            }
        }
        if decoding.is_empty() && prompt.is_none() {
            return false;
        }
        let decode_rows = decoding.len();
        let take = prompt.as_ref().map_or(0, |(_, sequence)| sequence.pending.len().min(self.chunk));
        let complete = prompt.as_ref().is_some_and(|(_, sequence)| sequence.pending.len() == take);
        let mut hits = HitCounts::new(self.model.shape.layers);
        let mut probed = Vec::with_capacity(decode_rows);
        let mut spans: Vec<BatchItem> = Vec::with_capacity(decode_rows + 1);
        let (mut looked_at, mut texts) = (None, Vec::new());
        for (row, (id, sequence)) in decoding.iter_mut().enumerate() {
            if let Some(inspection) = self.inspected.as_mut().filter(|each| each.is_of(*id, lane)) {
                texts = inspection.texts(&self.model, sequence);
                let index = sequence.answer.as_ref().map_or(0, |answer| answer.generated);
                looked_at = Some((inspection.ask(row), index));
            }
            state.cache.place_pages(&mut sequence.cache);
            let reading = sequence.reading(policy, &state.guard);
            probed.push(reading.probe().is_some());
            spans.push(span(&mut sequence.cache, &sequence.pending, reading, LogitRows::Last));
        }
        if let Some((_, sequence)) = &mut prompt {
            let logits = if complete { LogitRows::Last } else { LogitRows::None };
            spans.push(span(&mut sequence.cache, &sequence.pending[..take], Reading::Exact, logits));
        }
        if let Some((row, _)) = &looked_at {
            self.forward.watch(row.clone());
        }
        self.forward.run(&self.model, &self.pool, &mut spans, &mut hits);

        let sampling = Instant::now();
        let mut logits = self.forward.logits().chunks_exact(self.model.shape.vocab);
        let mut outcomes = Vec::new();
        let mut failures = Vec::new();
        let mut context = 0;
        let mut findings = Findings::default();
        let mut probes = 0..;
        for (row, (id, sequence)) in decoding.into_iter().enumerate() {
            sequence.fed(1);
            context = context.max(sequence.cache.len());
            let Some(logits) = logits.next() else { break };
            let probe = if probed[row] { probes.next() } else { None };
            let rows = [Some(row), probe.map(|probe| decode_rows + take + probe)];
            let broken = rows.into_iter().flatten().find_map(|row| self.forward.not_finite(row..row + 1));
            if let Some(place) = broken {
                failures.push((id, lane, place.to_string()));
                continue;
            }
            findings.take(state, id, sequence, (&self.forward, row, logits), probe);
            match choose(&self.model, id, sequence, logits, self.forward.kept_mass(row)) {
                Ok(outcome) => outcomes.extend(outcome),
                Err(message) => failures.push((id, lane, message)),
            }
        }
        let mut progress = None;
        if let Some((id, sequence)) = prompt {
            sequence.prefilled(take);
            context = context.max(sequence.cache.len());
            progress = Some((id, sequence.progress()));
            if let Some(place) = self.forward.not_finite(decode_rows..decode_rows + take) {
                failures.push((id, lane, place.to_string()));
            } else if let Some(logits) = logits.next() {
                match choose(&self.model, id, sequence, logits, None) {
                    Ok(outcome) => outcomes.extend(outcome),
                    Err(message) => failures.push((id, lane, message)),
                }
            }
        }
        let sampling = sampling.elapsed();

        state.steps += 1;
        state.hits.add(&hits);
        state.counts.decoded_tokens += decode_rows as u64;
        let step = state.steps;
        if let Some((session, (done, total))) = progress {
            self.publisher.publish(EventKind::Prefill { session, lane: Some(lane), step, done, total });
        }
        let traffic = self.forward.traffic();
        // Looking on is no part of what a step takes.
        let reads = self.forward.take_reads();
        let total = started.elapsed().saturating_sub(reads.as_ref().map_or(Duration::ZERO, |reads| reads.took));
        if decode_rows > 0 {
            state.counts.decode_ms += ms(total);
        }
        self.publisher.publish(EventKind::Step(Step {
            lane: Some(lane),
            step,
            decode_rows,
            prefill_rows: take,
            total_ms: ms(total),
            stages: stages(self.forward.times(), sampling, total),
            context,
            rows_per_head: hits.rows_per_head(),
            host_v_read_bytes: traffic.host,
            device_read_bytes: traffic.device,
            probes: findings.probes.len(),
            probe_read_bytes: traffic.probes,
            rows_chosen: traffic.rows_chosen,
            rows_fetched: traffic.rows_fetched,
        }));
        if let (Some(inspection), Some((_, index)), Some(reads)) = (&mut self.inspected, looked_at, reads) {
            let events = inspection.tell(&reads, index, step);
            texts.into_iter().chain(events).for_each(|event| self.publisher.publish(event));
        }
        findings.probes.into_iter().for_each(|probe| self.publisher.publish(EventKind::Probe(probe)));
        findings.verdicts.into_iter().for_each(|verdict| self.publisher.publish(EventKind::Guard(verdict)));
        self.publish(outcomes, failures);
        #[cfg(debug_assertions)]
        if decode_rows > 0 {
            super::fault::after_decode_step();
        }
        true
    }

    /// Has the lanes that share a prompt take its next tokens from other sessions, as far as all of them can.
    fn share_prefix_shared(&mut self, id: SessionId) {
        let lanes = || (0..self.lanes.len()).map(|index| (index, self.lanes[index].lane));
        let member = |lane| self.sequence(id, lane).is_some_and(Sequence::prefills_shared);
        let prefix_sources: Option<Vec<(usize, SessionId, usize)>> = lanes()
            .filter(|&(_, lane)| member(lane))
            .map(|(index, lane)| {
                self.prefix_source(lane, id).map(|(prefix_source, shared)| (index, prefix_source, shared))
            })
            .collect();
        let Some(prefix_sources) = prefix_sources else { return };
        let Some(shared) = prefix_sources.iter().map(|(.., shared)| *shared).min() else { return };
        for (index, prefix_source, _) in prefix_sources {
            self.share_prefix_from(index, id, prefix_source, shared);
        }
    }

    /// Tells a token and those before it that waited for it, as far as their text is certain.
    fn tell_token(&mut self, session: SessionId, lane: Lane, token: Token) {
        let Some(sequence) = self.sessions.get_mut(&session).and_then(|session| session.sequence_mut(lane)) else {
            return;
        };
        sequence.tell(token);
        while let Some(token) = sequence.next_told() {
            self.publisher.publish(EventKind::Token(token));
        }
    }

    pub(crate) fn publish(&mut self, outcomes: Vec<Outcome>, failures: Vec<(SessionId, Lane, String)>) {
        for Outcome { session, lane, chosen, kept_mass } in outcomes {
            let step = self.steps(lane);
            let Chosen { token, text, index, itl_ms, visible, finish } = chosen;
            if visible {
                if let Some(state) = self.lanes.iter_mut().find(|state| state.lane == lane) {
                    state.counts.tokens += 1;
                }
                let token = Token { lane, session, step, index, token_id: token, text, itl_ms, kept_mass };
                self.tell_token(session, lane, token);
            }
            if let Some(reason) = finish {
                self.finish(session, lane, reason);
            }
        }
        for (session, lane, message) in failures {
            self.error(Some(lane), Some(session), message);
            self.discard(session, lane);
            self.finish(session, lane, FinishReason::Failed);
        }
    }

    /// Has a sequence give up what it has computed: nothing is to be built upon it, nor shared. Its next turn computes it
    /// again.
    fn discard(&mut self, id: SessionId, lane: Lane) {
        let sequence = self.sessions.get_mut(&id).and_then(|session| session.sequence_mut(lane));
        if let (Some(sequence), Some(state)) = (sequence, self.lanes.iter_mut().find(|state| state.lane == lane)) {
            state.cache.vacate(&mut sequence.cache);
            sequence.cache_lost();
        }
    }
}

fn span<'a>(cache: &'a mut SequenceCache, tokens: &'a [u32], reading: Reading, logits: LogitRows) -> BatchItem<'a> {
    BatchItem { tokens, cache, copies: Vec::new(), reading, logits }
}

/// Chooses the next token, unless the sequence is locked to the other lane's: then it keeps the logits.
pub(crate) fn choose(
    model: &LanguageModel,
    session: SessionId,
    sequence: &mut Sequence,
    logits: &[f32],
    kept_mass: Option<f32>,
) -> Result<Option<Outcome>, String> {
    let lane = sequence.lane;
    if sequence.hold(logits, kept_mass) {
        return Ok(None);
    }
    match sequence.choose(logits, model) {
        Ok(chosen) => Ok(chosen.map(|chosen| Outcome { session, lane, chosen, kept_mass })),
        Err(error) => Err(format!(
            "no next token can be chosen ({error}): the model file is damaged, fetch it again or take another"
        )),
    }
}

fn stages(times: PassTimes, sampling: Duration, total: Duration) -> Stages {
    let PassTimes { linear, decode, prefill, head } = times;
    let named = linear + decode.scores + decode.select + decode.gather + prefill + head + sampling;
    Stages {
        linear_ms: ms(linear),
        scores_ms: ms(decode.scores),
        select_ms: ms(decode.select),
        gather_ms: ms(decode.gather),
        prefill_ms: ms(prefill),
        head_ms: ms(head),
        sampling_ms: ms(sampling),
        other_ms: ms(total.saturating_sub(named)),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
