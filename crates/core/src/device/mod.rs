//! Devices as the path sees them: facts, one reading of all of them, and links.
//!
//! Nothing here is named after a vendor. The sampler publishes a [`Snapshot`], `gpus --json` writes
//! it, and `--gpus FILE` reads it.

pub mod declared;
pub mod identity;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// What does not change while a device is there: identity and abilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceFacts {
    /// `GPU-...`, `MIG-...`, or `declared-N`: the key of everything.
    pub uuid: String,
    /// The driver's index; not stable over reboots, for people only.
    pub index: u32,
    /// The product name.
    pub name: String,
    /// What kind of place it is.
    pub kind: DeviceKind,
    /// All memory, as the driver counts it. Zero stands only for "could not be read", only on a
    /// device that is `unusable`, and is written as `null`.
    #[serde(with = "null_for_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub total_bytes: Bytes,
    /// The driver's own reserve, where it is known; a process can be given `total - reserved` at
    /// the most.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub reserved_bytes: Option<Bytes>,
    /// Compute capability (major, minor), where it is known.
    pub compute_capability: Option<(u32, u32)>,
    /// Streaming multiprocessors, where known.
    pub multiprocessors: Option<u32>,
    /// For a MIG GPU instance: the UUID of the whole GPU.
    pub parent_uuid: Option<String>,
    /// PCI address `0000:41:00.0`, where it has one.
    pub pci_bus_id: Option<String>,
    /// NUMA node of the host side, where known.
    pub numa_node: Option<u32>,
}

impl DeviceFacts {
    /// What CUDA shows a process as the device's total: all but the driver's reserve. Where the
    /// reserve is unknown, `None`; callers that need a figure then assume the whole and say so.
    pub fn cuda_total(&self) -> Option<Bytes> {
        self.reserved_bytes
            .and_then(|reserved| self.total_bytes.checked_sub(reserved))
    }

    /// Compute capability as one comparable number: 9.0 is 90, 12.1 is 121.
    pub fn capability(&self) -> Option<u32> {
        self.compute_capability
            .map(|(major, minor)| major.saturating_mul(10).saturating_add(minor))
    }
}

/// What kind of place a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A whole GPU.
    Gpu,
    /// A MIG GPU instance: one process, no peers.
    MigInstance,
    /// One pool with the host (GB10, Jetson): never to be added to host memory.
    UnifiedMemory,
}

/// One device as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// What does not change.
    #[serde(flatten, deserialize_with = "crate::strict_json::nested")]
    pub facts: DeviceFacts,
    /// Bytes nobody has allocated; `None` where the reading failed (then nothing is placed here).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub free_bytes: Option<Bytes>,
    /// Bytes in use, the driver's reserve left out where it is known.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub used_bytes: Option<Bytes>,
    /// Bytes kept back for the desktop or the host, by the reading's own rules (display attached,
    /// unified memory).
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub margin_bytes: Bytes,
    /// Why nothing may be placed here; `None` for a usable device.
    pub unusable: Option<Unusable>,
    /// What forbids nothing and is still worth knowing: an XID, rows that wait to be remapped, a
    /// change of MIG that waits for a reset, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Who holds memory here, as far as the driver tells.
    pub processes: Vec<Process>,
}

impl Device {
    /// A device of which only the facts are known, all of it free: what `--gpus` declares.
    pub fn idle(facts: DeviceFacts) -> Self {
        let free = facts.cuda_total().unwrap_or(facts.total_bytes);
        Self {
            facts,
            free_bytes: Some(free),
            used_bytes: Some(Bytes::ZERO),
            margin_bytes: Bytes::ZERO,
            unusable: None,
            warnings: Vec::new(),
            processes: Vec::new(),
        }
    }
}

/// Why nothing may be placed on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unusable {
    /// A stable word: `prohibited`, `exclusive_process`, `mig_without_instances`, `mig_parent`,
    /// `fabric_not_ready`, `drain`, `gpu_lost`, `reset_required`, `row_remap_failure`,
    /// `no_permission`, `not_ready`, `memory_unreadable`, `asleep`, `duplicate_uuid`, ...
    pub reason: String,
    /// A sentence for a person, with the cure where there is one.
    pub message: String,
}

impl Unusable {
    /// Whether something is wrong, rather than chosen by an administrator or taken by another
    /// program.
    pub fn is_fault(&self) -> bool {
        ![
            "prohibited",
            "exclusive_process",
            "mig_without_instances",
            "mig_parent",
            "drain",
            "asleep",
        ]
        .contains(&self.reason.as_str())
    }
}

/// Something about a device that forbids nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// A stable word: `xid`, `row_remap_pending`, `mig_pending`, `page_cache`, `name_unreadable`,
    /// `duplicate_uuid`, ...
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
}

/// A process that holds memory on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Process {
    /// Process id as the driver gives it (of the host's PID namespace).
    pub pid: u32,
    /// Bytes it holds here, `None` where the driver does not say.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub used_bytes: Option<Bytes>,
    /// How it uses the device.
    pub kind: ProcessKind,
    /// Command name, where `/proc` shows it.
    pub name: Option<String>,
    /// Owner's uid, where `/proc` shows it.
    pub uid: Option<u32>,
    /// Owner's name, where it can be told.
    pub user: Option<String>,
    /// systemd unit, from its cgroup.
    pub unit: Option<String>,
    /// Container id (shortened), from its cgroup.
    pub container: Option<String>,
    /// cgroup path.
    pub cgroup: Option<String>,
    /// When it started, in clock ticks since boot: with the pid, its identity.
    pub start_ticks: Option<u64>,
}

/// How a process uses a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// A compute context.
    Compute,
    /// Graphics (a desktop).
    Graphics,
    /// A client of the Multi-Process Service.
    Mps,
}

/// How two devices are joined, from near to far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// NVLink or another direct fabric.
    Fabric,
    /// One PCIe switch.
    PcieSwitch,
    /// Several PCIe switches.
    PcieSwitches,
    /// One host bridge.
    HostBridge,
    /// One NUMA node.
    NumaNode,
    /// Across NUMA nodes.
    System,
    /// No path at all between processes' devices (MIG instances).
    None,
}

/// How one pair of devices is joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// One device's UUID.
    pub a: String,
    /// The other's.
    pub b: String,
    /// How they are joined.
    pub kind: LinkKind,
    /// Parallel links of the fabric, where they were counted.
    pub lanes: Option<u32>,
    /// Whether one can read the other's memory, where the driver says.
    pub peer_access: Option<bool>,
}

/// Host memory as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostMemory {
    /// All of it.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub total_bytes: Bytes,
    /// What can be had without swapping (`MemAvailable`).
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub available_bytes: Bytes,
}

/// One reading of all devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// Where it comes from: `nvml`, `declared`, `file`.
    pub source: String,
    /// When it was taken.
    #[serde(with = "crate::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub sampled_at: SystemTime,
    /// Whether it is older than it should be, because the driver does not answer in time.
    pub stale: bool,
    /// Driver version, where there is one.
    pub driver_version: Option<String>,
    /// The devices, unusable ones included, in the driver's order; MIG instances follow their GPU.
    pub devices: Vec<Device>,
    /// How they are wired; a pair that is missing is not known to be joined better than `System`.
    pub links: Vec<Link>,
    /// Host memory, where read.
    pub host: Option<HostMemory>,
}

mod null_for_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::bytes::Bytes;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Some(*bytes)
            .filter(|bytes| *bytes > Bytes::ZERO)
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(Bytes::ZERO))
    }
}
