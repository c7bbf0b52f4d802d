//! Whether a device may be used: what memory figures do not say.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Process, ProcessKind, Unusable, UnusableReason, Warning, WarningReason};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::ComputeMode;
use nvml_wrapper::error::NvmlError;

use super::processes::Holders;
use super::raw;

/// In an exclusive mode, more than this in use by nobody listed is taken for a holder in another
/// PID namespace. Less is what an idle card shows.
const UNEXPLAINED: Bytes = Bytes::mib(128);
/// The one holder of an exclusive GPU that lets others in.
const MPS_SERVER: &str = "nvidia-cuda-mps-server";

pub(super) fn unusable(reason: UnusableReason, message: impl Into<String>) -> Unusable {
    Unusable {
        reason: reason.into(),
        message: message.into(),
    }
}

/// What an error on one device says about that device.
pub(super) fn from_error(error: &NvmlError, call: &str) -> Unusable {
    match error {
        NvmlError::GpuLost => unusable(
            UnusableReason::GpuLost,
            "the GPU has fallen off the bus; reset it or reboot (see XID 79 in dmesg)",
        ),
        NvmlError::ResetRequired => unusable(
            UnusableReason::ResetRequired,
            "the GPU must be reset: nvidia-smi --gpu-reset",
        ),
        NvmlError::NoPermission | NvmlError::OperatingSystem => unusable(
            UnusableReason::NoPermission,
            format!("{call} was refused; check the device node's mode and the unit's DeviceAllow="),
        ),
        NvmlError::UnexpectedVariant(27) => unusable(
            UnusableReason::NotReady,
            "the driver is still starting this GPU; try again",
        ),
        other => unusable(
            UnusableReason::MemoryUnreadable,
            format!("{call} failed: {other}"),
        ),
    }
}

/// What the driver says of a whole GPU's state, memory and holders apart.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The first thing found that forbids new work, on the GPU and on each of its instances.
    pub(super) forbids: Option<Unusable>,
    /// What forbids nothing.
    pub(super) warnings: Vec<Warning>,
    /// Whether the driver itself tells when the GPU needs a reset.
    pub(super) self_diagnosing: bool,
}

/// The state of the GPU called `name`.
pub(super) fn check(device: &Device<'_>, name: &str) -> Health {
    let mut health = Health::default();

    // Absent before R560; a value newer than this program says nothing to it.
    let action = raw::recovery_action(device)
        .ok()
        .filter(|action| *action <= 4);
    health.self_diagnosing = action.is_some();
    health.forbids = action.and_then(recovery);
    let rows = rows(device, name);
    if rows == Some((true, false)) {
        let message = "memory rows wait to be remapped by the next reset; work runs on unharmed";
        health
            .warnings
            .push(warning(WarningReason::RowRemapPending, message));
    }

    let failure = || {
        rows.is_some_and(|(_, failed)| failed).then(|| {
            unusable(
                UnusableReason::RowRemapFailure,
                "memory rows could not be remapped; replace the card",
            )
        })
    };

    health.forbids = health
        .forbids
        .or_else(failure)
        .or_else(|| draining(device))
        .or_else(|| fabric(device));

    health
}

pub(super) fn warning(reason: WarningReason, message: impl Into<String>) -> Warning {
    Warning {
        reason: reason.into(),
        message: message.into(),
    }
}

fn recovery(action: u32) -> Option<Unusable> {
    match action {
        1 | 4 => Some(unusable(
            UnusableReason::ResetRequired,
            "the driver asks for a reset: nvidia-smi --gpu-reset",
        )),
        2 => Some(unusable(
            UnusableReason::ResetRequired,
            "the driver asks for a reboot of the host",
        )),
        3 => Some(unusable(
            UnusableReason::Drain,
            "the driver asks that work with peers of this GPU end",
        )),
        _ => None,
    }
}

/// Row remapping: (pending, failed). A GeForce may answer and mean nothing by it.
fn rows(device: &Device<'_>, name: &str) -> Option<(bool, bool)> {
    if name.contains("GeForce") {
        None
    } else {
        raw::remapped_rows(device).ok()
    }
}

fn draining(device: &Device<'_>) -> Option<Unusable> {
    device
        .is_drain_enabled(None)
        .is_ok_and(|draining| draining)
        .then(|| {
            unusable(
                UnusableReason::Drain,
                "the GPU is being drained; end it with nvidia-smi drain -m 0",
            )
        })
}

/// On NVSwitch machines CUDA fails (802, "system not yet initialized") until the fabric manager has
/// done its work, while memory already looks free. Not supported is normal for cards without a
/// switch.
fn fabric(device: &Device<'_>) -> Option<Unusable> {
    match raw::fabric(device) {
        Ok((1 | 2, _)) => {
            let cure = "the NVLink fabric is not ready; is nvidia-fabricmanager running?";
            Some(unusable(UnusableReason::FabricNotReady, cure))
        }
        Ok((3, status)) if status != 0 => {
            let text = format!(
                "the NVLink fabric refused this GPU (status {status}); see nvidia-fabricmanager's log"
            );
            Some(unusable(UnusableReason::FabricNotReady, text))
        }
        Ok(_) | Err(_) => None,
    }
}

/// Who may hold a context on a GPU, and on each of its instances.
pub(super) enum Mode {
    /// Anybody.
    Open,
    /// One process at a time.
    Exclusive,
    /// Nobody, or it cannot be told.
    Closed(Unusable),
}

pub(super) fn mode(device: &Device<'_>) -> Mode {
    match device.compute_mode() {
        Ok(ComputeMode::Prohibited) => Mode::Closed(unusable(
            UnusableReason::Prohibited,
            "compute mode is Prohibited; change it with nvidia-smi -c 0",
        )),
        Ok(ComputeMode::ExclusiveProcess | ComputeMode::ExclusiveThread) => Mode::Exclusive,
        Ok(ComputeMode::Default)
        | Err(
            NvmlError::NotSupported
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_),
        ) => Mode::Open,
        Err(error) => Mode::Closed(from_error(&error, "reading the compute mode")),
    }
}

impl Mode {
    /// Whether it forbids new work beside these holders, with `used` bytes in use.
    pub(super) fn forbids(&self, holders: &Holders, used: Bytes) -> Option<Unusable> {
        match self {
            Self::Open => None,
            Self::Exclusive => exclusive(holders, used),
            Self::Closed(why) => Some(why.clone()),
        }
    }
}

/// In an exclusive mode one process may hold a context, however much memory is free.
fn exclusive(holders: &Holders, used: Bytes) -> Option<Unusable> {
    let refused = |message: String| Some(unusable(UnusableReason::ExclusiveProcess, message));
    if !holders.compute_known {
        return refused(
            "compute mode is Exclusive and the process list is unreadable: it may be held"
                .to_owned(),
        );
    }

    if holders
        .processes
        .iter()
        .any(|process| process.name.as_deref().is_some_and(is_mps_server))
    {
        return None;
    }

    if let Some(holder) = holders
        .processes
        .iter()
        .find(|process| process.kind != ProcessKind::Graphics)
    {
        return refused(format!(
            "compute mode is Exclusive and {} holds it",
            who(holder)
        ));
    }

    let explained: Bytes = holders
        .processes
        .iter()
        .filter_map(|process| process.used_bytes)
        .sum();

    if used.less(explained).is_none_or(|rest| rest > UNEXPLAINED) {
        refused(
            "compute mode is Exclusive and memory is held by a process that is not visible"
                .to_owned(),
        )
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
