//! Measuring: series and percentiles for the charts, and the samplers of GPU (NVML) and host (sysinfo).

mod percentiles;
mod sample;
mod series;

pub use percentiles::{Latency, Summary};
pub use sample::{GpuSample, HostSample};
pub use series::{Column, Mark, Marks, Point, Series};
