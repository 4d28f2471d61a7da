//! What the time of decoding went into, thread by thread.

use std::time::{Duration, Instant};

/// Indices of the stages.
pub(super) const SCORES: usize = 0;
pub(super) const SELECT: usize = 1;
pub(super) const GATHER: usize = 2;
const STAGES: usize = 3;

/// What a thread's time went into. One look at the clock ends a stage and begins the next: it costs as much as the
/// scores of a few keys.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StageClock {
    stages: [Duration; STAGES],
    until: Option<Instant>,
}

impl StageClock {
    /// Counts the time since the last lap for a stage, of which none began before `since`.
    pub fn lap(&mut self, stage: usize, since: Instant) {
        let now = Instant::now();
        self.stages[stage] += now - self.until.replace(now).map_or(since, |until| until.max(since));
    }

    /// Divides `wall` as the threads' time was divided.
    pub fn share(threads: impl Iterator<Item = Self>, wall: Duration) -> [Duration; STAGES] {
        let mut sums = [0.0; STAGES];
        for Self { stages, .. } in threads {
            sums.iter_mut().zip(stages).for_each(|(sum, time)| *sum += time.as_secs_f64());
        }
        let all = sums.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        sums.map(|sum| wall.mul_f64(sum / all))
    }
}
