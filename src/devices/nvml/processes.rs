//! The processes that hold memory on a device.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Process, ProcessKind};
use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;

use super::raw::{self, ProcessList};

/// The largest PID on Linux (`PID_MAX_LIMIT`).
const MAX_PID: u32 = 1 << 22;

/// The processes of a device.
pub(super) struct Holders {
    pub(super) processes: Vec<Process>,
    /// Whether the list of compute processes was readable.
    pub(super) compute_known: bool,
}

/// Reads the three lists and merges them by PID. A process cannot use more than `total`.
pub(super) fn read(device: &Device<'_>, total: Bytes) -> Holders {
    let compute = raw::processes(device, ProcessList::Compute).ok();
    let graphics = raw::processes(device, ProcessList::Graphics).ok();
    let mps_clients = raw::processes(device, ProcessList::Mps).ok();
    let compute_known = compute
        .as_ref()
        .is_some_and(|list| list.iter().all(has_valid_pid));

    let lists = [
        (ProcessKind::Mps, mps_clients),
        (ProcessKind::Compute, compute),
        (ProcessKind::Graphics, graphics),
    ];

    let mut found: BTreeMap<u32, Process> = BTreeMap::new();
    for (kind, list) in lists {
        for info in list.unwrap_or_default().into_iter().filter(has_valid_pid) {
            let used = plausible_bytes(&info, total);
            let process = found
                .entry(info.pid)
                .or_insert_with(|| new_process(info.pid, kind));
            // A process can be in several lists with the same figure.
            process.used_bytes = process.used_bytes.max(used);
        }
    }

    Holders {
        processes: found.into_values().collect(),
        compute_known,
    }
}

/// Whether a PID is possible. See [`plausible_bytes`] for the drivers that report others.
fn has_valid_pid(info: &ProcessInfo) -> bool {
    (1..=MAX_PID).contains(&info.pid)
}

/// Returns the bytes of a process, or `None` if the driver reports none or an impossible figure.
///
/// Early R535 drivers returned arrays of another layout, with the fields shuffled
/// (NVIDIA/go-nvml#75). For the same reason, entries with an impossible PID are left out.
fn plausible_bytes(info: &ProcessInfo, total: Bytes) -> Option<Bytes> {
    match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) if Bytes::new(bytes) <= total => Some(Bytes::new(bytes)),
        UsedGpuMemory::Used(_) | UsedGpuMemory::Unavailable => None,
    }
}

fn new_process(pid: u32, kind: ProcessKind) -> Process {
    Process {
        pid,
        used_bytes: None,
        kind,
        name: None,
        uid: None,
        user: None,
        unit: None,
        container: None,
        cgroup: None,
        start_ticks: None,
    }
}
