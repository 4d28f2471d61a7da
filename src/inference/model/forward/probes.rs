//! Probed tokens: a second row of a token, which reads the cache by another policy and leaves no trace in it.

use super::buffers::Forward;
use crate::{
    attention::{DecodeRow, Rows, decode},
    kernels::Pool,
    model::{BatchItem, LanguageModel},
};

impl Forward {
    /// Probes of the last pass, or of the one that runs.
    pub(super) fn probes(&self) -> usize {
        self.kept.len() - self.policy_rows
    }

    /// Attention of the probes. Meanwhile the cache holds the probe's own row in place of its
    /// item's.
    pub(super) fn attend_probes(&mut self, model: &LanguageModel, pool: &Pool, layer: usize, items: &mut [BatchItem]) {
        let probes = self.probes();
        if probes == 0 {
            return;
        }
        let heads = model.head_shape();
        let (q_width, kv_width) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
        let first = self.attended.len() / q_width - probes;
        for (at, (_, item)) in probed(items).enumerate() {
            let own = (first + at) * kv_width..(first + at + 1) * kv_width;
            let position = item.cache.len();
            item.cache.replace(layer, position, &self.k[own.clone()], &self.v[own]);
            if !item.cache.v_sum(layer).is_empty() {
                item.cache.add_v(layer, position, &mut self.v_sums[(self.policy_rows + at) * kv_width..][..kv_width]);
            }
        }
        let sums = self.v_sums[self.policy_rows * kv_width..].chunks_exact(kv_width);
        let queries = self.q[first * q_width..].chunks_exact(q_width).zip(sums);
        let asked = items.iter().filter_map(|item| Some((item, item.reading.probe()?)));
        let rows: Vec<DecodeRow> = asked
            .zip(queries)
            .map(|((item, policy), (q, v_sum))| DecodeRow {
                q,
                k: item.cache.k(layer),
                v: item.cache.v(layer),
                len: item.cache.len() + 1,
                rows: Rows::of(policy, layer),
                v_sum,
                // A buffer keeps what the answer itself has chosen, and a probe must leave no trace.
                buffers: &[],
            })
            .collect();
        let out = &mut self.attended[first * q_width..];
        decode(pool, &heads, &rows, &mut self.decode, out, &mut self.times.decode);
        for (at, row) in rows.iter().enumerate() {
            let read = self.decode.fetched(at).unwrap_or(row.len * heads.kv_heads);
            self.traffic.probes += (row.len * heads.kv_heads) as u64 * row.k[0].row_bytes();
            self.traffic.probes += read as u64 * row.v[0].row_bytes();
            let kept = &mut self.kept[self.policy_rows + at];
            for &mass in self.decode.kept_mass(at).unwrap_or_default() {
                *kept = (kept.0 + f64::from(mass), kept.1 + 1);
            }
        }
        for (row, item) in probed(items) {
            let written = row * kv_width..(row + 1) * kv_width;
            item.cache.replace(layer, item.cache.len(), &self.k[written.clone()], &self.v[written]);
        }
    }
}

/// The items that are probed, each with the row of its token.
fn probed<'a, 'b>(items: &'a mut [BatchItem<'b>]) -> impl Iterator<Item = (usize, &'a mut BatchItem<'b>)> {
    let rows = items.iter().scan(0, |row, item| Some(std::mem::replace(row, *row + item.tokens.len())));
    let rows: Vec<usize> = rows.collect();
    rows.into_iter().zip(items).filter(|(_, item)| item.reading.probe().is_some())
}
