//! GPUs through NVML, the library that comes with NVIDIA's driver. Where there is none, the reason is given once.
//!
//! A value that NVML refuses, or that no driver can mean, is `None`, and the sample says why. Under MIG a container
//! often may not ask the physical GPU at all; then its instances are asked, which answer for their own memory and
//! processes.

use std::{
    env,
    ffi::{OsStr, OsString},
    process,
};

use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{PcieUtilCounter, TemperatureSensor},
    enums::device::UsedGpuMemory,
    error::NvmlError,
};
use thiserror::Error;

use super::GpuSample;

/// The variable that names another library to load.
pub const LIB_VARIABLE: &str = "KCACHE_NVML_LIB";

/// Why there are no GPU samples.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GpuUnavailable {
    /// The library could not be loaded: no NVIDIA driver, or not in this container.
    #[error("no NVIDIA driver: {library} cannot be loaded")]
    NoLibrary {
        /// What was to be loaded.
        library: String,
    },
    /// The library is there but does not start.
    #[error("NVML does not start: {0}")]
    NotStarted(String),
    /// NVML runs and counts no GPU.
    #[error("NVML sees no GPU")]
    NoGpu,
}

/// Samples every GPU that NVML shows to this process.
pub struct GpuSampler {
    nvml: Nvml,
    count: u32,
}

impl GpuSampler {
    /// Loads the driver's NVML, or the library that [`LIB_VARIABLE`] names.
    ///
    /// # Errors
    ///
    /// The reason why there will be no samples.
    pub fn open() -> Result<Self, GpuUnavailable> {
        let library = env::var_os(LIB_VARIABLE).filter(|path| !path.is_empty());
        Self::open_with(&library.unwrap_or_else(|| OsString::from(DRIVER_LIBRARY)))
    }

    /// Loads a given NVML library, by path or by the name under which the system finds it.
    ///
    /// # Errors
    ///
    /// The reason why there will be no samples.
    pub fn open_with(library: &OsStr) -> Result<Self, GpuUnavailable> {
        let nvml = Nvml::builder().lib_path(library).init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => {
                GpuUnavailable::NoLibrary { library: library.to_string_lossy().into_owned() }
            }
            other => GpuUnavailable::NotStarted(other.to_string()),
        })?;
        match nvml.device_count() {
            Ok(0) => Err(GpuUnavailable::NoGpu),
            Ok(count) => Ok(Self { nvml, count }),
            Err(error) => Err(GpuUnavailable::NotStarted(error.to_string())),
        }
    }

    /// The driver's version.
    pub fn driver(&self) -> Option<String> {
        self.nvml.sys_driver_version().ok()
    }

    /// Every GPU now, or its MIG instances where the GPU itself refuses to be asked about its memory.
    pub fn sample(&self) -> Vec<GpuSample> {
        (0..self.count).flat_map(|index| self.sample_gpu(index)).collect()
    }

    fn sample_gpu(&self, index: u32) -> Vec<GpuSample> {
        let device = match self.nvml.device_by_index(index) {
            Ok(device) => device,
            Err(error) => return vec![unreachable_gpu(index, &error)],
        };
        if let Err(NvmlError::NoPermission | NvmlError::NotSupported) = device.memory_info() {
            let instances: Vec<_> = (0..device.mig_device_count().unwrap_or(0))
                // Slots are sparse: an index without an instance is an error and means nothing.
                .filter_map(|slot| Some((slot, device.mig_device_by_index(slot).ok()?)))
                .map(|(slot, instance)| {
                    let name = instance.name().unwrap_or_else(|_| format!("GPU {index}"));
                    sample_device(&instance, index, format!("{name} #{slot}"))
                })
                .collect();
            if !instances.is_empty() {
                return instances;
            }
        }
        let name = device.name().unwrap_or_else(|_| format!("GPU {index}"));
        vec![sample_device(&device, index, name)]
    }
}

/// The name under which the driver installs NVML.
const DRIVER_LIBRARY: &str = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };

fn sample_device(device: &Device<'_>, index: u32, name: String) -> GpuSample {
    let mut missing = Missing::default();
    let memory = missing.unless("memory", device.memory_info());
    let processes = missing.unless("processes", device.running_compute_processes());
    let ours = processes.and_then(|processes| {
        match processes.iter().find(|other| other.pid == process::id()).map(|ours| &ours.used_gpu_memory) {
            Some(UsedGpuMemory::Used(bytes)) => Some(*bytes),
            Some(UsedGpuMemory::Unavailable) => missing.note("process memory", "the driver does not tell"),
            // Nothing held, or held under a PID that the container does not see: the two cannot be told apart.
            None => missing.note("process memory", "this process is not in the GPU's list"),
        }
    });
    GpuSample {
        index,
        name,
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
        memory_total_bytes: memory.map(|memory| memory.total),
        process_memory_bytes: ours,
        utilization_percent: missing.unless("utilisation", device.utilization_rates()).map(|rates| rates.gpu),
        temperature_c: missing.unless("temperature", device.temperature(TemperatureSensor::Gpu)),
        power_w: missing.unless("power", device.power_usage()).map(|milliwatts| milliwatts as f32 / 1000.0),
        pcie_rx_kib_s: missing.unless("PCIe receive", device.pcie_throughput(PcieUtilCounter::Receive)),
        pcie_tx_kib_s: missing.unless("PCIe send", device.pcie_throughput(PcieUtilCounter::Send)),
        missing: missing.reasons(),
    }
    .plausible()
}

/// A GPU that NVML counts but does not hand out.
fn unreachable_gpu(index: u32, error: &NvmlError) -> GpuSample {
    GpuSample {
        index,
        name: format!("GPU {index}"),
        memory_used_bytes: None,
        memory_total_bytes: None,
        process_memory_bytes: None,
        utilization_percent: None,
        temperature_c: None,
        power_w: None,
        pcie_rx_kib_s: None,
        pcie_tx_kib_s: None,
        missing: Some(format!("everything: {error}")),
    }
}

/// Gathers why values are missing, each reason once with all the values it concerns.
#[derive(Default)]
struct Missing(Vec<(String, Vec<&'static str>)>);

impl Missing {
    fn unless<T>(&mut self, what: &'static str, result: Result<T, NvmlError>) -> Option<T> {
        result.map_err(|error| self.note::<T>(what, &error.to_string())).ok()
    }

    fn note<T>(&mut self, what: &'static str, why: &str) -> Option<T> {
        match self.0.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, concerned)) => concerned.push(what),
            None => self.0.push((why.to_owned(), vec![what])),
        }
        None
    }

    fn reasons(self) -> Option<String> {
        let each: Vec<_> = self.0.into_iter().map(|(why, what)| format!("{}: {why}", what.join(", "))).collect();
        (!each.is_empty()).then(|| each.join("; "))
    }
}
