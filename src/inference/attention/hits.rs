//! Where the chosen rows lie: counts by layer and by distance, and the softmax mass that they hold.

/// Distances are counted in powers of two: bucket 0 is the token itself, bucket b ≥ 1 holds distances 2^(b-1)..2^b.
pub const DISTANCE_BUCKETS: usize = 18;

/// The first positions of a context, which models use as a resting place for attention ("attention sinks").
pub const SINK_POSITIONS: usize = 4;

/// The last positions of a context that count as recent.
pub const RECENT_POSITIONS: usize = 64;

/// Where the positions lie that a query head chose. Counted by the task that chose them, while they are in its cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// Rows by distance from now.
    pub distance: [u32; DISTANCE_BUCKETS],
    /// Rows among the first [`SINK_POSITIONS`].
    pub sink: u32,
    /// Rows among the last [`RECENT_POSITIONS`].
    pub recent: u32,
    /// Rows in all.
    pub rows: u32,
}

impl Hits {
    /// That of ascending `positions` out of `0..len`.
    pub fn of(len: usize, positions: &[u32]) -> Self {
        // The searches do not depend on each other, so the CPU runs them side by side.
        let below = |end: usize| positions.partition_point(|&position| (position as usize) < end) as u32;
        let rows = positions.len() as u32;
        let mut distance = [0; DISTANCE_BUCKETS];
        // Those of a bucket are a run, the nearest at the back.
        let mut end = rows;
        for (bucket, count) in distance.iter_mut().enumerate() {
            let start = if bucket + 1 < DISTANCE_BUCKETS { below(len.saturating_sub(1 << bucket)) } else { 0 };
            *count = end - start;
            end = start;
        }
        Self { distance, sink: below(SINK_POSITIONS), recent: rows - below(len.saturating_sub(RECENT_POSITIONS)), rows }
    }
}

/// Sums over decoded tokens. The forward pass adds to them; who reports them starts them again.
#[derive(Debug, Clone, PartialEq)]
pub struct HitCounts {
    /// Decoded tokens in the sums.
    pub tokens: u64,
    /// Selected rows by layer and distance from now; a row counts once for each head that selected it.
    pub distance: Vec<[u64; DISTANCE_BUCKETS]>,
    /// Selected rows among the first [`SINK_POSITIONS`].
    pub sink: u64,
    /// Selected rows among the last [`RECENT_POSITIONS`].
    pub recent: u64,
    /// Selected rows in all.
    pub selected: u64,
    /// V rows that query heads read, selected or not, over all layers.
    pub(crate) rows_read: u64,
    /// How often a query head read rows: the divisor of `rows_read`.
    pub(crate) readings: u64,
    /// The kept mass by layer and query head, and how often it was counted; heads are known once they have read.
    kept: Vec<Vec<(f64, u64)>>,
}

impl HitCounts {
    /// Nothing counted yet, for a model of `layers` layers.
    pub fn new(layers: usize) -> Self {
        Self {
            tokens: 0,
            distance: vec![[0; DISTANCE_BUCKETS]; layers],
            sink: 0,
            recent: 0,
            selected: 0,
            rows_read: 0,
            readings: 0,
            kept: vec![Vec::new(); layers],
        }
    }

    /// Counts that all `len` rows were read by each of `heads` query heads.
    pub(crate) fn read_all(&mut self, layer: usize, len: usize, heads: usize) {
        self.rows_read += (len * heads) as u64;
        self.readings += heads as u64;
        (0..heads).for_each(|head| self.keep(layer, head, 1.0));
    }

    /// Counts what query head `head` chose, which held `kept` of the softmax mass.
    pub(crate) fn read_selected(&mut self, [layer, head]: [usize; 2], chosen: &Hits, kept: f32) {
        for (count, more) in self.distance[layer].iter_mut().zip(&chosen.distance) {
            *count += u64::from(*more);
        }
        self.sink += u64::from(chosen.sink);
        self.recent += u64::from(chosen.recent);
        self.selected += u64::from(chosen.rows);
        self.rows_read += u64::from(chosen.rows);
        self.readings += 1;
        self.keep(layer, head, f64::from(kept));
    }

    fn keep(&mut self, layer: usize, head: usize, kept: f64) {
        let heads = &mut self.kept[layer];
        heads.resize(heads.len().max(head + 1), (0.0, 0));
        heads[head].0 += kept;
        heads[head].1 += 1;
    }

    /// The kept mass of each layer, mean over heads and tokens; 1 for a layer that read nothing.
    pub fn kept_mass(&self) -> Vec<f32> {
        let total = |heads: &Vec<(f64, u64)>| heads.iter().fold((0.0, 0), |sum, head| (sum.0 + head.0, sum.1 + head.1));
        self.kept.iter().map(|heads| share(total(heads))).collect()
    }

    /// The kept mass of each query head of each layer, mean over tokens.
    pub(crate) fn kept_mass_by_head(&self) -> Vec<Vec<f32>> {
        self.kept.iter().map(|heads| heads.iter().copied().map(share).collect()).collect()
    }

    /// V rows a query head read per token, mean over heads and layers; `None` before the first.
    pub fn rows_per_head(&self) -> Option<f64> {
        (self.readings > 0).then(|| self.rows_read as f64 / self.readings as f64)
    }

    /// Adds another count of the same model.
    pub fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.sink += other.sink;
        self.recent += other.recent;
        self.selected += other.selected;
        self.rows_read += other.rows_read;
        self.readings += other.readings;
        for (mine, theirs) in self.distance.iter_mut().zip(&other.distance) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
        for (mine, theirs) in self.kept.iter_mut().zip(&other.kept) {
            mine.resize(mine.len().max(theirs.len()), (0.0, 0));
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                mine.0 += theirs.0;
                mine.1 += theirs.1;
            }
        }
    }

    /// Starts again from nothing.
    pub fn clear(&mut self) {
        *self = Self::new(self.distance.len());
    }
}

/// A mean of what was counted; 1 where nothing was.
fn share((sum, count): (f64, u64)) -> f32 {
    if count == 0 { 1.0 } else { (sum / count as f64) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bucket of one distance.
    fn bucket(distance: usize) -> usize {
        ((usize::BITS - distance.leading_zeros()) as usize).min(DISTANCE_BUCKETS - 1)
    }

    #[test]
    fn distances_double() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8, 63, 64].map(bucket), [0, 1, 2, 2, 3, 3, 4, 6, 7]);
        assert_eq!(bucket(usize::MAX), DISTANCE_BUCKETS - 1);
    }

    #[test]
    fn runs_are_the_buckets_of_each_position() {
        for (len, step) in [(1, 1), (2, 1), (200, 7), (5000, 3), (300_000, 13)] {
            let positions: Vec<u32> = (0..len as u32).step_by(step).collect();
            let mut expected = [0; DISTANCE_BUCKETS];
            positions.iter().for_each(|&position| expected[bucket(len - 1 - position as usize)] += 1);
            assert_eq!(Hits::of(len, &positions).distance, expected);
        }
    }

    #[test]
    fn a_selection_is_counted_once_everywhere() {
        let mut hits = HitCounts::new(2);
        hits.read_selected([1, 2], &Hits::of(200, &[0, 3, 4, 135, 136, 199]), 0.75);
        assert_eq!((hits.sink, hits.recent, hits.selected), (2, 2, 6));
        assert_eq!(hits.distance[1].iter().sum::<u64>(), 6);
        assert_eq!(hits.distance[1][0], 1);
        assert_eq!(hits.kept_mass(), [1.0, 0.75]);
        assert_eq!(hits.kept_mass_by_head(), [vec![], vec![1.0, 1.0, 0.75]]);
        hits.read_all(0, 200, 3);
        assert_eq!(hits.rows_per_head(), Some((6.0 + 600.0) / 4.0));
    }
}
