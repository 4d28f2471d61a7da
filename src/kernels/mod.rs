//! The arithmetic that has to be fast, each routine beside its portable twin. The only home of `unsafe`.

pub mod map;
