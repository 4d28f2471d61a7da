//! What NVML says about the GPUs, and what to do if it says nothing or nonsense.

use std::env;

use super::Check;
use crate::telemetry::{GpuSample, GpuSampler, GpuUnavailable, nvml::LIB_VARIABLE};

/// Whether NVML answers, and for what.
pub(super) fn check() -> Check {
    match GpuSampler::open() {
        Ok(gpus) => {
            let samples = gpus.sample();
            let each: Vec<_> = samples.iter().map(text).collect();
            let driver = gpus.driver().map(|version| format!("driver {version}\n")).unwrap_or_default();
            let found = driver + &each.join("\n");
            // What the charts show. That a driver does not tell the rest is common, and nothing can be done about it.
            if samples.iter().all(|gpu| gpu.memory_used_bytes.is_some() && gpu.memory_total_bytes.is_some()) {
                Check::ok("gpu", found)
            } else {
                Check::note(
                    "gpu",
                    found,
                    "compare with `nvidia-smi -q`: where it has no figures either, reset the GPU or mend the driver; \
                     where it has them, let this user ask NVML for them",
                )
            }
        }
        Err(reason) => Check::note("gpu", reason.to_string(), advice(&reason)),
    }
}

fn text(gpu: &GpuSample) -> String {
    let gib = |bytes: Option<u64>| {
        bytes.map_or("n/a".to_owned(), |bytes| format!("{:.1}", bytes as f64 / (1u64 << 30) as f64))
    };
    let why = gpu.missing.as_ref().map(|why| format!("\n  n/a: {why}")).unwrap_or_default();
    let (used, total) = (gib(gpu.memory_used_bytes), gib(gpu.memory_total_bytes));
    format!("{}: {used} of {total} GiB used{why}", gpu.name)
}

fn advice(reason: &GpuUnavailable) -> String {
    let what = match reason {
        GpuUnavailable::NoLibrary { .. } if env::var_os(LIB_VARIABLE).is_some_and(|path| !path.is_empty()) => {
            format!("mend {LIB_VARIABLE}, which names this library, or unset it")
        }
        GpuUnavailable::NoLibrary { .. } => {
            "where there is a GPU, install its driver, or start the container with it (`--gpus all`)".to_owned()
        }
        GpuUnavailable::NotStarted(_) => {
            "`nvidia-smi` says more; load the driver, or start the machine again after an update of it".to_owned()
        }
        GpuUnavailable::NoGpu => "where there is one, give it to this container (`--gpus all`)".to_owned(),
    };
    format!("{what}; without a GPU the device tier is simulated in memory")
}
