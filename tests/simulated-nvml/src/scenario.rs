//! The scenario: the machine that the simulated library pretends to sit on, and what is wrong with
//! it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `nvmlReturn_t` values that scenarios use.
pub mod codes {
    /// `NVML_ERROR_UNINITIALIZED`
    pub const UNINITIALIZED: u32 = 1;
    /// `NVML_ERROR_INVALID_ARGUMENT`
    pub const INVALID_ARGUMENT: u32 = 2;
    /// `NVML_ERROR_NOT_SUPPORTED`
    pub const NOT_SUPPORTED: u32 = 3;
    /// `NVML_ERROR_NO_PERMISSION`
    pub const NO_PERMISSION: u32 = 4;
    /// `NVML_ERROR_NOT_FOUND`
    pub const NOT_FOUND: u32 = 6;
    /// `NVML_ERROR_INSUFFICIENT_SIZE`
    pub const INSUFFICIENT_SIZE: u32 = 7;
    /// `NVML_ERROR_DRIVER_NOT_LOADED`
    pub const DRIVER_NOT_LOADED: u32 = 9;
    /// `NVML_ERROR_TIMEOUT`
    pub const TIMEOUT: u32 = 10;
    /// `NVML_ERROR_FUNCTION_NOT_FOUND`
    pub const FUNCTION_NOT_FOUND: u32 = 13;
    /// `NVML_ERROR_GPU_IS_LOST`
    pub const GPU_IS_LOST: u32 = 15;
    /// `NVML_ERROR_RESET_REQUIRED`
    pub const RESET_REQUIRED: u32 = 16;
    /// `NVML_ERROR_OPERATING_SYSTEM`
    pub const OPERATING_SYSTEM: u32 = 17;
    /// `NVML_ERROR_LIB_RM_VERSION_MISMATCH`
    pub const LIB_RM_VERSION_MISMATCH: u32 = 18;
    /// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`
    pub const ARGUMENT_VERSION_MISMATCH: u32 = 25;
    /// `NVML_ERROR_UNKNOWN`
    pub const UNKNOWN: u32 = 999;
}

/// What a call does instead of, or before, answering.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The code it returns.
    pub code: Option<u32>,
    /// Whether it blocks until a scenario without this stands in the file.
    pub hang: bool,
    /// How long it takes.
    pub slow_ms: u64,
}

impl Fault {
    /// Returns `code`.
    pub fn code(code: u32) -> Self {
        Self {
            code: Some(code),
            ..Self::default()
        }
    }

    /// Blocks until the scenario changes.
    pub fn hang() -> Self {
        Self {
            hang: true,
            ..Self::default()
        }
    }

    /// Takes `milliseconds`, then answers as usual.
    pub fn slow(milliseconds: u64) -> Self {
        Self {
            slow_ms: milliseconds,
            ..Self::default()
        }
    }
}

/// The whole machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What `nvmlSystemGetDriverVersion` says.
    pub driver_version: String,
    /// The GPUs in the driver's order.
    pub devices: Vec<Gpu>,
    /// Faults of calls on every device and of calls without one, by C symbol; `*` is every call but
    /// `nvmlShutdown`.
    pub faults: BTreeMap<String, Fault>,
    /// PCIe common ancestor (10 one switch … 50 system) of pairs by their place in `devices`; 50
    /// where missing.
    pub ancestors: Vec<(usize, usize, u32)>,
    /// Whether GPUs can read one another's memory.
    pub peer_access: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            driver_version: "590.44.01".to_owned(),
            devices: Vec::new(),
            faults: BTreeMap::new(),
            ancestors: Vec::new(),
            peer_access: false,
        }
    }
}

impl Scenario {
    /// A healthy machine with these GPUs; those left without UUID or PCI address get one by their
    /// place.
    pub fn of(devices: impl IntoIterator<Item = Gpu>) -> Self {
        let mut scenario = Self {
            devices: devices.into_iter().collect(),
            ..Self::default()
        };

        for (place, gpu) in scenario.devices.iter_mut().enumerate() {
            if gpu.uuid.is_empty() {
                gpu.uuid = format!("GPU-00000000-0000-4000-8000-{place:012x}");
            }
            if gpu.pci_bus_id.is_empty() {
                gpu.pci_bus_id = format!("00000000:{:02X}:00.0", place + 1);
            }
        }

        scenario
    }

    /// `count` GPUs of one kind.
    pub fn repeated(count: usize, gpu: &Gpu) -> Self {
        Self::of(std::iter::repeat_n(gpu.clone(), count))
    }

    /// A fault of one call, by its C symbol.
    #[must_use]
    pub fn fault(mut self, symbol: &str, fault: Fault) -> Self {
        self.faults.insert(symbol.to_owned(), fault);
        self
    }

    /// All GPUs on NVSwitches: `links` links each, every one to a switch.
    #[must_use]
    pub fn nvswitch(mut self, links: usize) -> Self {
        self.peer_access = true;
        for gpu in &mut self.devices {
            gpu.links = vec![
                NvLink {
                    remote_type: 2,
                    remote_pci_bus_id: "00000000:00:00.0".to_owned()
                };
                links
            ];
        }

        self
    }
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// Filled in by [`Scenario::of`] where empty.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// NVML's spelling with an eight-digit domain; filled in by [`Scenario::of`] where empty.
    pub pci_bus_id: String,
    /// Its memory.
    pub memory: Memory,
    /// CUDA compute capability.
    pub compute_capability: (i32, i32),
    /// CUDA cores; `None` answers NOT_SUPPORTED.
    pub cores: Option<u32>,
    /// 0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process.
    pub compute_mode: u32,
    /// `None` on cards without MIG.
    pub mig: Option<Mig>,
    /// Who holds it.
    pub processes: Vec<Process>,
    /// Whether processes start so fast that no buffer is large enough for the list
    /// (INSUFFICIENT_SIZE).
    pub process_burst: bool,
    /// Whether an empty buffer for the list is answered with SUCCESS, as some drivers do.
    pub empty_buffer_succeeds: bool,
    /// Whether a desktop runs on it.
    pub display_active: bool,
    /// Its own memory's NUMA node (Grace); `None` answers NOT_SUPPORTED.
    pub numa_node: Option<u32>,
    /// NVLink fabric registration; `None` answers NOT_SUPPORTED.
    pub fabric: Option<Fabric>,
    /// Row remapping; `None` answers NOT_SUPPORTED.
    pub remapped_rows: Option<RemappedRows>,
    /// Whether it is being drained.
    pub drained: bool,
    /// Field 230, the recovery action (0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset).
    pub recovery_action: Option<u32>,
    /// Its active NVLinks, from link 0 on.
    pub links: Vec<NvLink>,
    /// XIDs since the machine started; appending one is an event.
    pub events: Vec<Event>,
    /// Faults of calls on this GPU, by C symbol; `*` is every call on it.
    pub faults: BTreeMap<String, Fault>,
}

impl Gpu {
    /// A process on it, whose bytes count as used.
    #[must_use]
    pub fn process(mut self, pid: u32, used_bytes: u64, kind: HolderKind) -> Self {
        self.memory.used_bytes += used_bytes;
        self.processes.push(Process {
            pid,
            used_bytes: Some(used_bytes),
            kinds: vec![kind],
        });

        self
    }

    /// With this many bytes in use by nobody that can be named.
    #[must_use]
    pub fn used(mut self, used_bytes: u64) -> Self {
        self.memory.used_bytes = used_bytes;
        self
    }

    /// With a fault of one call.
    #[must_use]
    pub fn fault(mut self, symbol: &str, fault: Fault) -> Self {
        self.faults.insert(symbol.to_owned(), fault);
        self
    }

    /// Fallen off the bus: everything answers GPU_IS_LOST.
    #[must_use]
    pub fn lost(self) -> Self {
        self.fault("*", Fault::code(codes::GPU_IS_LOST))
    }

    /// With a compute mode.
    #[must_use]
    pub fn compute_mode(mut self, mode: u32) -> Self {
        self.compute_mode = mode;
        self
    }

    /// MIG enabled with these slots.
    #[must_use]
    pub fn mig(mut self, slots: impl IntoIterator<Item = Option<MigInstance>>) -> Self {
        self.mig = Some(Mig {
            enabled: true,
            pending: true,
            slots: slots.into_iter().collect(),
        });
        self
    }
}

/// A memory reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// NVML's total.
    pub total_bytes: u64,
    /// The driver's reserve: on its own in v2, inside `used` in v1.
    pub reserved_bytes: u64,
    /// Allocated, without the reserve.
    pub used_bytes: u64,
    /// Allocated besides from the moment at which compute processes are first listed: what a
    /// process takes between two calls of one pass.
    pub taken_at_listing_bytes: u64,
    /// What v2 answers instead of a reading (13 on old kernels, 3 on integrated parts).
    pub v2_code: Option<u32>,
    /// What v1 answers instead of a reading.
    pub v1_code: Option<u32>,
}

/// MIG as the card has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mig {
    /// In force now.
    pub enabled: bool,
    /// After the next reset.
    pub pending: bool,
    /// MIG devices by index; `None` is an empty slot.
    pub slots: Vec<Option<MigInstance>>,
}

/// A compute instance of a GPU instance: what NVML calls a MIG device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MigInstance {
    /// `MIG-...`
    pub uuid: String,
    /// `NVIDIA H100 80GB HBM3 MIG 3g.40gb`
    pub name: String,
    /// Shared by all compute instances of one GPU instance.
    pub gpu_instance: u32,
    /// Within the GPU instance.
    pub compute_instance: u32,
    /// The GPU instance's memory, the same in each of its compute instances.
    pub memory: Memory,
    /// Streaming multiprocessors of the compute instance.
    pub multiprocessors: u32,
    /// Who holds it.
    pub processes: Vec<Process>,
}

/// A process that NVML lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Host PID.
    pub pid: u32,
    /// `None` is NVML's all-ones "not available".
    pub used_bytes: Option<u64>,
    /// The lists it stands in.
    pub kinds: Vec<HolderKind>,
}

/// A process list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderKind {
    /// `nvmlDeviceGetComputeRunningProcesses`
    Compute,
    /// `nvmlDeviceGetGraphicsRunningProcesses`
    Graphics,
    /// `nvmlDeviceGetMPSComputeRunningProcesses`
    Mps,
}

/// NVLink fabric registration (NVSwitch machines).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fabric {
    /// 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// With state 3: 0 is success.
    pub status: u32,
}

/// Row remapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemappedRows {
    /// A reset is wanted.
    pub pending: bool,
    /// The card is to be replaced.
    pub failure: bool,
}

/// One active NVLink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvLink {
    /// 0 GPU, 1 NPU, 2 switch, 255 unknown.
    pub remote_type: u32,
    /// PCI address of the other end.
    pub remote_pci_bus_id: String,
}

/// An XID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// Its number.
    pub xid: u64,
}
