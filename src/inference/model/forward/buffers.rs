//! What a forward pass keeps from step to step: its buffers, and what the last pass found out.

use crate::{
    attention::{DecodeScratch, PrefillScratch, Reads},
    kernels::Activations,
    model::{LanguageModel, NotFinite, PassTimes, Traffic},
};

/// Buffers of the forward pass, kept from step to step.
pub struct Forward {
    pub(super) x: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    pub(super) attended: Vec<f32>,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    pub(super) v_sums: Vec<f32>,
    pub(super) positions: Vec<usize>,
    pub(super) logits: Vec<f32>,
    pub(super) input: Activations,
    pub(super) prefill: PrefillScratch,
    pub(super) decode: DecodeScratch,
    pub(super) reads: Option<Reads>,
    pub(super) times: PassTimes,
    pub(super) traffic: Traffic,
    /// Kept mass of the policy rows, then of the probes: sum and count.
    pub(super) kept: Vec<(f64, u32)>,
    pub(super) policy_rows: usize,
    /// Values of the logits that are wanted; those of probes come after them.
    pub(super) wanted: usize,
    /// Rows of which something is no finite number, and where that was found first.
    pub(super) broken: Vec<(usize, NotFinite)>,
}

impl Default for Forward {
    fn default() -> Self {
        Self::new()
    }
}

impl Forward {
    /// Empty buffers; they grow with the first steps.
    pub fn new() -> Self {
        Self {
            x: Vec::new(),
            normed: Vec::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            attended: Vec::new(),
            gate: Vec::new(),
            up: Vec::new(),
            v_sums: Vec::new(),
            positions: Vec::new(),
            logits: Vec::new(),
            input: Activations::new(),
            prefill: PrefillScratch::default(),
            decode: DecodeScratch::default(),
            reads: None,
            times: PassTimes::default(),
            traffic: Traffic::default(),
            kept: Vec::new(),
            policy_rows: 0,
            wanted: 0,
            broken: Vec::new(),
        }
    }

    /// Computes linear layers on f32 activations from now on, instead of rounding them to 8 bits: many times slower,
    /// for evaluations that have to see differences smaller than that rounding.
    pub fn set_exact(&mut self, exact: bool) {
        self.input.set_exact(exact);
    }

    /// Makes room for so many rows.
    pub(super) fn size(&mut self, model: &LanguageModel, rows: usize, policy_rows: usize) {
        let shape = &model.shape;
        let (q_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        for (buffer, width) in [
            (&mut self.x, shape.hidden),
            (&mut self.normed, shape.hidden),
            (&mut self.q, q_width),
            (&mut self.k, kv_width),
            (&mut self.v, kv_width),
            (&mut self.attended, q_width),
            (&mut self.gate, shape.ffn),
            (&mut self.up, shape.ffn),
        ] {
            buffer.resize(rows * width, 0.0);
        }
        self.v_sums.resize(policy_rows * kv_width, 0.0);
    }

    /// Logits of the last pass, `[wanted rows, vocab]`, items in order.
    pub fn logits(&self) -> &[f32] {
        self.logits.split_at(self.wanted).0
    }

    /// Logits of the last pass's probes, `[probes, vocab]`, in the order of the items.
    pub fn probe_logits(&self) -> &[f32] {
        self.logits.split_at(self.wanted).1
    }

    /// Has the next pass note what one of its policy rows reads.
    pub fn watch(&mut self, reads: Reads) {
        self.reads = Some(reads);
    }

    /// What was noted, if it was asked for.
    pub(crate) fn take_reads(&mut self) -> Option<Reads> {
        self.reads.take()
    }

    /// Where the time of the last pass went.
    pub fn times(&self) -> PassTimes {
        self.times
    }

    /// What the last pass read for policy rows.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The mass that the selected rows held for each policy row of the last pass, in order: the mean over heads and the
    /// layers that selected. `None` where every row was read.
    pub fn kept_mass(&self, policy_row: usize) -> Option<f32> {
        let (sum, count) = self.kept[policy_row];
        (count > 0).then(|| (sum / f64::from(count)) as f32)
    }

    /// The same for a probe of the last pass.
    pub fn probe_kept_mass(&self, probe: usize) -> Option<f32> {
        self.kept_mass(self.policy_rows + probe)
    }
}
