//! The exported calls on the health of one device.
//!
//! # Safety
//!
//! As in NVML, the caller of each function must pass pointers that are valid for the reads and
//! writes that `nvml.h` names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::ffi::{c_int, c_uint};

use crate::abi::{FabricInfo, FieldValue, Handle, PciInfo, Return};
use crate::arguments::{pci_info, put};
use crate::machine::{call, device_call};
use crate::scenario::codes;

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY_ACTION_FIELD: u32 = 230;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: Handle,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failure: *mut c_uint,
) -> Return {
    device_call("nvmlDeviceGetRemappedRows", device, |scenario, target| {
        let rows = target
            .gpu(scenario)?
            .remapped_rows
            .as_ref()
            .ok_or(codes::NOT_SUPPORTED)?;

        put(correctable, 0)?;
        put(uncorrectable, u32::from(rows.pending || rows.failure))?;
        put(pending, u32::from(rows.pending))?;

        put(failure, u32::from(rows.failure))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(
    device: Handle,
    info: *mut FabricInfo,
) -> Return {
    device_call("nvmlDeviceGetGpuFabricInfo", device, |scenario, target| {
        let fabric = target
            .gpu(scenario)?
            .fabric
            .as_ref()
            .ok_or(codes::NOT_SUPPORTED)?;
        put(
            info,
            FabricInfo {
                cluster_uuid: [0; 16],
                status: fabric.status,
                clique_id: 0,
                state: fabric.state,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: Handle,
    count: c_int,
    values: *mut FieldValue,
) -> Return {
    device_call("nvmlDeviceGetFieldValues", device, |scenario, target| {
        let action = target.gpu(scenario)?.recovery_action;
        for index in 0..usize::try_from(count).map_err(|_| codes::INVALID_ARGUMENT)? {
            // SAFETY: the contract of the C call makes `count` elements readable and writable.
            let field = unsafe { &mut *values.add(index) };
            match action.filter(|_| field.field_id == RECOVERY_ACTION_FIELD) {
                Some(action) => {
                    field.nvml_return = 0;
                    field.value_type = 1;
                    field.value = u64::from(action);
                }
                None => field.nvml_return = codes::NOT_SUPPORTED,
            }
        }

        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceQueryDrainState(
    pci: *mut PciInfo,
    state: *mut c_uint,
) -> Return {
    call("nvmlDeviceQueryDrainState", |scenario| {
        if pci.is_null() {
            return Err(codes::INVALID_ARGUMENT);
        }
        // SAFETY: the pointer is not null, and the contract of the C call makes it readable.
        let bus = unsafe { (*pci).bus };

        let gpu = scenario
            .devices
            .iter()
            .find(|gpu| pci_info(&gpu.pci_bus_id).bus == bus);

        put(state, u32::from(gpu.ok_or(codes::NOT_FOUND)?.drained))
    })
}
