//! The scale of a value axis: from 0 to a round number, and steady.

use super::units::Unit;

/// How long a smaller scale must have been enough before the axis shrinks, in milliseconds.
const PATIENCE_MS: f64 = 10_000.0;

/// A scale from 0 with ticks at round numbers. It grows at once and shrinks slowly, so that a chart does not jump.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    unit: Unit,
    step: f64,
    steps: u32,
    roomy_since_ms: Option<f64>,
}

impl Axis {
    /// The smallest round scale that holds 0 to `max`: two to five steps of 1, 2 or 5 times a power of ten, or for
    /// bytes two to four steps of a power of two.
    pub fn nice(unit: Unit, max: f64) -> Self {
        let least = match unit {
            Unit::Bytes => 1024.0,
            // Its texts have three decimals.
            Unit::Nats => 5e-3,
            _ => 1e-3,
        };
        let max = if max.is_finite() { max.max(least) } else { least };
        let step = if unit == Unit::Bytes {
            (max / 4.0).log2().ceil().exp2()
        } else {
            let magnitude = 10f64.powf((max / 5.0).log10().floor());
            [1.0, 2.0, 5.0, 10.0]
                .map(|digit| digit * magnitude)
                .into_iter()
                .find(|step| step * 5.0 >= max * (1.0 - 1e-9))
                .unwrap_or(max)
        };
        Self { unit, step, steps: ((max / step - 1e-9).ceil() as u32).max(2), roomy_since_ms: None }
    }

    /// An axis that has seen nothing yet.
    pub fn new(unit: Unit) -> Self {
        Self::nice(unit, 0.0)
    }

    /// Follows the greatest value on show at `t_ms`: grows at once, shrinks only after ten seconds in which two thirds
    /// of the scale would have been enough.
    pub fn follow(&mut self, t_ms: f64, max: f64) {
        let wanted = Self::nice(self.unit, max);
        if wanted.top() > self.top() {
            *self = wanted;
        } else if wanted.top() > self.top() * 0.67 {
            self.roomy_since_ms = None;
        } else {
            let since = *self.roomy_since_ms.get_or_insert(t_ms);
            if t_ms < since {
                self.roomy_since_ms = Some(t_ms);
            } else if t_ms - since >= PATIENCE_MS {
                *self = wanted;
            }
        }
    }

    /// The unit of its values.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The greatest value on it; always above 0.
    pub fn top(&self) -> f64 {
        self.step * f64::from(self.steps)
    }

    /// Its ticks, from 0 to the top.
    pub fn ticks(&self) -> impl DoubleEndedIterator<Item = f64> + use<> {
        let step = self.step;
        (0..=self.steps).map(move |at| step * f64::from(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn round_numbers() {
        for (max, top, ticks) in [(37.0, 40.0, 5), (52.0, 60.0, 4), (100.0, 100.0, 6), (0.9, 1.0, 6), (101.0, 150.0, 4)]
        {
            let axis = Axis::nice(Unit::Ms, max);
            assert!((axis.top() - top).abs() < 1e-9, "{max}: {}", axis.top());
            assert_eq!(axis.ticks().count(), ticks, "{max}");
        }
        let axis = Axis::nice(Unit::Bytes, 46.0 * 1048576.0);
        assert_eq!(
            axis.ticks().map(|tick| Unit::Bytes.tick(tick)).collect::<Vec<_>>(),
            ["0", "16 MiB", "32 MiB", "48 MiB"]
        );
    }

    #[test]
    fn grows_at_once_and_shrinks_slowly() {
        let mut axis = Axis::new(Unit::Ms);
        axis.follow(0.0, 90.0);
        assert_eq!(axis.top(), 100.0);
        axis.follow(1000.0, 30.0);
        axis.follow(10_000.0, 30.0);
        assert_eq!(axis.top(), 100.0);
        axis.follow(10_500.0, 80.0);
        axis.follow(11_500.0, 30.0);
        axis.follow(21_000.0, 30.0);
        assert_eq!(axis.top(), 100.0, "a value near the top in between starts the wait again");
        axis.follow(21_500.0, 30.0);
        assert_eq!(axis.top(), 30.0);
    }

    proptest! {
        #[test]
        fn holds_its_maximum(max in prop::num::f64::ANY) {
            for unit in [Unit::Bytes, Unit::Ms, Unit::Percent] {
                let axis = Axis::nice(unit, if max.is_finite() { max.clamp(-1e15, 1e15) } else { max });
                prop_assert!(axis.top() > 0.0 && axis.top().is_finite());
                prop_assert!((3..=6).contains(&axis.ticks().count()));
                if max.is_finite() {
                    prop_assert!(axis.top() * (1.0 + 1e-6) >= max.clamp(-1e15, 1e15));
                }
            }
        }
    }
}
