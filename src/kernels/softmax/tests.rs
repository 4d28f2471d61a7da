//! All ways against the plain one, and scores that are no numbers.

use super::*;

#[test]
fn the_twins_agree_within_the_error_of_exp() {
    for len in [0, 1, 7, 8, 9, 64, 203] {
        let scores: Vec<f32> = (0..len).map(|at| (at as f32 * 1.7).sin() * 30.0).collect();
        let highest = max(&scores);
        assert_eq!(highest, max_portable(&scores));
        let (mut fast, mut plain) = (scores.clone(), scores.clone());
        let fast_sum = weights(&mut fast, highest);
        let plain_sum = weights_portable(&mut plain, highest);
        assert!((fast_sum - plain_sum).abs() <= 1e-6 * plain_sum);
        for (fast, plain) in fast.iter().zip(&plain) {
            assert!((fast - plain).abs() <= 1e-6 * plain, "{fast} {plain}");
        }
        assert_eq!(total(&scores, highest).to_bits(), fast_sum.to_bits());
        assert_eq!(total_portable(&scores, highest).to_bits(), plain_sum.to_bits());
        let mut halves = fast.clone();
        scale(&mut halves, 0.5);
        assert!(halves.iter().zip(&fast).all(|(half, whole)| *half == whole * 0.5));
    }
}

type Run = fn(&mut [f32], &mut [f32; LANES], &mut Running);

const PATHS: [Run; 3] = [
    run_portable,
    |scores, maxima, running| {
        by_cpu!(avx2::run(scores, maxima, running), run_portable(scores, maxima, running));
    },
    run,
];

#[test]
fn runs_are_their_maxima_and_a_sum_on_every_path() {
    for (len, rise) in (0..=RUN).flat_map(|len| [(len, 0.0), (len, 0.4), (len, -3.0), (len, 7.0)]) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, 2.0] {
            let score = |at: usize| (at as f32 * 1.7).sin() * 30.0 + at as f32 * rise;
            let mut scores: Vec<f32> = (0..2 * RUN + len).map(score).collect();
            scores.iter_mut().skip(len / 3).step_by(29).for_each(|score| *score = bad);
            let mut clamped = scores.clone();
            let mut expected = vec![f32::MIN; scores.len().div_ceil(RUN) * LANES];
            clamp_maxima_portable(&mut clamped, &mut expected);
            for path in PATHS {
                let mut scores = scores.clone();
                let mut maxima = vec![0.0; expected.len()];
                let mut running = Running::new(scores[0]);
                for (scores, maxima) in scores.chunks_mut(RUN).zip(maxima.as_chunks_mut().0) {
                    path(scores, maxima, &mut running);
                }
                assert_eq!((&scores, &maxima), (&clamped, &expected), "{len} {bad}");
                let reference = running.reference;
                assert!(reference + HEADROOM >= max_portable(&clamped), "{reference}");
                assert!(clamped.contains(&reference), "else a sum could be 0");
                let sum: f64 = clamped.iter().map(|score| (f64::from(*score) - f64::from(reference)).exp()).sum();
                let total = f64::from(running.total());
                assert!((total - sum).abs() <= 2e-6 * sum, "{len} {bad}: {total} {sum}");
            }
        }
    }
}

#[test]
fn nothing_is_too_strange_for_a_distribution() {
    for bad in [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, f32::MAX, f32::MIN, 0.0] {
        for len in [1, 5, 8, 11] {
            for fill in [bad, 1.0] {
                let mut scores = vec![fill; len];
                scores[len / 2] = bad;
                let mut plain = scores.clone();
                let highest = clamp_max(&mut scores);
                assert_eq!(highest, clamp_max_portable(&mut plain));
                assert_eq!(scores, plain);
                assert_eq!(highest, max(&scores));
                let mut maxima = [0.0; LANES];
                assert_eq!(clamp_maxima(&mut plain, &mut maxima), highest);
                let sum = weights(&mut scores, highest);
                assert!(sum.is_finite() && sum >= 1.0, "{bad} {fill} {len}: {sum}");
                assert!(scores.iter().all(|weight| (0.0..=1.0).contains(weight)), "{scores:?}");
            }
        }
    }
}

#[test]
fn maxima_are_those_of_eight_neighbours() {
    for len in [1, 63, 64, 65, 256, 300] {
        let mut scores: Vec<f32> = (0..len).map(|at| (at as f32 * 2.3).sin() * 9.0 - 4.0).collect();
        scores[len / 3] = f32::NAN;
        let mut plain = scores.clone();
        let (mut fast_maxima, mut maxima) =
            (vec![0.0; len.div_ceil(RUN) * LANES], vec![0.0; len.div_ceil(RUN) * LANES]);
        assert_eq!(clamp_maxima(&mut scores, &mut fast_maxima), clamp_max(&mut plain.clone()));
        clamp_maxima_portable(&mut plain, &mut maxima);
        assert_eq!((&scores, &fast_maxima), (&plain, &maxima));
        for (at, &max) in maxima.iter().enumerate() {
            let block = scores.chunks(BLOCK).nth(at).unwrap_or_default();
            assert_eq!(max, block.iter().fold(f32::MIN, |max, &x| max.max(x)));
        }
    }
}

#[test]
fn what_is_masked_weighs_nothing() {
    let mut scores = [f32::NEG_INFINITY; 10];
    assert_eq!(max(&scores), f32::MIN);
    scores[3] = f32::MIN;
    assert_eq!(weights(&mut scores, f32::MIN), 1.0);
    assert_eq!(factor(f32::NEG_INFINITY, f32::MIN), 0.0);
}
