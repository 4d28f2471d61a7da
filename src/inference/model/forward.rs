//! The forward pass: one step over many sequences, each at its own position.
//!
//! A step is a list of spans. A span is a run of consecutive tokens of one sequence: a chunk of a prompt, read with
//! exact attention, or decoded tokens, read as the lane's policy says. All rows of all spans go through the linear
//! layers together, so the weights are streamed once per step. Activations are f32, the cache is what the policy says.
//!
//! A token may be probed: a second row of it, the last of the step, reads the cache by another policy. For its attention
//! it takes the place of the first one's row in the cache, so it finds what it would have found alone; then that one's
//! row is put back.

mod broken;
mod probes;
mod rows;
mod size;
mod traffic;

use std::time::Instant;

pub use self::size::StepSize;
use self::{rows::policy_reads, traffic::count_v_reads};
use super::{BatchItem, LanguageModel, LogitRows, NotFinite, PassTimes, Reading, Traffic, weights::LayerWeights};
use crate::{
    attention::{DecodeScratch, HitCounts, PrefillItem, PrefillScratch, Reads, decode, prefill},
    kernels::{Activations, Linear, Pool, RopeStyle, forward_many, rms_norm, rope, silu_mul},
};

/// Buffers of the forward pass, kept from step to step.
pub struct Forward {
    x: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    v_sums: Vec<f32>,
    positions: Vec<usize>,
    logits: Vec<f32>,
    input: Activations,
    prefill: PrefillScratch,
    decode: DecodeScratch,
    reads: Option<Reads>,
    times: PassTimes,
    traffic: Traffic,
    /// Kept mass of the policy rows, then of the probes: sum and count.
    kept: Vec<(f64, u32)>,
    policy_rows: usize,
    /// Values of the logits that are wanted; those of probes come after them.
    wanted: usize,
    /// Rows of which something is no finite number, and where that was found first.
    broken: Vec<(usize, NotFinite)>,
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

    /// Computes linear layers on f32 activations from now on, instead of rounding them to 8 bits: many times slower, for
    /// evaluations that have to see differences smaller than that rounding.
    pub fn set_exact(&mut self, exact: bool) {
        self.input.set_exact(exact);
    }

    fn size(&mut self, model: &LanguageModel, rows: usize, policy_rows: usize) {
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

    /// Logits of the last pass, `[wanted rows, vocab]`, spans in order.
    pub fn logits(&self) -> &[f32] {
        self.logits.split_at(self.wanted).0
    }

    /// Logits of the last pass's probes, `[probes, vocab]`, in the order of the spans.
    pub fn probe_logits(&self) -> &[f32] {
        self.logits.split_at(self.wanted).1
    }

    /// Has the next pass note what one of its policy rows reads.
    pub fn watch(&mut self, reads: Reads) {
        self.reads = Some(reads);
    }

    /// What was noted, if it was asked for.
    pub fn take_reads(&mut self) -> Option<Reads> {
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

    /// Computes one step. Spans that read by policy must stand before those that read exactly. Every span's cache
    /// afterwards holds its tokens; what the policy rows selected is added to `hits`.
    ///
    /// # Panics
    /// When a span is empty, a cache has no room for its tokens, more than one token is probed, or the order is wrong:
    /// mistakes of the caller.
    pub fn run(&mut self, model: &LanguageModel, pool: &Pool, spans: &mut [BatchItem], hits: &mut HitCounts) {
        let shape = &model.shape;
        let probes = spans.iter().filter(|span| span.reading.probe().is_some()).count();
        let rows: usize = spans.iter().map(|span| span.tokens.len()).sum::<usize>() + probes;
        let is_policy = |span: &BatchItem| span.reading.policy().is_some();
        assert!(spans.is_sorted_by_key(|span| !is_policy(span)), "policy spans stand before exact ones");
        let policy_rows: usize = spans.iter().filter(|span| is_policy(span)).map(|span| span.tokens.len()).sum();

        self.times = PassTimes::default();
        self.traffic = Traffic::default();
        self.broken.clear();
        self.kept.clear();
        self.kept.resize(policy_rows + probes, (0.0, 0));
        self.policy_rows = policy_rows;
        hits.tokens += policy_rows as u64;
        self.size(model, rows, policy_rows + probes);
        self.positions.clear();
        let mut x_rows = self.x.chunks_exact_mut(shape.hidden);
        for span in spans.iter() {
            assert!(!span.tokens.is_empty(), "a span has tokens");
            let start = span.cache.len();
            assert!(start + span.tokens.len() <= span.cache.capacity(), "pages were grown before the step");
            self.positions.extend(start..start + span.tokens.len());
            for (&token, row) in span.tokens.iter().zip(&mut x_rows) {
                model.weights.embedding.row(token as usize, row);
            }
        }
        for (span, row) in spans.iter().filter(|span| span.reading.probe().is_some()).zip(x_rows) {
            assert!(span.tokens.len() == 1 && span.copies.is_empty(), "one token is probed, of one sequence");
            self.positions.push(span.cache.len());
            model.weights.embedding.row(span.tokens[0] as usize, row);
        }

        for (index, layer) in model.weights.layers.iter().enumerate() {
            self.attention(model, pool, index, layer, spans, hits);
            self.feed_forward(model, pool, index, layer);
        }
        for span in spans.iter_mut() {
            let tokens = span.tokens.len();
            span.cache.advance(tokens);
            span.copies.iter_mut().for_each(|copy| copy.advance(tokens));
        }
        self.head(model, pool, spans);
    }

    fn attention(
        &mut self,
        model: &LanguageModel,
        pool: &Pool,
        index: usize,
        layer: &LayerWeights,
        spans: &mut [BatchItem],
        hits: &mut HitCounts,
    ) {
        let policy_rows = self.policy_rows;
        let shape = &model.shape;
        let (q_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        rms_norm(pool, &self.x, &layer.attention_norm, shape.norm_eps, &mut self.normed);
        let started = Instant::now();
        self.input.fill(pool, &self.normed, shape.hidden);
        self.note_input(index, shape.hidden);
        forward_many(
            pool,
            &self.input,
            &mut [(&layer.q, &mut self.q), (&layer.k, &mut self.k), (&layer.v, &mut self.v)],
        );
        self.times.linear += started.elapsed();
        for (values, heads, most) in
            [(&mut self.q, shape.heads, f32::MAX), (&mut self.k, shape.kv_heads, broken::largest_key(spans))]
        {
            let (positions, style) = (&self.positions, RopeStyle::Interleaved);
            let beyond =
                rope(pool, values, heads, shape.head_dim, shape.rope_dims, positions, &model.rope, style, most);
            broken::note(&mut self.broken, &beyond, |_| NotFinite::Layer(index));
        }
        self.write_rows(pool, index, spans, kv_width);
        self.attend_probes(model, pool, index, spans);

        let heads = model.head_shape();
        let own = self.attended.len() - self.probes() * q_width;
        let (policy_out, exact_out) = self.attended[..own].split_at_mut(policy_rows * q_width);
        let (policy_q, exact_q) = self.q[..own].split_at(policy_rows * q_width);
        if policy_rows > 0 {
            let rows = policy_reads(index, spans, policy_q, &self.v_sums, q_width, kv_width);
            decode(pool, &heads, &rows, &mut self.decode, policy_out, &mut self.times.decode);
            for (row, read) in rows.iter().enumerate() {
                self.traffic.device += (read.len * shape.kv_heads) as u64 * read.k[0].row_bytes();
                match self.decode.kept_mass(row) {
                    None => hits.read_all(index, read.len, shape.heads),
                    Some(kept) => {
                        for (head, &kept) in kept.iter().enumerate() {
                            let chosen = self.decode.hits(row, head).expect("a head with a kept mass selected");
                            hits.read_selected([index, head], &chosen, kept);
                            self.kept[row].0 += f64::from(kept);
                            self.kept[row].1 += 1;
                        }
                    }
                }
            }
            if let Some(reads) = &mut self.reads {
                reads.layer(&self.decode, rows[reads.row()].len);
            }
            count_v_reads(index, spans, &heads, &self.decode, &mut self.traffic);
        }
        if !exact_q.is_empty() {
            let started = Instant::now();
            let mut taken = 0;
            let exact: Vec<PrefillItem> = spans
                .iter()
                .filter(|span| span.reading == Reading::Exact)
                .map(|span| {
                    let q = &exact_q[taken..][..span.tokens.len() * q_width];
                    taken += q.len();
                    let (k, v) = (span.cache.k(index), span.cache.v(index));
                    PrefillItem { q, rows: span.tokens.len(), start: span.cache.len(), k, v }
                })
                .collect();
            prefill(pool, &heads, &exact, &mut self.prefill, exact_out);
            self.times.prefill += started.elapsed();
        }
        let started = Instant::now();
        self.input.fill(pool, &self.attended, q_width);
        self.note_inside(index);
        layer.o.forward_add(pool, &self.input, &mut self.x);
        self.times.linear += started.elapsed();
    }

    fn feed_forward(&mut self, model: &LanguageModel, pool: &Pool, index: usize, layer: &LayerWeights) {
        let shape = &model.shape;
        rms_norm(pool, &self.x, &layer.ffn_norm, shape.norm_eps, &mut self.normed);
        let started = Instant::now();
        self.input.fill(pool, &self.normed, shape.hidden);
        self.note_inside(index);
        forward_many(pool, &self.input, &mut [(&layer.gate, &mut self.gate), (&layer.up, &mut self.up)]);
        self.times.linear += started.elapsed();
        silu_mul(pool, &mut self.gate, &self.up);
        let started = Instant::now();
        self.input.fill(pool, &self.gate, shape.ffn);
        self.note_inside(index);
        layer.down.forward_add(pool, &self.input, &mut self.x);
        self.times.linear += started.elapsed();
    }

    /// The output head, for the rows whose logits somebody wants.
    fn head(&mut self, model: &LanguageModel, pool: &Pool, spans: &[BatchItem]) {
        let started = Instant::now();
        let shape = &model.shape;
        let mut wanted = 0;
        let mut row = 0;
        for span in spans {
            let rows = span.tokens.len();
            let from = match span.logits {
                LogitRows::None => rows,
                LogitRows::Last => rows - 1,
                LogitRows::All => 0,
            };
            // Wanted rows move to the front; a row never moves behind one that is still to be moved.
            for offset in from..rows {
                let at = (row + offset) * shape.hidden;
                self.x.copy_within(at..at + shape.hidden, wanted * shape.hidden);
                wanted += 1;
            }
            row += rows;
        }
        self.wanted = wanted * shape.vocab;
        // Those of the probes are the last rows.
        for _ in 0..self.probes() {
            let at = row * shape.hidden;
            self.x.copy_within(at..at + shape.hidden, wanted * shape.hidden);
            (wanted, row) = (wanted + 1, row + 1);
        }
        self.logits.resize(wanted * shape.vocab, 0.0);
        if wanted == 0 {
            return;
        }
        let values = wanted * shape.hidden;
        let normed = &mut self.normed[..values];
        rms_norm(pool, &self.x[..values], &model.weights.output_norm, shape.norm_eps, normed);
        self.input.fill(pool, normed, shape.hidden);
        self.note_output(shape.hidden, shape.layers, spans);
        let head: &Linear = model.weights.head();
        head.forward(pool, &self.input, &mut self.logits);
        self.times.head = started.elapsed();
    }
}
