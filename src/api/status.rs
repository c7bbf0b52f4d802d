//! The daemon's devices and health on the wire.

use std::collections::BTreeMap;

use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::strict_json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::event::LeaseEvent;

/// The last reading of the devices, and what leases still claim on them. You can pass it to
/// `--gpus` as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GpusAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// The reading.
    #[serde(flatten, deserialize_with = "strict_json::nested")]
    pub snapshot: Snapshot,
    /// Bytes that leases still claim, by device UUID. Devices without leases are left out.
    pub leased_bytes: BTreeMap<String, u64>,
}

/// A line of the watch stream: the current devices, and the lease events since the line before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchLine {
    /// The devices.
    #[serde(flatten, deserialize_with = "strict_json::nested")]
    pub gpus: GpusAnswer,
    /// Events of leases and of waiting callers, in order.
    #[serde(default)]
    pub lease_events: Vec<LeaseEvent>,
    /// How many events this client was too slow to receive. Call `GET /v1/leases` for the current
    /// state.
    #[serde(default)]
    pub missed_lease_events: u64,
}

/// A line of the watch stream while the daemon cannot read the devices.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Troubled)]
pub struct WatchProblem {
    /// Why the daemon cannot read them.
    #[serde(flatten)]
    pub problem: Problem,
    /// Events of leases and of waiting callers, in order.
    pub lease_events: Vec<LeaseEvent>,
    /// How many events this client was too slow to receive.
    pub missed_lease_events: u64,
}

/// The daemon's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// `ok` if every part is `ok`, else `degraded`.
    pub status: HealthStatus,
    /// The daemon's version.
    pub version: String,
    /// Seconds since the daemon's start.
    pub uptime_seconds: u64,
    /// The daemon's parts: `devices`, `hub`, `leases`, `cache`, ...
    pub parts: Vec<HealthPart>,
}

impl HealthAnswer {
    /// Builds the answer from the parts. One degraded part makes the daemon degraded.
    pub fn of(parts: Vec<HealthPart>, uptime_seconds: u64) -> Self {
        let ok = parts.iter().all(|part| part.status == HealthStatus::Ok);
        Self {
            schema_version: hf_mem_core::report::SCHEMA_VERSION,
            status: if ok {
                HealthStatus::Ok
            } else {
                HealthStatus::Degraded
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds,
            parts,
        }
    }
}

/// The parts of the daemon. Their names appear in [`HealthPart`], in the log and in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DaemonPart {
    /// The driver and its devices.
    Devices,
    /// The Hubs.
    Hub,
    /// The metadata cache on disk.
    Cache,
    /// The lease ledger.
    Leases,
}

impl DaemonPart {
    /// All parts, in the order of the health answer.
    pub const ALL: [Self; 4] = [Self::Devices, Self::Hub, Self::Cache, Self::Leases];

    /// The part's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Hub => "hub",
            Self::Cache => "cache",
            Self::Leases => "leases",
        }
    }
}

/// One part of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthPart {
    /// The part's name.
    pub name: String,
    /// The part's status.
    pub status: HealthStatus,
    /// Why the part is degraded, with the fix if there is one; `null` when it is `ok`.
    pub reason: Option<String>,
}

/// The status of the daemon or of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Everything works.
    Ok,
    /// The daemon answers, but some information is missing.
    Degraded,
}

/// A request to release the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NvmlReleaseRequest {
    /// Seconds; 60 when absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3600)]
    pub seconds: Option<u64>,
}

/// The answer to a release of the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvmlReleaseAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// The time until which the daemon holds no device file of the driver open, RFC 3339.
    pub released_until: String,
}
