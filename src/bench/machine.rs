//! What this machine's units can do: the bounds that the stages of a step are compared with.
//!
//! Each unit is kept busy by a loop of its own ([`microbench`](crate::kernels::microbench)) or by the kernel that uses it,
//! on one thread and on all threads of a pool. Units alternate by round, so other work on the machine affects all alike.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use half::f16;
use serde::Serialize;
use thiserror::Error;

use super::Spread;
use crate::{
    kernels::{LinearError, Pool},
    progress::Progress,
};

mod units;

use units::{
    LAYER, MEMORY_LAYER, ROWS, Unit, WORK, dots, fma, gather, layers, linear, memory, ones, product, read, regions,
    scored, weights,
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineOptions {
    /// Bytes of memory that are read: far more than the caches hold.
    pub buffer_bytes: usize,
    pub rounds: usize,
    /// How long a unit is kept busy in a round.
    pub slice: Duration,
}

impl MachineOptions {
    /// Enough for figures that vary by a few percent.
    pub const DEFAULT: Self = Self { buffer_bytes: 512 << 20, rounds: 7, slice: Duration::from_millis(50) };
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A unit's rate on one thread and on all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    pub one: Spread,
    /// On all threads of the pool.
    pub all: Spread,
}

/// What the units of a machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MachineRates {
    pub threads: usize,
    /// Memory read from front to back, in billions of bytes per second.
    pub read_gb_s: Rate,
    /// Rows of 128 bytes read from random places of memory, in billions of bytes per second.
    pub gather_gb_s: Rate,
    /// f32 multiplications and additions in registers, in billions per second.
    pub fma_gflop_s: Rate,
    /// The same in the matrix product of prefill's attention, on matrices that the second-level cache holds.
    pub gemm_gflop_s: Rate,
    /// Multiplications and additions of 8-bit numbers by the instructions of the linear kernels, without their scales, on
    /// data in the first-level cache, in billions per second.
    pub dot8_gop_s: Rate,
    /// The same in a whole linear layer (Q4_1, 32 rows) whose weights the second-level cache holds.
    pub linear_gop_s: Rate,
    /// The same (Q4_1, 32 rows) where the weights lie in memory, layer after layer, rounding of its input to 8 bits
    /// included.
    pub layers_gop_s: Rate,
    /// The weights of a linear layer (Q4_1, 1 row) that lie in memory, in billions of bytes per second.
    pub weights_gb_s: Rate,
    /// 16-bit keys of 64 values that lie in memory, scored by 3 queries each, in billions of bytes per second.
    pub keys_gb_s: Rate,
    /// One parallel region of as many empty tasks as there are threads, in microseconds. The caller does them all.
    pub region_us: Rate,
    /// What such a region takes beyond one task, where each is long enough for the other threads to come.
    pub joined_us: Rate,
}

/// Why a machine was not measured.
#[derive(Debug, Error)]
pub enum MachineError {
    #[error("at least one round has to be measured")]
    NoRounds,
    /// The linear layer cannot be made.
    #[error(transparent)]
    Linear(#[from] LinearError),
    #[error("stopped")]
    Stopped,
}

const UNITS: [&str; 11] = [
    "sequential reads",
    "random rows",
    "multiply-add in registers",
    "matrix product",
    "8-bit products",
    "linear layer",
    "layers in memory",
    "weights in memory",
    "keys in memory",
    "empty regions",
    "regions with work",
];

/// Measures the units, alone and with all threads of `pool`. `progress` is called after every unit and may break it off.
///
/// # Errors
/// When it was broken off, or there are no rounds.
pub fn machine(
    pool: &Pool,
    options: MachineOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<MachineRates, MachineError> {
    let one = Pool::new(1);
    let total = 1 + options.rounds * UNITS.len();
    let mut done = 0;
    let mut advance = |what: &str| {
        done += 1;
        match progress(Progress { what: what.to_owned(), done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(MachineError::Stopped),
        }
    };
    let (memory, layer) = (memory(pool, options.buffer_bytes), ones(LAYER)?);
    let [out_features, in_features] = LAYER;
    let times = (options.buffer_bytes / 8 / layer.bytes() as usize).max(1);
    let large = ones([times * out_features, in_features])?;
    let count = (options.buffer_bytes / 8 / ones(MEMORY_LAYER)?.bytes() as usize).max(1);
    let in_memory = (0..count).map(|_| ones(MEMORY_LAYER)).collect::<Result<Vec<_>, _>>()?;
    let keys = vec![f16::from_f32(0.5); options.buffer_bytes / 4 / size_of::<f16>()];
    advance("filling memory")?;
    let mut units: [Unit; UNITS.len()] = [
        Box::new(|pool| read(pool, &memory)),
        gather(&memory),
        Box::new(fma),
        product(),
        dots(),
        linear::<ROWS>(&layer),
        layers::<ROWS>(&in_memory),
        weights(&large),
        scored(&keys),
        Box::new(|pool| regions(pool, Duration::ZERO)),
        Box::new(|pool| regions(pool, WORK)),
    ];
    let mut rates = [const { [Vec::new(), Vec::new()] }; UNITS.len()];
    for round in 1..=options.rounds {
        for ((unit, rates), name) in units.iter_mut().zip(&mut rates).zip(UNITS) {
            for (pool, rates) in [&one, pool].into_iter().zip(rates) {
                rates.push(rate(pool, unit, options.slice));
            }
            advance(&format!("round {round} of {}: {name}", options.rounds))?;
        }
    }
    drop(units);
    let mut rates = rates.into_iter().map(|[one, all]| Some(Rate { one: Spread::of(one)?, all: Spread::of(all)? }));
    let mut next =
        |scale: fn(f64) -> f64| rates.next().flatten().map(|rate| rate.map(scale)).ok_or(MachineError::NoRounds);
    let giga = |per_second| per_second / 1e9;
    Ok(MachineRates {
        threads: pool.threads(),
        read_gb_s: next(giga)?,
        gather_gb_s: next(giga)?,
        fma_gflop_s: next(giga)?,
        gemm_gflop_s: next(giga)?,
        dot8_gop_s: next(giga)?,
        linear_gop_s: next(giga)?,
        layers_gop_s: next(giga)?,
        weights_gb_s: next(giga)?,
        keys_gb_s: next(giga)?,
        region_us: next(|per_second| 1e6 / per_second)?,
        joined_us: next(|per_second| 1e6 / per_second - WORK.as_secs_f64() * 1e6)?,
    })
}

impl MachineRates {
    /// Multiplications and additions per second that every row of a linear layer adds to the time of the first, in
    /// billions, on all threads: from the times of 1 row and of 32 whose weights lie in memory.
    pub fn row_gop_s(&self) -> f64 {
        const WEIGHT_BYTES: f64 = 20.0 / 32.0;
        let one = WEIGHT_BYTES / self.weights_gb_s.all.median;
        let all = 2.0 * ROWS as f64 / self.layers_gop_s.all.median;
        let further = 2.0 * (ROWS - 1) as f64 / (all - one);
        // Where more rows take hardly more time, noise decides about the difference.
        if all > one { further } else { f64::INFINITY }
    }
}

impl Rate {
    /// Another unit of measurement: `scale` turns every figure into it.
    fn map(self, scale: fn(f64) -> f64) -> Self {
        let spread = |spread: Spread| {
            let (a, b) = (scale(spread.min), scale(spread.max));
            Spread { median: scale(spread.median), min: a.min(b), max: a.max(b) }
        };
        Self { one: spread(self.one), all: spread(self.all) }
    }
}

/// Done per second.
fn rate(pool: &Pool, unit: &mut Unit, slice: Duration) -> f64 {
    // The first region wakes the workers and fills the caches.
    unit(pool);
    let (started, mut amount) = (Instant::now(), 0.0);
    loop {
        amount += unit(pool);
        if started.elapsed() >= slice {
            break;
        }
    }
    amount / started.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Activations;

    const QUICK: MachineOptions = MachineOptions { buffer_bytes: 3 << 20, rounds: 2, slice: Duration::ZERO };

    #[test]
    fn every_unit_does_something_each_round() {
        let mut told = Vec::new();
        let mut progress = |progress: Progress| {
            told.push((progress.done, progress.total));
            ControlFlow::Continue(())
        };
        let measured = machine(&Pool::new(2), QUICK, &mut progress).unwrap();
        assert_eq!(told, (1..=23).map(|done| (done, 23)).collect::<Vec<_>>());
        assert_eq!(measured.threads, 2);
        let MachineRates {
            read_gb_s,
            gather_gb_s,
            fma_gflop_s,
            gemm_gflop_s,
            dot8_gop_s,
            linear_gop_s,
            layers_gop_s,
            weights_gb_s,
            keys_gb_s,
            ..
        } = measured;
        assert!(measured.row_gop_s() > 0.0);
        let level = |rate: f64| Rate { one: level(rate), all: level(rate) };
        // 32 rows take 64 / 160 = 0.4 ns a weight, of which the first with the reading of 0.625 bytes takes 0.09.
        let rates = MachineRates { layers_gop_s: level(160.0), weights_gb_s: level(0.625 / 0.09), ..measured };
        assert!((rates.row_gop_s() - 62.0 / 0.31).abs() < 1e-9, "{}", rates.row_gop_s());
        let rates = MachineRates { layers_gop_s: level(1600.0), ..rates };
        assert_eq!(rates.row_gop_s(), f64::INFINITY);
        let memory = [read_gb_s, gather_gb_s, weights_gb_s, keys_gb_s, measured.region_us, measured.joined_us];
        let arithmetic = [fma_gflop_s, gemm_gflop_s, dot8_gop_s, linear_gop_s, layers_gop_s];
        for rate in memory.into_iter().chain(arithmetic) {
            for Spread { median, min, max } in [rate.one, rate.all] {
                assert!(median.is_finite() && 0.0 < min && min <= median && median <= max, "{rate:?}");
            }
        }
    }

    fn level(rate: f64) -> Spread {
        Spread { median: rate, min: rate, max: rate }
    }

    #[test]
    fn it_stops_when_told() {
        let stopped = machine(&Pool::new(1), QUICK, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(MachineError::Stopped)));
    }

    #[test]
    fn the_small_layer_is_all_ones() {
        let (layer, pool) = (ones([16, 64]).unwrap(), Pool::new(1));
        let mut x = Activations::new();
        x.fill(&pool, &[1.0; 64], 64);
        let mut y = [0.0; 16];
        layer.forward(&pool, &x, &mut y);
        assert!(y.iter().all(|y| (y - 64.0).abs() < 0.01), "{y:?}");
    }

    #[test]
    fn a_time_is_the_other_way_round() {
        let spread = Spread { median: 4.0, min: 2.0, max: 8.0 };
        let time = Rate { one: spread, all: spread }.map(|rate| 8.0 / rate);
        assert_eq!(time.all, Spread { median: 2.0, min: 1.0, max: 4.0 });
    }
}
