//! Measuring: series and percentiles for the charts, and the samplers of GPU (NVML) and host (sysinfo).

mod sample;

pub use sample::{GpuSample, HostSample};
