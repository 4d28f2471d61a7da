//! What the samplers report about the machine. A value that cannot be had is `None` with a reason, never 0.

use serde::{Deserialize, Serialize};

/// The host at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostSample {
    /// Resident memory of this process, in bytes.
    pub process_rss_bytes: Option<u64>,
    /// CPU use of this process; 100 is one core.
    pub process_cpu_percent: Option<f32>,
    /// CPU use of the whole machine, 0 to 100.
    pub cpu_percent: Option<f32>,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory there is (the container's limit where there is one), in bytes.
    pub memory_total_bytes: Option<u64>,
}

/// One GPU at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuSample {
    /// NVML's index.
    pub index: u32,
    /// The product's name.
    pub name: String,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory there is, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Memory that this process holds, in bytes.
    pub process_memory_bytes: Option<u64>,
    /// Share of time in which a kernel ran, 0 to 100.
    pub utilization_percent: Option<u32>,
    /// Degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Watts.
    pub power_w: Option<f32>,
    /// PCIe traffic towards the GPU, in KiB per second.
    pub pcie_rx_kib_s: Option<u32>,
    /// PCIe traffic from the GPU, in KiB per second.
    pub pcie_tx_kib_s: Option<u32>,
    /// Why a value is missing, where one is.
    pub missing: Option<String>,
}
