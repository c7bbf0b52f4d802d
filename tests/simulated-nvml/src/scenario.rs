//! The scenario: the simulated machine and its faults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The `nvmlReturn_t` values that scenarios use.
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

/// The behavior of a call instead of, or before, its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The code that the call returns.
    pub code: Option<u32>,
    /// Whether the call blocks until the scenario file has no hang for it.
    pub hang: bool,
    /// The duration of the call, in milliseconds.
    pub slow_ms: u64,
}

impl Fault {
    /// A fault that returns `code`.
    pub fn code(code: u32) -> Self {
        Self {
            code: Some(code),
            ..Self::default()
        }
    }

    /// A fault that blocks until the scenario changes.
    pub fn hang() -> Self {
        Self {
            hang: true,
            ..Self::default()
        }
    }

    /// A fault that delays the usual answer by `milliseconds`.
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
    /// The answer of `nvmlSystemGetDriverVersion`.
    pub driver_version: String,
    /// The GPUs in the driver's order.
    pub devices: Vec<Gpu>,
    /// The faults of calls on every device and of calls without a device, by C symbol.
    ///
    /// `*` means every call except `nvmlShutdown`.
    pub faults: BTreeMap<String, Fault>,
    /// The PCIe common ancestor (10 one switch … 50 system) of pairs, by their indices.
    ///
    /// A pair that is not listed has 50.
    pub ancestors: Vec<(usize, usize, u32)>,
    /// Whether the GPUs can read each other's memory.
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
    /// Returns a healthy machine with these GPUs.
    ///
    /// A GPU without a UUID or PCI address gets one by its index.
    pub fn of(devices: impl IntoIterator<Item = Gpu>) -> Self {
        let mut scenario = Self {
            devices: devices.into_iter().collect(),
            ..Self::default()
        };

        for (index, gpu) in scenario.devices.iter_mut().enumerate() {
            if gpu.uuid.is_empty() {
                gpu.uuid = format!("GPU-00000000-0000-4000-8000-{index:012x}");
            }
            if gpu.pci_bus_id.is_empty() {
                gpu.pci_bus_id = format!("00000000:{:02X}:00.0", index + 1);
            }
        }

        scenario
    }

    /// Returns a machine with `count` GPUs of one kind.
    pub fn repeated(count: usize, gpu: &Gpu) -> Self {
        Self::of(std::iter::repeat_n(gpu.clone(), count))
    }

    /// Sets a fault of one call, by its C symbol.
    #[must_use]
    pub fn fault(mut self, symbol: &str, fault: Fault) -> Self {
        self.faults.insert(symbol.to_owned(), fault);
        self
    }

    /// Connects all GPUs to NVSwitches with `links` links each.
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
    /// The UUID. [`Scenario::of`] fills it in if it is empty.
    pub uuid: String,
    /// The product name.
    pub name: String,
    /// The PCI address in NVML's form with an eight-digit domain.
    ///
    /// [`Scenario::of`] fills it in if it is empty.
    pub pci_bus_id: String,
    /// The memory.
    pub memory: Memory,
    /// The CUDA compute capability.
    pub compute_capability: (i32, i32),
    /// The number of CUDA cores; `None` answers NOT_SUPPORTED.
    pub cores: Option<u32>,
    /// The compute mode: 0 default, 1 exclusive thread, 2 prohibited, 3 exclusive process.
    pub compute_mode: u32,
    /// The MIG state; `None` on cards without MIG.
    pub mig: Option<Mig>,
    /// The processes on the GPU.
    pub processes: Vec<Process>,
    /// Whether processes start so fast that every buffer is too small (INSUFFICIENT_SIZE).
    pub process_burst: bool,
    /// Whether a list call with an empty buffer answers SUCCESS, as with some drivers.
    pub empty_buffer_succeeds: bool,
    /// Whether the GPU drives a display.
    pub display_active: bool,
    /// The NUMA node of the GPU's own memory (Grace); `None` answers NOT_SUPPORTED.
    pub numa_node: Option<u32>,
    /// The NVLink fabric registration; `None` answers NOT_SUPPORTED.
    pub fabric: Option<Fabric>,
    /// The row remapping state; `None` answers NOT_SUPPORTED.
    pub remapped_rows: Option<RemappedRows>,
    /// Whether the GPU is being drained.
    pub drained: bool,
    /// Field 230, the recovery action (0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset).
    pub recovery_action: Option<u32>,
    /// The active NVLinks, from link 0 on.
    pub links: Vec<NvLink>,
    /// The XIDs since the machine started. Appending one causes an event.
    pub events: Vec<Event>,
    /// The faults of calls on this GPU, by C symbol. `*` means every call on it.
    pub faults: BTreeMap<String, Fault>,
}

impl Gpu {
    /// Adds a process, whose bytes count as used.
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

    /// Sets the used bytes, without a listed process.
    #[must_use]
    pub fn used(mut self, used_bytes: u64) -> Self {
        self.memory.used_bytes = used_bytes;
        self
    }

    /// Sets a fault of one call.
    #[must_use]
    pub fn fault(mut self, symbol: &str, fault: Fault) -> Self {
        self.faults.insert(symbol.to_owned(), fault);
        self
    }

    /// Makes every call on the GPU answer GPU_IS_LOST, as after a fall off the bus.
    #[must_use]
    pub fn lost(self) -> Self {
        self.fault("*", Fault::code(codes::GPU_IS_LOST))
    }

    /// Sets the compute mode.
    #[must_use]
    pub fn compute_mode(mut self, mode: u32) -> Self {
        self.compute_mode = mode;
        self
    }

    /// Enables MIG with these slots.
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

/// The memory of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// The total in NVML.
    pub total_bytes: u64,
    /// The driver's reserve: separate in v2, part of `used` in v1.
    pub reserved_bytes: u64,
    /// The allocated bytes, without the reserve.
    pub used_bytes: u64,
    /// The additional bytes that are allocated once the compute processes were listed.
    ///
    /// They simulate memory that a process takes between two calls of one pass.
    pub taken_at_listing_bytes: u64,
    /// The code that v2 returns instead of a reading (13 on old kernels, 3 on integrated GPUs).
    pub v2_code: Option<u32>,
    /// The code that v1 returns instead of a reading.
    pub v1_code: Option<u32>,
}

/// The MIG state of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mig {
    /// Whether MIG is enabled now.
    pub enabled: bool,
    /// Whether MIG is enabled after the next reset.
    pub pending: bool,
    /// The MIG devices by index; `None` is an empty slot.
    pub slots: Vec<Option<MigInstance>>,
}

/// A compute instance of a GPU instance, which NVML calls a MIG device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MigInstance {
    /// The UUID, `MIG-...`.
    pub uuid: String,
    /// The name, such as `NVIDIA H100 80GB HBM3 MIG 3g.40gb`.
    pub name: String,
    /// The id of the GPU instance, the same in all its compute instances.
    pub gpu_instance: u32,
    /// The id of the compute instance within the GPU instance.
    pub compute_instance: u32,
    /// The memory of the GPU instance, the same in all its compute instances.
    pub memory: Memory,
    /// The number of streaming multiprocessors of the compute instance.
    pub multiprocessors: u32,
    /// The processes on the instance.
    pub processes: Vec<Process>,
}

/// A process that NVML lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// The PID on the host.
    pub pid: u32,
    /// The used bytes; `None` is NVML's all-ones "not available".
    pub used_bytes: Option<u64>,
    /// The lists that contain the process.
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

/// The NVLink fabric registration of a GPU on an NVSwitch machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fabric {
    /// The state: 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// The status with state 3; 0 is success.
    pub status: u32,
}

/// The row remapping state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemappedRows {
    /// Whether the next reset remaps rows.
    pub pending: bool,
    /// Whether remapping failed and the card must be replaced.
    pub failure: bool,
}

/// One active NVLink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvLink {
    /// The type of the remote end: 0 GPU, 1 NPU, 2 switch, 255 unknown.
    pub remote_type: u32,
    /// The PCI address of the remote end.
    pub remote_pci_bus_id: String,
}

/// An XID event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// The number of the XID.
    pub xid: u64,
}
