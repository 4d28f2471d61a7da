//! Measuring: series and percentiles for the charts, and the samplers of GPU (NVML) and host (sysinfo).

mod host;
pub mod nvml;
mod sample;
mod sampler;

pub use host::{HostSampler, cpu_name, default_threads, physical_cores};
pub use nvml::{GpuSampler, GpuUnavailable};
pub use sample::{GpuSample, HostSample};
pub use sampler::{Sampler, SamplerHandle};
