//! MIG: GPU instances as devices of their own.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{
    Device, DeviceFacts, DeviceKind, Process, UnusableReason, WarningReason,
};
use nvml_wrapper::Device as Handle;
use nvml_wrapper::error::NvmlError;

use super::device::{DeviceState, WholeGpu, unreadable};
use super::reader::HostReading;
use super::{health, memory, processes, raw};

/// No card has more instances (seven since Ampere); a bound on what a driver's number may make us
/// do.
const MAX_SLOTS: u32 = 64;

/// The GPU instances of `whole`, where MIG is in force there; the GPU itself then becomes unusable.
pub(super) fn instances(
    whole: &mut WholeGpu,
    handle: &Handle<'_>,
    standing: &DeviceState,
    scene: &HostReading<'_>,
) -> Vec<Device> {
    // What the card or driver does not know, it does not do.
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
        split(whole, handle, standing, scene)
    } else {
        Vec::new()
    }
}

/// Turns a GPU in MIG mode into itself, unusable, and its GPU instances.
///
/// Compute instances of one GPU instance share its memory, so it is counted once: the device is
/// named after the compute instance with the most multiprocessors, and lists the holders of all.
fn split(
    whole: &mut WholeGpu,
    handle: &Handle<'_>,
    standing: &DeviceState,
    scene: &HostReading<'_>,
) -> Vec<Device> {
    let mut instances: BTreeMap<u32, Device> = BTreeMap::new();
    let slots = handle
        .mig_device_count()
        .unwrap_or(MAX_SLOTS)
        .min(MAX_SLOTS);
    let mut refused = None;

    for slot in 0..slots {
        // Slots are sparse: an empty one says nothing of those after it.
        let instance = match handle.mig_device_by_index(slot) {
            Ok(instance) => instance,
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => {
                refused = Some(error);
                continue;
            }
        };

        // An instance destroyed since then is as good as never there.
        let Ok(group) = raw::gpu_instance(&instance) else {
            continue;
        };

        let Ok(device) = read(&instance, whole, standing, scene) else {
            continue;
        };

        match instances.remove(&group) {
            Some(other) => instances.insert(group, merge(other, device)),
            None => instances.insert(group, device),
        };
    }
    // The parent's list repeats those of its instances.
    whole.device.processes.retain(|process| {
        let same = |other: &Process| other.pid == process.pid;
        !instances
            .values()
            .any(|instance| instance.processes.iter().any(same))
    });

    whole.device.unusable = Some(match refused {
        Some(error) if instances.is_empty() => {
            health::from_error(&error, "listing its MIG instances")
        }
        _ if instances.is_empty() => health::unusable(
            UnusableReason::MigWithoutInstances,
            "MIG is enabled and no instance exists, so nothing can run; create some with nvidia-smi mig -cgi",
        ),
        _ => health::unusable(
            UnusableReason::MigParent,
            "MIG is enabled: only its instances can be used",
        ),
    });

    instances.into_values().collect()
}

fn merge(mut one: Device, mut other: Device) -> Device {
    if other.facts.multiprocessors > one.facts.multiprocessors {
        std::mem::swap(&mut one, &mut other);
    }

    for process in other.processes {
        if one.processes.iter().all(|known| known.pid != process.pid) {
            one.processes.push(process);
        }
    }

    one.unusable = one.unusable.or(other.unusable);
    one
}

fn read(
    instance: &Handle<'_>,
    whole: &WholeGpu,
    standing: &DeviceState,
    scene: &HostReading<'_>,
) -> Result<Device, NvmlError> {
    let (name, unread_name) = super::device::name(instance, || format!("{} MIG", standing.name))?;
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

    // An instance never stands for the host's memory, whatever its GPU does: several would count it
    // several times.
    let seen = memory::dedicated(instance).and_then(|before| {
        let holders = processes::read(instance, before.total);
        Ok((before.or_less_free(memory::dedicated(instance)?), holders))
    });
    let (reading, mut holders) = match seen {
        Ok(seen) => seen,
        Err(error) => {
            return Ok(unreadable(
                facts,
                health::from_error(&error, "reading its memory"),
            ));
        }
    };

    facts.total_bytes = reading.total;
    facts.reserved_bytes = reading.reserved;
    scene.describe(&mut holders.processes);

    Ok(Device {
        facts,
        free_bytes: Some(reading.free),
        used_bytes: Some(reading.used),
        margin_bytes: Bytes::ZERO,
        // What forbids the whole card (a reset, a drain, its compute mode) forbids its parts.
        unusable: whole
            .health
            .forbids
            .clone()
            .or_else(|| whole.mode.forbids(&holders, reading.used)),
        warnings: unread_name.into_iter().collect(),
        processes: holders.processes,
    })
}
