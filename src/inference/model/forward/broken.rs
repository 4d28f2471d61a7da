//! Rows whose arithmetic is no longer finite. They are noted where that is first seen, so that whoever wants their
//! logits learns why there are none. It is looked for in the inputs of linear layers, in queries and in keys, because
//! there rounding or clamping would hide it. A row stays broken: what later layers add does not make it finite again.

use std::ops::Range;

use super::buffers::Forward;
use crate::{
    cache::Format,
    kernels::q8,
    model::{BatchItem, LogitRows, NotFinite},
};

impl Forward {
    /// Why the logits of one of these rows of the last pass mean nothing; `None` where they do. Rows are the tokens of
    /// all items, in order, then the probes.
    pub(crate) fn not_finite(&self, rows: Range<usize>) -> Option<NotFinite> {
        self.broken.iter().find(|(row, _)| rows.contains(row)).map(|(_, place)| *place)
    }

    /// Notes what is broken in the input of a layer's attention.
    pub(super) fn note_input(&mut self, layer: usize, hidden: usize) {
        let before = layer.checked_sub(1).map_or(NotFinite::Embedding, NotFinite::Layer);
        let x = &self.x;
        note(&mut self.broken, self.input.broken_rows(), |row| {
            if can_be_normed(&x[row * hidden..][..hidden]) { NotFinite::Layer(layer) } else { before }
        });
    }

    /// Notes what is broken in the input of another linear layer of `layer`.
    pub(super) fn note_inside(&mut self, layer: usize) {
        note(&mut self.broken, self.input.broken_rows(), |_| NotFinite::Layer(layer));
    }

    /// Notes what is broken in the input of the output head, which stands for the rows whose logits are wanted.
    pub(super) fn note_output(&mut self, hidden: usize, layers: usize, items: &[BatchItem]) {
        if self.input.broken_rows().is_empty() {
            return;
        }
        let (mut wanted, mut first) = (Vec::new(), 0);
        for item in items {
            let end = first + item.tokens.len();
            wanted.extend(match item.logits {
                LogitRows::None => end..end,
                LogitRows::Last => end - 1..end,
                LogitRows::All => first..end,
            });
            first = end;
        }
        wanted.extend(first..first + self.probes());
        for &at in self.input.broken_rows() {
            let normed = can_be_normed(&self.x[at * hidden..][..hidden]);
            let place = if normed { NotFinite::Output } else { NotFinite::Layer(layers - 1) };
            note(&mut self.broken, &[wanted[at]], |_| place);
        }
    }
}

/// Notes where rows are broken, those that were not noted before.
pub(super) fn note(broken: &mut Vec<(usize, NotFinite)>, rows: &[usize], place: impl Fn(usize) -> NotFinite) {
    for &row in rows {
        if broken.iter().all(|(noted, _)| *noted != row) {
            broken.push((row, place(row)));
        }
    }
}

/// Whether the norm of a row is a number.
fn can_be_normed(x: &[f32]) -> bool {
    x.iter().map(|x| x * x).sum::<f32>().is_finite()
}

/// The largest value of a key that the caches of all items can hold.
pub(super) fn largest_key(items: &[BatchItem]) -> f32 {
    // Up to halfway to the next one a value is rounded to the largest 16-bit float.
    const LARGEST_F16: f32 = 65_520f32.next_down();
    let f16 = items.iter().any(|item| item.cache.formats()[0] == Format::F16);
    if f16 { LARGEST_F16 } else { q8::LARGEST }
}
