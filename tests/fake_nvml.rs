//! A fake `libnvidia-ml.so.1`: the real nvml-wrapper loads it, and it does what a script says.
//!
//! `FAKE_NVML` in the environment names the script, a JSON file that is read anew for every call, so that a test can
//! change the world under a living probe. `script.rs` says what may stand in it. A symbol that is to be missing is missing
//! in a copy of this library in which the test has overwritten the name.
#![expect(unsafe_code, reason = "a C library's interface is made of raw pointers")]
#[path = "fake_nvml/script.rs"]
mod script;

use nvml_wrapper_sys::bindings::{
    nvmlMemory_v2_t, nvmlPciInfo_t, nvmlProcessInfo_t, nvmlReturn_t, nvmlUtilization_t,
};
use script::{Device, Script};
use std::ffi::{c_char, c_uint, c_ulonglong, c_void};

const SUCCESS: nvmlReturn_t = 0;
const INVALID_ARGUMENT: nvmlReturn_t = 2;
const NOT_SUPPORTED: nvmlReturn_t = 3;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const GPU_IS_LOST: nvmlReturn_t = 15;
/// What the driver writes where it does not know how much memory a process holds.
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

/// The script, once it has had its say about a call of this name.
fn enter(function: &str) -> Result<Script, nvmlReturn_t> {
    let script = Script::read();
    script.trouble(function)?;
    Ok(script)
}

fn code(outcome: Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    outcome.map_or_else(|code| code, |()| SUCCESS)
}

/// A handle is the device's place in the script plus one, so that it is never null.
fn device(handle: *mut c_void, function: &str) -> Result<Device, nvmlReturn_t> {
    let script = enter(function)?;
    let place = (handle as usize).checked_sub(1).ok_or(INVALID_ARGUMENT)?;
    let device = script.devices.into_iter().nth(place).ok_or(GPU_IS_LOST)?;
    if device.is_lost() { Err(GPU_IS_LOST) } else { Ok(device) }
}

/// Writes one value for the caller.
fn put<T>(to: *mut T, value: T) -> Result<(), nvmlReturn_t> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: NVML's callers pass pointers to memory of theirs.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes text and its NUL, into as many bytes as there are.
fn put_text(to: *mut c_char, room: usize, text: &str) -> Result<(), nvmlReturn_t> {
    if text.len() >= room {
        return Err(INSUFFICIENT_SIZE);
    }
    for (i, byte) in text.bytes().chain([0]).enumerate() {
        // SAFETY: the caller said that there is room for this many.
        unsafe { to.add(i).write(byte as c_char) };
    }
    Ok(())
}

fn known<T>(value: Option<T>) -> Result<T, nvmlReturn_t> {
    value.ok_or(NOT_SUPPORTED)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    code(enter("nvmlInit_v2").map(drop))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    code(enter("nvmlShutdown").map(drop))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, room: c_uint) -> nvmlReturn_t {
    code(
        enter("nvmlSystemGetDriverVersion")
            .and_then(|script| put_text(version, room as usize, &known(script.driver)?)),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    script::begin_reading();
    code(enter("nvmlDeviceGetCount_v2").and_then(|script| put(count, script.devices.len() as c_uint)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut *mut c_void) -> nvmlReturn_t {
    let place = (index as usize + 1) as *mut c_void;
    code(device(place, "nvmlDeviceGetHandleByIndex_v2").and_then(|_| put(handle, place)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUUID(handle: *mut c_void, to: *mut c_char, room: c_uint) -> nvmlReturn_t {
    code(device(handle, "nvmlDeviceGetUUID").and_then(|it| put_text(to, room as usize, &known(it.uuid)?)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetName(handle: *mut c_void, to: *mut c_char, room: c_uint) -> nvmlReturn_t {
    code(device(handle, "nvmlDeviceGetName").and_then(|it| put_text(to, room as usize, &known(it.name)?)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPciInfo_v3(handle: *mut c_void, to: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    code(device(handle, "nvmlDeviceGetPciInfo_v3").and_then(|it| {
        let bus = known(it.bus)?;
        let mut info = nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus,
            device: 0,
            pciDeviceId: 0,
            pciSubSystemId: 0,
            busId: [0; 32],
        };
        put_text(info.busId.as_mut_ptr(), info.busId.len(), &format!("00000000:{bus:02X}:00.0"))?;
        put(to, info)
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperature(
    handle: *mut c_void,
    _sensor: c_uint,
    to: *mut c_uint,
) -> nvmlReturn_t {
    code(
        device(handle, "nvmlDeviceGetTemperature")
            .and_then(|it| put(to, known(it.temperature)?.now() as c_uint)),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: *mut c_void, to: *mut nvmlMemory_v2_t) -> nvmlReturn_t {
    code(device(handle, "nvmlDeviceGetMemoryInfo_v2").and_then(|it| {
        let (used, total) = (known(it.memory_used)?.now(), known(it.memory_total)?);
        let version = (size_of::<nvmlMemory_v2_t>() | (2 << 24)) as c_uint;
        if asked_version(to) != Some(version) {
            return Err(INVALID_ARGUMENT);
        }
        put(to, nvmlMemory_v2_t { version, total, reserved: 0, free: total - used, used })
    }))
}

/// The caller has to tell which version of the struct it means.
fn asked_version(at: *const nvmlMemory_v2_t) -> Option<c_uint> {
    // SAFETY: null, or a pointer to memory of the caller's.
    unsafe { at.as_ref() }.map(|memory| memory.version)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUtilizationRates(
    handle: *mut c_void,
    to: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    code(
        device(handle, "nvmlDeviceGetUtilizationRates").and_then(|it| {
            put(to, nvmlUtilization_t { gpu: known(it.utilization)?.now() as c_uint, memory: 0 })
        }),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPowerUsage(handle: *mut c_void, to: *mut c_uint) -> nvmlReturn_t {
    code(
        device(handle, "nvmlDeviceGetPowerUsage").and_then(|it| put(to, known(it.power_mw)?.now() as c_uint)),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    handle: *mut c_void,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    code(
        device(handle, "nvmlDeviceGetCurrentClocksThrottleReasons")
            .and_then(|it| put(to, known(it.throttle)?.now())),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: *mut c_void,
    kind: c_uint,
    _counter: c_uint,
    to: *mut c_ulonglong,
) -> nvmlReturn_t {
    code(device(handle, "nvmlDeviceGetTotalEccErrors").and_then(|it| {
        let [corrected, uncorrected] = known(it.ecc)?;
        put(to, if kind == 0 { corrected } else { uncorrected })
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: *mut c_void,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    code(
        device(handle, "nvmlDeviceGetComputeRunningProcesses_v3")
            .and_then(|it| processes(&known(it.processes)?, count, to)),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    handle: *mut c_void,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    let function = "nvmlDeviceGetGraphicsRunningProcesses_v3";
    code(device(handle, function).and_then(|it| processes(&it.drawing, count, to)))
}

/// Pids with the bytes that each holds, if there is room for all; else how many there are.
fn processes(
    all: &[(u32, Option<script::Moving>)],
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> Result<(), nvmlReturn_t> {
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: memory of the caller's.
    let room = unsafe { count.replace(all.len() as c_uint) } as usize;
    if all.len() > room {
        return Err(INSUFFICIENT_SIZE);
    }
    for (i, (pid, memory)) in all.iter().enumerate() {
        let process = nvmlProcessInfo_t {
            pid: *pid,
            usedGpuMemory: memory.as_ref().map_or(NOT_AVAILABLE, script::Moving::now),
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        };
        // SAFETY: the caller said that there is room for this many.
        unsafe { to.add(i).write(process) };
    }
    Ok(())
}
