//! What the samplers report about the machine. A value that cannot be had is `None` with a reason, never 0.

use serde::{Deserialize, Serialize};

/// What one look at the machine found.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// The host, and this process on it.
    Host(HostSample),
    /// One of the GPUs.
    Gpu(GpuSample),
}

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

/// What no GPU reaches for a long time. A value beyond it is a driver's way to say that it has none, or a mistake.
mod most {
    /// Bytes of one GPU's memory: 1 PiB.
    pub const MEMORY_BYTES: u64 = 1 << 50;
    pub const TEMPERATURE_C: u32 = 200;
    pub const POWER_W: f32 = 100_000.0;
    /// 1 TiB a second; 16 lanes of PCIe 7 carry a quarter of it.
    pub const PCIE_KIB_S: u32 = 1 << 30;
}

impl GpuSample {
    /// The same without figures that no driver can mean; why is in `missing`. Of two that contradict each other neither
    /// is believed.
    #[must_use]
    pub fn plausible(mut self) -> Self {
        let mut wrong = Vec::new();
        let total = self.memory_total_bytes.take_if(|total| *total == 0 || *total > most::MEMORY_BYTES);
        wrong.extend(total.map(|total| format!("memory: a total of {total} bytes is no size of a GPU")));
        let used = self.memory_used_bytes.take_if(|used| *used > most::MEMORY_BYTES);
        wrong.extend(used.map(|used| format!("memory: {used} bytes in use is more than any GPU has")));
        if let (Some(used), Some(total)) = (self.memory_used_bytes, self.memory_total_bytes)
            && used > total
        {
            (self.memory_used_bytes, self.memory_total_bytes) = (None, None);
            wrong.push(format!("memory: {used} bytes in use of {total} contradict each other"));
        }
        let bound = self.memory_total_bytes.unwrap_or(most::MEMORY_BYTES);
        let ours = self.process_memory_bytes.take_if(|ours| *ours > bound);
        wrong.extend(ours.map(|ours| format!("process memory: {ours} bytes is more than the GPU has")));
        let busy = self.utilization_percent.take_if(|percent| *percent > 100);
        wrong.extend(busy.map(|percent| format!("utilisation: {percent} % is more than all")));
        let warm = self.temperature_c.take_if(|degrees| *degrees > most::TEMPERATURE_C);
        wrong.extend(warm.map(|degrees| format!("temperature: {degrees} °C is no temperature of a GPU")));
        let power = self.power_w.take_if(|watts| !(0.0..=most::POWER_W).contains(watts));
        wrong.extend(power.map(|watts| format!("power: {watts} W is no power of a GPU")));
        for (what, rate) in [("PCIe receive", &mut self.pcie_rx_kib_s), ("PCIe send", &mut self.pcie_tx_kib_s)] {
            let rate = rate.take_if(|rate| *rate > most::PCIE_KIB_S);
            wrong.extend(rate.map(|rate| format!("{what}: {rate} KiB/s is more than a link carries")));
        }
        if !wrong.is_empty() {
            let reasons: Vec<String> = self.missing.take().into_iter().chain(wrong).collect();
            self.missing = Some(reasons.join("; "));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> GpuSample {
        GpuSample {
            index: 0,
            name: "GPU".into(),
            memory_used_bytes: Some(8 << 30),
            memory_total_bytes: Some(80 << 30),
            process_memory_bytes: Some(1 << 30),
            utilization_percent: Some(100),
            temperature_c: Some(0),
            power_w: Some(0.0),
            pcie_rx_kib_s: Some(0),
            pcie_tx_kib_s: Some(1),
            missing: None,
        }
    }

    #[test]
    fn what_a_driver_can_mean_stays() {
        assert_eq!(sample().plausible(), sample());
        let full = GpuSample { memory_used_bytes: Some(80 << 30), process_memory_bytes: Some(80 << 30), ..sample() };
        assert_eq!(full.clone().plausible(), full);
    }

    #[test]
    fn what_no_driver_can_mean_is_unknown_with_its_reason() {
        let memory = |used, total| {
            let found = GpuSample { memory_used_bytes: used, memory_total_bytes: total, ..sample() }.plausible();
            (found.memory_used_bytes, found.memory_total_bytes, found.missing.unwrap_or_default())
        };
        let (used, total, why) = memory(Some(81 << 30), Some(80 << 30));
        assert_eq!((used, total), (None, None));
        assert_eq!(why, "memory: 86973087744 bytes in use of 85899345920 contradict each other");
        let (used, total, why) = memory(Some(1 << 30), Some(0));
        assert_eq!((used, total), (Some(1 << 30), None));
        assert_eq!(why, "memory: a total of 0 bytes is no size of a GPU");
        let (used, total, why) = memory(Some(u64::MAX), Some(80 << 30));
        assert_eq!((used, total), (None, Some(80 << 30)));
        assert!(why.starts_with("memory: 18446744073709551615 bytes in use is more"), "{why}");
        assert_eq!(memory(Some(u64::MAX), Some(u64::MAX)).2.matches("; ").count(), 1);

        let found = GpuSample {
            process_memory_bytes: Some(81 << 30),
            utilization_percent: Some(101),
            temperature_c: Some(u32::MAX),
            power_w: Some(f32::NAN),
            pcie_rx_kib_s: Some(u32::MAX),
            pcie_tx_kib_s: Some(u32::MAX),
            missing: Some("known before".into()),
            ..sample()
        };
        let found = found.plausible();
        let unknown = GpuSample {
            process_memory_bytes: None,
            utilization_percent: None,
            temperature_c: None,
            power_w: None,
            pcie_rx_kib_s: None,
            pcie_tx_kib_s: None,
            missing: found.missing.clone(),
            ..sample()
        };
        assert_eq!(found, unknown);
        let why = found.missing.clone().unwrap();
        assert_eq!((why.split("; ").count(), why.starts_with("known before; process memory: ")), (7, true), "{why}");
        assert_eq!(found.clone().plausible(), found, "what was taken out is not taken out again");
    }
}
