//! One whole GPU, read.

use std::fs;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceFacts, DeviceKind, Unusable, Warning, identity};
use nvml_wrapper::Device as Handle;
use nvml_wrapper::error::NvmlError;

use super::health::{Health, Mode};
use super::reader::{HostReading, Margins};
use super::{health, memory, processes, raw};

/// What does not change while the library is open, so that a pass need not ask again.
#[derive(Clone, Debug)]
pub(super) struct DeviceState {
    pub(super) name: String,
    /// Why `name` is not the product's.
    pub(super) unread_name: Option<Warning>,
    pub(super) compute_capability: Option<(u32, u32)>,
    pub(super) multiprocessors: Option<u32>,
    pub(super) pci_bus_id: Option<String>,
    pub(super) numa_node: Option<u32>,
    /// The NUMA node that the GPU's own memory is, where the host manages it (Grace).
    pub(super) memory_node: Option<u32>,
}

impl DeviceState {
    pub(super) fn read(
        device: &Handle<'_>,
        index: u32,
        scene: &HostReading<'_>,
    ) -> Result<Self, NvmlError> {
        let capability = device.cuda_compute_capability().ok();
        let compute_capability = capability.and_then(|found| {
            Some((
                u32::try_from(found.major).ok()?,
                u32::try_from(found.minor).ok()?,
            ))
        });

        let pci_bus_id = device.pci_info().ok().map(|pci| short_bus_id(&pci.bus_id));
        let numa = pci_bus_id.as_ref().and_then(|bus_id| {
            // -1 stands for unknown, and fails to parse.
            let path = scene
                .roots
                .sys
                .join("bus/pci/devices")
                .join(bus_id)
                .join("numa_node");
            fs::read_to_string(path).ok()?.trim().parse().ok()
        });

        let (name, unread_name) = name(device, || identity::placeholder(index))?;
        Ok(Self {
            name,
            unread_name,
            compute_capability,
            multiprocessors: compute_capability
                .and_then(cores_per_multiprocessor)
                .and_then(|each| device.num_cores().ok()?.checked_div(each))
                .filter(|count| *count > 0),
            pci_bus_id,
            numa_node: numa,
            memory_node: device.numa_node_id().ok(),
        })
    }
}

impl DeviceState {
    /// Whether the GPU can be one whose memory the host manages as a NUMA node: Grace carries
    /// Hopper and newer. Older drivers answer for other cards, too, with a node of the host's own
    /// memory.
    fn may_be_memory_of_the_host(&self) -> bool {
        self.compute_capability
            .is_some_and(|capability| capability >= (9, 0))
    }
}

/// The product name. One that is too long or no text costs the name, not the device; what is wrong
/// with the device itself is an error.
pub(super) fn name(
    device: &Handle<'_>,
    placeholder: impl FnOnce() -> String,
) -> Result<(String, Option<Warning>), NvmlError> {
    match raw::name(device) {
        Ok(name) => Ok((name, None)),
        Err(
            error @ (NvmlError::GpuLost
            | NvmlError::ResetRequired
            | NvmlError::NoPermission
            | NvmlError::OperatingSystem
            | NvmlError::UnexpectedVariant(_)),
        ) => Err(error),
        Err(error) if super::library::concerns_all(&error) => Err(error),
        Err(error) => Ok((
            placeholder(),
            Some(identity::unread_name(&format!("cannot be read ({error})"))),
        )),
    }
}

/// NVML writes an eight-digit domain, the kernel and `lspci` four digits; here it is the kernel's.
pub(super) fn short_bus_id(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 && domain.starts_with("0000") => {
            format!("{}:{rest}", domain.get(4..).unwrap_or(domain))
        }
        _ => lower,
    }
}

/// CUDA cores of one multiprocessor (CUDA C++ Programming Guide, "Compute Capabilities"); `None`
/// for what is newer.
fn cores_per_multiprocessor(compute_capability: (u32, u32)) -> Option<u32> {
    match compute_capability {
        (6 | 8, 0) | (7, _) => Some(64),
        (6, 1 | 2) | (8..=10 | 12, _) => Some(128),
        _ => None,
    }
}

/// A whole GPU, with what its instances inherit from it.
pub(super) struct WholeGpu {
    pub(super) device: Device,
    pub(super) health: Health,
    pub(super) mode: Mode,
}

/// Reads a whole GPU that answers to its handle. An error here concerns the library as a whole.
pub(super) fn read(
    handle: &Handle<'_>,
    uuid: &str,
    index: u32,
    standing: &DeviceState,
    scene: &HostReading<'_>,
) -> Result<WholeGpu, NvmlError> {
    let mut facts = facts(uuid, index, standing);
    let mut health = health::check(handle, &standing.name);
    health.warnings.extend(standing.unread_name.clone());
    let mode = health::mode(handle);
    let memory = || memory::read(handle, &standing.name, scene.roots);
    let seen = memory().and_then(|before| {
        let holders = processes::read(handle, before.total);
        Ok((before.or_less_free(memory()?), holders))
    });
    let (reading, mut holders) = match seen {
        Ok(seen) => seen,
        Err(error) if super::library::concerns_all(&error) => return Err(error),
        Err(error) => {
            let why = health
                .forbids
                .clone()
                .unwrap_or_else(|| health::from_error(&error, "reading its memory"));
            let device = Device {
                warnings: health.warnings.clone(),
                ..unreadable(facts, why)
            };
            return Ok(WholeGpu {
                device,
                health,
                mode,
            });
        }
    };

    if let Some(node) = standing
        .memory_node
        .filter(|_| standing.may_be_memory_of_the_host())
    {
        health
            .warnings
            .extend(memory::page_cache(node, reading, scene.roots));
    }

    facts.total_bytes = reading.total;
    facts.reserved_bytes = reading.reserved;

    if reading.unified {
        facts.kind = DeviceKind::UnifiedMemory;
    }

    scene.describe(&mut holders.processes);
    let device = Device {
        facts,
        free_bytes: Some(reading.free),
        used_bytes: Some(reading.used),
        margin_bytes: margin(handle, reading.unified, scene.margins),
        unusable: health
            .forbids
            .clone()
            .or_else(|| mode.forbids(&holders, reading.used)),
        warnings: health.warnings.clone(),
        processes: holders.processes,
    };

    Ok(WholeGpu {
        device,
        health,
        mode,
    })
}

/// What to keep back: for the host where memory is its own, for the desktop where one is driven.
fn margin(device: &Handle<'_>, unified: bool, margins: &Margins) -> Bytes {
    let host = if unified {
        margins.host_bytes
    } else {
        Bytes::ZERO
    };

    let display = if device.is_display_active().is_ok_and(|active| active) {
        margins.display_bytes
    } else {
        Bytes::ZERO
    };

    host + display
}

fn facts(uuid: &str, index: u32, standing: &DeviceState) -> DeviceFacts {
    DeviceFacts {
        uuid: uuid.to_owned(),
        index,
        name: standing.name.clone(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::ZERO,
        reserved_bytes: None,
        compute_capability: standing.compute_capability,
        multiprocessors: standing.multiprocessors,
        parent_uuid: None,
        pci_bus_id: standing.pci_bus_id.clone(),
        numa_node: standing.numa_node,
    }
}

/// A device without a reading.
pub(super) fn unreadable(facts: DeviceFacts, why: Unusable) -> Device {
    Device {
        facts,
        free_bytes: None,
        used_bytes: None,
        margin_bytes: Bytes::ZERO,
        unusable: Some(why),
        warnings: Vec::new(),
        processes: Vec::new(),
    }
}

/// A device of which not even the name can be asked.
pub(super) fn nameless(
    uuid: String,
    index: u32,
    pci_bus_id: Option<String>,
    name: Option<String>,
) -> DeviceFacts {
    DeviceFacts {
        uuid,
        index,
        name: name.unwrap_or_else(|| identity::placeholder(index)),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::ZERO,
        reserved_bytes: None,
        compute_capability: None,
        multiprocessors: None,
        parent_uuid: None,
        pci_bus_id,
        numa_node: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_ids_are_the_kernels() {
        assert_eq!(short_bus_id("00000000:C1:00.0"), "0000:c1:00.0");
        assert_eq!(short_bus_id("00010000:41:00.0"), "00010000:41:00.0");
        assert_eq!(short_bus_id("0000:41:00.0"), "0000:41:00.0");
    }

    #[test]
    fn newer_capabilities_have_no_known_cores() {
        assert_eq!(cores_per_multiprocessor((9, 0)), Some(128));
        assert_eq!(cores_per_multiprocessor((8, 0)), Some(64));
        assert_eq!(cores_per_multiprocessor((13, 0)), None);
    }
}
