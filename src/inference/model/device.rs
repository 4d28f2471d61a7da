//! The seam between the engine and the machine that computes: a device takes a whole step and gives what came of it.
//!
//! The engine decides who runs, keeps the account of bytes, chooses tokens and tells events. It knows a device by this
//! trait alone, and calls it a few times in a step, never inside of a layer.

use std::{ops::Range, sync::Arc};

use super::{BatchItem, Forward, LanguageModel, NotFinite, PassTimes, StepSize, Traffic};
use crate::{
    attention::{HitCounts, Reads},
    cache::{LaneCache, SequenceCache},
    kernels::Pool,
};

/// Who owns the weights and the buffers of a step, writes the rows of the batch into its pages, attends to them and
/// multiplies.
///
/// A step is [`run`](Self::run); all that is asked after it is about the last one, until the next.
pub trait Device {
    /// What it is, in a word or two, for messages.
    fn name(&self) -> &str;

    /// Whether its tiers are accounts in the same memory, and not memories of their own.
    fn is_simulated(&self) -> bool;

    /// Threads of the host that compute.
    fn threads(&self) -> usize;

    /// Bytes of the weights in its memory.
    fn weight_bytes(&self) -> u64;

    /// Bytes of the buffers for steps up to this size.
    fn step_bytes(&self, size: StepSize) -> u64;

    /// Bytes that its buffers take now.
    fn buffer_bytes(&self) -> u64;

    /// Makes the buffers for steps up to this size, instead of those that there are, so that no step has to.
    fn reserve(&mut self, size: StepSize);

    /// Has the next step note what one of its policy rows reads.
    fn watch(&mut self, reads: Reads);

    /// Computes one step: see [`Forward::run`].
    fn run(&mut self, batch: &mut [BatchItem], hits: &mut HitCounts);

    /// The logits that were wanted, `[rows, vocab]`, in the order of the batch.
    fn logits(&self) -> &[f32];

    /// The logits of the probes, `[probes, vocab]`, in the order of the batch.
    fn probe_logits(&self) -> &[f32];

    /// The mass that the rows read for a policy row held; `None` where every row was read.
    fn kept_mass(&self, policy_row: usize) -> Option<f32>;

    /// The same for a probe.
    fn probe_kept_mass(&self, probe: usize) -> Option<f32>;

    /// Where the arithmetic of any of these rows left the numbers, if it did. Rows of probes come last.
    fn not_finite(&self, rows: Range<usize>) -> Option<NotFinite>;

    /// Where the time went.
    fn times(&self) -> PassTimes;

    /// What was read for policy rows, and from where.
    fn traffic(&self) -> Traffic;

    /// What [`watch`](Self::watch) asked for, once.
    fn take_reads(&mut self) -> Option<Reads>;

    /// Copies a prompt that was computed before into an empty sequence that has grown to hold it.
    fn copy_prompt(&mut self, lane: &LaneCache, to: &mut SequenceCache, prompt: &SequenceCache);
}

/// The CPU: both tiers are accounts in its memory.
pub struct CpuDevice {
    model: Arc<LanguageModel>,
    pool: Pool,
    forward: Forward,
}

impl CpuDevice {
    /// A device of so many threads, that of the caller among them.
    pub fn new(model: Arc<LanguageModel>, threads: usize) -> Self {
        Self { model, pool: Pool::new(threads), forward: Forward::new() }
    }
}

impl Device for CpuDevice {
    fn name(&self) -> &str {
        "the CPU"
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn weight_bytes(&self) -> u64 {
        self.model.weights.bytes()
    }

    fn step_bytes(&self, size: StepSize) -> u64 {
        size.bytes(&self.model)
    }

    fn buffer_bytes(&self) -> u64 {
        self.forward.bytes()
    }

    fn reserve(&mut self, size: StepSize) {
        self.forward = Forward::new();
        self.forward.reserve(&self.model, size);
    }

    fn watch(&mut self, reads: Reads) {
        self.forward.watch(reads);
    }

    fn run(&mut self, batch: &mut [BatchItem], hits: &mut HitCounts) {
        self.forward.run(&self.model, &self.pool, batch, hits);
    }

    fn logits(&self) -> &[f32] {
        self.forward.logits()
    }

    fn probe_logits(&self) -> &[f32] {
        self.forward.probe_logits()
    }

    fn kept_mass(&self, policy_row: usize) -> Option<f32> {
        self.forward.kept_mass(policy_row)
    }

    fn probe_kept_mass(&self, probe: usize) -> Option<f32> {
        self.forward.probe_kept_mass(probe)
    }

    fn not_finite(&self, rows: Range<usize>) -> Option<NotFinite> {
        self.forward.not_finite(rows)
    }

    fn times(&self) -> PassTimes {
        self.forward.times()
    }

    fn traffic(&self) -> Traffic {
        self.forward.traffic()
    }

    fn take_reads(&mut self) -> Option<Reads> {
        self.forward.take_reads()
    }

    fn copy_prompt(&mut self, lane: &LaneCache, to: &mut SequenceCache, prompt: &SequenceCache) {
        lane.copy(to, prompt);
    }
}
