//! The exported calls on MIG.
//!
//! # Safety
//!
//! As in NVML, the caller of each function must pass pointers that are valid for the reads and
//! writes that `nvml.h` names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::ffi::c_uint;

use crate::abi::{Attributes, Handle, Return};
use crate::arguments::put;
use crate::machine::{device_call, machine};
use crate::scenario::codes;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: Handle,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    device_call("nvmlDeviceGetMigMode", device, |scenario, target| {
        let mig = target
            .gpu(scenario)?
            .mig
            .as_ref()
            .ok_or(codes::NOT_SUPPORTED)?;
        put(current, u32::from(mig.enabled))?;
        put(pending, u32::from(mig.pending))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    device: Handle,
    count: *mut c_uint,
) -> Return {
    device_call(
        "nvmlDeviceGetMaxMigDeviceCount",
        device,
        |scenario, target| {
            let slots = target
                .gpu(scenario)?
                .mig
                .as_ref()
                .map_or(0, |mig| mig.slots.len().max(7));
            put(count, u32::try_from(slots).unwrap_or(u32::MAX))
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Handle,
    index: c_uint,
    instance: *mut Handle,
) -> Return {
    device_call(
        "nvmlDeviceGetMigDeviceHandleByIndex",
        device,
        |scenario, target| {
            let mig = target
                .gpu(scenario)?
                .mig
                .as_ref()
                .filter(|mig| mig.enabled)
                .ok_or(codes::NOT_SUPPORTED)?;
            let slot = mig
                .slots
                .get(index as usize)
                .and_then(Option::as_ref)
                .ok_or(codes::NOT_FOUND)?;
            put(instance, machine(|machine| machine.handle(&slot.uuid)))
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: Handle,
    parent: *mut Handle,
) -> Return {
    device_call(
        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
        device,
        |scenario, target| {
            target.instance(scenario)?.ok_or(codes::INVALID_ARGUMENT)?;
            let uuid = &target.gpu(scenario)?.uuid;
            put(parent, machine(|machine| machine.handle(uuid)))
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(
    device: Handle,
    is_mig: *mut c_uint,
) -> Return {
    device_call("nvmlDeviceIsMigDeviceHandle", device, |scenario, target| {
        put(is_mig, u32::from(target.instance(scenario)?.is_some()))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: Handle, id: *mut c_uint) -> Return {
    device_call("nvmlDeviceGetGpuInstanceId", device, |scenario, target| {
        put(
            id,
            target
                .instance(scenario)?
                .ok_or(codes::NOT_SUPPORTED)?
                .gpu_instance,
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(device: Handle, id: *mut c_uint) -> Return {
    device_call(
        "nvmlDeviceGetComputeInstanceId",
        device,
        |scenario, target| {
            put(
                id,
                target
                    .instance(scenario)?
                    .ok_or(codes::NOT_SUPPORTED)?
                    .compute_instance,
            )
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAttributes_v2(
    device: Handle,
    attributes: *mut Attributes,
) -> Return {
    device_call("nvmlDeviceGetAttributes_v2", device, |scenario, target| {
        let instance = target.instance(scenario)?.ok_or(codes::NOT_SUPPORTED)?;
        put(
            attributes,
            Attributes {
                multiprocessor_count: instance.multiprocessors,
                shared_copy_engine_count: 1,
                shared_decoder_count: 1,
                shared_encoder_count: 0,
                shared_jpeg_count: 1,
                shared_ofa_count: 0,
                gpu_instance_slice_count: 1,
                compute_instance_slice_count: 1,
                memory_size_mb: instance.memory.total_bytes >> 20,
            },
        )
    })
}
