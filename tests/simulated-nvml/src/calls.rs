//! The exported calls on the library and on one device.
//!
//! Safety of every function here: as in NVML, pointers must be valid for the writes that `nvml.h`
//! names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};

use crate::abi::{
    FabricInfo, FieldValue, Handle, MemoryV1, MemoryV2, PciInfo, ProcessInfo, Return,
};
use crate::machine::{Target, bare_call, call, device_call, forget, lookup, machine};
use crate::scenario::{HolderKind, Memory, Process, Scenario, codes};

/// `NVML_STRUCT_VERSION(Memory, 2)`.
const MEMORY_V2_VERSION: u32 = 0x0200_0028;
const ALL_ONES: u64 = u64::MAX;

/// Writes an answer where the caller wants it.
pub fn put<T>(place: *mut T, value: T) -> Result<(), Return> {
    if place.is_null() {
        return Err(codes::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and valid for a write by the contract of the C call.
    unsafe { place.write(value) };
    Ok(())
}

fn put_text(place: *mut c_char, length: c_uint, text: &str) -> Result<(), Return> {
    if place.is_null() || text.len() >= length as usize {
        return Err(if place.is_null() {
            codes::INVALID_ARGUMENT
        } else {
            codes::INSUFFICIENT_SIZE
        });
    }
    // SAFETY: `length` bytes are writable by the contract of the C call, and text and NUL are
    // shorter.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), place, text.len());
        place.add(text.len()).write(0);
    }

    Ok(())
}

fn text<const N: usize>(value: &str) -> [c_char; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().take(N - 1).zip(value.bytes()) {
        *to = from.cast_signed();
    }
    out
}

/// NVML's PCI structure of an address such as `00000000:41:00.0`.
pub fn pci_info(bus_id: &str) -> PciInfo {
    let mut parts = bus_id
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16).unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    PciInfo {
        bus_id_legacy: text(bus_id.get(4..).unwrap_or(bus_id)),
        domain: next(),
        bus: next(),
        device: next(),
        pci_device_id: 0x2330_10de,
        pci_subsystem_id: 0,
        bus_id: text(bus_id),
    }
}

fn start(scenario: &Scenario) -> Result<(), Return> {
    let _ = scenario;
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
    wanted: impl Fn(usize, &crate::Gpu) -> bool,
    missing: Return,
    handle: *mut Handle,
) -> Result<(), Return> {
    let (_, gpu) = scenario
        .devices
        .iter()
        .enumerate()
        .find(|(place, gpu)| wanted(*place, gpu))
        .ok_or(missing)?;
    lookup(scenario, symbol, gpu)?;

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

fn given_text<'a>(text: *const c_char) -> Result<&'a str, Return> {
    if text.is_null() {
        return Err(codes::INVALID_ARGUMENT);
    }
    // SAFETY: not null, and NUL-terminated by the contract of the C call.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|_| codes::INVALID_ARGUMENT)
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
        // Both spellings of the domain, as the real library takes them.
        let same =
            |_: usize, gpu: &crate::Gpu| gpu.pci_bus_id.to_ascii_lowercase().ends_with(&bus_id);
        find_gpu(symbol, scenario, same, codes::NOT_FOUND, device)
    })
}

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

fn memory(scenario: &Scenario, target: &Target) -> Result<Memory, Return> {
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
        let memory = memory(scenario, target)?;
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
        // SAFETY: not null, and readable by the contract of the C call.
        if unsafe { (*answer).version } != MEMORY_V2_VERSION {
            return Err(codes::ARGUMENT_VERSION_MISMATCH);
        }

        let memory = memory(scenario, target)?;
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

const COMPUTE_PROCESSES: &str = "nvmlDeviceGetComputeRunningProcesses_v3";

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
        let mine: Vec<(u32, &Process)> = if let Some(instance) = target.instance(scenario)? {
            instance
                .processes
                .iter()
                .map(|process| (instance.gpu_instance, process))
                .collect()
        } else {
            let slots = gpu.mig.iter().flat_map(|mig| mig.slots.iter().flatten());
            let instances = slots.flat_map(|one| {
                one.processes
                    .iter()
                    .map(|process| (one.gpu_instance, process))
            });

            gpu.processes
                .iter()
                .map(|process| (u32::MAX, process))
                .chain(instances)
                .collect()
        };

        let mine: Vec<_> = mine
            .into_iter()
            .filter(|(_, process)| process.kinds.contains(&kind))
            .collect();
        let have = u32::try_from(mine.len()).unwrap_or(u32::MAX);

        // SAFETY: not null, and readable by the contract of the C call.
        let room = unsafe { count.read() };
        if gpu.process_burst {
            put(count, room.saturating_add(1))?;
            return Err(codes::INSUFFICIENT_SIZE);
        }

        put(count, have)?;
        if have == 0 || (room == 0 && gpu.empty_buffer_succeeds) {
            return Ok(());
        }

        if room < have || infos.is_null() {
            return Err(codes::INSUFFICIENT_SIZE);
        }

        for (place, (gpu_instance_id, process)) in mine.into_iter().enumerate() {
            let used_gpu_memory: c_ulonglong = process.used_bytes.unwrap_or(ALL_ONES);
            let info = ProcessInfo {
                pid: process.pid,
                used_gpu_memory,
                gpu_instance_id,
                compute_instance_id: u32::MAX,
            };

            // SAFETY: `room` elements are writable by the contract of the C call and
            // `place < have <= room`.
            put(unsafe { infos.add(place) }, info)?;
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
        for place in 0..usize::try_from(count).map_err(|_| codes::INVALID_ARGUMENT)? {
            // SAFETY: `count` elements are readable and writable by the contract of the C call.
            let field = unsafe { &mut *values.add(place) };
            match action.filter(|_| field.field_id == 230) {
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
        // SAFETY: not null, and readable by the contract of the C call.
        let bus = unsafe { (*pci).bus };

        let gpu = scenario
            .devices
            .iter()
            .find(|gpu| pci_info(&gpu.pci_bus_id).bus == bus);

        put(state, u32::from(gpu.ok_or(codes::NOT_FOUND)?.drained))
    })
}
