//! The loops that keep each unit of a machine busy.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use candle_core::quantized::GgmlDType;
use half::f16;

use crate::{
    cache::PAGE_TOKENS,
    kernels::{
        Activations, Linear, LinearError, Pool,
        gemm::{Matrix, gemm},
        microbench,
        scores::scores,
    },
};

/// What a pool does to a unit: one region that keeps it busy. Returns how much was done.
pub type Unit<'a> = Box<dyn FnMut(&Pool) -> f64 + 'a>;

/// Words that one task reads or writes.
const TASK_WORDS: usize = 128 << 10;

/// Memory that is really there: a page that nobody wrote to would be one page of zeros, shared by all.
pub fn memory(pool: &Pool, bytes: usize) -> Vec<u64> {
    let mut memory = vec![0u64; bytes / size_of::<u64>()];
    pool.run_chunks(&mut memory, TASK_WORDS, |index, words| words.fill(index as u64 + 1));
    memory
}

pub fn read(pool: &Pool, memory: &[u64]) -> f64 {
    let tasks = memory.len().div_ceil(TASK_WORDS);
    pool.run(tasks, &|index| {
        let end = ((index + 1) * TASK_WORDS).min(memory.len());
        black_box(microbench::read(&memory[index * TASK_WORDS..end]));
    });
    size_of_val(memory) as f64
}

pub fn gather(memory: &[u64]) -> Unit<'_> {
    const ROWS: usize = 8 << 10;
    const TASKS: usize = 64;
    // No region reads the rows of another one.
    let seed = AtomicU64::new(0);
    Box::new(move |pool| {
        pool.run(TASKS, &|_| {
            black_box(microbench::gather(memory, ROWS, seed.fetch_add(1, Ordering::Relaxed)));
        });
        (TASKS * ROWS * microbench::ROW_WORDS * size_of::<u64>()) as f64
    })
}

pub fn fma(pool: &Pool) -> f64 {
    const ROUNDS: usize = 20_000;
    const TASKS: usize = 64;
    pool.run(TASKS, &|_| {
        black_box(microbench::fma(ROUNDS, black_box(0.5), black_box(0.5)));
    });
    (TASKS * ROUNDS * microbench::FMA_FLOP) as f64
}

pub fn product() -> Unit<'static> {
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

pub fn dots() -> Unit<'static> {
    const VECTORS: usize = 128;
    const TIMES: usize = 64;
    const TASKS: usize = 32;
    let weights = vec![[9u8; microbench::DOT_WEIGHTS]; VECTORS];
    let x: [Vec<[i8; 4]>; microbench::DOT_ROWS] = std::array::from_fn(|row| vec![[row as i8 - 2; 4]; VECTORS]);
    Box::new(move |pool| {
        pool.run(TASKS, &|_| {
            for _ in 0..TIMES {
                black_box(microbench::dots(black_box(&weights), x.each_ref().map(Vec::as_slice)));
            }
        });
        (TASKS * TIMES * 2 * VECTORS * microbench::DOT_WEIGHTS * microbench::DOT_ROWS) as f64
    })
}

/// Features out of and into the linear layer that fits the caches.
pub const LAYER: [usize; 2] = [512, 576];
/// Those of each of the layers that lie in memory together.
pub const MEMORY_LAYER: [usize; 2] = [1024, 576];
/// Rows that go through a layer where arithmetic is measured.
pub const ROWS: usize = 32;

pub fn linear<const ROWS: usize>(layer: &Linear) -> Unit<'_> {
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

pub fn layers<const ROWS: usize>(layers: &[Linear]) -> Unit<'_> {
    let (out_features, in_features) =
        layers.first().map_or((0, 1), |layer| (layer.out_features(), layer.in_features()));
    let (values, mut x) = (vec![0.5; ROWS * in_features], Activations::new());
    let mut y = vec![0.0; ROWS * out_features];
    Box::new(move |pool| {
        for layer in layers {
            x.fill(pool, &values, in_features);
            layer.forward(pool, &x, &mut y);
            black_box(&mut y);
        }
        (2 * ROWS * out_features * in_features * layers.len()) as f64
    })
}

pub fn weights(layer: &Linear) -> Unit<'_> {
    let mut one_row = linear::<1>(layer);
    Box::new(move |pool| {
        one_row(pool);
        layer.bytes() as f64
    })
}

pub fn scored(keys: &[f16]) -> Unit<'_> {
    const HEAD_DIM: usize = 64;
    const QUERIES: usize = 3;
    const PAGE: usize = PAGE_TOKENS * HEAD_DIM;
    const PAGES: usize = 128;
    let queries = [0.5; QUERIES * HEAD_DIM];
    Box::new(move |pool| {
        pool.run(keys.len().div_ceil(PAGES * PAGE), &|index| {
            let mut out = [0.0; QUERIES * PAGE_TOKENS];
            let keys = &keys[index * PAGES * PAGE..];
            for (at, page) in keys.chunks_exact(PAGE).take(PAGES).enumerate() {
                let next = &keys[(keys.len() - PAGE).min((at + 1) * PAGE)..];
                scores(&queries, page, next, PAGE_TOKENS, 0.125, &mut out, PAGE_TOKENS);
                black_box(&mut out);
            }
        });
        (keys.len() / PAGE * PAGE * size_of::<f16>()) as f64
    })
}

/// Q4_1 weights that are all 1.
pub fn ones([out_features, in_features]: [usize; 2]) -> Result<Linear, LinearError> {
    let scale = f16::from_f32(0.125).to_le_bytes();
    let block = [&scale[..], &f16::ZERO.to_le_bytes(), &[0x88; 16]].concat();
    let bytes = block.repeat(out_features * in_features / 32);
    Linear::from_gguf(GgmlDType::Q4_1, &bytes, out_features, in_features)
}

/// A task of a region that all threads take part in.
pub const WORK: Duration = Duration::from_micros(20);

pub fn regions(pool: &Pool, work: Duration) -> f64 {
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
