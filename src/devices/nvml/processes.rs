//! Who holds memory on a device.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Process, ProcessKind};
use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;

use super::raw::{self, ProcessList};

/// No Linux gives out a greater number (`PID_MAX_LIMIT`).
const GREATEST_PID: u32 = 1 << 22;

/// The processes of a device, and whether the list of compute processes could be read at all.
pub(super) struct Holders {
    pub(super) processes: Vec<Process>,
    pub(super) compute_known: bool,
}

/// Reads the three lists and merges them by PID; `total` bounds what can be believed of a process.
pub(super) fn read(device: &Device<'_>, total: Bytes) -> Holders {
    let list = |list| raw::processes(device, list).ok();
    let compute = list(ProcessList::Compute);
    let graphics = list(ProcessList::Graphics);
    let clients = list(ProcessList::Mps);
    let possible = |info: &ProcessInfo| (1..=GREATEST_PID).contains(&info.pid);
    let compute_known = compute
        .as_ref()
        .is_some_and(|list| list.iter().all(possible));

    let lists = [
        (ProcessKind::Mps, clients),
        (ProcessKind::Compute, compute),
        (ProcessKind::Graphics, graphics),
    ];

    let mut found: BTreeMap<u32, Process> = BTreeMap::new();
    for (kind, list) in lists {
        for info in list.unwrap_or_default().into_iter().filter(possible) {
            let used = believable(&info, total);
            let process = found
                .entry(info.pid)
                .or_insert_with(|| blank(info.pid, kind));
            // One process stands in several lists with the same figure.
            process.used_bytes = process.used_bytes.max(used);
        }
    }

    Holders {
        processes: found.into_values().collect(),
        compute_known,
    }
}

/// The bytes of a process; `None` where the driver does not say, or says what cannot be: early R535
/// drivers gave arrays of another layout, with the fields shuffled (NVIDIA/go-nvml#75), for which
/// entries without a possible PID are left out, too.
fn believable(info: &ProcessInfo, total: Bytes) -> Option<Bytes> {
    match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) if Bytes::new(bytes) <= total => Some(Bytes::new(bytes)),
        UsedGpuMemory::Used(_) | UsedGpuMemory::Unavailable => None,
    }
}

fn blank(pid: u32, kind: ProcessKind) -> Process {
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
