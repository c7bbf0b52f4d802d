//! The exported calls on the constant facts and the mode of one device.
//!
//! # Safety
//!
//! As in NVML, the caller of each function must pass pointers that are valid for the reads and
//! writes that `nvml.h` names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::ffi::{c_char, c_int, c_uint};

use crate::abi::{Handle, PciInfo, Return};
use crate::arguments::{pci_info, put, put_text};
use crate::machine::{Target, device_call};
use crate::scenario::codes;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(
    device: Handle,
    name: *mut c_char,
    length: c_uint,
) -> Return {
    device_call("nvmlDeviceGetName", device, |scenario, target| {
        let own = match target.instance(scenario)? {
            Some(instance) => &instance.name,
            None => &target.gpu(scenario)?.name,
        };
        put_text(name, length, own)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: Handle,
    uuid: *mut c_char,
    length: c_uint,
) -> Return {
    device_call("nvmlDeviceGetUUID", device, |scenario, target| {
        let own = match target.instance(scenario)? {
            Some(instance) => &instance.uuid,
            None => &target.gpu(scenario)?.uuid,
        };
        put_text(uuid, length, own)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: Handle, index: *mut c_uint) -> Return {
    device_call("nvmlDeviceGetIndex", device, |_, target| {
        let (Target::Gpu(place) | Target::Mig(_, place)) = target;
        put(index, u32::try_from(*place).unwrap_or(u32::MAX))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Handle, pci: *mut PciInfo) -> Return {
    device_call("nvmlDeviceGetPciInfo_v3", device, |scenario, target| {
        put(pci, pci_info(&target.gpu(scenario)?.pci_bus_id))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeMode(device: Handle, mode: *mut c_uint) -> Return {
    device_call("nvmlDeviceGetComputeMode", device, |scenario, target| {
        put(mode, target.gpu(scenario)?.compute_mode)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: Handle,
    major: *mut c_int,
    minor: *mut c_int,
) -> Return {
    device_call(
        "nvmlDeviceGetCudaComputeCapability",
        device,
        |scenario, target| {
            let capability = target.gpu(scenario)?.compute_capability;
            put(major, capability.0)?;
            put(minor, capability.1)
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNumGpuCores(device: Handle, cores: *mut c_uint) -> Return {
    device_call("nvmlDeviceGetNumGpuCores", device, |scenario, target| {
        put(
            cores,
            target.gpu(scenario)?.cores.ok_or(codes::NOT_SUPPORTED)?,
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDisplayActive(device: Handle, active: *mut c_uint) -> Return {
    device_call("nvmlDeviceGetDisplayActive", device, |scenario, target| {
        put(active, u32::from(target.gpu(scenario)?.display_active))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNumaNodeId(device: Handle, node: *mut c_uint) -> Return {
    device_call("nvmlDeviceGetNumaNodeId", device, |scenario, target| {
        put(
            node,
            target
                .gpu(scenario)?
                .numa_node
                .ok_or(codes::NOT_SUPPORTED)?,
        )
    })
}
