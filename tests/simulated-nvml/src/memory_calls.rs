//! The exported calls on the memory and the processes of one device.
//!
//! # Safety
//!
//! As in NVML, the caller of each function must pass pointers that are valid for the reads and
//! writes that `nvml.h` names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::ffi::{c_uint, c_ulonglong};

use crate::abi::{Handle, MemoryV1, MemoryV2, ProcessInfo, Return};
use crate::arguments::put;
use crate::machine::{Target, device_call, machine};
use crate::scenario::{Gpu, HolderKind, Memory, MigInstance, Process, Scenario, codes};

/// `NVML_STRUCT_VERSION(Memory, 2)`.
const MEMORY_V2_VERSION: u32 = 0x0200_0028;
const ALL_ONES: u64 = u64::MAX;

fn current_memory(scenario: &Scenario, target: &Target) -> Result<Memory, Return> {
    let mut memory = match target.instance(scenario)? {
        Some(instance) => instance.memory.clone(),
        None => target.gpu(scenario)?.memory.clone(),
    };

    if machine(|machine| machine.statistics.calls.contains_key(COMPUTE_PROCESSES)) {
        memory.used_bytes += memory.taken_at_listing_bytes;
    }

    Ok(memory)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: Handle, answer: *mut MemoryV1) -> Return {
    device_call("nvmlDeviceGetMemoryInfo", device, |scenario, target| {
        let memory = current_memory(scenario, target)?;
        memory.v1_code.map_or(Ok(()), Err)?;
        let used = memory.used_bytes + memory.reserved_bytes;

        put(
            answer,
            MemoryV1 {
                total: memory.total_bytes,
                free: memory.total_bytes.saturating_sub(used),
                used,
            },
        )
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: Handle,
    answer: *mut MemoryV2,
) -> Return {
    device_call("nvmlDeviceGetMemoryInfo_v2", device, |scenario, target| {
        if answer.is_null() {
            return Err(codes::INVALID_ARGUMENT);
        }
        // SAFETY: the pointer is not null, and the contract of the C call makes it readable.
        if unsafe { (*answer).version } != MEMORY_V2_VERSION {
            return Err(codes::ARGUMENT_VERSION_MISMATCH);
        }

        let memory = current_memory(scenario, target)?;
        memory.v2_code.map_or(Ok(()), Err)?;
        let (total, reserved, used) =
            (memory.total_bytes, memory.reserved_bytes, memory.used_bytes);
        let free = total.saturating_sub(reserved + used);

        put(
            answer,
            MemoryV2 {
                version: MEMORY_V2_VERSION,
                total,
                reserved,
                free,
                used,
            },
        )
    })
}

/// The first process list that the reader asks for.
const COMPUTE_PROCESSES: &str = "nvmlDeviceGetComputeRunningProcesses_v3";

/// The processes of an instance, with the id of its GPU instance.
fn instance_processes(instance: &MigInstance) -> Vec<(u32, &Process)> {
    instance
        .processes
        .iter()
        .map(|process| (instance.gpu_instance, process))
        .collect()
}

/// The processes of a GPU and of all its instances, with the id of the GPU instance.
fn all_processes(gpu: &Gpu) -> Vec<(u32, &Process)> {
    let own = gpu.processes.iter().map(|process| (u32::MAX, process));
    let slots = gpu.mig.iter().flat_map(|mig| mig.slots.iter().flatten());

    own.chain(slots.flat_map(instance_processes)).collect()
}

fn processes(
    symbol: &str,
    kind: HolderKind,
    device: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    device_call(symbol, device, |scenario, target| {
        if count.is_null() {
            return Err(codes::INVALID_ARGUMENT);
        }

        let gpu = target.gpu(scenario)?;
        let mut listed = match target.instance(scenario)? {
            Some(instance) => instance_processes(instance),
            None => all_processes(gpu),
        };
        listed.retain(|(_, process)| process.kinds.contains(&kind));
        let length = u32::try_from(listed.len()).unwrap_or(u32::MAX);

        // SAFETY: the pointer is not null, and the contract of the C call makes it readable.
        let capacity = unsafe { count.read() };
        if gpu.process_burst {
            put(count, capacity.saturating_add(1))?;
            return Err(codes::INSUFFICIENT_SIZE);
        }

        put(count, length)?;
        if length == 0 || (capacity == 0 && gpu.empty_buffer_succeeds) {
            return Ok(());
        }

        if capacity < length || infos.is_null() {
            return Err(codes::INSUFFICIENT_SIZE);
        }

        for (index, (gpu_instance_id, process)) in listed.into_iter().enumerate() {
            let used_gpu_memory: c_ulonglong = process.used_bytes.unwrap_or(ALL_ONES);
            let info = ProcessInfo {
                pid: process.pid,
                used_gpu_memory,
                gpu_instance_id,
                compute_instance_id: u32::MAX,
            };

            // SAFETY: the contract of the C call makes `capacity` elements writable, and
            // `index < length <= capacity`.
            put(unsafe { infos.add(index) }, info)?;
        }

        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    processes(COMPUTE_PROCESSES, HolderKind::Compute, device, count, infos)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    processes(
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
        HolderKind::Graphics,
        device,
        count,
        infos,
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    processes(
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        HolderKind::Mps,
        device,
        count,
        infos,
    )
}
