//! MIG: each GPU instance as a device.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceFacts, DeviceKind, UnusableReason, WarningReason};
use nvml_wrapper::Device as Handle;
use nvml_wrapper::error::NvmlError;

use super::device::{DeviceState, WholeGpu, unreadable};
use super::host_reading::HostReading;
use super::{health, memory, processes, raw};

/// The most instance slots that are read. Cards have seven since Ampere.
///
/// It bounds the work that a wrong count of the driver can cause.
const MAX_SLOTS: u32 = 64;

/// Returns the GPU instances of `whole` if MIG is active. The GPU itself then becomes unusable.
pub(super) fn instances(
    whole: &mut WholeGpu,
    handle: &Handle<'_>,
    state: &DeviceState,
    host: &HostReading<'_>,
) -> Vec<Device> {
    // A card or driver without this call has no MIG.
    let Ok(mode) = handle.mig_mode() else {
        return Vec::new();
    };

    if mode.current != mode.pending {
        let after = if mode.pending == 1 { "on" } else { "off" };
        let message = format!("MIG will be {after} after the next reset of the GPU");
        whole
            .device
            .warnings
            .push(health::warning(WarningReason::MigPending, message));
    }

    if mode.current == 1 {
        list_instances(whole, handle, state, host)
    } else {
        Vec::new()
    }
}

/// Marks a GPU in MIG mode as unusable and returns its GPU instances.
///
/// The compute instances of one GPU instance share its memory, so they become one device. The
/// device has the name of the compute instance with the most multiprocessors and the processes of
/// all.
fn list_instances(
    whole: &mut WholeGpu,
    handle: &Handle<'_>,
    state: &DeviceState,
    host: &HostReading<'_>,
) -> Vec<Device> {
    let mut instances: BTreeMap<u32, Device> = BTreeMap::new();
    let slots = handle
        .mig_device_count()
        .unwrap_or(MAX_SLOTS)
        .min(MAX_SLOTS);
    let mut last_error = None;

    for slot in 0..slots {
        // Slots are sparse: an instance can follow an empty slot.
        let instance = match handle.mig_device_by_index(slot) {
            Ok(instance) => instance,
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => {
                last_error = Some(error);
                continue;
            }
        };

        // An instance that was destroyed in the meantime is skipped.
        let Ok(group) = raw::gpu_instance(&instance) else {
            continue;
        };

        let Ok(device) = read(&instance, whole, state, host) else {
            continue;
        };

        match instances.remove(&group) {
            Some(other) => instances.insert(group, merge(other, device)),
            None => instances.insert(group, device),
        };
    }

    // The parent's list repeats the processes of its instances.
    whole.device.processes.retain(|process| {
        !instances
            .values()
            .any(|instance| has_pid(instance, process.pid))
    });

    whole.device.unusable = Some(match last_error {
        Some(error) if instances.is_empty() => {
            health::from_error(&error, "listing its MIG instances")
        }
        _ if instances.is_empty() => health::unusable(
            UnusableReason::MigWithoutInstances,
            "MIG is enabled and no instance exists, so nothing can run; \
             create some with nvidia-smi mig -cgi",
        ),
        _ => health::unusable(
            UnusableReason::MigParent,
            "MIG is enabled: only its instances can be used",
        ),
    });

    instances.into_values().collect()
}

/// Merges two compute instances of one GPU instance.
fn merge(mut larger: Device, mut other: Device) -> Device {
    if other.facts.multiprocessors > larger.facts.multiprocessors {
        std::mem::swap(&mut larger, &mut other);
    }

    for process in other.processes {
        if !has_pid(&larger, process.pid) {
            larger.processes.push(process);
        }
    }

    larger.unusable = larger.unusable.or(other.unusable);
    larger
}

fn has_pid(device: &Device, pid: u32) -> bool {
    device.processes.iter().any(|process| process.pid == pid)
}

fn read(
    instance: &Handle<'_>,
    whole: &WholeGpu,
    state: &DeviceState,
    host: &HostReading<'_>,
) -> Result<Device, NvmlError> {
    let (name, name_warning) = super::device::name(instance, || format!("{} MIG", state.name))?;
    let mut facts = DeviceFacts {
        uuid: raw::uuid(instance)?,
        name,
        kind: DeviceKind::MigInstance,
        total_bytes: Bytes::ZERO,
        reserved_bytes: None,
        multiprocessors: instance
            .attributes()
            .ok()
            .map(|attributes| attributes.multiprocessor_count),
        parent_uuid: Some(whole.device.facts.uuid.clone()),
        ..whole.device.facts.clone()
    };

    // An instance never reports the host's memory, even if its GPU shares it: several instances
    // would count that memory several times.
    let result = memory::dedicated(instance).and_then(|before| {
        let holders = processes::read(instance, before.total);
        Ok((before.or_less_free(memory::dedicated(instance)?), holders))
    });
    let (reading, mut holders) = match result {
        Ok(result) => result,
        Err(error) => {
            return Ok(unreadable(
                facts,
                health::from_error(&error, "reading its memory"),
            ));
        }
    };

    facts.total_bytes = reading.total;
    facts.reserved_bytes = reading.reserved;
    host.describe(&mut holders.processes);

    Ok(Device {
        facts,
        free_bytes: Some(reading.free),
        used_bytes: Some(reading.used),
        margin_bytes: Bytes::ZERO,
        // A condition of the whole card (a reset, a drain, its compute mode) applies to its
        // instances.
        unusable: whole
            .health
            .unusable
            .clone()
            .or_else(|| whole.mode.check(&holders, reading.used)),
        warnings: name_warning.into_iter().collect(),
        processes: holders.processes,
    })
}
