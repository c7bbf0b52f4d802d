//! Reading one whole GPU.

use std::fs;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceFacts, DeviceKind, Unusable, Warning, identity};
use nvml_wrapper::Device as Handle;
use nvml_wrapper::error::NvmlError;

use super::health::{ContextMode, Health};
use super::host_reading::HostReading;
use super::options::Margins;
use super::{health, memory, processes, raw};

/// The facts of a GPU that do not change while the library is open, so each pass reuses them.
#[derive(Clone, Debug)]
pub(super) struct DeviceState {
    pub(super) name: String,
    /// The warning that `name` is a placeholder, because the product name is not readable.
    pub(super) name_warning: Option<Warning>,
    pub(super) compute_capability: Option<(u32, u32)>,
    pub(super) multiprocessors: Option<u32>,
    pub(super) pci_bus_id: Option<String>,
    pub(super) numa_node: Option<u32>,
    /// The NUMA node of the GPU's own memory, if the host manages that memory (Grace).
    pub(super) memory_node: Option<u32>,
}

impl DeviceState {
    pub(super) fn read(
        device: &Handle<'_>,
        index: u32,
        host: &HostReading<'_>,
    ) -> Result<Self, NvmlError> {
        let capability = device.cuda_compute_capability().ok();
        let compute_capability = capability.and_then(|found| {
            Some((
                u32::try_from(found.major).ok()?,
                u32::try_from(found.minor).ok()?,
            ))
        });

        let pci_bus_id = device.pci_info().ok().map(|pci| short_bus_id(&pci.bus_id));
        let numa_node = pci_bus_id.as_ref().and_then(|bus_id| {
            // -1 means unknown and fails to parse.
            let path = host
                .roots
                .sys
                .join("bus/pci/devices")
                .join(bus_id)
                .join("numa_node");
            fs::read_to_string(path).ok()?.trim().parse().ok()
        });

        let (name, name_warning) = name(device, || identity::placeholder(index))?;
        Ok(Self {
            name,
            name_warning,
            compute_capability,
            multiprocessors: compute_capability
                .and_then(cores_per_multiprocessor)
                .and_then(|each| device.num_cores().ok()?.checked_div(each))
                .filter(|count| *count > 0),
            pci_bus_id,
            numa_node,
            memory_node: device.numa_node_id().ok(),
        })
    }
}

impl DeviceState {
    /// Whether the host can manage the GPU's memory as a NUMA node.
    ///
    /// Grace hosts have Hopper and newer GPUs. Older drivers also report a node for other cards,
    /// but that node is the host's own memory.
    fn can_be_host_managed(&self) -> bool {
        self.compute_capability
            .is_some_and(|capability| capability >= (9, 0))
    }
}

/// Returns the product name, or `placeholder` and a warning if the name is not readable.
///
/// A name that is too long or not text leaves the device usable. A fault of the device itself is an
/// error.
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
        Err(error) if super::library::is_library_wide(&error) => Err(error),
        Err(error) => Ok((
            placeholder(),
            Some(identity::unread_name(&format!("cannot be read ({error})"))),
        )),
    }
}

/// Returns the kernel's form of a PCI address.
///
/// NVML writes a domain of eight digits; the kernel and `lspci` write four digits.
pub(super) fn short_bus_id(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 && domain.starts_with("0000") => {
            format!("{}:{rest}", domain.get(4..).unwrap_or(domain))
        }
        _ => lower,
    }
}

/// Returns the CUDA cores of one multiprocessor, or `None` for a newer compute capability.
///
/// Source: CUDA C++ Programming Guide, "Compute Capabilities".
fn cores_per_multiprocessor(compute_capability: (u32, u32)) -> Option<u32> {
    match compute_capability {
        (6 | 8, 0) | (7, _) => Some(64),
        (6, 1 | 2) | (8..=10 | 12, _) => Some(128),
        _ => None,
    }
}

/// A whole GPU, with the state that its instances inherit.
pub(super) struct WholeGpu {
    pub(super) device: Device,
    pub(super) health: Health,
    pub(super) mode: ContextMode,
}

/// Reads a whole GPU that answers to its handle.
///
/// # Errors
/// The error affects the whole library.
pub(super) fn read(
    handle: &Handle<'_>,
    uuid: &str,
    index: u32,
    state: &DeviceState,
    host: &HostReading<'_>,
) -> Result<WholeGpu, NvmlError> {
    let mut facts = facts(uuid, index, state);
    let mut health = health::check(handle, &state.name);
    health.warnings.extend(state.name_warning.clone());
    let mode = health::mode(handle);
    let read_memory = || memory::read(handle, &state.name, host.roots);
    let result = read_memory().and_then(|before| {
        let holders = processes::read(handle, before.total);
        Ok((before.or_less_free(read_memory()?), holders))
    });

    let (reading, mut holders) = match result {
        Ok(result) => result,
        Err(error) if super::library::is_library_wide(&error) => return Err(error),
        Err(error) => {
            let why = health
                .unusable
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

    if let Some(node) = state.memory_node.filter(|_| state.can_be_host_managed()) {
        health
            .warnings
            .extend(memory::page_cache_warning(node, reading, host.roots));
    }

    facts.total_bytes = reading.total;
    facts.reserved_bytes = reading.reserved;

    if reading.unified {
        facts.kind = DeviceKind::UnifiedMemory;
    }

    host.describe(&mut holders.processes);
    let device = Device {
        facts,
        free_bytes: Some(reading.free),
        used_bytes: Some(reading.used),
        margin_bytes: margin(handle, reading.unified, host.margins),
        unusable: health
            .unusable
            .clone()
            .or_else(|| mode.check(&holders, reading.used)),
        warnings: health.warnings.clone(),
        processes: holders.processes,
    };

    Ok(WholeGpu {
        device,
        health,
        mode,
    })
}

/// Returns the memory to keep free: for the host if it shares the memory, and for a display.
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

fn facts(uuid: &str, index: u32, state: &DeviceState) -> DeviceFacts {
    DeviceFacts {
        uuid: uuid.to_owned(),
        index,
        name: state.name.clone(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::ZERO,
        reserved_bytes: None,
        compute_capability: state.compute_capability,
        multiprocessors: state.multiprocessors,
        parent_uuid: None,
        pci_bus_id: state.pci_bus_id.clone(),
        numa_node: state.numa_node,
    }
}

/// Returns a device whose memory was not readable.
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

/// Returns the facts of a device that answers no call.
pub(super) fn minimal_facts(
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
    fn bus_id_uses_kernel_form() {
        assert_eq!(short_bus_id("00000000:C1:00.0"), "0000:c1:00.0");
        assert_eq!(short_bus_id("00010000:41:00.0"), "00010000:41:00.0");
        assert_eq!(short_bus_id("0000:41:00.0"), "0000:41:00.0");
    }

    #[test]
    fn newer_capability_has_unknown_cores() {
        assert_eq!(cores_per_multiprocessor((9, 0)), Some(128));
        assert_eq!(cores_per_multiprocessor((8, 0)), Some(64));
        assert_eq!(cores_per_multiprocessor((13, 0)), None);
    }
}
