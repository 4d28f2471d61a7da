//! Attention over cached pages: exact for prefill, full or top-N for decoding, and plain references for both.
