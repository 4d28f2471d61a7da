//! The reuse buffer: V rows that a KV head chose lately, kept on the device so that they need not be fetched again.
//!
//! Neighbouring tokens choose mostly the same rows. A buffer holds a fixed number of rows of one KV head in one layer
//! of one sequence. A chosen row that is not in it is fetched from the host and replaces the row that was not chosen
//! for longest; of equals, the one with the lower position. This order depends on nothing else, so every run keeps the
//! same rows. The buffer holds copies, so that a row has the same bits wherever it is read from.

use half::f16;

/// Where there is no slot for a row.
pub const NO_SLOT: u16 = u16::MAX;

/// Chosen rows of one KV head in one layer.
#[derive(Debug)]
pub struct RowBuffer {
    capacity: usize,
    head_dim: usize,
    /// By position, ascending.
    entries: Vec<Entry>,
    /// `[capacity, head_dim]`; memory is taken when the first row comes.
    rows: Vec<f16>,
    unused: Vec<u16>,
    step: u32,
    missing: Vec<u32>,
    oldest: Vec<(u32, u32)>,
    merged: Vec<Entry>,
}

/// A row that is held.
#[derive(Debug, Clone, Copy)]
struct Entry {
    position: u32,
    /// The step in which it was chosen last.
    last: u32,
    slot: u16,
}

impl RowBuffer {
    /// An empty buffer for `capacity` rows of `head_dim` values.
    ///
    /// # Panics
    /// When `capacity` is more than slots can be told apart, 65,535.
    pub fn new(capacity: usize, head_dim: usize) -> Self {
        assert!(capacity <= usize::from(NO_SLOT), "slots are numbered in 16 bits");
        Self {
            capacity,
            head_dim,
            entries: Vec::new(),
            rows: Vec::new(),
            unused: Vec::new(),
            step: 0,
            missing: Vec::new(),
            oldest: Vec::new(),
            merged: Vec::new(),
        }
    }

    /// Bytes that a buffer for so many rows takes: the rows, and the table of them.
    pub const fn bytes_for(capacity: usize, head_dim: usize) -> u64 {
        (capacity * (head_dim * size_of::<f16>() + size_of::<Entry>())) as u64
    }

    /// Bytes that it takes, or will.
    pub fn bytes(&self) -> u64 {
        Self::bytes_for(self.capacity, self.head_dim)
    }

    /// Begins a step: rows chosen from now on do not give way to each other.
    pub fn begin(&mut self) {
        self.step += 1;
    }

    /// Chooses the rows at `positions`, ascending: `slots` becomes where each is held, [`NO_SLOT`] where the step has
    /// chosen more than there is room for. Rows that were not held come from `fetch`. Returns how many those were.
    pub fn choose<'a>(&mut self, positions: &[u32], slots: &mut Vec<u16>, fetch: impl Fn(u32) -> &'a [f16]) -> usize {
        self.find(positions, slots);
        let missed = self.missing.len();
        if missed > 0 {
            self.make_room();
            let stored = self.store(fetch);
            let mut found = stored.iter();
            for slot in slots.iter_mut().filter(|slot| **slot == NO_SLOT) {
                *slot = found.next().copied().unwrap_or(NO_SLOT);
            }
        }
        missed
    }

    /// The row in a slot, `[head_dim]`.
    pub fn row(&self, slot: u16) -> &[f16] {
        &self.rows[usize::from(slot) * self.head_dim..][..self.head_dim]
    }

    /// Looks positions up and notes those that are not held.
    fn find(&mut self, positions: &[u32], slots: &mut Vec<u16>) {
        slots.clear();
        self.missing.clear();
        let mut entries = self.entries.iter_mut().peekable();
        for &position in positions {
            while entries.next_if(|entry| entry.position < position).is_some() {}
            match entries.peek_mut() {
                Some(entry) if entry.position == position => {
                    entry.last = self.step;
                    slots.push(entry.slot);
                }
                _ => {
                    slots.push(NO_SLOT);
                    self.missing.push(position);
                }
            }
        }
    }

    /// Gives up the rows not chosen for longest, as many as are missing room.
    fn make_room(&mut self) {
        if self.rows.is_empty() {
            self.rows.resize(self.capacity * self.head_dim, f16::ZERO);
            self.unused.extend((0..self.capacity as u16).rev());
        }
        let short = self.missing.len().saturating_sub(self.unused.len());
        if short == 0 {
            return;
        }
        self.oldest.clear();
        let earlier = self.entries.iter().filter(|entry| entry.last < self.step);
        self.oldest.extend(earlier.map(|entry| (entry.last, entry.position)));
        let last = if short < self.oldest.len() {
            *self.oldest.select_nth_unstable(short - 1).1
        } else {
            (self.step - 1, u32::MAX)
        };
        let unused = &mut self.unused;
        self.entries.retain(|entry| {
            let stays = (entry.last, entry.position) > last;
            if !stays {
                unused.push(entry.slot);
            }
            stays
        });
    }

    /// Puts the missing rows in as far as there is room, and returns their slots.
    fn store<'a>(&mut self, fetch: impl Fn(u32) -> &'a [f16]) -> Vec<u16> {
        let room = self.missing.len().min(self.unused.len());
        let mut slots = Vec::with_capacity(room);
        self.merged.clear();
        let mut held = self.entries.iter().copied().peekable();
        for &position in &self.missing[..room] {
            while let Some(entry) = held.next_if(|entry| entry.position < position) {
                self.merged.push(entry);
            }
            let Some(slot) = self.unused.pop() else { break };
            self.rows[usize::from(slot) * self.head_dim..][..self.head_dim].copy_from_slice(fetch(position));
            self.merged.push(Entry { position, last: self.step, slot });
            slots.push(slot);
        }
        self.merged.extend(held);
        std::mem::swap(&mut self.entries, &mut self.merged);
        slots
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Rows of 2 values that say where they come from.
    fn pages() -> Vec<[f16; 2]> {
        (0..64).map(|at| [f16::from_f32(at as f32), f16::from_f32(-1.0)]).collect()
    }

    /// What the buffer does, said plainly: positions with the step in which each was chosen last.
    #[derive(Default)]
    struct Plain(Vec<(u32, u32)>);

    impl Plain {
        fn choose(&mut self, positions: &BTreeSet<u32>, capacity: usize, step: u32) -> usize {
            let mut missed = Vec::new();
            for &position in positions {
                match self.0.iter_mut().find(|held| held.1 == position) {
                    Some(held) => held.0 = step,
                    None => missed.push(position),
                }
            }
            for &position in &missed {
                if self.0.len() == capacity {
                    let Some(at) = (0..self.0.len()).filter(|&at| self.0[at].0 < step).min_by_key(|&at| self.0[at])
                    else {
                        break;
                    };
                    self.0.remove(at);
                }
                self.0.push((step, position));
            }
            missed.len()
        }
    }

    proptest! {
        #[test]
        fn rows_are_their_pages_and_those_not_chosen_for_longest_go(
            capacity in 1usize..20,
            steps in prop::collection::vec(prop::collection::vec(prop::collection::btree_set(0u32..64, 0..24), 1..4), 1..30),
        ) {
            let pages = pages();
            let (mut buffer, mut plain, mut slots) = (RowBuffer::new(capacity, 2), Plain::default(), Vec::new());
            for (step, heads) in (1..).zip(&steps) {
                buffer.begin();
                // Heads of a step choose one after the other, and what one has chosen stays for all of it.
                let mut held = Vec::new();
                for chosen in heads {
                    let positions: Vec<u32> = chosen.iter().copied().collect();
                    let missed = buffer.choose(&positions, &mut slots, |position| &pages[position as usize]);
                    prop_assert_eq!(missed, plain.choose(chosen, capacity, step));
                    held.extend(positions.iter().copied().zip(slots.iter().copied()).filter(|held| held.1 != NO_SLOT));
                    for &(position, slot) in &held {
                        prop_assert_eq!(buffer.row(slot), &pages[position as usize]);
                    }
                    let mut expected: Vec<u32> = plain.0.iter().map(|held| held.1).collect();
                    expected.sort_unstable();
                    let found: Vec<u32> = buffer.entries.iter().map(|entry| entry.position).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
