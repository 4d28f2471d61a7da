//! The bootstrap: how far a figure would differ on other tokens of similar texts.

/// Times that tokens are drawn.
const DRAWS: usize = 1000;
/// Neighbouring tokens that are drawn together: what a policy gets wrong at one token, it often gets wrong at the next.
const BLOCK: usize = 16;

/// The 95 % interval of a figure: it is computed on as many tokens again, drawn in blocks of neighbours with
/// repetition, and the middle 95 % of what is found is the interval. The same tokens give the same interval.
pub(super) fn interval<T: Copy>(tokens: &[T], of: fn(&[T]) -> f64) -> [f64; 2] {
    let mut random = Random(1);
    let mut drawn = Vec::with_capacity(tokens.len() + BLOCK);
    let mut found: Vec<f64> = (0..DRAWS)
        .map(|_| {
            drawn.clear();
            while drawn.len() < tokens.len() {
                // The last tokens have the first ones for neighbours, so that all are drawn equally often.
                let first = random.below(tokens.len());
                drawn.extend((first..first + BLOCK).map(|at| tokens[at % tokens.len()]));
            }
            of(&drawn[..tokens.len()])
        })
        .collect();
    found.sort_by(f64::total_cmp);
    [found[DRAWS / 40], found[DRAWS - 1 - DRAWS / 40]]
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((u128::from(z) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn an_interval_is_as_wide_as_the_standard_error_says() {
        // A long enough text whose tokens know nothing of each other: ±1.96·σ/√n, with σ² = 1/4.
        let mut random = Random(7);
        let values: Vec<f64> = (0..4096).map(|_| random.below(2) as f64).collect();
        let [low, high] = interval(&values, mean);
        let expected = 2.0 * 1.96 * 0.5 / 64.0;
        assert!((0.75 * expected..1.25 * expected).contains(&(high - low)), "{low} to {high}");
        assert!((low..high).contains(&mean(&values)));
        assert_eq!(interval(&values, mean), [low, high]);
    }

    #[test]
    fn what_never_differs_has_no_width() {
        assert_eq!(interval(&[2.0; 5], mean), [2.0, 2.0]);
    }

    #[test]
    fn neighbours_that_agree_widen_it() {
        let runs: Vec<f64> = (0..64).flat_map(|run| [f64::from(run % 2); 64]).collect();
        let mixed: Vec<f64> = (0..4096).map(|at| f64::from(at % 2)).collect();
        let width = |values: &[f64]| interval(values, mean).windows(2).map(|ends| ends[1] - ends[0]).sum::<f64>();
        assert!(width(&runs) > 2.0 * width(&mixed));
    }
}
