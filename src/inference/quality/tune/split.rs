//! Spending a budget of rows where it buys most.

/// A head's error, by the rows it may read: `(rows, error)`, rows ascending.
pub(super) type Curve = Vec<[f64; 2]>;

/// Divides `budget` rows over the heads so that the sum of their errors is least, and returns the rows of each and that
/// sum. Each head gets at least its first point.
///
/// Greedy: the next rows go to the head whose error falls most by the row, on the lower convex hull of its curve (a
/// step that buys little now and much later counts with what it leads to). For convex curves that is the best there is.
pub(super) fn split(curves: &[Curve], budget: f64) -> (Vec<f64>, f64) {
    let hulls: Vec<Curve> = curves.iter().map(|curve| hull(curve)).collect();
    let mut steps: Vec<Step> = Vec::new();
    for (head, hull) in hulls.iter().enumerate() {
        steps.extend(hull.windows(2).map(|ends| Step {
            head,
            rows: ends[1][0] - ends[0][0],
            gain: ends[0][1] - ends[1][1],
        }));
    }
    // Stable, and a hull's own steps are in order already: no head takes its second step before its first.
    steps.sort_by(|a, b| (b.gain / b.rows).total_cmp(&(a.gain / a.rows)));
    let mut rows: Vec<f64> = hulls.iter().map(|hull| hull[0][0]).collect();
    let mut error: f64 = hulls.iter().map(|hull| hull[0][1]).sum();
    let mut left = budget - rows.iter().sum::<f64>();
    for step in steps {
        let taken = step.rows.min(left.max(0.0));
        rows[step.head] += taken;
        error -= step.gain * taken / step.rows;
        left -= taken;
    }
    (rows, error)
}

/// A segment of a hull.
struct Step {
    head: usize,
    rows: f64,
    gain: f64,
}

/// The lower convex hull of a curve, as far as it falls.
fn hull(curve: &[[f64; 2]]) -> Curve {
    let mut hull: Curve = Vec::new();
    for &point in curve {
        if hull.last().is_some_and(|last| point[1] >= last[1]) {
            continue;
        }
        while let [.., a, b] = hull[..] {
            // `b` lies on or above the line from `a` to the new point.
            if (b[1] - a[1]) * (point[0] - a[0]) < (point[1] - a[1]) * (b[0] - a[0]) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hull_skips_what_is_not_worth_it() {
        let curve = [[1.0, 10.0], [2.0, 9.5], [3.0, 9.7], [4.0, 2.0], [6.0, 1.0], [9.0, 1.0]];
        assert_eq!(hull(&curve), [[1.0, 10.0], [4.0, 2.0], [6.0, 1.0]]);
    }

    #[test]
    fn the_best_split_of_known_curves() {
        // The first falls by 4, then by 1 a row; the second by 2 a row; the third never.
        let curves =
            [vec![[1.0, 9.0], [2.0, 5.0], [4.0, 3.0]], vec![[1.0, 8.0], [5.0, 0.0]], vec![[1.0, 1.0], [100.0, 1.0]]];
        assert_eq!(split(&curves, 4.0), (vec![2.0, 1.0, 1.0], 14.0));
        assert_eq!(split(&curves, 6.0), (vec![2.0, 3.0, 1.0], 10.0));
        assert_eq!(split(&curves, 9.0), (vec![3.0, 5.0, 1.0], 5.0));
        assert_eq!(split(&curves, 1000.0), (vec![4.0, 5.0, 1.0], 4.0), "what buys nothing is not spent");
        assert_eq!(split(&curves, 0.0), (vec![1.0, 1.0, 1.0], 18.0), "nobody goes without");
    }

    proptest! {
        /// Against every split of a small budget.
        #[test]
        fn no_split_of_convex_curves_is_better(
            falls in prop::collection::vec(prop::collection::vec(0.0f64..5.0, 6), 3), budget in 3usize..18,
        ) {
            let curves: Vec<Curve> = falls
                .into_iter()
                .map(|mut falls| {
                    falls.sort_by(|a, b| b.total_cmp(a));
                    let total: f64 = falls.iter().sum();
                    let mut error = total + 1.0;
                    let mut curve = vec![[1.0, error]];
                    for (at, fall) in falls.iter().enumerate() {
                        error -= fall;
                        curve.push([at as f64 + 2.0, error]);
                    }
                    curve
                })
                .collect();
            let (rows, found) = split(&curves, budget as f64);
            prop_assert!(rows.iter().sum::<f64>() <= budget as f64 + 1e-9);
            let mut best = f64::INFINITY;
            for a in 0..7 {
                for b in (0..7).filter(|b| a + b + 3 <= budget) {
                    let c = (budget - 3 - a - b).min(6);
                    best = best.min(curves[0][a][1] + curves[1][b][1] + curves[2][c][1]);
                }
            }
            prop_assert!((found - best).abs() < 1e-9, "{found}, best {best}");
        }
    }
}
