//! What XIDs, the driver's own reports of trouble, mean for a GPU, and which of them stand.
//!
//! Meanings follow NVIDIA's "XID Errors" guide and the list that its Kubernetes device plugin
//! ignores. Most XIDs only warn: whether a GPU may be used is for the driver's state to say, which
//! every pass reads. The few after which nothing runs before a reset refuse the GPU where the
//! driver gives no verdict of its own (the recovery action, since R560).

use std::collections::BTreeMap;
use std::time::SystemTime;

use hf_mem_core::device::{Device, Unusable, UnusableReason, Warning, WarningReason};

use super::health::unusable;

/// An XID on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidEvent {
    /// The whole GPU's UUID.
    pub uuid: String,
    /// The number; `None` where the driver says "unknown".
    pub xid: Option<u64>,
    /// When it was heard.
    pub at: SystemTime,
}

/// What an XID says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// An application's fault, which says nothing of the GPU.
    Application,
    /// Something about the GPU that does not keep work from running.
    Concern,
    /// Nothing runs any more before a reset or reboot.
    NeedsReset,
}

impl XidEvent {
    /// What it says.
    pub fn meaning(&self) -> Meaning {
        meaning(self.xid)
    }
}

fn meaning(xid: Option<u64>) -> Meaning {
    match xid {
        Some(13 | 31 | 43 | 45 | 68 | 109) => Meaning::Application,
        Some(79 | 95 | 119 | 120) => Meaning::NeedsReset,
        _ => Meaning::Concern,
    }
}

/// The number and, for those that people meet, its name.
fn named(xid: Option<u64>) -> String {
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
        119 | 120 => "the GPU's own processor (GSP) does not answer",
        _ => return format!("XID {number}"),
    };

    format!("XID {number} ({name})")
}

/// Numbers kept apart on one GPU, and GPUs kept; bounds on what a driver may make us remember.
const MOST_NUMBERS: usize = 64;
const MOST_GPUS: usize = 256;

#[derive(Clone, Copy, Debug)]
struct SeenXid {
    count: u64,
    last: SystemTime,
    /// Whether it still says something of the GPU: not any more once that was let go of for a
    /// reset.
    stands: bool,
}

/// The XIDs heard since the program started.
#[derive(Debug, Default)]
pub struct XidLog {
    by_gpu: BTreeMap<String, BTreeMap<Option<u64>, SeenXid>>,
}

/// How often one XID was heard on one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XidCount {
    /// The GPU's UUID.
    pub uuid: String,
    /// The number.
    pub xid: Option<u64>,
    /// How often.
    pub count: u64,
}

impl XidLog {
    /// Remembers an event; gives how often it has been heard now.
    pub fn add(&mut self, event: &XidEvent) -> u64 {
        if self.by_gpu.len() >= MOST_GPUS && !self.by_gpu.contains_key(&event.uuid) {
            return 0;
        }

        let numbers = self.by_gpu.entry(event.uuid.clone()).or_default();

        // Beyond the bound they are counted together, as unknown ones.
        let number = event
            .xid
            .filter(|number| numbers.len() < MOST_NUMBERS || numbers.contains_key(&Some(*number)));
        let seen = numbers.entry(number).or_insert(SeenXid {
            count: 0,
            last: event.at,
            stands: true,
        });

        seen.count = seen.count.saturating_add(1);
        (seen.last, seen.stands) = (event.at, true);

        seen.count
    }

    /// All counts.
    pub fn counts(&self) -> Vec<XidCount> {
        let of = |(uuid, numbers): (&String, &BTreeMap<Option<u64>, SeenXid>)| {
            let uuid = uuid.clone();
            let one = move |(xid, seen): (&Option<u64>, &SeenXid)| XidCount {
                uuid: uuid.clone(),
                xid: *xid,
                count: seen.count,
            };
            numbers.iter().map(one).collect::<Vec<_>>()
        };

        self.by_gpu.iter().flat_map(of).collect()
    }

    /// Nothing heard so far says anything any more: the driver was let go of for a reset, or
    /// exchanged.
    pub fn settle(&mut self) {
        self.settle_where(|_| true);
    }

    /// The same for GPUs that are not among `present`: what comes back under their UUID was reset.
    pub fn settle_absent(&mut self, present: &[Device]) {
        self.settle_where(|uuid| !present.iter().any(|device| device.facts.uuid == uuid));
    }

    fn settle_where(&mut self, which: impl Fn(&str) -> bool) {
        for (_, numbers) in self.by_gpu.iter_mut().filter(|(uuid, _)| which(uuid)) {
            for seen in numbers.values_mut() {
                seen.stands = false;
            }
        }
    }

    /// Says on `device`, or on an instance of the GPU meant, what stands against it. With
    /// `self_diagnosing`, the driver itself tells whether the GPU needs a reset, and is believed.
    pub fn mark(&self, device: &mut Device, self_diagnosing: bool) {
        let gpu = device
            .facts
            .parent_uuid
            .as_ref()
            .unwrap_or(&device.facts.uuid);
        let Some(numbers) = self.by_gpu.get(gpu) else {
            return;
        };

        let standing = numbers
            .iter()
            .filter(|(xid, seen)| seen.stands && meaning(**xid) != Meaning::Application);

        for (xid, seen) in standing {
            let last = humantime::format_rfc3339_seconds(seen.last);
            let times = if seen.count == 1 {
                String::new()
            } else {
                format!(", {} times, last", seen.count)
            };

            let message = format!("the driver reported {}{times} at {last}", named(*xid));
            let resets = meaning(*xid) == Meaning::NeedsReset && !self_diagnosing;
            if resets
                && device
                    .unusable
                    .as_ref()
                    .is_none_or(|why| why.reason == UnusableReason::MigParent)
            {
                device.unusable = Some(refusal(*xid, &message));
            }

            device.warnings.push(Warning {
                reason: WarningReason::Xid.into(),
                message: format!("{message}; see dmesg"),
            });
        }
    }
}

fn refusal(xid: Option<u64>, message: &str) -> Unusable {
    let reason = if xid == Some(79) {
        UnusableReason::GpuLost
    } else {
        UnusableReason::ResetRequired
    };

    unusable(
        reason,
        format!(
            "{message}; reset the GPU while POST /v1/nvml/release lets go of it, which also ends this"
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
    fn an_applications_fault_is_only_counted() {
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
    fn a_memory_error_warns_until_the_driver_was_let_go() {
        let mut log = XidLog::default();
        log.add(&event(48));
        log.add(&event(48));
        let device = marked(&log, false);
        assert_eq!(device.unusable, None);
        let said = "the driver reported XID 48 (uncorrectable memory error), 2 times, last at 2023-11-14T22:13:20Z; see dmesg";
        assert_eq!(device.warnings[0].message, said);
        log.settle_absent(&[device]);
        assert_eq!(marked(&log, false).warnings.len(), 1);
        log.settle();
        assert!(marked(&log, false).warnings.is_empty());
        assert_eq!(log.counts()[0].count, 2, "the count goes on");
    }

    #[test]
    fn what_needs_a_reset_refuses_unless_the_driver_says_otherwise() {
        let mut log = XidLog::default();
        log.add(&event(119));

        assert_eq!(
            marked(&log, false).unusable.unwrap().reason,
            UnusableReason::ResetRequired
        );
        assert_eq!(marked(&log, true).unusable, None);
        assert_eq!(marked(&log, true).warnings.len(), 1);
        log.settle_absent(&[]);
        assert_eq!(marked(&log, false).unusable, None);
        log.add(&event(79));
        assert_eq!(
            marked(&log, false).unusable.unwrap().reason,
            UnusableReason::GpuLost
        );
    }

    #[test]
    fn a_driver_cannot_make_it_grow() {
        let mut log = XidLog::default();
        for number in 0..10_000 {
            log.add(&event(number));
        }
        assert!(log.counts().len() <= MOST_NUMBERS + 1);
        assert_eq!(log.counts().iter().map(|it| it.count).sum::<u64>(), 10_000);
    }
}
