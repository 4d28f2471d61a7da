//! A layer's rows and the cache: new ones are written into the pages, and each row that decodes is told what it reads.

use super::Forward;
use crate::{
    attention::{DecodeRow, Rows},
    kernels::Pool,
    model::BatchItem,
};

impl Forward {
    /// Writes the new K and V rows into the pages, and keeps V's running sum as it stood at each policy row, and before
    /// each probe.
    pub(super) fn write_rows(&mut self, pool: &Pool, layer: usize, spans: &mut [BatchItem], kv_width: usize) {
        // On this thread, not on whichever writes first: see `take_pages`.
        for span in spans.iter_mut() {
            span.cache.take_pages(layer, span.tokens.len());
            span.copies.iter_mut().for_each(|copy| copy.take_pages(layer, span.tokens.len()));
        }
        let probed = spans.iter().filter(|span| span.reading.probe().is_some());
        for (span, to) in probed.zip(self.v_sums[self.policy_rows * kv_width..].chunks_exact_mut(kv_width)) {
            let sums = span.cache.v_sum(layer);
            to[..sums.len()].copy_from_slice(sums);
        }
        let (k, v) = (&self.k, &self.v);
        let mut sums = &mut self.v_sums[..self.policy_rows * kv_width];
        let mut row = 0;
        let spans = spans.iter_mut().map(|span| {
            let own = if span.reading.policy().is_some() { span.tokens.len() * kv_width } else { 0 };
            let sums = sums.split_off_mut(..own).expect("a sum for every policy row");
            let first = row;
            row += span.tokens.len();
            (first, span, sums)
        });
        let mut spans: Vec<_> = spans.collect();
        // A key goes into a cache line for each of its dimensions, and most are not in any cache: several threads wait
        // for several of them at once.
        pool.run_chunks(&mut spans, 1, |_, span| {
            let [(row, span, sums)] = span else { unreachable!("chunks of one") };
            let start = span.cache.len();
            let mut sums = sums.chunks_exact_mut(kv_width);
            for offset in 0..span.tokens.len() {
                let own = (*row + offset) * kv_width..(*row + offset + 1) * kv_width;
                span.cache.write(layer, start + offset, &k[own.clone()], &v[own.clone()]);
                for copy in &mut span.copies {
                    copy.write(layer, start + offset, &k[own.clone()], &v[own.clone()]);
                }
                if let Some(to) = sums.next() {
                    let sums = span.cache.v_sum(layer);
                    to[..sums.len()].copy_from_slice(sums);
                }
            }
        });
    }
}

/// What each policy row of a layer reads.
pub(super) fn policy_reads<'a>(
    layer: usize,
    spans: &'a [BatchItem],
    q: &'a [f32],
    v_sums: &'a [f32],
    q_width: usize,
    kv_width: usize,
) -> Vec<DecodeRow<'a>> {
    let mut reads = Vec::with_capacity(q.len() / q_width);
    for span in spans {
        let Some(policy) = span.reading.policy() else { break };
        let rows = Rows::of(policy, layer);
        for offset in 0..span.tokens.len() {
            let row = reads.len();
            reads.push(DecodeRow {
                q: &q[row * q_width..][..q_width],
                k: span.cache.k(layer),
                v: span.cache.v(layer),
                len: span.cache.len() + offset + 1,
                rows,
                v_sum: &v_sums[row * kv_width..][..kv_width],
                // Several rows at once would come to the same buffer in any order.
                buffers: if span.tokens.len() == 1 { span.cache.buffers(layer) } else { &[] },
            });
        }
    }
    reads
}
