//! The arithmetic that has to be fast, each routine beside its portable twin. The only home of `unsafe`.
//!
//! | file | what it is for |
//! |---|---|
//! | [`pool`], [`split`] | the one thread pool, and safe ways to write disjoint parts of a slice from its tasks |
//! | [`linear`] | linear layers on quantised weights: Q4_1 and Q8_0 by kernels of our own, every other type by candle |
//! | `packed`, `q4_1`, `q8_0` | how weights are interleaved for those kernels, and the kernels |
//! | [`activations`] | the input of linear layers, as floats and as 8-bit blocks |
//! | `finite` | infinities and NaN among weights and activations |
//! | [`rows`], [`mod@rope`] | RMS norm, SiLU and rotary positions over `[rows, width]` |
//! | [`gemm`], [`scores`], [`weighted_sum`], [`softmax`], [`topk`], [`mod@f16_to_f32`], [`mod@prefetch`] | the inner loops of attention |
//! | `aligned`, `heap` | memory that begins with a cache line, for pages; giving memory back |
//! | [`keys`], [`q8`] | how keys lie in a page, and how 8-bit rows are rounded |
//! | [`q8_scores`], [`q8_weighted_sum`] | the inner loops on 8-bit rows of the cache |
//! | [`microbench`] | loops that keep one unit of the machine busy, to measure what it can do |
//! | [`mod@reference`] | linear layers once more, in the plainest way, to compare with |
//!
//! Which twin runs is decided at run time, by what the CPU can do (`cpu`).

#![allow(
    unsafe_code,
    reason = "the one home of `unsafe`: vector instructions, the pool, mapping files, and the allocator"
)]

pub mod activations;
pub mod aligned;
#[cfg(target_arch = "x86_64")]
mod bytes;
pub mod cpu;
pub mod exp;
pub mod f16_to_f32;
mod f32x16;
mod fallback;
mod finite;
pub mod gemm;
pub mod heap;
pub mod keys;
pub mod linear;
pub mod map;
pub mod microbench;
mod packed;
pub mod pool;
pub mod prefetch;
mod q4_1;
pub mod q8;
mod q8_0;
pub mod q8_scores;
pub mod q8_weighted_sum;
pub mod reference;
pub mod rope;
pub mod rows;
pub mod scores;
pub mod softmax;
pub mod split;
pub mod topk;
pub mod weighted_sum;

pub use activations::Activations;
pub use linear::{Linear, LinearError, forward_many};
pub use pool::Pool;
pub use rope::{RopeStyle, RopeTable, rope};
pub use rows::{rms_norm, silu_mul};
