//! Creates all metrics and registers them under their names.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Metrics;
use super::label_sets::{BuildLabels, PartLabels, RefusedLabels, ResultLabels, StageLabels};
use super::words::{CacheResult, Refusal, Stage};
use crate::api::status::DaemonPart;

type LatencyFamily = Family<StageLabels, Histogram, fn() -> Histogram>;

/// From 10 µs, less than anything here takes, to a minute, the handler's deadline.
const LATENCY_BUCKETS_SECONDS: [f64; 20] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hf_mem_probe");
        let latency: LatencyFamily =
            Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_SECONDS));
        let refused: Family<RefusedLabels, Counter> = Family::default();
        let model_lookups: Family<ResultLabels, Counter> = Family::default();
        let degraded: Family<PartLabels, Gauge> = Family::default();
        let metrics = Self {
            questions: Family::default(),
            latency: Stage::ALL.map(|stage| {
                let stage = stage.word();
                latency.get_or_create(&StageLabels { stage }).clone()
            }),
            hub_requests: Family::default(),
            model_lookups: CacheResult::ALL.map(|result| {
                let result = result.word();
                model_lookups
                    .get_or_create(&ResultLabels { result })
                    .clone()
            }),
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
            refused: Refusal::ALL.map(|why| {
                let why = why.word();
                refused.get_or_create(&RefusedLabels { why }).clone()
            }),
            degraded: DaemonPart::ALL.map(|part| {
                let part = part.word();
                degraded.get_or_create(&PartLabels { part }).clone()
            }),
            device_usable: Family::default(),
            unusable: Family::default(),
            lease_events: Family::default(),
            registry: Registry::default(),
        };

        register_questions(&mut registry, &metrics, latency, model_lookups);
        register_devices(&mut registry, &metrics);
        register_daemon(&mut registry, &metrics, refused, degraded);
        metrics.create_series();

        Self {
            registry,
            ..metrics
        }
    }
}

/// Registers the metrics of questions and models.
fn register_questions(
    registry: &mut Registry,
    metrics: &Metrics,
    latency: LatencyFamily,
    model_lookups: Family<ResultLabels, Counter>,
) {
    // A gauge instead of an info metric, which the older text format does not have.
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
}

/// Registers the metrics of devices and leases.
fn register_devices(registry: &mut Registry, metrics: &Metrics) {
    registry.register(
        "devices",
        "Devices in the last reading",
        metrics.devices.clone(),
    );
    for (name, help, family) in [
        ("device_total", "All memory", &metrics.device_total),
        ("device_free", "Unallocated memory", &metrics.device_free),
        (
            "device_available",
            "Memory that can be leased now",
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

    registry.register("leases", "Active leases", metrics.leases.clone());
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
        "Failed readings, and devices that could not be read",
        errors,
    );

    registry.register(
        "device_xids",
        "XIDs that the driver reported, by device and number",
        metrics.xids.clone(),
    );
}

/// Registers the metrics of the daemon's own parts.
fn register_daemon(
    registry: &mut Registry,
    metrics: &Metrics,
    refused: Family<RefusedLabels, Counter>,
    degraded: Family<PartLabels, Gauge>,
) {
    registry.register(
        "connections",
        "Open connections",
        metrics.connections.clone(),
    );

    registry.register(
        "connections_refused",
        "Connections and requests rejected",
        refused,
    );

    registry.register(
        "degraded",
        "Whether a part of the daemon is degraded (1) or ok (0), as in the health answer",
        degraded,
    );

    registry.register(
        "device_usable",
        "Whether models can be placed on a device (1) or not (0)",
        metrics.device_usable.clone(),
    );

    let unusable = metrics.unusable.clone();
    registry.register(
        "devices_unusable",
        "Devices on which nothing can be placed, by reason",
        unusable,
    );

    registry.register(
        "lease_events",
        "Events of leases and of waiting callers",
        metrics.lease_events.clone(),
    );
}
