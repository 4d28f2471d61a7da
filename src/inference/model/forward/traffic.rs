//! Bytes that attention read in a pass, by tier.

use crate::{
    attention::{DecodeScratch, HeadShape},
    cache::{SequenceCache, Tier},
    model::{BatchItem, Reading, Traffic},
};

/// Counts the bytes of V that the policy rows of a layer read, by the tier they came from: every row once per KV head,
/// unless heads chose their own.
pub(super) fn count_v_reads(
    layer: usize,
    items: &[BatchItem],
    shape: &HeadShape,
    decoded: &DecodeScratch,
    traffic: &mut Traffic,
) {
    let mut row = 0;
    for item in items {
        if item.reading == Reading::Exact {
            break;
        }
        for offset in 0..item.tokens.len() {
            let len = item.cache.len() + offset + 1;
            let chosen = decoded.choosing(row).map(|lists| lists.map(<[u32]>::len).sum());
            let rows = chosen.unwrap_or(len * shape.kv_heads);
            let near = match item.cache.v_place(layer) {
                Tier::Device => rows,
                Tier::Host if item.cache.any_promoted() => promoted_rows(item.cache, len, row, shape, decoded),
                Tier::Host => rows - decoded.fetched(row).unwrap_or(rows),
            };
            let row_bytes = item.cache.v(layer)[0].row_bytes();
            traffic.device += near as u64 * row_bytes;
            traffic.host += (rows - near) as u64 * row_bytes;
            if chosen.is_some() {
                traffic.rows_chosen += rows as u64;
                traffic.rows_fetched += (rows - near) as u64;
            }
            row += 1;
        }
    }
}

/// The V rows among those that `row` fetched whose pages were promoted to the device.
fn promoted_rows(cache: &SequenceCache, len: usize, row: usize, shape: &HeadShape, decoded: &DecodeScratch) -> usize {
    let Some(choosing) = decoded.choosing(row) else {
        return (0..len).filter(|&position| cache.promoted_at(position)).count() * shape.kv_heads;
    };
    let selected = choosing.flat_map(|selected| selected.iter());
    selected.filter(|&&position| cache.promoted_at(position as usize)).count()
}
