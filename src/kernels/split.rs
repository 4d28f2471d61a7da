//! Writing disjoint parts of a slice from the tasks of a [`Pool`], without `unsafe` at the caller.

use std::{
    marker::PhantomData,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::Pool;

/// The start of a slice whose parts are handed to different tasks.
pub(super) struct Base<T>(*mut T);

// SAFETY: a `Base` only stands for a `&mut [T]`; the parts that tasks get from it never overlap, and each part moves
// to one thread at a time, for which `T: Send` is enough.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    pub(super) fn new(items: &mut [T]) -> Self {
        Self(items.as_mut_ptr())
    }

    /// Where item `index` is, or would be.
    fn at(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }

    /// The `len` items from `start` on.
    ///
    /// # Safety
    /// The range lies within the slice that `self` was made from, that slice outlives `'a`, and no other part that is
    /// alive at the same time overlaps it.
    pub(super) unsafe fn part<'a>(&self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: as promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// How many chunks of each group are still to be done: a buffer of [`Pool::run_chunks_then`].
#[derive(Debug, Default)]
pub struct Countdown(Vec<AtomicUsize>);

/// A rectangle of a row-major matrix, for one task to write.
pub struct Tile<'a> {
    base: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut f32>,
}

impl Tile<'_> {
    /// Rows of the tile.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One row of the tile, `[columns]`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: the tile lies within its matrix, and only this tile reaches these items (`Pool::run_tiles`).
        unsafe { std::slice::from_raw_parts_mut(self.base.add(row * self.stride), self.columns) }
    }
}

impl Pool {
    /// One task per `chunk` items (the last may have fewer): `task(index, items of the chunk)`.
    ///
    /// # Panics
    /// When `chunk` is 0 although there are items.
    pub fn run_chunks<T: Send>(&self, items: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) {
        if items.is_empty() {
            return;
        }
        let len = items.len();
        let base = Base::new(items);
        self.run(len.div_ceil(chunk), &|index| {
            let start = index * chunk;
            // SAFETY: chunks are disjoint and inside, each index runs once, and `run` ends before `items` does.
            task(index, unsafe { base.part(start, chunk.min(len - start)) });
        });
    }

    /// [`Pool::run_chunks`], where neighbouring chunks make up groups, chunks `bounds[g]..bounds[g + 1]` group `g`:
    /// whoever has done the last chunk of a group calls `then(g, chunks left, items of the group, states of the group,
    /// rows of the group)` at once, while others go on with other chunks; those left are of all groups. Each group has
    /// as many of the states and rows as any other. Chunks beyond the last bound belong to no group.
    ///
    /// # Panics
    /// When `chunk` is 0 although there are items, `bounds` does not start at 0 and rise to at most the number of
    /// chunks, or states or rows cannot be divided.
    pub fn run_chunks_then<T: Send + Sync, S: Send, U: Send>(
        &self,
        (items, chunk): (&mut [T], usize),
        (bounds, left): (&[usize], &mut Countdown),
        (states, rows): (&mut [S], &mut [U]),
        task: impl Fn(usize, &mut [T]) + Sync,
        then: impl Fn(usize, usize, &[T], &mut [S], &mut [U]) + Sync,
    ) {
        let groups = bounds.len().saturating_sub(1);
        if groups == 0 {
            return self.run_chunks(items, chunk, task);
        }
        let len = items.len();
        let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(bounds[0] == 0 && rising && bounds[groups] <= len.div_ceil(chunk), "bounds of groups");
        assert!(states.len().is_multiple_of(groups) && rows.len().is_multiple_of(groups), "parts of groups");
        let (states_each, rows_each) = (states.len() / groups, rows.len() / groups);
        left.0.clear();
        left.0.extend(bounds.windows(2).map(|pair| AtomicUsize::new(pair[1] - pair[0])));
        let (base, left) = (Base::new(items), &left.0);
        let (states, rows) = (Base::new(states), Base::new(rows));
        self.run(len.div_ceil(chunk), &|index| {
            let start = index * chunk;
            // SAFETY: chunks are disjoint and inside, each index runs once, and `run` ends before `items` does. A
            // group's chunks are looked at only after all of them were done, see below.
            task(index, unsafe { base.part(start, chunk.min(len - start)) });
            if index >= bounds[groups] {
                return;
            }
            let group = bounds.partition_point(|&bound| bound <= index) - 1;
            // Releases what this thread wrote, and the last one acquires what all the others did.
            if left[group].fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
            let elsewhere = left.iter().map(|left| left.load(Ordering::Relaxed)).sum();
            let (start, end) = (bounds[group] * chunk, len.min(bounds[group + 1] * chunk));
            // SAFETY: every chunk of the group was done, once, so nobody has a part of it any more, and one thread
            // alone saw the count reach 0. The parts of states and rows are disjoint, inside, and only this group's.
            unsafe {
                let items = &*base.part(start, end - start);
                let states = states.part(group * states_each, states_each);
                then(group, elsewhere, items, states, rows.part(group * rows_each, rows_each));
            }
        });
    }

    /// One task per range of items and the rows that belong to them, `[items, width]`:
    /// `task(index, items of the range, rows of the range)`.
    ///
    /// # Panics
    /// When the ranges do not rise, overlap or end beyond the items, or there are fewer rows than items.
    pub fn run_ranges<T: Send, U: Send>(
        &self,
        items: &mut [T],
        (rows, width): (&mut [U], usize),
        ranges: &[Range<usize>],
        task: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let end = ranges.last().map_or(0, |range| range.end);
        assert!(apart && ranges.iter().all(|range| range.start <= range.end), "ranges that rise");
        assert!(end <= items.len() && end * width <= rows.len(), "ranges within the items");
        let (items, rows) = (Base::new(items), Base::new(rows));
        self.run(ranges.len(), &|index| {
            let Range { start, end } = ranges[index];
            // SAFETY: the ranges are disjoint and end inside; each index runs once, and `run` ends before the slices
            // do.
            unsafe { task(index, items.part(start, end - start), rows.part(start * width, (end - start) * width)) };
        });
    }

    /// One task per tile of the row-major matrix `items`, `[rows, width]`: tile rows are cut at `bounds`, tile columns
    /// every `columns`. `task(row tile, column tile, tile)`; the last row tiles are started first, because under a
    /// causal mask they take longest.
    ///
    /// # Panics
    /// When `columns` does not divide `width`, or `bounds` falls or ends beyond the rows.
    pub fn run_tiles(
        &self,
        items: &mut [f32],
        width: usize,
        bounds: &[usize],
        columns: usize,
        task: impl Fn(usize, usize, Tile<'_>) + Sync,
    ) {
        assert!(width.is_multiple_of(columns), "columns of tiles");
        assert!(bounds.is_sorted() && bounds.last().is_none_or(|&end| end * width <= items.len()), "bounds of tiles");
        let across = width / columns;
        let tall = bounds.len().saturating_sub(1);
        let base = Base::new(items);
        self.run(tall * across, &|index| {
            let (row_tile, column_tile) = (tall - 1 - index / across, index % across);
            let (start, end) = (bounds[row_tile], bounds[row_tile + 1]);
            if start == end {
                return;
            }
            let first = base.at(start * width + column_tile * columns);
            let tile = Tile { base: first, stride: width, rows: end - start, columns, matrix: PhantomData };
            task(row_tile, column_tile, tile);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_ranges_cover_what_they_say_once() {
        let pool = Pool::new(2);
        let mut items = vec![0u32; 103];
        pool.run_chunks(&mut items, 10, |index, part| part.iter_mut().for_each(|item| *item += index as u32 + 1));
        assert!(items.iter().enumerate().all(|(at, &item)| item == at as u32 / 10 + 1));
        pool.run_chunks(&mut Vec::<u32>::new(), 0, |_, _| unreachable!());
        let mut rows = vec![0u32; 103 * 2];
        pool.run_ranges(&mut items, (&mut rows, 2), &[3..5, 5..5, 9..100], |index, items, rows| {
            items.fill(300 + index as u32);
            rows.fill(200 + index as u32);
        });
        let count = |items: &[u32], value| items.iter().filter(|&&item| item == value).count();
        assert_eq!([300, 301, 302].map(|value| count(&items, value)), [2, 0, 91]);
        assert!(items[3..5].iter().all(|&item| item == 300) && items[5..9].iter().all(|&item| item == 1));
        assert!(rows[6..10].iter().all(|&row| row == 200) && rows[18..200].iter().all(|&row| row == 202));
        assert_eq!(count(&rows, 0), 103 * 2 - 4 - 182);
    }

    #[test]
    fn groups_are_done_once_after_all_their_chunks() {
        let mut left = Countdown::default();
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for bounds in [&[0, 1, 4, 9][..], &[0, 11], &[0], &[]] {
                let groups = bounds.len().saturating_sub(1);
                let (mut items, mut sums, mut rows) = (vec![0u32; 53], vec![0u32; groups], vec![0u32; 2 * groups]);
                let task = |index: usize, chunk: &mut [u32]| chunk.fill(index as u32 + 1);
                let then = |group: usize, left: usize, items: &[u32], sums: &mut [u32], rows: &mut [u32]| {
                    assert!(left <= 11 - items.len().div_ceil(5));
                    sums[0] += items.iter().sum::<u32>();
                    rows.iter_mut().for_each(|row| *row += group as u32 + 7);
                };
                let parts = (&mut sums[..], &mut rows[..]);
                pool.run_chunks_then((&mut items, 5), (bounds, &mut left), parts, task, then);
                assert!(items.iter().enumerate().all(|(at, &item)| item == at as u32 / 5 + 1));
                for group in 0..groups {
                    let range = 5 * bounds[group]..items.len().min(5 * bounds[group + 1]);
                    assert_eq!(sums[group], items[range].iter().sum::<u32>());
                    assert_eq!(rows[2 * group..][..2], [group as u32 + 7; 2]);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "bounds of groups")]
    fn groups_beyond_the_chunks_are_refused() {
        let (bounds, mut left) = ([0, 3], Countdown::default());
        let parts = (&mut [0u8; 1][..], &mut [0u8; 1][..]);
        Pool::new(1).run_chunks_then((&mut [0u8; 4], 2), (&bounds, &mut left), parts, |_, _| {}, |_, _, _, _, _| {});
    }

    #[test]
    fn tiles_cover_the_matrix_once() {
        let pool = Pool::new(2);
        let mut items = vec![0f32; 7 * 6];
        pool.run_tiles(&mut items, 6, &[0, 2, 2, 7], 3, |row_tile, column_tile, mut tile| {
            for row in 0..tile.rows() {
                tile.row_mut(row).iter_mut().for_each(|item| *item += (10 * row_tile + column_tile + 1) as f32);
            }
        });
        for (at, &item) in items.iter().enumerate() {
            let expected = if at / 6 < 2 { 0 } else { 20 } + at % 6 / 3 + 1;
            assert_eq!(item, expected as f32, "item {at}");
        }
    }

    #[test]
    fn ranges_that_overlap_or_end_beyond_are_refused() {
        for ranges in [[0..2, 1..3], [0..2, 2..4], [2..3, 0..1]] {
            let refused = std::panic::catch_unwind(|| {
                Pool::new(1).run_ranges(&mut [0u8; 3], (&mut [0u8; 3], 1), &ranges, |_, _, _| {});
            });
            assert!(refused.is_err(), "{ranges:?}");
        }
    }
}
