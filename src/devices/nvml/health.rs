//! The health of a device: the conditions, apart from memory, that decide whether it is usable.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Process, ProcessKind, Unusable, UnusableReason, Warning, WarningReason};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::ComputeMode;
use nvml_wrapper::error::NvmlError;

use super::processes::Holders;
use super::raw::{self, FabricState, RemappedRows};

/// The most memory that an idle GPU shows as used.
///
/// In an exclusive mode, more used memory than this, without a listed process, means that a process
/// in another PID namespace holds the GPU.
const MAX_IDLE_USED: Bytes = Bytes::mib(128);
/// The one process that holds an exclusive GPU and shares it with others.
const MPS_SERVER: &str = "nvidia-cuda-mps-server";

pub(super) fn unusable(reason: UnusableReason, message: impl Into<String>) -> Unusable {
    Unusable {
        reason: reason.into(),
        message: message.into(),
    }
}

/// Returns the reason for which a device with this error is unusable.
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
            format!("{call} was denied; check the device node's mode and the unit's DeviceAllow="),
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

/// The state of a whole GPU as the driver reports it, without its memory and processes.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The first condition found that prevents new work, on the GPU and on each of its instances.
    pub(super) unusable: Option<Unusable>,
    /// The conditions that do not prevent new work.
    pub(super) warnings: Vec<Warning>,
    /// Whether the driver itself reports when the GPU needs a reset.
    pub(super) self_diagnosing: bool,
}

/// Reads the state of the GPU with the product name `name`.
pub(super) fn check(device: &Device<'_>, name: &str) -> Health {
    let mut health = Health::default();

    // The field is absent before R560. Values that are newer than this program are ignored.
    let action = raw::recovery_action(device)
        .ok()
        .filter(|action| *action <= 4);
    health.self_diagnosing = action.is_some();
    health.unusable = action.and_then(recovery);

    let rows = remapped_rows(device, name);
    if rows.is_some_and(|rows| rows.pending && !rows.failed) {
        let message = "the next reset remaps memory rows; running work is not affected";
        health
            .warnings
            .push(warning(WarningReason::RowRemapPending, message));
    }

    health.unusable = health
        .unusable
        .or_else(|| remap_failure(rows))
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
            "the driver asks to stop work that uses this GPU's peers",
        )),
        _ => None,
    }
}

/// Returns the state of row remapping, except for a GeForce, whose answer can be meaningless.
fn remapped_rows(device: &Device<'_>, name: &str) -> Option<RemappedRows> {
    if name.contains("GeForce") {
        None
    } else {
        raw::remapped_rows(device).ok()
    }
}

fn remap_failure(rows: Option<RemappedRows>) -> Option<Unusable> {
    rows.is_some_and(|rows| rows.failed).then(|| {
        unusable(
            UnusableReason::RowRemapFailure,
            "memory rows could not be remapped; replace the card",
        )
    })
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

/// Checks the NVLink fabric.
///
/// On NVSwitch machines CUDA fails (802, "system not yet initialized") until the fabric manager is
/// done, while memory already looks free. "Not supported" is normal for cards without a switch.
fn fabric(device: &Device<'_>) -> Option<Unusable> {
    match raw::fabric(device) {
        Ok(FabricState { state: 1 | 2, .. }) => {
            let message =
                "the NVLink fabric is not ready; check that nvidia-fabricmanager is running";
            Some(unusable(UnusableReason::FabricNotReady, message))
        }
        Ok(FabricState { state: 3, status }) if status != 0 => {
            let text = format!(
                "the NVLink fabric rejected this GPU (status {status}); \
                 see nvidia-fabricmanager's log"
            );
            Some(unusable(UnusableReason::FabricNotReady, text))
        }
        Ok(_) | Err(_) => None,
    }
}

/// The processes that can hold a context on a GPU, and on each of its instances.
pub(super) enum ContextMode {
    /// Any process.
    Open,
    /// One process at a time.
    Exclusive,
    /// No process, or the mode is unknown.
    Closed(Unusable),
}

pub(super) fn mode(device: &Device<'_>) -> ContextMode {
    match device.compute_mode() {
        Ok(ComputeMode::Prohibited) => ContextMode::Closed(unusable(
            UnusableReason::Prohibited,
            "compute mode is Prohibited; change it with nvidia-smi -c 0",
        )),
        Ok(ComputeMode::ExclusiveProcess | ComputeMode::ExclusiveThread) => ContextMode::Exclusive,
        Ok(ComputeMode::Default)
        | Err(
            NvmlError::NotSupported
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_),
        ) => ContextMode::Open,
        Err(error) => ContextMode::Closed(from_error(&error, "reading the compute mode")),
    }
}

impl ContextMode {
    /// Returns the reason why a new process cannot join these holders, with `used` bytes in use.
    pub(super) fn check(&self, holders: &Holders, used: Bytes) -> Option<Unusable> {
        match self {
            Self::Open => None,
            Self::Exclusive => check_exclusive(holders, used),
            Self::Closed(why) => Some(why.clone()),
        }
    }
}

/// In an exclusive mode one process can hold a context, however much memory is free.
fn check_exclusive(holders: &Holders, used: Bytes) -> Option<Unusable> {
    let reason = UnusableReason::ExclusiveProcess;
    if !holders.compute_known {
        return Some(unusable(
            reason,
            "compute mode is Exclusive and the process list is unreadable: \
             another process may hold the GPU",
        ));
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
        let message = format!(
            "compute mode is Exclusive and {} holds it",
            describe(holder)
        );
        return Some(unusable(reason, message));
    }

    let explained: Bytes = holders
        .processes
        .iter()
        .filter_map(|process| process.used_bytes)
        .sum();

    used.less(explained)
        .is_none_or(|unexplained| unexplained > MAX_IDLE_USED)
        .then(|| {
            unusable(
                reason,
                "compute mode is Exclusive and a process that is not visible holds memory",
            )
        })
}

/// Whether `name` is the MPS server. `/proc/PID/comm` truncates a name to fifteen bytes.
fn is_mps_server(name: &str) -> bool {
    name == MPS_SERVER || MPS_SERVER.get(..15).is_some_and(|short| name == short)
}

fn describe(process: &Process) -> String {
    match &process.name {
        Some(name) => format!("{name} (pid {})", process.pid),
        None => format!("pid {}", process.pid),
    }
}
