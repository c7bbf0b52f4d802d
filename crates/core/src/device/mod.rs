//! Devices: their facts, a reading of all of them, and their links.
//!
//! No type is named after a vendor. The sampler publishes a [`Snapshot`], `gpus --json` writes it,
//! and `--gpus FILE` reads it.

pub mod declared;
pub mod identity;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::wire_word::{WireWord, words};

/// The facts of a device that do not change: identity and capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceFacts {
    /// `GPU-...`, `MIG-...`, or `declared-N`: the key of the device everywhere.
    pub uuid: String,
    /// The driver's index, for people only: it is not stable across reboots.
    pub index: u32,
    /// The product name.
    pub name: String,
    /// The kind of device.
    pub kind: DeviceKind,
    /// All memory, as the driver counts it. Zero means "could not be read". It occurs only on a
    /// device that is `unusable`, and is written as `null`.
    #[serde(with = "null_for_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub total_bytes: Bytes,
    /// The driver's own reserve, if known. A process can allocate at most `total - reserved`.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub reserved_bytes: Option<Bytes>,
    /// Compute capability (major, minor), if known.
    pub compute_capability: Option<(u32, u32)>,
    /// Streaming multiprocessors, if known.
    pub multiprocessors: Option<u32>,
    /// The UUID of the whole GPU, for a MIG GPU instance.
    pub parent_uuid: Option<String>,
    /// PCI address `0000:41:00.0`, if it has one.
    pub pci_bus_id: Option<String>,
    /// NUMA node of the host side, if known.
    pub numa_node: Option<u32>,
}

impl DeviceFacts {
    /// Returns the total that CUDA shows a process: all memory without the driver's reserve.
    ///
    /// `None` if the reserve is unknown. Callers that need a figure then assume the whole total and
    /// report the assumption.
    pub fn cuda_total(&self) -> Option<Bytes> {
        self.reserved_bytes
            .and_then(|reserved| self.total_bytes.checked_sub(reserved))
    }

    /// Returns the compute capability as one comparable number: 9.0 is 90, 12.1 is 121.
    pub fn capability(&self) -> Option<u32> {
        self.compute_capability
            .map(|(major, minor)| major.saturating_mul(10).saturating_add(minor))
    }
}

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A whole GPU.
    Gpu,
    /// A MIG GPU instance: one process, no peers.
    MigInstance,
    /// A device that shares one pool with the host (GB10, Jetson). Never add it to host memory.
    UnifiedMemory,
}

/// The reading of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// The facts that do not change.
    #[serde(flatten, deserialize_with = "crate::strict_json::nested")]
    pub facts: DeviceFacts,
    /// Unallocated bytes; `None` if the reading failed. Then nothing is placed on the device.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub free_bytes: Option<Bytes>,
    /// Bytes in use, without the driver's reserve if that is known.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub used_bytes: Option<Bytes>,
    /// Bytes held back for the desktop or the host, by the rules of the reading (display attached,
    /// unified memory).
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub margin_bytes: Bytes,
    /// Why nothing may be placed on the device; `None` for a usable device.
    pub unusable: Option<Unusable>,
    /// Warnings that do not make the device unusable: an XID, rows that wait to be remapped, a
    /// change of MIG that waits for a reset, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The processes that hold memory on the device, if the driver reports them.
    pub processes: Vec<Process>,
}

impl Device {
    /// Returns a device with all its memory free, as `--gpus` declares it.
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
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: WireWord<UnusableReason>,
    /// A sentence for a person, with the fix if there is one.
    pub message: String,
}

impl Unusable {
    /// Whether the device has a fault. Without one, an administrator has chosen the state, or
    /// another program uses the device.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self.reason.known(),
            Some(
                UnusableReason::Prohibited
                    | UnusableReason::ExclusiveProcess
                    | UnusableReason::MigWithoutInstances
                    | UnusableReason::MigParent
                    | UnusableReason::Drain
                    | UnusableReason::Asleep
            )
        )
    }
}

words! {
    /// Why nothing may be placed on a device.
    pub enum UnusableReason {
        /// The compute mode is Prohibited.
        Prohibited = "prohibited",
        /// The compute mode is Exclusive and another process uses the device.
        ExclusiveProcess = "exclusive_process",
        /// MIG is enabled and the device has no GPU instance.
        MigWithoutInstances = "mig_without_instances",
        /// MIG is enabled; only the device's GPU instances can be used.
        MigParent = "mig_parent",
        /// The NVLink fabric is not ready.
        FabricNotReady = "fabric_not_ready",
        /// The device is being drained.
        Drain = "drain",
        /// The device has fallen off the bus.
        GpuLost = "gpu_lost",
        /// The device needs a reset.
        ResetRequired = "reset_required",
        /// Memory rows could not be remapped.
        RowRemapFailure = "row_remap_failure",
        /// The driver denies access.
        NoPermission = "no_permission",
        /// The driver is still starting the device.
        NotReady = "not_ready",
        /// The driver does not report the device's memory.
        MemoryUnreadable = "memory_unreadable",
        /// The device is suspended.
        Asleep = "asleep",
        /// A device with the same UUID is listed before this one.
        DuplicateUuid = "duplicate_uuid",
        /// A device that shares the same host memory is listed before this one.
        SharedPool = "shared_pool",
        /// Another model of the same question occupies the MIG instance.
        Taken = "taken",
    }
}

words! {
    /// The reason of a device's warning.
    pub enum WarningReason {
        /// The driver reported an XID.
        Xid = "xid",
        /// Memory rows wait to be remapped.
        RowRemapPending = "row_remap_pending",
        /// A change of the MIG mode waits for a reset.
        MigPending = "mig_pending",
        /// Memory in use is page cache of the host.
        PageCache = "page_cache",
        /// The product name cannot be read.
        NameUnreadable = "name_unreadable",
        /// A device with the same UUID is listed before this one.
        DuplicateUuid = "duplicate_uuid",
    }
}

/// A warning that does not make a device unusable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// A stable word: `xid`, `row_remap_pending`, `mig_pending`, `page_cache`, `name_unreadable`,
    /// `duplicate_uuid`, ...
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: WireWord<WarningReason>,
    /// A sentence for a person.
    pub message: String,
}

/// A process that holds memory on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Process {
    /// Process id as the driver reports it (of the host's PID namespace).
    pub pid: u32,
    /// Bytes it holds on the device; `None` if the driver does not report them.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub used_bytes: Option<Bytes>,
    /// How it uses the device.
    pub kind: ProcessKind,
    /// Command name, if `/proc` shows it.
    pub name: Option<String>,
    /// The owner's uid, if `/proc` shows it.
    pub uid: Option<u32>,
    /// The owner's name, if known.
    pub user: Option<String>,
    /// systemd unit, from its cgroup.
    pub unit: Option<String>,
    /// Container id (shortened), from its cgroup.
    pub container: Option<String>,
    /// cgroup path.
    pub cgroup: Option<String>,
    /// Start time in clock ticks since boot. With the pid, it identifies the process.
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

/// The kind of link between two devices, from near to far.
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
    /// No path between the devices of processes (MIG instances).
    None,
}

/// The link between a pair of devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// The UUID of one device.
    pub a: String,
    /// The UUID of the other device.
    pub b: String,
    /// The kind of link.
    pub kind: LinkKind,
    /// Parallel links of the fabric, if counted.
    pub lanes: Option<u32>,
    /// Whether one device can read the other's memory, if the driver reports it.
    pub peer_access: Option<bool>,
}

/// Host memory as placement sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostMemory {
    /// All host memory.
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub total_bytes: Bytes,
    /// Memory available without swapping (`MemAvailable`).
    #[cfg_attr(feature = "openapi", schema(value_type = u64))]
    pub available_bytes: Bytes,
}

/// A reading of all devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// The source of the reading: `nvml`, `declared`, `file`.
    pub source: String,
    /// The time of the reading.
    #[serde(with = "crate::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub sampled_at: SystemTime,
    /// Whether the reading is older than it should be because the driver does not answer in time.
    pub stale: bool,
    /// Driver version, if there is a driver.
    pub driver_version: Option<String>,
    /// The devices, unusable ones included, in the driver's order; MIG instances follow their GPU.
    pub devices: Vec<Device>,
    /// The links. A pair without a link counts as `System`.
    pub links: Vec<Link>,
    /// Host memory, if read.
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
