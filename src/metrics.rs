//! Figures for Prometheus, in OpenMetrics text and in the older text format.
//!
//! Counters are moved where things happen; gauges are set just before they are written, from the
//! state that answers questions too. Labels take their values from closed sets, so that nobody
//! outside can make the registry grow.

mod classic;
mod label;
#[cfg(test)]
mod pages;

use std::sync::atomic::Ordering;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::label::LabelText;
use crate::api::status::DaemonPart;
use crate::devices::nvml::XidCount;
use crate::leases::event::Counters;
pub use crate::repository::HubOutcome;

/// The content type of [`Metrics::open_metrics`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of [`Metrics::classic_text`].
pub const CLASSIC_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The stages of a question's path, for the latency histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the request's head to its answer's head.
    Request,
    /// Finding the model's metadata.
    Model,
    /// Preparing the engine and planning.
    Plan,
    /// Deciding on a lease and recording it.
    Lease,
    /// One reading of all devices.
    Sample,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::Request,
        Self::Model,
        Self::Plan,
        Self::Lease,
        Self::Sample,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Model => "model",
            Self::Plan => "plan",
            Self::Lease => "lease",
            Self::Sample => "sample",
        }
    }
}

/// How a request to the Hub ended, as a label.
const fn outcome_word(outcome: HubOutcome) -> &'static str {
    match outcome {
        HubOutcome::Ok => "ok",
        HubOutcome::NotModified => "not_modified",
        HubOutcome::NotFound => "not_found",
        HubOutcome::Refused => "refused",
        HubOutcome::RateLimited => "rate_limited",
        HubOutcome::ServerError => "server_error",
        HubOutcome::Unreachable => "unreachable",
    }
}

/// Where a model's metadata was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// In memory.
    Memory,
    /// On disk.
    Disk,
    /// Nowhere: it was read from the Hub.
    Miss,
    /// With the question: the client had read it.
    Sent,
}

impl CacheResult {
    const ALL: [Self; 4] = [Self::Memory, Self::Disk, Self::Miss, Self::Sent];

    /// The word as it stands in the metrics and in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Miss => "miss",
            Self::Sent => "sent",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuestionLabels {
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    uuid: LabelText,
    name: LabelText,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct XidLabels {
    uuid: LabelText,
    xid: LabelText,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

/// What is turned away at the door, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// One user holds as many connections as one may.
    UserConnections,
    /// All connections are held.
    Connections,
    /// The process has no descriptors left, or the host no memory.
    Exhausted,
    /// Too many large bodies at once.
    Bodies,
    /// Too many watch streams.
    Watchers,
    /// A browser's request.
    Browser,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::UserConnections,
        Self::Connections,
        Self::Exhausted,
        Self::Bodies,
        Self::Watchers,
        Self::Browser,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::UserConnections => "user_connections",
            Self::Connections => "connections",
            Self::Exhausted => "exhausted",
            Self::Bodies => "bodies",
            Self::Watchers => "watchers",
            Self::Browser => "browser",
        }
    }
}

/// The reasons of devices that nothing may be placed on, as labels; any other is `other`.
const UNUSABLE: [&str; 15] = [
    "gpu_lost",
    "reset_required",
    "row_remap_failure",
    "fabric_not_ready",
    "memory_unreadable",
    "no_permission",
    "not_ready",
    "shared_pool",
    "drain",
    "prohibited",
    "exclusive_process",
    "mig_parent",
    "mig_without_instances",
    "asleep",
    "other",
];

/// XIDs that are counted for each GPU from its first reading on, so that a rate shows the first of
/// them: those after which the GPU must be looked after.
const WATCHED_XIDS: [u64; 9] = [48, 63, 64, 74, 79, 94, 95, 119, 120];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// One device's gauges. What could not be read is absent from the output, never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFigures {
    /// The device's UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// All its memory.
    pub total: Bytes,
    /// Bytes nobody has allocated.
    pub free: Option<Bytes>,
    /// Bytes that can be given now; `None` where that is not known, as where leases cannot be read.
    pub available: Option<Bytes>,
    /// Bytes that leases still claim, where they can be read.
    pub leased: Option<Bytes>,
    /// Why nothing may be placed on it.
    pub unusable: Option<String>,
    /// Whether it is a part of a GPU: XIDs are of whole ones.
    pub part_of_gpu: bool,
}

/// Every figure of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    questions: Family<QuestionLabels, Counter>,
    /// By stage, in the order of [`Stage::ALL`]: looked up once, because every request moves
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

/// From 10 µs, below which nothing here happens, to a minute, the handler's deadline.
const LATENCY_BUCKETS_SECONDS: [f64; 20] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hf_mem_probe");
        let latency: Family<StageLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_SECONDS));
        let by_stage = |stage: Stage| {
            latency
                .get_or_create(&StageLabels {
                    stage: stage.word(),
                })
                .clone()
        };

        let refused: Family<RefusedLabels, Counter> = Family::default();
        let by_refusal = |why: Refusal| {
            refused
                .get_or_create(&RefusedLabels { why: why.word() })
                .clone()
        };

        let model_lookups: Family<ResultLabels, Counter> = Family::default();
        let by_result = |result: CacheResult| {
            model_lookups
                .get_or_create(&ResultLabels {
                    result: result.word(),
                })
                .clone()
        };

        let degraded: Family<PartLabels, Gauge> = Family::default();
        let by_part = |part: DaemonPart| {
            degraded
                .get_or_create(&PartLabels { part: part.word() })
                .clone()
        };

        let metrics = Self {
            questions: Family::default(),
            latency: Stage::ALL.map(by_stage),
            hub_requests: Family::default(),
            model_lookups: CacheResult::ALL.map(by_result),
            models_known: Gauge::default(),
            cache_bytes: Gauge::default(),
            devices: Gauge::default(),
            device_total: Family::default(),
            device_free: Family::default(),
            device_available: Family::default(),
            device_leased: Family::default(),
            leases: Gauge::default(),
            lease_waiters: Gauge::default(),
            sampler_age: Gauge::default(),
            nvml_errors: Counter::default(),
            xids: Family::default(),
            connections: Gauge::default(),
            refused: Refusal::ALL.map(by_refusal),
            degraded: DaemonPart::ALL.map(by_part),
            device_usable: Family::default(),
            unusable: Family::default(),
            lease_events: Family::default(),
            registry: Registry::default(),
        };

        // A gauge and not an info metric: the older text format has no such type.
        let build: Family<BuildLabels, Gauge> = Family::default();
        build
            .get_or_create(&BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);

        registry.register("build_info", "The daemon's build", build);
        registry.register(
            "questions",
            "Answers by verdict and reason",
            metrics.questions.clone(),
        );

        registry.register_with_unit("latency", "Time by stage", Unit::Seconds, latency);
        registry.register(
            "hub_requests",
            "Requests to the Hub by outcome",
            metrics.hub_requests.clone(),
        );

        registry.register("model_lookups", "Where models were found", model_lookups);
        registry.register(
            "models_known",
            "Models in memory",
            metrics.models_known.clone(),
        );

        registry.register_with_unit(
            "cache",
            "Models on disk",
            Unit::Bytes,
            metrics.cache_bytes.clone(),
        );

        registry.register("devices", "Devices that were read", metrics.devices.clone());
        for (name, help, family) in [
            ("device_total", "All memory", &metrics.device_total),
            (
                "device_free",
                "Memory nobody has allocated",
                &metrics.device_free,
            ),
            (
                "device_available",
                "Memory that can be given now",
                &metrics.device_available,
            ),
            (
                "device_leased",
                "Memory that leases still claim",
                &metrics.device_leased,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, family.clone());
        }

        registry.register("leases", "Leases held", metrics.leases.clone());
        registry.register(
            "lease_waiters",
            "Callers that wait for memory",
            metrics.lease_waiters.clone(),
        );

        let age = metrics.sampler_age.clone();
        registry.register_with_unit(
            "sampler_age",
            "Age of the last reading of the devices",
            Unit::Seconds,
            age,
        );

        let errors = metrics.nvml_errors.clone();
        registry.register(
            "nvml_errors",
            "Readings that the driver failed, and devices that could not be read",
            errors,
        );

        registry.register(
            "device_xids",
            "XIDs that the driver reported, by device and number",
            metrics.xids.clone(),
        );

        registry.register(
            "connections",
            "Connections held",
            metrics.connections.clone(),
        );

        registry.register(
            "connections_refused",
            "Connections and requests refused",
            refused,
        );

        registry.register(
            "degraded",
            "Whether a part of the daemon is degraded (1) or well (0), as health says",
            degraded,
        );

        registry.register(
            "device_usable",
            "Whether a device can be placed on (1) or not (0)",
            metrics.device_usable.clone(),
        );

        let unusable = metrics.unusable.clone();
        registry.register(
            "devices_unusable",
            "Devices that nothing may be placed on, by reason",
            unusable,
        );

        registry.register(
            "lease_events",
            "What happened to leases and to those who wait",
            metrics.lease_events.clone(),
        );

        metrics.begin_at_zero();
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Counts an answer, or a problem as verdict `error`. `reason` must come from a closed set.
    pub fn question(&self, verdict: &'static str, reason: &'static str) {
        self.questions
            .get_or_create(&QuestionLabels { verdict, reason })
            .inc();
    }

    /// A counter that appears with its first event has no rate for that event: where the labels are
    /// known, they are there from the start.
    fn begin_at_zero(&self) {
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

    /// Sets how many requests to the Hub have ended so; they are counted where they are made.
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

    /// Sets how often the driver failed, as its sampler counts it.
    pub fn set_nvml_errors(&self, count: u64) {
        self.nvml_errors.inner().store(count, Ordering::Relaxed);
    }

    /// Sets how often each XID was heard; the sampler bounds their number.
    pub fn set_xids(&self, counts: &[XidCount]) {
        for it in counts {
            let xid = it
                .xid
                .map_or_else(|| "unknown".to_owned(), |number| number.to_string());
            let counter = self.xids.get_or_create(&XidLabels {
                uuid: it.uuid.as_str().into(),
                xid: xid.as_str().into(),
            });
            counter.inner().store(it.count, Ordering::Relaxed);
        }
    }

    /// Sets what is known of models.
    pub fn set_models(&self, known: usize, on_disk: Bytes) {
        self.models_known.set(count(known));
        self.cache_bytes.set(gauge(on_disk));
    }

    /// Sets the devices; those that are gone leave the output.
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
        // Without any reading the age is unknown, which OpenMetrics writes as NaN.
        self.sampler_age
            .set(sampler_age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }

    /// Sets how a part is.
    pub fn set_degraded(&self, part: DaemonPart, degraded: bool) {
        self.degraded[part as usize].set(i64::from(degraded));
    }

    /// Sets how often things happened to leases; they are counted by the ledger's owner.
    pub fn set_lease_events(&self, counters: &Counters) {
        for (event, count) in counters.by_word() {
            self.lease_events
                .get_or_create(&EventLabels { event })
                .inner()
                .store(count, Ordering::Relaxed);
        }
    }

    /// Sets the leases held and the callers that wait for one.
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

    /// Counts what was turned away.
    pub(crate) fn refused(&self, why: Refusal) {
        self.refused[why as usize].inc();
    }

    /// Everything in the older format, which every tool around Prometheus reads.
    pub fn classic_text(&self) -> String {
        classic::from_open_metrics(&self.open_metrics())
    }

    /// Everything, as Prometheus asks for it.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail; if it ever did, half a page would be worse than none.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

fn gauge(bytes: Bytes) -> i64 {
    i64::try_from(bytes.get()).unwrap_or(i64::MAX)
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_in_labels() {
        let metrics = Metrics::default();
        let hostile = "a\x1b[2J\r\nb\u{9b}\"\\é";
        let named = DeviceFigures {
            name: hostile.to_owned(),
            ..device("GPU-\x07", None)
        };

        metrics.set_devices(&[named], None);
        metrics.set_xids(&[XidCount {
            uuid: "GPU-\x07".to_owned(),
            xid: None,
            count: 1,
        }]);

        for text in [metrics.open_metrics(), metrics.classic_text()] {
            let raw = |letter: char| letter.is_control() && letter != '\n';
            assert!(!text.contains(raw), "{text:?}");
            let name = r#"name="a\\u{1b}[2J\\u{d}\\u{a}b\\u{9b}\"\\é""#;
            assert!(
                text.contains(name) && text.contains(r#"uuid="GPU-\\u{7}""#),
                "{text}"
            );
        }
    }

    fn device(uuid: &str, free: Option<Bytes>) -> DeviceFigures {
        DeviceFigures {
            uuid: uuid.to_owned(),
            name: "L4".to_owned(),
            total: Bytes::gib(24),
            free,
            available: free,
            leased: Some(Bytes::ZERO),
            unusable: None,
            part_of_gpu: false,
        }
    }

    #[test]
    fn every_family_is_written_in_open_metrics() {
        let metrics = Metrics::default();
        metrics.question("fits", "fits");
        metrics.took(Stage::Request, Duration::from_micros(40));
        metrics.set_hub_requests(HubOutcome::Ok, 1);
        metrics.set_nvml_errors(3);
        metrics.model_lookup(CacheResult::Disk);

        metrics.set_devices(
            &[device("GPU-1", Some(Bytes::gib(20)))],
            Some(Duration::from_millis(500)),
        );
        let heard = |xid| XidCount {
            uuid: "GPU-1".to_owned(),
            xid,
            count: 3,
        };

        metrics.set_xids(&[heard(Some(79)), heard(None)]);
        metrics.set_xids(&[heard(Some(79)), heard(None)]);
        let text = metrics.open_metrics();

        for line in [
            "hf_mem_probe_device_xids_total{uuid=\"GPU-1\",xid=\"79\"} 3",
            "hf_mem_probe_device_xids_total{uuid=\"GPU-1\",xid=\"unknown\"} 3",
            "hf_mem_probe_questions_total{verdict=\"fits\",reason=\"fits\"} 1",
            "hf_mem_probe_latency_seconds_bucket{le=\"0.00005\",stage=\"request\"} 1",
            "hf_mem_probe_hub_requests_total{outcome=\"ok\"} 1",
            "hf_mem_probe_model_lookups_total{result=\"disk\"} 1",
            "hf_mem_probe_nvml_errors_total 3",
            "hf_mem_probe_device_free_bytes{uuid=\"GPU-1\",name=\"L4\"} 21474836480",
            "hf_mem_probe_sampler_age_seconds 0.5",
            "hf_mem_probe_build_info{version=\"",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }

        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_could_not_be_read_is_absent_and_a_lost_device_leaves() {
        let metrics = Metrics::default();
        metrics.set_devices(
            &[device("GPU-1", None), device("GPU-2", Some(Bytes::gib(1)))],
            None,
        );

        assert!(
            !metrics
                .open_metrics()
                .contains("device_free_bytes{uuid=\"GPU-1\"")
        );

        assert!(
            metrics
                .open_metrics()
                .contains("device_total_bytes{uuid=\"GPU-1\"")
        );

        assert!(metrics.open_metrics().contains("sampler_age_seconds NaN"));
        metrics.set_devices(&[device("GPU-1", None)], None);
        let left = metrics.open_metrics();
        let of_gone = left
            .lines()
            .filter(|line| line.contains("GPU-2") && !line.contains("device_xids_total"));
        assert_eq!(
            of_gone.collect::<Vec<_>>(),
            Vec::<&str>::new(),
            "a counter goes on, a gauge does not"
        );
    }

    #[test]
    fn what_can_be_counted_is_there_before_it_happens() {
        let metrics = Metrics::default();
        let before = metrics.open_metrics();

        for line in [
            "hf_mem_probe_degraded{part=\"devices\"} 0",
            "hf_mem_probe_degraded{part=\"leases\"} 0",
            "hf_mem_probe_connections_refused_total{why=\"browser\"} 0",
            "hf_mem_probe_connections_refused_total{why=\"user_connections\"} 0",
            "hf_mem_probe_devices_unusable{reason=\"gpu_lost\"} 0",
            "hf_mem_probe_hub_requests_total{outcome=\"unreachable\"} 0",
            "hf_mem_probe_model_lookups_total{result=\"miss\"} 0",
            "hf_mem_probe_lease_events_total{event=\"store_failure\"} 0",
        ] {
            assert!(before.contains(line), "{line} in\n{before}");
        }

        metrics.set_degraded(DaemonPart::Hub, true);
        metrics.refused(Refusal::Bodies);

        let unusable = |uuid: &str, why: &str| DeviceFigures {
            unusable: Some(why.to_owned()),
            ..device(uuid, None)
        };

        let part = DeviceFigures {
            part_of_gpu: true,
            ..device("GPU-4", None)
        };

        metrics.set_devices(
            &[
                device("GPU-1", None),
                unusable("GPU-2", "gpu_lost"),
                unusable("GPU-3", "a new word"),
                part,
            ],
            None,
        );

        metrics.set_lease_events(&Counters {
            granted: 3,
            ..Counters::default()
        });
        let after = metrics.open_metrics();

        for line in [
            "hf_mem_probe_degraded{part=\"hub\"} 1",
            "hf_mem_probe_degraded{part=\"cache\"} 0",
            "hf_mem_probe_connections_refused_total{why=\"bodies\"} 1",
            "hf_mem_probe_device_usable{uuid=\"GPU-1\",name=\"L4\"} 1",
            "hf_mem_probe_device_usable{uuid=\"GPU-2\",name=\"L4\"} 0",
            "hf_mem_probe_devices_unusable{reason=\"gpu_lost\"} 1",
            "hf_mem_probe_devices_unusable{reason=\"other\"} 1",
            "hf_mem_probe_device_xids_total{uuid=\"GPU-1\",xid=\"79\"} 0",
            "hf_mem_probe_lease_events_total{event=\"granted\"} 3",
        ] {
            assert!(after.contains(line), "{line} in\n{after}");
        }

        assert!(
            !after.contains("{uuid=\"GPU-4\",xid="),
            "XIDs are of whole GPUs"
        );
        metrics.set_devices(&[device("GPU-1", None)], None);

        assert!(
            metrics
                .open_metrics()
                .contains("hf_mem_probe_devices_unusable{reason=\"gpu_lost\"} 0")
        );
    }
}
