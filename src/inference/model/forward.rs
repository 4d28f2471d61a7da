//! The forward pass: one step over many sequences, each at its own position.
//!
//! A step is a list of items. An item is a run of consecutive tokens of one sequence: a chunk of a prompt, which is
//! read with exact attention, or decoded tokens, which are read as the lane's policy says. All rows of all items go
//! through the linear layers together, so the weights are streamed once per step. Activations are f32; the policy says
//! how K and V are stored.
//!
//! A token may be probed: then a second row of the same token, at the end of the step, reads the cache by another
//! policy. For its attention, its K and V replace those of the first row in the cache, so that it reads what it would
//! have read alone; afterwards those of the first row are put back.

mod broken;
mod buffers;
mod probes;
mod rows;
mod size;
mod traffic;

use std::time::Instant;

pub use self::{buffers::Forward, size::StepSize};
use self::{rows::policy_reads, traffic::count_v_reads};
use super::{BatchItem, LanguageModel, LogitRows, NotFinite, PassTimes, Reading, Traffic, weights::LayerWeights};
use crate::{
    attention::{HitCounts, PrefillItem, decode, prefill},
    kernels::{Linear, Pool, RopeStyle, forward_many, rms_norm, rope, silu_mul},
};

impl Forward {
    /// Computes one step. Items that read by policy must stand before those that read exactly. Every item's cache
    /// afterwards holds its tokens; what the policy rows selected is added to `hits`.
    ///
    /// # Panics
    /// When an item is empty, a cache has no room for its tokens, more than one token is probed, or the order is wrong:
    /// mistakes of the caller.
    pub fn run(&mut self, model: &LanguageModel, pool: &Pool, items: &mut [BatchItem], hits: &mut HitCounts) {
        let shape = &model.shape;
        let probes = items.iter().filter(|item| item.reading.probe().is_some()).count();
        let rows: usize = items.iter().map(|item| item.tokens.len()).sum::<usize>() + probes;
        let is_policy = |item: &BatchItem| item.reading.policy().is_some();
        assert!(items.is_sorted_by_key(|item| !is_policy(item)), "policy items stand before exact ones");
        let policy_rows: usize = items.iter().filter(|item| is_policy(item)).map(|item| item.tokens.len()).sum();

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
        for item in items.iter() {
            assert!(!item.tokens.is_empty(), "an item has tokens");
            let start = item.cache.len();
            assert!(start + item.tokens.len() <= item.cache.capacity(), "pages were grown before the step");
            self.positions.extend(start..start + item.tokens.len());
            for (&token, row) in item.tokens.iter().zip(&mut x_rows) {
                model.weights.embedding.row(token as usize, row);
            }
        }
        for (item, row) in items.iter().filter(|item| item.reading.probe().is_some()).zip(x_rows) {
            assert!(item.tokens.len() == 1 && item.copies.is_empty(), "one token is probed, of one sequence");
            self.positions.push(item.cache.len());
            model.weights.embedding.row(item.tokens[0] as usize, row);
        }

        for (index, layer) in model.weights.layers.iter().enumerate() {
            self.attention(model, pool, index, layer, items, hits);
            self.feed_forward(model, pool, index, layer);
        }
        for item in items.iter_mut() {
            let tokens = item.tokens.len();
            item.cache.advance(tokens);
            item.copies.iter_mut().for_each(|copy| copy.advance(tokens));
        }
        self.head(model, pool, items);
    }

    fn attention(
        &mut self,
        model: &LanguageModel,
        pool: &Pool,
        index: usize,
        layer: &LayerWeights,
        items: &mut [BatchItem],
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
            [(&mut self.q, shape.heads, f32::MAX), (&mut self.k, shape.kv_heads, broken::largest_key(items))]
        {
            let (positions, style) = (&self.positions, RopeStyle::Interleaved);
            let beyond =
                rope(pool, values, heads, shape.head_dim, shape.rope_dims, positions, &model.rope, style, most);
            broken::note(&mut self.broken, &beyond, |_| NotFinite::Layer(index));
        }
        self.write_rows(pool, index, items, kv_width);
        self.attend_probes(model, pool, index, items);

        let heads = model.head_shape();
        let own = self.attended.len() - self.probes() * q_width;
        let (policy_out, exact_out) = self.attended[..own].split_at_mut(policy_rows * q_width);
        let (policy_q, exact_q) = self.q[..own].split_at(policy_rows * q_width);
        if policy_rows > 0 {
            let rows = policy_reads(index, items, policy_q, &self.v_sums, q_width, kv_width);
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
            count_v_reads(index, items, &heads, &self.decode, &mut self.traffic);
        }
        if !exact_q.is_empty() {
            let started = Instant::now();
            let mut taken = 0;
            let exact: Vec<PrefillItem> = items
                .iter()
                .filter(|item| item.reading == Reading::Exact)
                .map(|item| {
                    let q = &exact_q[taken..][..item.tokens.len() * q_width];
                    taken += q.len();
                    let (k, v) = (item.cache.k(index), item.cache.v(index));
                    PrefillItem { q, rows: item.tokens.len(), start: item.cache.len(), k, v }
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
    fn head(&mut self, model: &LanguageModel, pool: &Pool, items: &[BatchItem]) {
        let started = Instant::now();
        let shape = &model.shape;
        let mut wanted = 0;
        let mut row = 0;
        for item in items {
            let rows = item.tokens.len();
            let from = match item.logits {
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
        self.note_output(shape.hidden, shape.layers, items);
        let head: &Linear = model.weights.head();
        head.forward(pool, &self.input, &mut self.logits);
        self.times.head = started.elapsed();
    }
}
