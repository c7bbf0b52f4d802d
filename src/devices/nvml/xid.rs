//! XIDs, the driver's reports of GPU errors: what they mean, and which of them are active.
//!
//! The meanings follow NVIDIA's "XID Errors" guide and the list that its Kubernetes device plugin
//! ignores. Most XIDs only cause a warning, because the driver's state, which every pass reads,
//! decides whether a GPU is usable. After a few XIDs nothing runs before a reset. Those make the
//! GPU unusable if the driver has no verdict of its own (the recovery action, since R560).

use std::collections::BTreeMap;
use std::time::SystemTime;

use hf_mem_core::device::{Device, Unusable, UnusableReason, Warning, WarningReason};

use super::health::unusable;

/// An XID on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidEvent {
    /// The whole GPU's UUID.
    pub uuid: String,
    /// The number. `None` if the driver reports "unknown".
    pub xid: Option<u64>,
    /// The time of the event.
    pub at: SystemTime,
}

/// The meaning of an XID for its GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XidMeaning {
    /// An error of an application. The GPU is not affected.
    Application,
    /// A problem of the GPU that does not prevent work.
    Concern,
    /// Nothing runs on the GPU before a reset or reboot.
    NeedsReset,
}

impl XidEvent {
    /// Returns the meaning of the XID.
    pub fn meaning(&self) -> XidMeaning {
        meaning(self.xid)
    }
}

fn meaning(xid: Option<u64>) -> XidMeaning {
    match xid {
        Some(13 | 31 | 43 | 45 | 68 | 109) => XidMeaning::Application,
        Some(79 | 95 | 119 | 120) => XidMeaning::NeedsReset,
        _ => XidMeaning::Concern,
    }
}

/// Returns the number of an XID, with the name of the common ones.
fn label(xid: Option<u64>) -> String {
    let Some(number) = xid else {
        return "an XID without number".to_owned();
    };

    let name = match number {
        48 => "uncorrectable memory error",
        63 => "memory row to be remapped",
        64 => "memory row could not be remapped",
        74 => "NVLink error",
        79 => "GPU fell off the bus",
        94 => "contained memory error",
        95 => "uncontained memory error",
        119 | 120 => "the GPU system processor (GSP) does not respond",
        _ => return format!("XID {number}"),
    };

    format!("XID {number} ({name})")
}

/// The most XID numbers that are counted separately on one GPU.
///
/// With [`MAX_GPUS`], it bounds the memory that a driver's events can use.
const MAX_NUMBERS: usize = 64;
/// The most GPUs whose XIDs are counted.
const MAX_GPUS: usize = 256;

#[derive(Clone, Copy, Debug)]
struct SeenXid {
    count: u64,
    last: SystemTime,
    /// Whether it still applies to the GPU. A release of the driver for a reset ends that.
    active: bool,
}

/// The XIDs since the program started.
#[derive(Debug, Default)]
pub struct XidLog {
    by_gpu: BTreeMap<String, BTreeMap<Option<u64>, SeenXid>>,
}

/// The count of one XID on one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidCount {
    /// The GPU's UUID.
    pub uuid: String,
    /// The number.
    pub xid: Option<u64>,
    /// The number of events.
    pub count: u64,
}

impl XidLog {
    /// Records an event and returns the count of its XID on its GPU.
    pub fn add(&mut self, event: &XidEvent) -> u64 {
        if self.by_gpu.len() >= MAX_GPUS && !self.by_gpu.contains_key(&event.uuid) {
            return 0;
        }

        let numbers = self.by_gpu.entry(event.uuid.clone()).or_default();

        // Numbers beyond the bound are counted together, as unknown.
        let number = event
            .xid
            .filter(|number| numbers.len() < MAX_NUMBERS || numbers.contains_key(&Some(*number)));
        let seen = numbers.entry(number).or_insert(SeenXid {
            count: 0,
            last: event.at,
            active: true,
        });

        seen.count = seen.count.saturating_add(1);
        (seen.last, seen.active) = (event.at, true);

        seen.count
    }

    /// Returns all counts.
    pub fn counts(&self) -> Vec<XidCount> {
        let mut counts = Vec::new();
        for (uuid, numbers) in &self.by_gpu {
            counts.extend(numbers.iter().map(|(xid, seen)| XidCount {
                uuid: uuid.clone(),
                xid: *xid,
                count: seen.count,
            }));
        }

        counts
    }

    /// Deactivates all recorded XIDs, after the driver was released for a reset or replaced.
    pub fn deactivate(&mut self) {
        self.deactivate_where(|_| true);
    }

    /// Deactivates the XIDs of the GPUs that are not among `present`.
    ///
    /// A GPU that comes back with the same UUID was reset.
    pub fn deactivate_absent(&mut self, present: &[Device]) {
        self.deactivate_where(|uuid| !present.iter().any(|device| device.facts.uuid == uuid));
    }

    fn deactivate_where(&mut self, is_selected: impl Fn(&str) -> bool) {
        for (_, numbers) in self.by_gpu.iter_mut().filter(|(uuid, _)| is_selected(uuid)) {
            for seen in numbers.values_mut() {
                seen.active = false;
            }
        }
    }

    /// Adds the active XIDs to `device`, which is their GPU or an instance of it.
    ///
    /// With `self_diagnosing`, the driver itself reports whether the GPU needs a reset, and its
    /// report takes precedence.
    pub fn mark(&self, device: &mut Device, self_diagnosing: bool) {
        let gpu = device
            .facts
            .parent_uuid
            .as_ref()
            .unwrap_or(&device.facts.uuid);
        let Some(numbers) = self.by_gpu.get(gpu) else {
            return;
        };

        let active = numbers
            .iter()
            .filter(|(xid, seen)| seen.active && meaning(**xid) != XidMeaning::Application);

        for (xid, seen) in active {
            let last = humantime::format_rfc3339_seconds(seen.last);
            let times = if seen.count == 1 {
                String::new()
            } else {
                format!(", {} times, last", seen.count)
            };

            let message = format!("the driver reported {}{times} at {last}", label(*xid));
            let needs_reset = meaning(*xid) == XidMeaning::NeedsReset && !self_diagnosing;
            if needs_reset
                && device
                    .unusable
                    .as_ref()
                    .is_none_or(|why| why.reason == UnusableReason::MigParent)
            {
                device.unusable = Some(unusable_after(*xid, &message));
            }

            device.warnings.push(Warning {
                reason: WarningReason::Xid.into(),
                message: format!("{message}; see dmesg"),
            });
        }
    }
}

fn unusable_after(xid: Option<u64>, message: &str) -> Unusable {
    let reason = if xid == Some(79) {
        UnusableReason::GpuLost
    } else {
        UnusableReason::ResetRequired
    };

    unusable(
        reason,
        format!(
            "{message}; release the driver with POST /v1/nvml/release and reset the GPU meanwhile; \
             the release also clears this error"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use hf_mem_core::device::declared;

    fn event(xid: u64) -> XidEvent {
        XidEvent {
            uuid: "declared-0".to_owned(),
            xid: Some(xid),
            at: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    fn marked(log: &XidLog, self_diagnosing: bool) -> Device {
        let mut device = declared::parse("H100", UNIX_EPOCH)
            .unwrap()
            .devices
            .remove(0);
        log.mark(&mut device, self_diagnosing);
        device
    }

    #[test]
    fn application_error_is_only_counted() {
        let mut log = XidLog::default();
        assert_eq!((log.add(&event(31)), log.add(&event(31))), (1, 2));
        assert_eq!(marked(&log, false), marked(&XidLog::default(), false));

        assert_eq!(
            log.counts(),
            [XidCount {
                uuid: "declared-0".to_owned(),
                xid: Some(31),
                count: 2
            }]
        );
    }

    #[test]
    fn memory_error_warns_until_release() {
        let mut log = XidLog::default();
        log.add(&event(48));
        log.add(&event(48));
        let device = marked(&log, false);
        assert_eq!(device.unusable, None);
        let expected = "the driver reported XID 48 (uncorrectable memory error), 2 times, \
                        last at 2023-11-14T22:13:20Z; see dmesg";
        assert_eq!(device.warnings[0].message, expected);
        log.deactivate_absent(&[device]);
        assert_eq!(marked(&log, false).warnings.len(), 1);
        log.deactivate();
        assert!(marked(&log, false).warnings.is_empty());
        assert_eq!(log.counts()[0].count, 2, "the count continues");
    }

    #[test]
    fn reset_xid_yields_to_driver_verdict() {
        let mut log = XidLog::default();
        log.add(&event(119));

        assert_eq!(
            marked(&log, false).unusable.unwrap().reason,
            UnusableReason::ResetRequired
        );
        assert_eq!(marked(&log, true).unusable, None);
        assert_eq!(marked(&log, true).warnings.len(), 1);
        log.deactivate_absent(&[]);
        assert_eq!(marked(&log, false).unusable, None);
        log.add(&event(79));
        assert_eq!(
            marked(&log, false).unusable.unwrap().reason,
            UnusableReason::GpuLost
        );
    }

    #[test]
    fn xid_log_is_bounded() {
        let mut log = XidLog::default();
        for number in 0..10_000 {
            log.add(&event(number));
        }
        assert!(log.counts().len() <= MAX_NUMBERS + 1);
        assert_eq!(log.counts().iter().map(|it| it.count).sum::<u64>(), 10_000);
    }
}
