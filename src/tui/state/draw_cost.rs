//! What the dashboard itself costs: the time and bytes of drawing.

/// Frames are summed over this many milliseconds.
const SPAN_MS: f64 = 1_000.0;

/// The cost of drawing over the last full second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observer {
    /// Share of one core that drawing took, in 0..=1; `None` before the first second is over.
    pub share: Option<f64>,
    pub fps: f64,
    /// Milliseconds of a mean frame.
    pub frame_ms: f64,
    /// Bytes per second written to the terminal.
    pub bytes_s: f64,
    began_ms: f64,
    frames: u32,
    ms: f64,
    bytes: u64,
}

impl Observer {
    pub fn drawn(&mut self, ms: f64, bytes: u64) {
        self.frames += 1;
        self.ms += ms;
        self.bytes += bytes;
    }

    /// The clock stands at `now_ms`.
    pub fn tick(&mut self, now_ms: f64) {
        let span = now_ms - self.began_ms;
        if span < SPAN_MS {
            return;
        }
        self.share = Some(self.ms / span);
        self.fps = f64::from(self.frames) * 1_000.0 / span;
        self.frame_ms = if self.frames > 0 { self.ms / f64::from(self.frames) } else { 0.0 };
        self.bytes_s = self.bytes as f64 * 1_000.0 / span;
        (self.began_ms, self.frames, self.ms, self.bytes) = (now_ms, 0, 0.0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_time_over_time() {
        let mut observer = Observer::default();
        assert_eq!(observer.share, None);
        (0..10).for_each(|_| observer.drawn(3.0, 500));
        observer.tick(500.0);
        assert_eq!(observer.share, None);
        observer.tick(1_000.0);
        assert_eq!((observer.share, observer.fps, observer.frame_ms), (Some(0.03), 10.0, 3.0));
        assert_eq!(observer.bytes_s, 5_000.0);
    }
}
