//! Whether a device may be used: what memory figures do not say.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::ComputeMode;
use nvml_wrapper::error::NvmlError;

use super::processes::Holders;
use super::raw;
use crate::bytes::Bytes;
use crate::devices::{Process, ProcessKind, Unusable};

/// In an exclusive mode, more than this in use by nobody listed is taken for a holder in another PID namespace. Less
/// is what an idle card shows.
const UNEXPLAINED: Bytes = Bytes::mib(128);
/// The one holder of an exclusive GPU that lets others in.
const MPS_SERVER: &str = "nvidia-cuda-mps-server";

pub(super) fn unusable(reason: &str, message: impl Into<String>) -> Unusable {
    Unusable { reason: reason.to_owned(), message: message.into() }
}

/// What an error on one device says about that device.
pub(super) fn from_error(error: &NvmlError, call: &str) -> Unusable {
    match error {
        NvmlError::GpuLost => {
            unusable("gpu_lost", "the GPU has fallen off the bus; reset it or reboot (see XID 79 in dmesg)")
        }
        NvmlError::ResetRequired => unusable("reset_required", "the GPU must be reset: nvidia-smi --gpu-reset"),
        NvmlError::NoPermission | NvmlError::OperatingSystem => unusable(
            "no_permission",
            format!("{call} was refused; check the device node's mode and the unit's DeviceAllow="),
        ),
        NvmlError::UnexpectedVariant(27) => unusable("not_ready", "the driver is still starting this GPU; try again"),
        other => unusable("memory_unreadable", format!("{call} failed: {other}")),
    }
}

/// Whether something forbids new work on a whole GPU that answers; the first reason found.
pub(super) fn check(device: &Device<'_>, holders: &Holders, used: Option<Bytes>) -> Option<Unusable> {
    recovery(device)
        .or_else(|| rows(device))
        .or_else(|| draining(device))
        .or_else(|| fabric(device))
        .or_else(|| mode(device, holders, used))
}

fn recovery(device: &Device<'_>) -> Option<Unusable> {
    match raw::recovery_action(device) {
        Ok(1 | 4) => Some(unusable("reset_required", "the driver asks for a reset: nvidia-smi --gpu-reset")),
        Ok(2) => Some(unusable("reset_required", "the driver asks for a reboot of the host")),
        Ok(3) => Some(unusable("drain", "the driver asks that work with peers of this GPU end")),
        // Field absent before R560, or a value newer than this program.
        Ok(_) | Err(_) => None,
    }
}

fn rows(device: &Device<'_>) -> Option<Unusable> {
    match raw::remapped_rows(device) {
        Ok((_, true)) => Some(unusable("row_remap_failure", "memory rows could not be remapped; replace the card")),
        // A pending remap harms neither running nor new work.
        Ok((_, false)) | Err(_) => None,
    }
}

fn draining(device: &Device<'_>) -> Option<Unusable> {
    device
        .is_drain_enabled(None)
        .is_ok_and(|draining| draining)
        .then(|| unusable("drain", "the GPU is being drained; end it with nvidia-smi drain -m 0"))
}

/// On NVSwitch machines CUDA fails (802, "system not yet initialized") until the fabric manager has done its work,
/// while memory already looks free. Not supported is normal for cards without a switch.
fn fabric(device: &Device<'_>) -> Option<Unusable> {
    match raw::fabric(device) {
        Ok((1 | 2, _)) => {
            let cure = "the NVLink fabric is not ready; is nvidia-fabricmanager running?";
            Some(unusable("fabric_not_ready", cure))
        }
        Ok((3, status)) if status != 0 => {
            let text = format!("the NVLink fabric refused this GPU (status {status}); see nvidia-fabricmanager's log");
            Some(unusable("fabric_not_ready", text))
        }
        Ok(_) | Err(_) => None,
    }
}

fn mode(device: &Device<'_>, holders: &Holders, used: Option<Bytes>) -> Option<Unusable> {
    match device.compute_mode() {
        Ok(ComputeMode::Prohibited) => {
            Some(unusable("prohibited", "compute mode is Prohibited; change it with nvidia-smi -c 0"))
        }
        Ok(ComputeMode::ExclusiveProcess | ComputeMode::ExclusiveThread) => exclusive(holders, used),
        Ok(ComputeMode::Default)
        | Err(NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_)) => None,
        Err(error) => Some(from_error(&error, "reading the compute mode")),
    }
}

/// In an exclusive mode one process may hold a context, however much memory is free.
fn exclusive(holders: &Holders, used: Option<Bytes>) -> Option<Unusable> {
    let refused = |message: String| Some(unusable("exclusive_process", message));
    if !holders.compute_known {
        return refused("compute mode is Exclusive and the process list is unreadable: it may be held".to_owned());
    }
    if holders.processes.iter().any(|process| process.name.as_deref().is_some_and(is_mps_server)) {
        return None;
    }
    if let Some(holder) = holders.processes.iter().find(|process| process.kind != ProcessKind::Graphics) {
        return refused(format!("compute mode is Exclusive and {} holds it", who(holder)));
    }
    let explained: Bytes = holders.processes.iter().filter_map(|process| process.used_bytes).sum();
    let unexplained = used.and_then(|used| used.less(explained)).is_none_or(|rest| rest > UNEXPLAINED);
    if unexplained {
        refused("compute mode is Exclusive and memory is held by a process that is not visible".to_owned())
    } else {
        None
    }
}

/// `/proc/PID/comm` cuts a name after fifteen bytes.
fn is_mps_server(name: &str) -> bool {
    name == MPS_SERVER || MPS_SERVER.get(..15).is_some_and(|short| name == short)
}

fn who(process: &Process) -> String {
    match &process.name {
        Some(name) => format!("{name} (pid {})", process.pid),
        None => format!("pid {}", process.pid),
    }
}
