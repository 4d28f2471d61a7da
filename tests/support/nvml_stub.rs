//! A stand-in for the driver's NVML, compiled by the tests into a shared library of its own, one per scenario:
//! the functions that the program calls, with NVML's names and C signatures.
//!
//! `unsafe` is the C interface itself: every function writes through the pointers that its caller passes, which NVML's
//! contract (and nvml-wrapper on the other side) promises to be valid for the one call.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

/// Which machine to be; chosen when the library is compiled.
const SCENARIO: &str = env!("STUB_SCENARIO");

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_SUPPORTED: c_int = 3;
const NO_PERMISSION: c_int = 4;
const NOT_FOUND: c_int = 6;
const INSUFFICIENT_SIZE: c_int = 7;
const DRIVER_NOT_LOADED: c_int = 9;
const GPU_IS_LOST: c_int = 15;

/// A handle is never null, so GPU `i` is `i + 1`; MIG instance `i` is `101 + i`.
type Handle = *mut c_void;

fn gpu(handle: Handle) -> usize {
    handle as usize - 1
}

fn is_instance(handle: Handle) -> bool {
    handle as usize > 100
}

/// What the parent of MIG instances answers to everything.
fn refused(handle: Handle) -> bool {
    SCENARIO == "mig" && !is_instance(handle)
}

unsafe fn put<T>(to: *mut T, value: T) -> c_int {
    // SAFETY: NVML's contract, see the top.
    unsafe { to.write(value) };
    SUCCESS
}

unsafe fn put_text(to: *mut c_char, room: c_uint, text: &str) -> c_int {
    if text.len() >= room as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: NVML's contract, see the top; the text and its final zero fit the room that the caller named.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), text.len());
        to.add(text.len()).write(0);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    if SCENARIO == "asleep" { DRIVER_NOT_LOADED } else { SUCCESS }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, room: c_uint) -> c_int {
    unsafe { put_text(version, room, "580.95.05") }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    let gpus = match SCENARIO {
        "none" => 0,
        "mig" => 1,
        _ => 2,
    };
    unsafe { put(count, gpus) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut Handle) -> c_int {
    if SCENARIO == "lost" && index == 1 {
        return GPU_IS_LOST;
    }
    unsafe { put(handle, (index as usize + 1) as Handle) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, name: *mut c_char, room: c_uint) -> c_int {
    let text = match gpu(handle) {
        _ if is_instance(handle) => "Stub H100 MIG 1g.10gb",
        0 => "Stub H100",
        _ => "Stub L4",
    };
    unsafe { put_text(name, room, text) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, uuid: *mut c_char, room: c_uint) -> c_int {
    unsafe { put_text(uuid, room, &format!("GPU-{}", gpu(handle))) }
}

#[repr(C)]
pub struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, memory: *mut Memory) -> c_int {
    if refused(handle) {
        return NO_PERMISSION;
    }
    let (used, total) = match gpu(handle) {
        // Nonsense: more in use than there is; and all bits set, of nothing.
        0 if SCENARIO == "nonsense" => (81 << 30, 80 << 30),
        _ if SCENARIO == "nonsense" => (c_ulonglong::MAX, 0),
        _ if is_instance(handle) => (1 << 30, 10 << 30),
        0 => (8 << 30, 80 << 30),
        _ => (2 << 30, 24 << 30),
    };
    // SAFETY: NVML's contract, see the top.
    let version = unsafe { (*memory).version };
    // The struct's version names its size and number, and the driver refuses any other.
    if version != (size_of::<Memory>() | 2 << 24) as c_uint {
        return INVALID_ARGUMENT;
    }
    unsafe { put(memory, Memory { version, total, reserved: 0, free: total.saturating_sub(used), used }) }
}

#[repr(C)]
pub struct Utilisation {
    gpu: c_uint,
    memory: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(handle: Handle, rates: *mut Utilisation) -> c_int {
    if refused(handle) || is_instance(handle) {
        return NOT_SUPPORTED;
    }
    if SCENARIO == "nonsense" {
        return unsafe { put(rates, Utilisation { gpu: 4_000, memory: 11 }) };
    }
    unsafe { put(rates, Utilisation { gpu: 37 + gpu(handle) as c_uint, memory: 11 }) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(handle: Handle, _sensor: c_uint, degrees: *mut c_uint) -> c_int {
    if refused(handle) || is_instance(handle) {
        return NOT_SUPPORTED;
    }
    unsafe { put(degrees, if SCENARIO == "nonsense" { c_uint::MAX } else { 51 }) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(handle: Handle, milliwatts: *mut c_uint) -> c_int {
    if refused(handle) || is_instance(handle) || gpu(handle) == 1 {
        return NOT_SUPPORTED;
    }
    unsafe { put(milliwatts, if SCENARIO == "nonsense" { c_uint::MAX } else { 312_500 }) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPcieThroughput(handle: Handle, counter: c_uint, kib_s: *mut c_uint) -> c_int {
    if refused(handle) || is_instance(handle) {
        return NOT_SUPPORTED;
    }
    if gpu(handle) == 1 {
        return NO_PERMISSION;
    }
    if SCENARIO == "nonsense" {
        return unsafe { put(kib_s, c_uint::MAX) };
    }
    // NVML's counters: 0 sends, 1 receives.
    unsafe { put(kib_s, if counter == 0 { 100 } else { 2000 }) }
}

#[repr(C)]
pub struct Process {
    pid: c_uint,
    used_gpu_memory: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: Handle,
    count: *mut c_uint,
    processes: *mut Process,
) -> c_int {
    if refused(handle) {
        return NO_PERMISSION;
    }
    // This library is loaded into the very process that asks, so its PID is the one to report.
    let listed = if gpu(handle) == 0 { 2 } else { 0 };
    // SAFETY: NVML's contract, see the top: room for `count` processes, or none where only the number is asked for.
    unsafe {
        let room = count.replace(listed);
        if room < listed {
            return INSUFFICIENT_SIZE;
        }
        for i in 0..listed {
            let pid = if i == 0 { 1 } else { std::process::id() };
            let used_gpu_memory = if i == 0 { 7 << 30 } else { 1 << 30 };
            processes.add(i as usize).write(Process {
                pid,
                used_gpu_memory,
                gpu_instance: u32::MAX,
                compute_instance: u32::MAX,
            });
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(_handle: Handle, count: *mut c_uint) -> c_int {
    if SCENARIO != "mig" {
        return NOT_SUPPORTED;
    }
    unsafe { put(count, 7) }
}

/// Two instances, in slots 0 and 2: slots are sparse.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    _handle: Handle,
    slot: c_uint,
    instance: *mut Handle,
) -> c_int {
    match slot {
        0 | 2 => unsafe { put(instance, (101 + slot as usize) as Handle) },
        _ => NOT_FOUND,
    }
}
