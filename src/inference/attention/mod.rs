//! Attention over cached pages: exact for prefill, full or top-N for decoding, and plain references for both.

mod decode;
mod decode_row;
mod gather;
mod head;
mod hits;
mod kv_split;
mod per_thread;
mod prefill;
mod reads;
pub mod reference;
mod reuse;
mod row_splits;
mod rule;
mod select;
mod shape;
mod size;
mod stage_clock;
#[cfg(test)]
mod tests;

pub use decode::{DecodeScratch, DecodeTimes, decode};
pub use decode_row::DecodeRow;
pub use hits::{DISTANCE_BUCKETS, HitCounts, Hits, RECENT_POSITIONS, SINK_POSITIONS};
pub use prefill::{PrefillItem, PrefillScratch, prefill};
pub use reads::{HeadReads, Reads, curve_counts};
pub use rule::{Count, Rows};
pub use shape::HeadShape;
