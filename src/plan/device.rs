//! The rates of a device: presets, or this machine as measured.

use serde::Serialize;

use crate::{
    bench::{AttentionRates, MachineRates},
    cache::Format,
};

/// A device in the rates that bound a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    pub name: String,
    pub memory_bytes: u64,
    /// Bytes of host memory beside it; `None` for as many as are asked for.
    pub host_bytes: Option<u64>,
    /// Bytes of the cache per second that it reads from its memory.
    pub bandwidth: f64,
    /// Bytes of weights per second that it reads from its memory.
    pub weight_bandwidth: f64,
    /// Bytes per second that reach it from host memory.
    pub link: f64,
    /// Multiplications and additions per second in linear layers; `None` where that is not known, and then no bound.
    pub linear_flops: Option<f64>,
    pub attention_flops: Option<f64>,
    /// Whether device and host are the same memory, as on a CPU: then a byte takes the same room in either.
    pub one_memory: bool,
    /// What its kernels were measured to take in attention; `None` where only its peaks are known. Then these times count
    /// in place of bandwidth and arithmetic, and rows beyond the first take their time in linear layers beside the reading
    /// of the weights, not hidden behind it.
    pub attention: Option<AttentionRates>,
}

/// A device that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Preset {
    /// What it is called on the command line.
    pub name: &'static str,
    pub memory_gib: u64,
    pub bandwidth_gb_s: f64,
    /// GB/s from the host, one direction.
    pub link_gb_s: f64,
    /// TFLOP/s of 16-bit products, dense, summed in 32 bits.
    pub tflop_s: f64,
    /// Where the figures are from.
    pub source: &'static str,
}

/// GB/s of 16 lanes in one direction, after 128b/130b coding: PCI-SIG, 16 and 32 GT/s.
const PCIE4: f64 = 31.5;
const PCIE5: f64 = 63.0;

/// What makers say of their devices: peaks, which nothing reaches. The first-order effect of what is reached instead
/// can be seen by giving the rates themselves.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "rtx-3090",
        memory_gib: 24,
        bandwidth_gb_s: 936.0,
        link_gb_s: PCIE4,
        tflop_s: 71.0,
        source: "NVIDIA Ampere GA102 whitepaper",
    },
    Preset {
        name: "rtx-4090",
        memory_gib: 24,
        bandwidth_gb_s: 1008.0,
        link_gb_s: PCIE4,
        tflop_s: 165.2,
        source: "NVIDIA Ada whitepaper",
    },
    Preset {
        name: "rtx-5090",
        memory_gib: 32,
        bandwidth_gb_s: 1792.0,
        link_gb_s: PCIE5,
        tflop_s: 209.5,
        source: "NVIDIA RTX Blackwell whitepaper",
    },
    Preset {
        name: "l4",
        memory_gib: 24,
        bandwidth_gb_s: 300.0,
        link_gb_s: PCIE4,
        tflop_s: 121.0,
        source: "NVIDIA L4 datasheet (half of its sparse figure)",
    },
    Preset {
        name: "l40s",
        memory_gib: 48,
        bandwidth_gb_s: 864.0,
        link_gb_s: PCIE4,
        tflop_s: 362.0,
        source: "NVIDIA L40S datasheet",
    },
    Preset {
        name: "a100-80g",
        memory_gib: 80,
        bandwidth_gb_s: 2039.0,
        link_gb_s: PCIE4,
        tflop_s: 312.0,
        source: "NVIDIA A100 datasheet, 80GB SXM",
    },
    Preset {
        name: "h100-sxm",
        memory_gib: 80,
        bandwidth_gb_s: 3350.0,
        link_gb_s: PCIE5,
        tflop_s: 989.4,
        source: "NVIDIA H100 datasheet (half of its sparse figure)",
    },
    Preset {
        name: "h200-sxm",
        memory_gib: 141,
        bandwidth_gb_s: 4800.0,
        link_gb_s: PCIE5,
        tflop_s: 989.4,
        source: "NVIDIA H200 datasheet (half of its sparse figure); memory there in GB",
    },
    Preset {
        name: "gh200",
        memory_gib: 96,
        bandwidth_gb_s: 4000.0,
        link_gb_s: 450.0,
        tflop_s: 989.4,
        source: "NVIDIA GH200 datasheet, 96GB; half of NVLink-C2C's 900 GB/s",
    },
];

impl Device {
    /// The device that is called `name`, in any case.
    pub fn preset(name: &str) -> Option<Self> {
        PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name)).map(Self::from)
    }

    /// This machine: its memory serves as device and as host, and rows come from random places of it. What bounds a step
    /// is not the memory but the kernels that read, so their times count, for weights of 4 bits. `attention` was measured
    /// for heads of `head_dim` values.
    pub fn measured(rates: &MachineRates, attention: &AttentionRates, head_dim: usize, memory_bytes: u64) -> Self {
        // Bytes per nanosecond are billions per second; no time at all is no rate.
        let rows = Format::F16.row_bytes(head_dim) as f64 / attention.row_ns.median.max(1e-3);
        Self {
            name: format!("this machine, {} threads, measured", rates.threads),
            memory_bytes,
            host_bytes: None,
            bandwidth: rates.keys_gb_s.all.median * 1e9,
            weight_bandwidth: rates.weights_gb_s.all.median * 1e9,
            link: rows * 1e9,
            linear_flops: Some(rates.row_gop_s() * 1e9),
            attention_flops: Some(rates.fma_gflop_s.all.median * 1e9),
            one_memory: true,
            attention: Some(*attention),
        }
    }
}

impl From<&Preset> for Device {
    fn from(preset: &Preset) -> Self {
        let flops = Some(preset.tflop_s * 1e12);
        Self {
            name: preset.name.to_owned(),
            memory_bytes: preset.memory_gib << 30,
            host_bytes: None,
            bandwidth: preset.bandwidth_gb_s * 1e9,
            weight_bandwidth: preset.bandwidth_gb_s * 1e9,
            link: preset.link_gb_s * 1e9,
            linear_flops: flops,
            attention_flops: flops,
            one_memory: false,
            attention: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_by_name_and_are_plausible() {
        assert_eq!(Device::preset("RTX-4090").unwrap().bandwidth, 1008e9);
        assert_eq!(Device::preset("abacus"), None);
        for preset in PRESETS {
            // A slip of the pen in a unit is a factor of a thousand.
            assert!((300.0..10_000.0).contains(&preset.bandwidth_gb_s), "{}", preset.name);
            assert!((20.0..1000.0).contains(&preset.link_gb_s) && preset.link_gb_s < preset.bandwidth_gb_s);
            assert!((50.0..5000.0).contains(&preset.tflop_s) && !preset.source.is_empty());
        }
    }
}
