//! Measuring: series and percentiles for the charts, and the samplers of GPU (NVML) and host (sysinfo).

mod host;
pub mod nvml;
mod percentiles;
mod sample;
mod sampler;
mod series;
mod sums;

pub use host::{HostSampler, cpu_name, default_threads, physical_cores};
pub use nvml::{GpuSampler, GpuUnavailable};
pub use percentiles::{Latency, Summary};
pub use sample::{GpuSample, HostSample, Sample};
pub use sampler::{Sampler, SamplerHandle};
pub use series::{Column, Mark, Marks, Point, Series};
pub use sums::Sums;
