//! A bound on a figure, for pipelines: `kl_mean>0.02` fails an evaluation in which that holds for any policy.

use std::str::FromStr;

use super::{FIGURES, Score};

/// A condition that must not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    text: String,
    name: &'static str,
    above: bool,
    or_equal: bool,
    bound: f64,
}

impl Gate {
    /// Why `score` fails, in one line; `None` where the condition does not hold.
    pub fn fails(&self, score: &Score) -> Option<String> {
        let value = score.figure(self.name)?;
        // A figure that is no number is not good enough for anybody.
        let holds = value.is_nan()
            || if self.above { value > self.bound } else { value < self.bound }
            || (self.or_equal && value == self.bound);
        holds.then(|| format!("{}: {} is {value:.6}, it fails if {}", score.policy, self.name, self.text))
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.split_whitespace().collect();
        let at = text.find(['<', '>']).ok_or("expected a figure, > or <, and a number, such as `kl_mean>0.02`")?;
        let (name, rest) = text.split_at(at);
        let figure = FIGURES.iter().find(|figure| figure.name == name).ok_or_else(|| {
            let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
            format!("`{name}` is not one of {}", names.join(", "))
        })?;
        let (sign, bound) = rest.split_at(1);
        let (or_equal, bound) = bound.strip_prefix('=').map_or((false, bound), |bound| (true, bound));
        let bound: f64 = bound
            .parse()
            .ok()
            .filter(|bound: &f64| bound.is_finite())
            .ok_or_else(|| format!("`{bound}` is no number that {name} could be compared with"))?;
        Ok(Self { name: figure.name, above: sign == ">", or_equal, bound, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::TokenScore;

    fn score() -> Score {
        let token = TokenScore { kl: 0.02, same: true, right: [true; 2], log_p: [0.0; 2] };
        Score {
            policy: "kcache:n=8".into(),
            tokens: vec![token],
            rows_mean: 8.0,
            rows_fetched: 8.0,
            kept_mass: vec![vec![0.5]],
        }
    }

    #[test]
    fn conditions_hold_or_do_not() {
        for (text, fails) in [
            ("kl_mean>0.02", false),
            ("kl_mean>=0.02", true),
            ("kl_mean > 0.019", true),
            (" kl_p99 <= 0.02 ", true),
            ("top1<1", false),
            ("top1<=1", true),
            ("kept_mass_least<0.6", true),
            ("rows_mean>1e2", false),
            ("rows_fetched<-1", false),
        ] {
            let gate: Gate = text.parse().unwrap();
            assert_eq!(gate.fails(&score()).is_some(), fails, "{text}");
        }
        let line = "kl_mean>0.01".parse::<Gate>().unwrap().fails(&score()).unwrap();
        assert_eq!(line, "kcache:n=8: kl_mean is 0.020000, it fails if kl_mean>0.01");
        let mut broken = score();
        broken.tokens[0].kl = f64::NAN;
        assert!("kl_mean>9".parse::<Gate>().unwrap().fails(&broken).is_some());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("", "such as"),
            ("kl_mean=0.02", "such as"),
            ("speed>3", "`speed` is not one of ppl, kl_mean"),
            ("kl_mean>", "no number"),
            ("kl_mean>much", "`much`"),
            ("kl_mean>>1", "no number"),
            ("kl_mean>inf", "no number"),
        ] {
            let error = text.parse::<Gate>().unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
