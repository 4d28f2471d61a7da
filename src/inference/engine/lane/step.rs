//! One step of a lane: a forward pass over all that is scheduled, the choice of the next tokens, and the events about it.

use std::time::{Duration, Instant};

use super::{LaneState, choices::Choices, guard::Findings, machine::Machine, schedule::may_prefill};
use crate::engine::{
    EventKind, SessionId, Stages, Step,
    session::{inspect::Inspection, sequence::Sequence},
};
use crate::{
    attention::HitCounts,
    cache::SequenceCache,
    model::{BatchItem, LogitRows, PassTimes, Reading},
};

/// What came of a step.
pub(crate) struct Stepped {
    /// Sequences that decoded: what a fault that a test asked for goes by.
    #[cfg(debug_assertions)]
    pub decode_rows: usize,
    pub choices: Choices,
}

impl LaneState {
    /// Whose prompt is computed next, among those that the lane computes `alone`.
    pub fn next_prompt(&self, typed_only: bool, alone: impl Fn(SessionId) -> bool) -> Option<SessionId> {
        let prompts = self.sequences.iter().filter(|&(&id, sequence)| sequence.prefills() && alone(id));
        let allowed = prompts.filter(|(_, sequence)| may_prefill(sequence, typed_only));
        allowed.min_by_key(|(_, sequence)| sequence.rank()).map(|(&id, _)| id)
    }

    /// Decodes a token for every sequence that is ready for one, and computes at most one chunk of the prompt of `prompt`.
    /// `None` where there is nothing to do.
    pub fn step(
        &mut self,
        machine: &mut Machine,
        prompt: Option<SessionId>,
        mut inspected: Option<&mut Inspection>,
    ) -> Option<Stepped> {
        // What preparing the step took is part of it.
        let started = Instant::now() - self.scheduling;
        if let Some(id) = prompt {
            self.share_next_prefix(id);
        }
        let (lane, policy) = (self.lane, self.cache.policy());
        let mut decoding: Vec<(SessionId, &mut Sequence)> = Vec::new();
        let mut prefilling: Option<(SessionId, &mut Sequence)> = None;
        for (&id, sequence) in &mut self.sequences {
            if sequence.decodes() {
                decoding.push((id, sequence));
            } else if prompt == Some(id) {
                prefilling = Some((id, sequence));
            }
        }
        if decoding.is_empty() && prefilling.is_none() {
            return None;
        }
        let Machine { model, device, chunk, .. } = machine;
        let decode_rows = decoding.len();
        let take = prefilling.as_ref().map_or(0, |(_, sequence)| sequence.pending.len().min(*chunk));
        let complete = prefilling.as_ref().is_some_and(|(_, sequence)| sequence.pending.len() == take);
        let mut hits = HitCounts::new(model.shape.layers);
        let mut probed = Vec::with_capacity(decode_rows);
        let mut batch: Vec<BatchItem> = Vec::with_capacity(decode_rows + 1);
        let (mut looked_at, mut texts) = (None, Vec::new());
        for (row, (id, sequence)) in decoding.iter_mut().enumerate() {
            if let Some(inspection) = inspected.as_mut().filter(|each| each.is_of(*id, lane)) {
                texts = inspection.texts(model, sequence);
                looked_at = Some((inspection.ask(row), sequence.generated()));
            }
            self.cache.place_pages(&mut sequence.cache);
            let reading = sequence.reading(policy, &self.guard);
            probed.push(reading.probe().is_some());
            batch.push(item(&mut sequence.cache, &sequence.pending, reading, LogitRows::Last));
        }
        if let Some((_, sequence)) = &mut prefilling {
            let logits = if complete { LogitRows::Last } else { LogitRows::None };
            batch.push(item(&mut sequence.cache, &sequence.pending[..take], Reading::Exact, logits));
        }
        if let Some((row, _)) = &looked_at {
            device.watch(row.clone());
        }
        device.run(&mut batch, &mut hits);
        drop(batch);

        let sampling = Instant::now();
        let mut logits = device.logits().chunks_exact(model.shape.vocab);
        let mut choices = Choices::default();
        let mut findings = Findings::new(lane, self.steps + 1);
        let mut context = 0;
        let mut probes = 0..;
        for (row, (id, sequence)) in decoding.into_iter().enumerate() {
            sequence.fed(1);
            context = context.max(sequence.cache.len());
            let Some(logits) = logits.next() else { break };
            let probe = if probed[row] { probes.next() } else { None };
            let rows = [Some(row), probe.map(|probe| decode_rows + take + probe)];
            let broken = rows.into_iter().flatten().find_map(|row| device.not_finite(row..row + 1));
            if let Some(place) = broken {
                choices.fail((id, lane), place.to_string());
                continue;
            }
            findings.take((&mut self.cache, &self.guard), (id, sequence), (&**device, row, logits), probe);
            choices.choose(model, (id, lane), sequence, (logits, device.kept_mass(row)));
        }
        let mut progress = None;
        if let Some((id, sequence)) = prefilling {
            sequence.fed_exactly(take);
            context = context.max(sequence.cache.len());
            progress = Some((id, sequence.progress()));
            if let Some(place) = device.not_finite(decode_rows..decode_rows + take) {
                choices.fail((id, lane), place.to_string());
            } else if let Some(logits) = logits.next() {
                choices.choose(model, (id, lane), sequence, (logits, None));
            }
        }
        let sampling = sampling.elapsed();

        self.steps += 1;
        self.hits.add(&hits);
        self.counts.decoded_tokens += decode_rows as u64;
        let step = self.steps;
        if let Some((session, (done, total))) = progress {
            self.publisher.publish(EventKind::Prefill { session, lane: Some(lane), step, done, total });
        }
        let traffic = device.traffic();
        // Looking on is no part of what a step takes.
        let reads = device.take_reads();
        let total = started.elapsed().saturating_sub(reads.as_ref().map_or(Duration::ZERO, |reads| reads.took));
        if decode_rows > 0 {
            self.counts.decode_ms += ms(total);
        }
        self.publisher.publish(EventKind::Step(Step {
            lane: Some(lane),
            step,
            decode_rows,
            prefill_rows: take,
            total_ms: ms(total),
            stages: stages(device.times(), sampling, total),
            context,
            rows_per_head: hits.rows_per_head(),
            host_v_read_bytes: traffic.host,
            device_read_bytes: traffic.device,
            probes: findings.probes.len(),
            probe_read_bytes: traffic.probes,
            rows_chosen: traffic.rows_chosen,
            rows_fetched: traffic.rows_fetched,
        }));
        if let (Some(inspection), Some((_, index)), Some(reads)) = (inspected, looked_at, reads) {
            let events = inspection.tell(&reads, index, step);
            texts.into_iter().chain(events).for_each(|event| self.publisher.publish(event));
        }
        findings.probes.into_iter().for_each(|probe| self.publisher.publish(EventKind::Probe(probe)));
        findings.verdicts.into_iter().for_each(|verdict| self.publisher.publish(EventKind::Guard(verdict)));
        Some(Stepped {
            #[cfg(debug_assertions)]
            decode_rows,
            choices,
        })
    }
}

fn item<'a>(cache: &'a mut SequenceCache, tokens: &'a [u32], reading: Reading, logits: LogitRows) -> BatchItem<'a> {
    BatchItem { tokens, cache, copies: Vec::new(), reading, logits }
}

/// Where the time of a step went; what no stage has is `other`.
pub(crate) fn stages(times: PassTimes, sampling: Duration, total: Duration) -> Stages {
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

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
