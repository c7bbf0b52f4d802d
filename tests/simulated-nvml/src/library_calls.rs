//! The exported calls on the library: init, shutdown, versions and the lookup of devices.
//!
//! # Safety
//!
//! As in NVML, the caller of each function must pass pointers that are valid for the reads and
//! writes that `nvml.h` names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::ffi::{c_char, c_int, c_uint};

use crate::abi::{Handle, Return};
use crate::arguments::{given_text, put, put_text};
use crate::machine::{bare_call, call, check_gpu_faults, forget, machine};
use crate::scenario::{Scenario, codes};

fn start(_: &Scenario) -> Result<(), Return> {
    machine(|machine| {
        machine.statistics.inits += 1;
        machine.write_statistics();
    });
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> Return {
    bare_call("nvmlInit_v2", start)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Return {
    bare_call("nvmlInit_v2", start)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> Return {
    let left = machine(|machine| {
        let left = machine
            .statistics
            .inits
            .checked_sub(machine.statistics.shutdowns + 1)?;
        machine.statistics.shutdowns += 1;
        machine.write_statistics();
        Some(left)
    });
    if left == Some(0) {
        forget();
    }

    if left.is_some() {
        0
    } else {
        codes::UNINITIALIZED
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_code: Return) -> *const c_char {
    c"simulated error".as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(
    version: *mut c_char,
    length: c_uint,
) -> Return {
    call("nvmlSystemGetDriverVersion", |scenario| {
        put_text(version, length, &scenario.driver_version)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> Return {
    call("nvmlSystemGetNVMLVersion", |scenario| {
        put_text(version, length, &format!("13.{}", scenario.driver_version))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Return {
    call("nvmlSystemGetCudaDriverVersion_v2", |_| put(version, 13010))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    call("nvmlDeviceGetCount_v2", |scenario| {
        put(
            count,
            u32::try_from(scenario.devices.len()).unwrap_or(u32::MAX),
        )
    })
}

fn find_gpu(
    symbol: &str,
    scenario: &Scenario,
    is_wanted: impl Fn(usize, &crate::Gpu) -> bool,
    missing: Return,
    handle: *mut Handle,
) -> Result<(), Return> {
    let (_, gpu) = scenario
        .devices
        .iter()
        .enumerate()
        .find(|(index, gpu)| is_wanted(*index, gpu))
        .ok_or(missing)?;
    check_gpu_faults(symbol, gpu)?;

    put(handle, machine(|machine| machine.handle(&gpu.uuid)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut Handle,
) -> Return {
    let symbol = "nvmlDeviceGetHandleByIndex_v2";
    call(symbol, |scenario| {
        find_gpu(
            symbol,
            scenario,
            |place, _| place == index as usize,
            codes::INVALID_ARGUMENT,
            device,
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(
    uuid: *const c_char,
    device: *mut Handle,
) -> Return {
    let symbol = "nvmlDeviceGetHandleByUUID";
    call(symbol, |scenario| {
        let uuid = given_text(uuid)?;
        find_gpu(
            symbol,
            scenario,
            |_, gpu| gpu.uuid == uuid,
            codes::NOT_FOUND,
            device,
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus_id: *const c_char,
    device: *mut Handle,
) -> Return {
    let symbol = "nvmlDeviceGetHandleByPciBusId_v2";
    call(symbol, |scenario| {
        let bus_id = given_text(bus_id)?.to_ascii_lowercase();
        // As in the real library, the domain can have four or eight digits.
        let has_bus_id =
            |_: usize, gpu: &crate::Gpu| gpu.pci_bus_id.to_ascii_lowercase().ends_with(&bus_id);
        find_gpu(symbol, scenario, has_bus_id, codes::NOT_FOUND, device)
    })
}
