//! A page: 64 tokens of one layer's K or V, all KV heads, as 16-bit floats or as 8-bit blocks.
//!
//! The layout is head-major, so that a head reads one run of memory. V is `[kv_head][slot][head_dim]`, so that a row
//! (one V vector of one KV head) is one slice. K is `[kv_head][head_dim][slot]`, so that a query reads the same
//! dimension of neighbouring keys side by side: see [`keys`]. The scales of a head's 8-bit values lie behind the
//! values, in the same order: see [`q8`].

use std::{fmt, ops::Range};

use half::{f16, slice::HalfFloatSliceExt};

use crate::kernels::{
    aligned::Aligned,
    keys::{self, Q8Keys},
    q8::{self, Q8Rows},
};

/// Tokens a page holds.
pub const PAGE_TOKENS: usize = keys::SLOTS;

/// How the values of a page are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 16-bit floats.
    F16,
    /// 8-bit integers with a 16-bit scale for every 32 of a row.
    Q8,
}

impl Format {
    /// Bytes of one row of `head_dim` values.
    pub const fn row_bytes(self, head_dim: usize) -> u64 {
        match self {
            Self::F16 => head_dim.saturating_mul(size_of::<f16>()) as u64,
            Self::Q8 => head_dim.saturating_add(q8::blocks(head_dim).saturating_mul(size_of::<f16>())) as u64,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Q8 => "q8",
        })
    }
}

/// Consecutive V rows of one KV head, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CachedRows<'a> {
    /// `[rows, head_dim]`.
    F16(&'a [f16]),
    /// The same, 8-bit.
    Q8(Q8Rows<'a>),
}

/// The keys of one KV head in a page, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CachedKeys<'a> {
    /// `[head_dim][64]`.
    F16(&'a [f16]),
    /// 8-bit.
    Q8(Q8Keys<'a>),
}

/// What lies side by side in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The values of a row: V.
    Rows,
    /// The rows of a dimension: K.
    Dimensions,
}

/// 64 tokens of one layer's K or V. Several sequences may hold the same page: see [`Page::share`].
#[derive(Debug)]
pub struct Page {
    /// Head after head: its values, and where they are 8-bit, their scales behind them.
    memory: Aligned,
    format: Format,
    order: Order,
    head_dim: usize,
}

impl Page {
    /// A zeroed page of K for `kv_heads` heads of `head_dim` values.
    pub fn for_keys(format: Format, kv_heads: usize, head_dim: usize) -> Self {
        Self::new(format, Order::Dimensions, kv_heads, head_dim)
    }

    /// A zeroed page of V.
    pub fn for_values(format: Format, kv_heads: usize, head_dim: usize) -> Self {
        Self::new(format, Order::Rows, kv_heads, head_dim)
    }

    fn new(format: Format, order: Order, kv_heads: usize, head_dim: usize) -> Self {
        let memory = Aligned::zeroed(Self::bytes_for(format, kv_heads, head_dim) as usize);
        Self { memory, format, order, head_dim }
    }

    /// A page of its own with the rows of another. Where the formats differ, its values are rounded once more.
    pub fn copy(format: Format, other: &Self) -> Self {
        if format == other.format {
            return Self { memory: other.memory.copied(), ..*other };
        }
        let kv_heads = other.memory.len() / other.head_bytes();
        let mut copy = Self::new(format, other.order, kv_heads, other.head_dim);
        let mut row = vec![0.0; other.head_dim];
        for at in 0..kv_heads * PAGE_TOKENS {
            other.read(at / PAGE_TOKENS, at % PAGE_TOKENS, &mut row);
            copy.write(at / PAGE_TOKENS, at % PAGE_TOKENS, &row);
        }
        copy
    }

    /// The same page for another sequence. From now on it can be read, and written no more.
    pub fn share(&self) -> Self {
        Self { memory: self.memory.clone(), ..*self }
    }

    /// Whether both are the same page, not only equal ones.
    pub fn is(&self, other: &Self) -> bool {
        self.memory.is(&other.memory)
    }

    /// Bytes one page of this shape takes.
    pub const fn bytes_for(format: Format, kv_heads: usize, head_dim: usize) -> u64 {
        (kv_heads * PAGE_TOKENS) as u64 * format.row_bytes(head_dim)
    }

    /// Bytes this page takes.
    pub fn bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// How its values are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of one row, that is of one token's vector in one KV head.
    pub fn row_bytes(&self) -> u64 {
        self.format.row_bytes(self.head_dim)
    }

    /// Bytes of a KV head.
    fn head_bytes(&self) -> usize {
        PAGE_TOKENS * self.row_bytes() as usize
    }

    /// Where the values and scales of `rows` rows of a KV head are, those of a page of V from `slot` on.
    #[inline]
    fn places(&self, kv_head: usize, slot: usize, rows: usize) -> [Range<usize>; 2] {
        let first = kv_head * self.head_bytes();
        let (value, scales) = match self.format {
            Format::F16 => (size_of::<f16>(), 0),
            Format::Q8 => (size_of::<i8>(), q8::blocks(self.head_dim) * size_of::<f16>()),
        };
        let values = self.head_dim * value;
        let behind = first + PAGE_TOKENS * values;
        [first + slot * values..first + (slot + rows) * values, behind + slot * scales..behind + (slot + rows) * scales]
    }

    /// `rows` rows of one KV head from `slot` on, of a page of V.
    ///
    /// # Panics
    /// On a page of K.
    #[inline]
    pub fn rows(&self, kv_head: usize, slot: usize, rows: usize) -> CachedRows<'_> {
        assert!(self.order == Order::Rows && slot + rows <= PAGE_TOKENS, "rows of a page of V");
        let [values, scales] = self.places(kv_head, slot, rows);
        match self.format {
            Format::F16 => CachedRows::F16(self.memory.numbers(values)),
            Format::Q8 => {
                CachedRows::Q8(Q8Rows { values: self.memory.numbers(values), scales: self.memory.numbers(scales) })
            }
        }
    }

    /// The keys of one KV head, of a page of K.
    ///
    /// # Panics
    /// On a page of V.
    pub fn keys(&self, kv_head: usize) -> CachedKeys<'_> {
        assert!(self.order == Order::Dimensions, "keys of a page of K");
        let [values, scales] = self.places(kv_head, 0, PAGE_TOKENS);
        match self.format {
            Format::F16 => CachedKeys::F16(self.memory.numbers(values)),
            Format::Q8 => {
                CachedKeys::Q8(Q8Keys { values: self.memory.numbers(values), scales: self.memory.numbers(scales) })
            }
        }
    }

    /// Writes one row, `[head_dim]`, rounded to the page's format.
    ///
    /// # Panics
    /// When the page is shared.
    pub fn write(&mut self, kv_head: usize, slot: usize, row: &[f32]) {
        const ALONE: &str = "only full pages are shared, and full pages are never written";
        let places = match self.order {
            Order::Rows => self.places(kv_head, slot, 1),
            Order::Dimensions => self.places(kv_head, 0, PAGE_TOKENS),
        };
        match self.format {
            Format::F16 => {
                let (values, _) = self.memory.numbers_mut::<f16, f16>(places).expect(ALONE);
                match self.order {
                    Order::Rows => values.convert_from_f32_slice(row),
                    Order::Dimensions => keys::write(row, slot, values),
                }
            }
            Format::Q8 => {
                let (values, scales) = self.memory.numbers_mut(places).expect(ALONE);
                match self.order {
                    Order::Rows => q8::quantise(row, values, scales),
                    Order::Dimensions => keys::write_q8(row, slot, values, scales),
                }
            }
        }
    }

    /// Reads one row back, `[head_dim]`, as attention sees it.
    pub fn read(&self, kv_head: usize, slot: usize, row: &mut [f32]) {
        match self.order {
            Order::Rows => match self.rows(kv_head, slot, 1) {
                CachedRows::F16(values) => values.convert_to_f32_slice(row),
                CachedRows::Q8(values) => q8::dequantise(values, self.head_dim, row),
            },
            Order::Dimensions => match self.keys(kv_head) {
                CachedKeys::F16(values) => keys::read(values, slot, row),
                CachedKeys::Q8(values) => keys::read_q8(values, slot, row),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: [Order; 2] = [Order::Rows, Order::Dimensions];

    #[test]
    fn a_row_that_was_written_is_read_back_and_copied() {
        let kinds = [(Format::F16, 0.0005), (Format::Q8, 0.004)];
        for ((format, bound), order) in kinds.into_iter().flat_map(|kind| ORDERS.map(|order| (kind, order))) {
            // One whole block and a rest.
            let (kv_heads, head_dim) = (2, 40);
            let mut page = Page::new(format, order, kv_heads, head_dim);
            assert_eq!(page.bytes(), Page::bytes_for(format, kv_heads, head_dim));
            assert_eq!(page.row_bytes(), if format == Format::F16 { 80 } else { 40 + 2 * 2 });
            let row: Vec<f32> = (0..head_dim).map(|at| (at as f32).sin()).collect();
            page.write(1, 63, &row);
            let mut back = vec![f32::NAN; head_dim];
            page.read(1, 63, &mut back);
            assert!(row.iter().zip(&back).all(|(row, back)| (row - back).abs() < bound), "{back:?}");
            page.read(1, 62, &mut back);
            assert_eq!(back, vec![0.0; head_dim]);

            for into in [Format::F16, Format::Q8] {
                let copy = Page::copy(into, &page);
                assert_eq!(copy.format(), into);
                if into == format {
                    match order {
                        Order::Rows => assert_eq!(copy.rows(1, 0, 64), page.rows(1, 0, 64)),
                        Order::Dimensions => assert_eq!(copy.keys(1), page.keys(1)),
                    }
                }
                copy.read(1, 63, &mut back);
                assert!(row.iter().zip(&back).all(|(row, back)| (row - back).abs() < 2.0 * bound.max(0.004)));
            }
        }
    }

    #[test]
    #[should_panic(expected = "full pages are never written")]
    fn a_shared_page_is_the_same_page_and_is_not_written() {
        let mut page = Page::for_values(Format::Q8, 2, 32);
        page.write(0, 0, &[1.0; 32]);
        let other = page.share();
        assert!(page.is(&other) && !page.is(&Page::for_values(Format::Q8, 2, 32)));
        assert_eq!(page.rows(0, 0, 64), other.rows(0, 0, 64));
        page.write(0, 1, &[1.0; 32]);
    }
}
