//! Metrics for Prometheus, in OpenMetrics text and in the older text format.
//!
//! Counters change where events happen. Gauges are set just before the page is written, from the
//! state that also answers questions. Labels take their values from closed sets, so that no caller
//! can make the registry grow.

mod classic;
mod label;
mod label_sets;
#[cfg(test)]
mod pages;
mod registry;
#[cfg(test)]
mod tests;
mod words;

use std::sync::atomic::Ordering;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use self::label_sets::{
    DeviceLabels, EventLabels, OutcomeLabels, QuestionLabels, ReasonLabels, XidLabels,
};
use self::words::{UNUSABLE, WATCHED_XIDS, outcome_word};
use crate::api::status::DaemonPart;
use crate::devices::nvml::XidCount;
use crate::leases::event::Counters;

pub use self::words::{CacheResult, Refusal, Stage};
pub use crate::repository::HubOutcome;

/// The content type of [`Metrics::open_metrics`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of [`Metrics::classic_text`].
pub const CLASSIC_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The gauges of one device. A value that cannot be read is absent from the output, never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFigures {
    /// The device's UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// All its memory.
    pub total: Bytes,
    /// Unallocated bytes.
    pub free: Option<Bytes>,
    /// Bytes that can be leased now; `None` if unknown, for example when the daemon cannot read the
    /// leases.
    pub available: Option<Bytes>,
    /// Bytes that leases still claim; `None` when the daemon cannot read the leases.
    pub leased: Option<Bytes>,
    /// Why nothing can be placed on it.
    pub unusable: Option<String>,
    /// Whether it is a part of a GPU. The driver reports XIDs for whole GPUs.
    pub part_of_gpu: bool,
}

/// All metrics of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    questions: Family<QuestionLabels, Counter>,
    /// By stage, in the order of [`Stage::ALL`]. Looked up once, because every request updates
    /// several of them.
    latency: [Histogram; Stage::ALL.len()],
    hub_requests: Family<OutcomeLabels, Counter>,
    model_lookups: [Counter; CacheResult::ALL.len()],
    models_known: Gauge,
    cache_bytes: Gauge,
    devices: Gauge,
    device_total: Family<DeviceLabels, Gauge>,
    device_free: Family<DeviceLabels, Gauge>,
    device_available: Family<DeviceLabels, Gauge>,
    device_leased: Family<DeviceLabels, Gauge>,
    leases: Gauge,
    lease_waiters: Gauge,
    sampler_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    nvml_errors: Counter,
    xids: Family<XidLabels, Counter>,
    connections: Gauge,
    refused: [Counter; Refusal::ALL.len()],
    degraded: [Gauge; DaemonPart::ALL.len()],
    device_usable: Family<DeviceLabels, Gauge>,
    unusable: Family<ReasonLabels, Gauge>,
    lease_events: Family<EventLabels, Counter>,
}

impl Metrics {
    /// Counts an answer, or a problem as verdict `error`. `reason` must come from a closed set.
    pub fn question(&self, verdict: &'static str, reason: &'static str) {
        self.questions
            .get_or_create(&QuestionLabels { verdict, reason })
            .inc();
    }

    /// Creates all series with known labels: a counter that appears with its first event has no
    /// rate for that event.
    fn create_series(&self) {
        for outcome in HubOutcome::ALL {
            self.set_hub_requests(outcome, 0);
        }

        for reason in UNUSABLE {
            drop(self.unusable.get_or_create(&ReasonLabels { reason }));
        }

        self.set_lease_events(&Counters::default());
    }

    /// Records how long a stage took.
    pub fn took(&self, stage: Stage, time: Duration) {
        self.latency[stage as usize].observe(time.as_secs_f64());
    }

    /// Sets the number of Hub requests with this outcome. The Hub client counts them.
    pub fn set_hub_requests(&self, outcome: HubOutcome, count: u64) {
        let counter = self.hub_requests.get_or_create(&OutcomeLabels {
            outcome: outcome_word(outcome),
        });
        counter.inner().store(count, Ordering::Relaxed);
    }

    /// Counts where a model was found.
    pub fn model_lookup(&self, result: CacheResult) {
        self.model_lookups[result as usize].inc();
    }

    /// Sets the number of the driver's errors. The sampler counts them.
    pub fn set_nvml_errors(&self, count: u64) {
        self.nvml_errors.inner().store(count, Ordering::Relaxed);
    }

    /// Sets the number of each device's XIDs. The sampler bounds the number of devices and XIDs.
    pub fn set_xids(&self, counts: &[XidCount]) {
        for reported in counts {
            let xid = reported
                .xid
                .map_or_else(|| "unknown".to_owned(), |number| number.to_string());
            let counter = self.xids.get_or_create(&XidLabels {
                uuid: reported.uuid.as_str().into(),
                xid: xid.as_str().into(),
            });
            counter.inner().store(reported.count, Ordering::Relaxed);
        }
    }

    /// Sets the number of known models and the bytes of those on disk.
    pub fn set_models(&self, known: usize, on_disk: Bytes) {
        self.models_known.set(count(known));
        self.cache_bytes.set(gauge(on_disk));
    }

    /// Sets the devices' gauges. Devices that have disappeared leave the output.
    pub fn set_devices(&self, figures: &[DeviceFigures], sampler_age: Option<Duration>) {
        let families = [
            &self.device_total,
            &self.device_free,
            &self.device_available,
            &self.device_leased,
            &self.device_usable,
        ];
        for family in families {
            family.clear();
        }

        let mut unusable = [0_usize; UNUSABLE.len()];
        self.devices.set(count(figures.len()));

        for device in figures {
            let labels = DeviceLabels {
                uuid: device.uuid.as_str().into(),
                name: device.name.as_str().into(),
            };

            for (family, bytes) in [
                (&self.device_total, Some(device.total)),
                (&self.device_free, device.free),
                (&self.device_available, device.available),
                (&self.device_leased, device.leased),
            ] {
                if let Some(bytes) = bytes {
                    family.get_or_create(&labels).set(gauge(bytes));
                }
            }

            self.device_usable
                .get_or_create(&labels)
                .set(i64::from(device.unusable.is_none()));
            if let Some(why) = &device.unusable {
                let other = UNUSABLE.len() - 1;
                unusable[UNUSABLE
                    .iter()
                    .position(|reason| reason == why)
                    .unwrap_or(other)] += 1;
            }

            if device.uuid.starts_with("GPU-") && !device.part_of_gpu {
                for xid in WATCHED_XIDS {
                    drop(self.xids.get_or_create(&XidLabels {
                        uuid: device.uuid.as_str().into(),
                        xid: xid.to_string().as_str().into(),
                    }));
                }
            }
        }

        for (reason, devices) in UNUSABLE.into_iter().zip(unusable) {
            self.unusable
                .get_or_create(&ReasonLabels { reason })
                .set(count(devices));
        }
        // Without a reading the age is unknown, which OpenMetrics writes as NaN.
        self.sampler_age
            .set(sampler_age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }

    /// Sets whether a part is degraded.
    pub fn set_degraded(&self, part: DaemonPart, degraded: bool) {
        self.degraded[part as usize].set(i64::from(degraded));
    }

    /// Sets the numbers of lease events. The lease broker counts them.
    pub fn set_lease_events(&self, counters: &Counters) {
        for (event, count) in counters.by_word() {
            self.lease_events
                .get_or_create(&EventLabels { event })
                .inner()
                .store(count, Ordering::Relaxed);
        }
    }

    /// Sets the number of leases and of waiting callers.
    pub fn set_leases(&self, held: usize, waiting: usize) {
        self.leases.set(count(held));
        self.lease_waiters.set(count(waiting));
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    /// Counts a rejected connection or request.
    pub(crate) fn refused(&self, why: Refusal) {
        self.refused[why as usize].inc();
    }

    /// Returns the page in the older text format, which every tool for Prometheus reads.
    pub fn classic_text(&self) -> String {
        classic::from_open_metrics(&self.open_metrics())
    }

    /// Returns the page as OpenMetrics text.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail. If it ever does, half a page is worse than none.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

fn gauge(bytes: Bytes) -> i64 {
    i64::try_from(bytes.get()).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
