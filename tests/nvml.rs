//! NVML end to end without a GPU: the program loads a stand-in library that is compiled here, one per scenario.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use kcache::telemetry::{GpuSample, GpuSampler, GpuUnavailable};
use tempfile::TempDir;

const STUB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/nvml_stub.rs");

/// Compiles the stand-in for one scenario. The folder has to outlive the library's use.
fn build(scenario: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvml_stub.so");
    let built = Command::new(env::var_os("RUSTC").as_deref().unwrap_or(OsStr::new("rustc")))
        .args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "nvml_stub", "-D", "warnings", "-o"])
        .arg(&library)
        .arg(STUB)
        .env("STUB_SCENARIO", scenario)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    (folder, library)
}

fn samples(library: &Path) -> Vec<GpuSample> {
    GpuSampler::open_with(library.as_os_str()).unwrap().sample()
}

#[test]
fn two_gpus_report_what_they_can_and_say_what_they_cannot() {
    let (_folder, library) = build("two");
    let gib = |n: u64| Some(n << 30);
    let first = GpuSample {
        index: 0,
        name: "Stub H100".into(),
        memory_used_bytes: gib(8),
        memory_total_bytes: gib(80),
        process_memory_bytes: gib(1),
        utilization_percent: Some(37),
        temperature_c: Some(51),
        power_w: Some(312.5),
        pcie_rx_kib_s: Some(2000),
        pcie_tx_kib_s: Some(100),
        missing: None,
    };
    let second = GpuSample {
        index: 1,
        name: "Stub L4".into(),
        memory_used_bytes: gib(2),
        memory_total_bytes: gib(24),
        process_memory_bytes: None,
        utilization_percent: Some(38),
        temperature_c: Some(51),
        power_w: None,
        pcie_rx_kib_s: None,
        pcie_tx_kib_s: None,
        missing: Some(
            "process memory: this process is not in the GPU's list; \
             power: the requested operation is not available on the target device; \
             PCIe receive, PCIe send: the current user does not have permission to perform this operation"
                .into(),
        ),
    };
    assert_eq!(samples(&library), [first, second]);

    // The same through the program, with the library chosen by the environment.
    let gpus = doctor(&library);
    let found = gpus["found"].as_str().unwrap();
    assert!(found.contains("Stub H100") && found.contains("Stub L4") && found.contains("580.95.05"), "{found}");
}

/// `kcache doctor --json` with that library, and what it says of the GPU.
fn doctor(library: &Path) -> serde_json::Value {
    let doctor = Command::new(env!("CARGO_BIN_EXE_kcache"))
        .args(["doctor", "--json"])
        .env("KCACHE_NVML_LIB", library)
        .env("KCACHE_CONFIG", "/dev/null")
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "gpu").unwrap().clone()
}

#[test]
fn what_no_driver_can_mean_is_unknown_with_its_reason() {
    let (_folder, library) = build("nonsense");
    let samples = samples(&library);
    for sample in &samples {
        assert_eq!((sample.memory_used_bytes, sample.memory_total_bytes), (None, None), "{sample:?}");
        assert_eq!(
            (sample.utilization_percent, sample.temperature_c, sample.power_w),
            (None, None, None),
            "{sample:?}"
        );
        assert_eq!((sample.pcie_rx_kib_s, sample.pcie_tx_kib_s), (None, None), "{sample:?}");
        let why = sample.missing.as_ref().unwrap();
        assert!(
            why.contains("utilisation: 4000 % is more than all") && why.contains("temperature: 4294967295"),
            "{why}"
        );
    }
    let why = |at: usize| samples[at].missing.as_deref().unwrap();
    assert!(why(0).contains("memory: 86973087744 bytes in use of 85899345920 contradict each other"), "{}", why(0));
    assert!(why(1).contains("memory: a total of 0 bytes is no size of a GPU"), "{}", why(1));
    assert!(why(1).contains("memory: 18446744073709551615 bytes in use is more than any GPU has"), "{}", why(1));

    let check = doctor(&library);
    assert!(check["found"].as_str().unwrap().contains("n/a of n/a GiB used\n  n/a: memory: 869"), "{check:#}");
    assert_eq!(check["status"], "note");
    assert!(check["advice"].as_str().unwrap().contains("nvidia-smi -q"), "{check:#}");
}

#[test]
fn doctor_says_for_every_reason_what_to_do() {
    for (scenario, found, advice) in [
        ("none", "NVML sees no GPU", "give it to this container"),
        ("asleep", "NVML does not start", "load the driver"),
        ("lost", "fell off the bus", "reset the GPU"),
    ] {
        let (_folder, library) = build(scenario);
        let check = doctor(&library);
        assert_eq!(check["status"], "note", "{check:#}");
        assert!(check["found"].as_str().unwrap().contains(found), "{check:#}");
        assert!(check["advice"].as_str().unwrap().contains(advice), "{check:#}");
    }
    let check = doctor(Path::new("/nonexistent/libnvml.so"));
    assert!(check["advice"].as_str().unwrap().starts_with("mend KCACHE_NVML_LIB"), "{check:#}");
}

#[test]
fn a_lost_gpu_does_not_hide_the_other() {
    let (_folder, library) = build("lost");
    let samples = samples(&library);
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[0].memory_total_bytes, Some(80 << 30));
    assert_eq!((samples[1].memory_used_bytes, samples[1].memory_total_bytes), (None, None));
    assert!(samples[1].missing.as_ref().unwrap().contains("fell off the bus"), "{:?}", samples[1]);
}

#[test]
fn mig_instances_are_asked_where_the_gpu_refuses() {
    let (_folder, library) = build("mig");
    let samples = samples(&library);
    let names: Vec<_> = samples.iter().map(|sample| sample.name.as_str()).collect();
    assert_eq!(names, ["Stub H100 MIG 1g.10gb #0", "Stub H100 MIG 1g.10gb #2"]);
    for sample in &samples {
        assert_eq!(sample.index, 0);
        assert_eq!(sample.memory_used_bytes, Some(1 << 30));
        assert_eq!(sample.memory_total_bytes, Some(10 << 30));
        assert_eq!((sample.utilization_percent, sample.temperature_c, sample.power_w), (None, None, None));
        assert!(sample.missing.as_ref().unwrap().contains("utilisation, temperature, power"), "{sample:?}");
    }
}

#[test]
fn without_a_gpu_there_is_a_reason() {
    let (_folder, library) = build("none");
    assert_eq!(GpuSampler::open_with(library.as_os_str()).err(), Some(GpuUnavailable::NoGpu));
    let (_folder, library) = build("asleep");
    let error = GpuSampler::open_with(library.as_os_str()).err().unwrap();
    assert_eq!(error.to_string(), "NVML does not start: NVIDIA driver is not loaded");
    let error = GpuSampler::open_with(OsStr::new("/nonexistent/libnvml.so")).err().unwrap();
    assert_eq!(error.to_string(), "no NVIDIA driver: /nonexistent/libnvml.so cannot be loaded");
}
