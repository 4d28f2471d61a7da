//! What this machine's units can do: the bounds that the stages of a step are compared with.
//!
//! Every unit is kept busy by a loop of its own ([`probe`]), or by the kernel that uses it, on one thread and on all
//! threads of a pool. Units take turns, round by round, so that whatever else the machine does hits all alike.

use std::{
    hint::black_box,
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use candle_core::quantized::GgmlDType;
use half::f16;
use serde::Serialize;
use thiserror::Error;

use super::Spread;
use crate::{
    cache::PAGE_TOKENS,
    kernels::{
        Activations, Linear, LinearError, Pool,
        gemm::{Matrix, gemm},
        probe,
        scores::scores,
    },
    progress::Progress,
};

/// How to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MachineOptions {
    /// Bytes of memory that are read: far more than the caches hold.
    pub buffer_bytes: usize,
    /// Rounds that count.
    pub rounds: usize,
    /// How long a unit is kept busy in a round.
    pub slice: Duration,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self { buffer_bytes: 512 << 20, rounds: 7, slice: Duration::from_millis(50) }
    }
}

/// A unit's rate on one thread and on all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// On one thread.
    pub one: Spread,
    /// On all threads of the pool.
    pub all: Spread,
}

/// What the units of a machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MachineRates {
    /// Threads of the pool.
    pub threads: usize,
    /// Memory read from front to back, in billions of bytes per second.
    pub read_gb_s: Rate,
    /// Rows of 128 bytes read from random places of memory, in billions of bytes per second.
    pub gather_gb_s: Rate,
    /// f32 multiplications and additions in registers, in billions per second.
    pub fma_gflop_s: Rate,
    /// The same in the matrix product of prefill's attention, on matrices that the second-level cache holds.
    pub gemm_gflop_s: Rate,
    /// Multiplications and additions of 8-bit numbers by the linear kernels' chain of instructions, on data in the
    /// first-level cache, in billions per second.
    pub dot8_gop_s: Rate,
    /// The same in a whole linear layer (Q4_1, 32 rows) whose weights the second-level cache holds.
    pub linear_gop_s: Rate,
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
    /// There was no round.
    #[error("at least one round has to be measured")]
    NoRounds,
    /// The linear layer cannot be made.
    #[error(transparent)]
    Linear(#[from] LinearError),
    /// It was broken off.
    #[error("stopped")]
    Stopped,
}

/// What a pool does to a unit: one region that keeps it busy. Returns how much was done.
type Unit<'a> = Box<dyn FnMut(&Pool) -> f64 + 'a>;

const UNITS: [&str; 10] = [
    "sequential reads",
    "random rows",
    "multiply-add in registers",
    "matrix product",
    "8-bit products",
    "linear layer",
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
    let keys = vec![f16::from_f32(0.5); options.buffer_bytes / 4 / size_of::<f16>()];
    advance("filling memory")?;
    let mut units: [Unit; UNITS.len()] = [
        Box::new(|pool| read(pool, &memory)),
        gather(&memory),
        Box::new(fma),
        product(),
        dots(),
        linear::<32>(&layer),
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
        weights_gb_s: next(giga)?,
        keys_gb_s: next(giga)?,
        region_us: next(|per_second| 1e6 / per_second)?,
        joined_us: next(|per_second| 1e6 / per_second - WORK.as_secs_f64() * 1e6)?,
    })
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

/// Words that one task reads or writes.
const TASK_WORDS: usize = 128 << 10;

/// Memory that is really there: a page that nobody wrote to would be one page of zeros, shared by all.
fn memory(pool: &Pool, bytes: usize) -> Vec<u64> {
    let mut memory = vec![0u64; bytes / size_of::<u64>()];
    pool.run_chunks(&mut memory, TASK_WORDS, |index, words| words.fill(index as u64 + 1));
    memory
}

fn read(pool: &Pool, memory: &[u64]) -> f64 {
    let tasks = memory.len().div_ceil(TASK_WORDS);
    pool.run(tasks, &|index| {
        let end = ((index + 1) * TASK_WORDS).min(memory.len());
        black_box(probe::read(&memory[index * TASK_WORDS..end]));
    });
    size_of_val(memory) as f64
}

fn gather(memory: &[u64]) -> Unit<'_> {
    const ROWS: usize = 8 << 10;
    const TASKS: usize = 64;
    // No region reads the rows of another one.
    let seed = AtomicU64::new(0);
    Box::new(move |pool| {
        pool.run(TASKS, &|_| {
            black_box(probe::gather(memory, ROWS, seed.fetch_add(1, Ordering::Relaxed)));
        });
        (TASKS * ROWS * probe::ROW_WORDS * size_of::<u64>()) as f64
    })
}

fn fma(pool: &Pool) -> f64 {
    const ROUNDS: usize = 20_000;
    const TASKS: usize = 64;
    pool.run(TASKS, &|_| {
        black_box(probe::fma(ROUNDS, black_box(0.5), black_box(0.5)));
    });
    (TASKS * ROUNDS * probe::FMA_FLOP) as f64
}

fn product() -> Unit<'static> {
    const SHAPE: [usize; 3] = [96, 128, 128];
    const TIMES: usize = 8;
    const TASKS: usize = 16;
    let [m, n, k] = SHAPE;
    let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
    Box::new(move |pool| {
        pool.run(TASKS, &|_| {
            let mut c = vec![0.0; m * n];
            for _ in 0..TIMES {
                gemm(SHAPE, Matrix { data: &a, stride: k }, Matrix { data: &b, stride: n }, &mut c, n, false);
                black_box(&mut c);
            }
        });
        (TASKS * TIMES * 2 * m * n * k) as f64
    })
}

fn dots() -> Unit<'static> {
    const VECTORS: usize = 512;
    const TIMES: usize = 64;
    const TASKS: usize = 32;
    let weights = vec![[9u8; probe::DOT_WEIGHTS]; VECTORS];
    let x: [Vec<[i8; 4]>; probe::DOT_ROWS] = std::array::from_fn(|row| vec![[row as i8 - 2; 4]; VECTORS]);
    Box::new(move |pool| {
        pool.run(TASKS, &|_| {
            for _ in 0..TIMES {
                black_box(probe::dots(black_box(&weights), x.each_ref().map(Vec::as_slice)));
            }
        });
        (TASKS * TIMES * 2 * VECTORS * probe::DOT_WEIGHTS * probe::DOT_ROWS) as f64
    })
}

/// Features out of and into the linear layer that fits the caches.
const LAYER: [usize; 2] = [512, 576];

fn linear<const ROWS: usize>(layer: &Linear) -> Unit<'_> {
    let (out_features, in_features) = (layer.out_features(), layer.in_features());
    let mut x = Activations::new();
    x.fill(&Pool::new(1), &vec![0.5; ROWS * in_features], in_features);
    let mut y = vec![0.0; ROWS * out_features];
    Box::new(move |pool| {
        layer.forward(pool, &x, &mut y);
        black_box(&mut y);
        (2 * ROWS * out_features * in_features) as f64
    })
}

fn weights(layer: &Linear) -> Unit<'_> {
    let mut one_row = linear::<1>(layer);
    Box::new(move |pool| {
        one_row(pool);
        layer.bytes() as f64
    })
}

fn scored(keys: &[f16]) -> Unit<'_> {
    const HEAD_DIM: usize = 64;
    const QUERIES: usize = 3;
    const PAGE: usize = PAGE_TOKENS * HEAD_DIM;
    const PAGES: usize = 128;
    let queries = [0.5; QUERIES * HEAD_DIM];
    Box::new(move |pool| {
        pool.run(keys.len().div_ceil(PAGES * PAGE), &|index| {
            let mut out = [0.0; QUERIES * PAGE_TOKENS];
            for page in keys[index * PAGES * PAGE..].chunks_exact(PAGE).take(PAGES) {
                scores(&queries, page, HEAD_DIM, 0.125, &mut out, PAGE_TOKENS);
                black_box(&mut out);
            }
        });
        (keys.len() / PAGE * PAGE * size_of::<f16>()) as f64
    })
}

/// Q4_1 weights that are all 1.
fn ones([out_features, in_features]: [usize; 2]) -> Result<Linear, LinearError> {
    let scale = f16::from_f32(0.125).to_le_bytes();
    let block = [&scale[..], &f16::ZERO.to_le_bytes(), &[0x88; 16]].concat();
    let bytes = block.repeat(out_features * in_features / 32);
    Linear::from_gguf(GgmlDType::Q4_1, &bytes, out_features, in_features)
}

/// A task of a region that all threads take part in.
const WORK: Duration = Duration::from_micros(20);

fn regions(pool: &Pool, work: Duration) -> f64 {
    const TIMES: usize = 256;
    for _ in 0..TIMES {
        pool.run(pool.threads(), &|index| {
            black_box(index);
            if !work.is_zero() {
                let started = Instant::now();
                while started.elapsed() < work {}
            }
        });
    }
    TIMES as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: MachineOptions = MachineOptions { buffer_bytes: 3 << 20, rounds: 2, slice: Duration::ZERO };

    #[test]
    fn every_unit_does_something_each_round() {
        let mut told = Vec::new();
        let mut progress = |progress: Progress| {
            told.push((progress.done, progress.total));
            ControlFlow::Continue(())
        };
        let measured = machine(&Pool::new(2), QUICK, &mut progress).unwrap();
        assert_eq!(told, (1..=21).map(|done| (done, 21)).collect::<Vec<_>>());
        assert_eq!(measured.threads, 2);
        let MachineRates {
            read_gb_s,
            gather_gb_s,
            fma_gflop_s,
            gemm_gflop_s,
            dot8_gop_s,
            linear_gop_s,
            weights_gb_s,
            keys_gb_s,
            ..
        } = measured;
        let rates =
            [read_gb_s, gather_gb_s, fma_gflop_s, gemm_gflop_s, dot8_gop_s, linear_gop_s, weights_gb_s, keys_gb_s];
        for rate in rates.into_iter().chain([measured.region_us, measured.joined_us]) {
            for Spread { median, min, max } in [rate.one, rate.all] {
                assert!(median.is_finite() && 0.0 < min && min <= median && median <= max, "{rate:?}");
            }
        }
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
