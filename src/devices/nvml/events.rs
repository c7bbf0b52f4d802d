//! XIDs: the driver's own reports of trouble, as they happen.

use std::sync::atomic::{AtomicBool, Ordering};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;

use super::reader::{NvmlOptions, NvmlReader};
use crate::devices::error::DevicesError;

/// How long one wait may block: how late a request to stop is heard.
const WAIT_MS: u32 = 500;

/// An XID on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidEvent {
    /// The GPU's UUID, where it still answers.
    pub uuid: Option<String>,
    /// The number; `None` where the driver says "unknown".
    pub xid: Option<u64>,
}

impl XidEvent {
    /// Whether it is of an application's making and says nothing of the GPU (the list that NVIDIA's own Kubernetes
    /// device plugin ignores).
    pub fn applications_fault(&self) -> bool {
        matches!(self.xid, Some(13 | 31 | 43 | 45 | 68 | 109))
    }
}

/// Waits for XIDs on all GPUs and hands each to `tell`, until `stop` is set or the driver ends it. Blocks its thread,
/// and holds the library open for as long; to be called on a thread of its own, never on the sampler's.
///
/// One set per GPU: registering consumes the set and frees it on any error, and with it all registered before.
pub fn watch_xids(
    options: &NvmlOptions,
    stop: &AtomicBool,
    mut tell: impl FnMut(XidEvent),
) -> Result<(), DevicesError> {
    let reader = NvmlReader::open(options)?;
    let failed = |call: &'static str| move |error: NvmlError| super::library::whole(&error, call);
    let nvml = reader.nvml();
    let mut sets = Vec::new();
    for index in 0..nvml.device_count().map_err(failed("nvmlDeviceGetCount"))? {
        let Ok(device) = nvml.device_by_index(index) else { continue };
        let set = nvml.create_event_set().map_err(failed("nvmlEventSetCreate"))?;
        // "Not supported" means no events, not an unhealthy device.
        sets.extend(device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok());
    }
    if sets.is_empty() {
        return Ok(());
    }
    let each = WAIT_MS / u32::try_from(sets.len()).unwrap_or(WAIT_MS).clamp(1, WAIT_MS);
    while !stop.load(Ordering::Relaxed) {
        for set in &sets {
            match set.wait(each.max(1)) {
                Ok(event) => tell(told(&event)),
                Err(NvmlError::Timeout) => {}
                Err(error) => return Err(super::library::whole(&error, "nvmlEventSetWait")),
            }
        }
    }
    Ok(())
}

fn told(event: &EventData<'_>) -> XidEvent {
    let xid = match event.event_data {
        Some(XidError::Value(number)) => Some(number),
        Some(XidError::Unknown) | None => None,
    };
    XidEvent { uuid: event.device.uuid().ok(), xid }
}
