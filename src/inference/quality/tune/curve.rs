//! How the error of a head's output falls with its rows, weighted by what the error does to the prediction.

/// Rows at which errors are measured; between two of them they are interpolated.
pub(super) const GRID: [u32; 26] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
];

/// The curve of one head: sums over positions and over gradients of half the squared product of gradient and error.
///
/// The error depends on the lean λ of the tail: it is `e − λ·d`, `e` being the error with the mean of all rows as the
/// tail and `d` what full lean adds. So three sums per point give the error for every lean, and the best lean.
#[derive(Debug, Clone, Default)]
pub(super) struct HeadCurve {
    points: [Point; GRID.len()],
    positions: f64,
    /// Sum of the positions' lengths.
    lengths: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Point {
    ee: f64,
    ed: f64,
    dd: f64,
}

impl HeadCurve {
    /// Adds one position: the head's softmax over all positions up to it, and the products of every V row with each of
    /// the gradients by the head's output. `order` is a buffer.
    pub fn add(&mut self, weights: &[f32], projected: &[&[f32]], order: &mut Vec<u32>) {
        order.clear();
        order.extend(0..weights.len() as u32);
        order.sort_unstable_by(|&a, &b| weights[b as usize].total_cmp(&weights[a as usize]).then(a.cmp(&b)));
        let len = weights.len();
        let share = 0.5 / projected.len() as f64;
        for values in projected {
            let full: f64 = weights.iter().zip(*values).map(|(&w, &v)| f64::from(w) * f64::from(v)).sum();
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / len as f64;
            let (mut mass, mut read, mut plain, mut rows) = (0.0, 0.0, 0.0, 0);
            for (point, &n) in self.points.iter_mut().zip(&GRID) {
                let n = n as usize;
                if n >= len {
                    // Every row is read: no error.
                    break;
                }
                for &position in &order[rows..n] {
                    let (weight, value) = (f64::from(weights[position as usize]), f64::from(values[position as usize]));
                    mass += weight;
                    read += weight * value;
                    plain += value;
                }
                rows = n;
                let tail = (1.0 - mass).max(0.0);
                let e = full - read - tail * mean;
                let d = tail * (plain / n as f64 - mean);
                point.ee += share * e * e;
                point.ed += share * e * d;
                point.dd += share * d * d;
            }
        }
        self.positions += 1.0;
        self.lengths += len as f64;
    }

    /// The points of the curve with the best lean at each: rows, and the mean over positions of the error.
    pub fn points(&self) -> Vec<[f64; 2]> {
        let all = self.lengths / self.positions;
        let known = GRID.iter().zip(&self.points).take_while(|(n, _)| f64::from(**n) < all);
        let mut points: Vec<[f64; 2]> =
            known.map(|(&n, point)| [f64::from(n), point.error(point.lean()) / self.positions]).collect();
        points.push([all, 0.0]);
        points
    }

    /// The error with `rows` rows and the mean of all rows as the tail.
    pub fn even_error(&self, rows: f64) -> f64 {
        self.error(rows, 0.0)
    }

    /// The error with `rows` rows and a lean that was chosen elsewhere. It is not a number where no position was added.
    pub fn error(&self, rows: f64, lean: f64) -> f64 {
        let (below, above, part) = around(rows);
        let [low, high] = [below, above].map(|at| self.points[at].error(lean) / self.positions);
        low + part * (high - low)
    }

    /// The best lean of a head that reads `rows` rows.
    pub fn lean(&self, rows: f64) -> f64 {
        let (below, above, part) = around(rows);
        let [low, high] = [below, above].map(|at| self.points[at].lean());
        low + part * (high - low)
    }
}

/// The points of the grid around a number of rows, and how far from the first to the second it lies.
fn around(rows: f64) -> (usize, usize, f64) {
    let above = GRID.partition_point(|&n| f64::from(n) < rows).min(GRID.len() - 1);
    let below = above.saturating_sub(1);
    let [low, high] = [below, above].map(|at| f64::from(GRID[at]));
    (below, above, if above == below { 0.0 } else { ((rows - low) / (high - low)).clamp(0.0, 1.0) })
}

impl Point {
    /// The lean with the least error, between the two means.
    fn lean(&self) -> f64 {
        if self.dd > 0.0 { (self.ed / self.dd).clamp(0.0, 1.0) } else { 0.0 }
    }

    fn error(&self, lean: f64) -> f64 {
        (self.ee - 2.0 * lean * self.ed + lean * lean * self.dd).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_two_heavy_rows_needs_two() {
        let mut weights = vec![0.0; 50];
        (weights[7], weights[30]) = (0.75, 0.25);
        let values: Vec<f32> = (0..50).map(|at| at as f32).collect();
        let mut curve = HeadCurve::default();
        curve.add(&weights, &[&values, &values], &mut Vec::new());
        let points = curve.points();
        assert_eq!(points[1], [2.0, 0.0]);
        assert_eq!(*points.last().unwrap(), [50.0, 0.0]);
        // One row: 0.25 of 30 is missing; the tail may be 0.25 of anything from row 7 to the mean, 24.5.
        assert!((points[0][1] - 0.5 * (0.25f64 * (30.0 - 24.5)).powi(2)).abs() < 1e-6, "{points:?}");
        assert_eq!(curve.lean(1.0), 0.0);
    }

    #[test]
    fn the_lean_is_where_the_rest_lies() {
        // The rows that are not read are worth 2 where they have weight; the chosen ones 4, all others 0.
        let (mut weights, mut values) = (vec![0.0f32; 400], vec![0.0f32; 400]);
        for at in 0..8 {
            (weights[at], values[at]) = (0.1, 4.0);
            (weights[100 + at], values[100 + at]) = (0.025, 2.0);
        }
        let mut curve = HeadCurve::default();
        curve.add(&weights, &[&values], &mut Vec::new());
        let mean = (8.0 * 4.0 + 8.0 * 2.0) / 400.0;
        let lean = (2.0 - mean) / (4.0 - mean);
        assert!((curve.lean(8.0) - lean).abs() < 1e-5, "{}", curve.lean(8.0));
        let at = GRID.iter().position(|&n| n == 8).unwrap();
        assert!(curve.points()[at][1] < 1e-9, "with it nothing is lost");
        assert!(curve.error(8.0, lean) < 1e-9 && curve.error(8.0, 0.0) > 1e-3, "the lean of another text counts");
    }
}
