//! The rows of a layer and the cache: writes new rows into the pages, and says what each decoded row reads.

use super::buffers::Forward;
use crate::{
    attention::{DecodeRow, Rows},
    kernels::Pool,
    model::BatchItem,
};

impl Forward {
    /// Writes the new K and V rows into the pages, and keeps V's running sum as it stood at each policy row, and before
    /// each probe.
    pub(super) fn write_rows(&mut self, pool: &Pool, layer: usize, items: &mut [BatchItem], kv_width: usize) {
        // On this thread, not on the one that happens to write first: see `take_pages`.
        for item in items.iter_mut() {
            item.cache.take_pages(layer, item.tokens.len());
            item.copies.iter_mut().for_each(|copy| copy.take_pages(layer, item.tokens.len()));
        }
        let probed = items.iter().filter(|item| item.reading.probe().is_some());
        for (item, to) in probed.zip(self.v_sums[self.policy_rows * kv_width..].chunks_exact_mut(kv_width)) {
            let sums = item.cache.v_sum(layer);
            to[..sums.len()].copy_from_slice(sums);
        }
        let (k, v) = (&self.k, &self.v);
        let mut sums = &mut self.v_sums[..self.policy_rows * kv_width];
        let mut row = 0;
        let items = items.iter_mut().map(|item| {
            let own = if item.reading.policy().is_some() { item.tokens.len() * kv_width } else { 0 };
            let sums = sums.split_off_mut(..own).expect("a sum for every policy row");
            let first = row;
            row += item.tokens.len();
            (first, item, sums)
        });
        let mut items: Vec<_> = items.collect();
        // A key goes into a cache line for each of its dimensions, and most are not in any cache: several threads wait
        // for several of them at once.
        pool.run_chunks(&mut items, 1, |_, item| {
            let [(row, item, sums)] = item else { unreachable!("chunks of one") };
            let start = item.cache.len();
            let mut sums = sums.chunks_exact_mut(kv_width);
            for offset in 0..item.tokens.len() {
                let own = (*row + offset) * kv_width..(*row + offset + 1) * kv_width;
                item.cache.write(layer, start + offset, &k[own.clone()], &v[own.clone()]);
                for copy in &mut item.copies {
                    copy.write(layer, start + offset, &k[own.clone()], &v[own.clone()]);
                }
                if let Some(to) = sums.next() {
                    let sums = item.cache.v_sum(layer);
                    to[..sums.len()].copy_from_slice(sums);
                }
            }
        });
    }
}

/// What each policy row of a layer reads.
pub(super) fn policy_reads<'a>(
    layer: usize,
    items: &'a [BatchItem],
    q: &'a [f32],
    v_sums: &'a [f32],
    q_width: usize,
    kv_width: usize,
) -> Vec<DecodeRow<'a>> {
    let mut reads = Vec::with_capacity(q.len() / q_width);
    for item in items {
        let Some(policy) = item.reading.policy() else { break };
        let rows = Rows::of(policy, layer);
        for offset in 0..item.tokens.len() {
            let row = reads.len();
            reads.push(DecodeRow {
                q: &q[row * q_width..][..q_width],
                k: item.cache.k(layer),
                v: item.cache.v(layer),
                len: item.cache.len() + offset + 1,
                rows,
                v_sum: &v_sums[row * kv_width..][..kv_width],
                // Several rows of a sequence would use the same buffer at once, in any order.
                buffers: if item.tokens.len() == 1 { item.cache.buffers(layer) } else { &[] },
            });
        }
    }
    reads
}
