//! How fast the kernels are: linear layers, the output head, decode and prefill attention, at the sizes of the default
//! model. "Items" are floating-point operations, so the throughput column reads as FLOP/s; bytes are those that have to
//! be read. Every case runs with one thread and with two.

use candle_core::quantized::GgmlDType;
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use half::f16;
use kcache::{
    attention::{
        Count, DecodeRow, DecodeScratch, DecodeTimes, HeadShape, PrefillItem, PrefillScratch, Rows, decode, prefill,
    },
    bench::SplitMix64,
    cache::{Format, PAGE_TOKENS, Page, Select, Tail},
    kernels::{Activations, Linear, Pool},
};

fn main() {
    divan::main();
}

const THREADS: [usize; 2] = [1, 2];
const HIDDEN: usize = 576;
const FFN: usize = 1536;
const VOCABULARY: usize = 49_152;
const SHAPE: HeadShape = HeadShape { heads: 9, kv_heads: 3, head_dim: 64, scale: 0.125 };
/// Layers taken in turn, so that weights and caches come from memory as they do in a model, not from a cache.
const LAYERS: usize = 30;

/// Random numbers within ±1.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64(seed);
    (0..len).map(|_| random.unit() as f32 * 2.0 - 1.0).collect()
}

fn layer(dtype: GgmlDType, out_features: usize, in_features: usize) -> Linear {
    let mut bytes: Vec<u8> =
        (0..out_features * in_features / 32 * dtype.type_size()).map(|at| (at * 97 % 251) as u8).collect();
    for block in bytes.chunks_exact_mut(dtype.type_size()) {
        block[..2].copy_from_slice(&f16::from_f32(0.01).to_le_bytes());
        if dtype == GgmlDType::Q4_1 {
            block[2..4].copy_from_slice(&f16::from_f32(-0.07).to_le_bytes());
        }
    }
    Linear::from_gguf(dtype, &bytes, out_features, in_features).expect("a layer of whole blocks")
}

fn bench_layers(bencher: Bencher<'_, '_>, pool: &Pool, layers: &[Linear], rows: usize) {
    let (out_features, in_features) = (layers[0].out_features(), layers[0].in_features());
    let mut x = Activations::new();
    x.fill(pool, &values(rows * in_features, 3), in_features);
    let mut y = vec![0.0; rows * out_features];
    let mut turn = layers.iter().cycle();
    bencher
        .counter(ItemsCount::new(2 * rows * out_features * in_features))
        .counter(BytesCount::new(layers[0].bytes()))
        .bench_local(|| turn.next().expect("endless").forward(pool, &x, &mut y));
}

#[divan::bench(args = [1, 2, 4, 8, 16, 32, 128, 512], consts = THREADS)]
fn linear_q4_1<const N: usize>(bencher: Bencher<'_, '_>, rows: usize) {
    let layers: Vec<Linear> = (0..2 * LAYERS).map(|_| layer(GgmlDType::Q4_1, FFN, HIDDEN)).collect();
    bench_layers(bencher, &Pool::new(N), &layers, rows);
}

#[divan::bench(args = [1, 8, 32, 64], consts = THREADS)]
fn head_q8_0<const N: usize>(bencher: Bencher<'_, '_>, rows: usize) {
    bench_layers(bencher, &Pool::new(N), &[layer(GgmlDType::Q8_0, VOCABULARY, HIDDEN)], rows);
}

/// The pages of one layer, filled.
fn pages(new: fn(Format, usize, usize) -> Page, format: Format, len: usize, seed: u64) -> Vec<Page> {
    (0..len.div_ceil(PAGE_TOKENS))
        .map(|index| {
            let mut page = new(format, SHAPE.kv_heads, SHAPE.head_dim);
            for row in 0..SHAPE.kv_heads * PAGE_TOKENS {
                let values = values(SHAPE.head_dim, seed << 32 | (index * 1000 + row) as u64);
                page.write(row / PAGE_TOKENS, row % PAGE_TOKENS, &values);
            }
            page
        })
        .collect()
}

/// One token at a context of `len`, one layer per iteration; prints where the time goes.
fn bench_decode(bencher: Bencher<'_, '_>, pool: &Pool, [k, v]: [Format; 2], len: usize, rows: Rows) {
    let layers: Vec<_> = (0..LAYERS)
        .map(|layer| (pages(Page::for_keys, k, len, 1 + layer as u64), pages(Page::for_values, v, len, 0)))
        .collect();
    let q = values(SHAPE.heads * SHAPE.head_dim, 7);
    let v_sum = vec![0.0; SHAPE.kv_heads * SHAPE.head_dim];
    let mut out = vec![0.0; q.len()];
    let (mut scratch, mut times) = (DecodeScratch::new(), DecodeTimes::default());
    let mut turn = layers.iter().cycle();
    let mut calls = 0;
    let bytes = [k, v].map(|format| len as u64 * SHAPE.kv_heads as u64 * format.row_bytes(SHAPE.head_dim));
    bencher.counter(BytesCount::new(bytes[0] + bytes[1])).bench_local(|| {
        let (k, v) = turn.next().expect("endless");
        let row = DecodeRow { q: &q, k, v, len, rows, v_sum: &v_sum, buffers: &[] };
        decode(pool, &SHAPE, &[row], &mut scratch, &mut out, &mut times);
        calls += 1;
    });
    if calls > 0 {
        let DecodeTimes { scores, select, gather } = times;
        eprintln!("  scores {:?}, select {:?}, gather {:?}", scores / calls, select / calls, gather / calls);
    }
}

#[divan::bench(args = [128, 2048, 8192], consts = THREADS)]
fn decode_all<const N: usize>(bencher: Bencher<'_, '_>, len: usize) {
    bench_decode(bencher, &Pool::new(N), [Format::F16; 2], len, Rows::All);
}

#[divan::bench(args = [128, 2048, 8192], consts = THREADS)]
fn decode_all_q8<const N: usize>(bencher: Bencher<'_, '_>, len: usize) {
    bench_decode(bencher, &Pool::new(N), [Format::Q8; 2], len, Rows::All);
}

#[divan::bench(args = [2048, 8192], consts = THREADS)]
fn decode_top_128<const N: usize>(bencher: Bencher<'_, '_>, len: usize) {
    let rows = Rows::Top { n: Count::Same(128), tail: Tail::Mean, select: Select::Head, lean: &[] };
    bench_decode(bencher, &Pool::new(N), [Format::F16; 2], len, rows);
}

#[divan::bench(args = [2048, 8192], consts = THREADS)]
fn decode_top_128_q8<const N: usize>(bencher: Bencher<'_, '_>, len: usize) {
    let rows = Rows::Top { n: Count::Same(128), tail: Tail::Mean, select: Select::Head, lean: &[] };
    bench_decode(bencher, &Pool::new(N), [Format::Q8, Format::F16], len, rows);
}

#[divan::bench(args = [2048, 8192], consts = THREADS)]
fn decode_top_128_group<const N: usize>(bencher: Bencher<'_, '_>, len: usize) {
    let rows = Rows::Top { n: Count::Same(128), tail: Tail::Mean, select: Select::Group, lean: &[] };
    bench_decode(bencher, &Pool::new(N), [Format::F16; 2], len, rows);
}

/// 256 new tokens after `start` earlier ones, one layer.
#[divan::bench(args = [0, 1792, 3840], consts = THREADS)]
fn prefill_256<const N: usize>(bencher: Bencher<'_, '_>, start: usize) {
    let (pool, rows) = (Pool::new(N), 256);
    let (k, v) =
        (pages(Page::for_keys, Format::F16, start + rows, 1), pages(Page::for_values, Format::F16, start + rows, 0));
    let q = values(rows * SHAPE.heads * SHAPE.head_dim, 7);
    let mut out = vec![0.0; q.len()];
    let mut scratch = PrefillScratch::new();
    let pairs = rows * start + rows * (rows + 1) / 2;
    bencher.counter(ItemsCount::new(4 * pairs * SHAPE.heads * SHAPE.head_dim)).bench_local(|| {
        let item = PrefillItem { q: &q, rows, start, k: &k, v: &v };
        prefill(&pool, &SHAPE, &[item], &mut scratch, &mut out);
    });
}
