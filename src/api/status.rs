//! What the daemon tells of itself and of its devices.

use std::collections::BTreeMap;

use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::strict_json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::event::LeaseEvent;

/// The devices as they were last read, and what leases still claim on them. As a file it can be
/// given to `--gpus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GpusAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// The reading.
    #[serde(flatten, deserialize_with = "strict_json::nested")]
    pub snapshot: Snapshot,
    /// Bytes that leases still claim, by the device's UUID; devices without leases are left out.
    pub leased_bytes: BTreeMap<String, u64>,
}

/// One line of the watch stream: the devices as they are now, and what happened to leases since the
/// line before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchLine {
    /// The devices.
    #[serde(flatten, deserialize_with = "strict_json::nested")]
    pub gpus: GpusAnswer,
    /// What happened to leases and to those who wait for one, in order.
    #[serde(default)]
    pub lease_events: Vec<LeaseEvent>,
    /// Events that this listener was too slow for: `GET /v1/leases` says how things stand.
    #[serde(default)]
    pub missed_lease_events: u64,
}

/// One line of the watch stream while the daemon cannot read the devices.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Troubled)]
pub struct WatchProblem {
    /// Why the daemon cannot read them.
    #[serde(flatten)]
    pub problem: Problem,
    /// What happened to leases and to waiting callers, in order.
    pub lease_events: Vec<LeaseEvent>,
    /// How many events this client was too slow to receive.
    pub missed_lease_events: u64,
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// `ok` when every part is, else `degraded`.
    pub status: HealthStatus,
    /// Version of the daemon.
    pub version: String,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// Its parts: `devices`, `hub`, `leases`, `cache`, ...
    pub parts: Vec<HealthPart>,
}

impl HealthAnswer {
    /// From the parts: degraded as soon as one of them is.
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

/// The parts of the daemon, as their names stand in [`HealthPart`], in the log and in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DaemonPart {
    /// The driver and its devices.
    Devices,
    /// The Hubs.
    Hub,
    /// Metadata on disk.
    Cache,
    /// The ledger.
    Leases,
}

impl DaemonPart {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Devices, Self::Hub, Self::Cache, Self::Leases];

    /// Its name.
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
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: HealthStatus,
    /// Why, with the cure where there is one; `null` when all is well.
    pub reason: Option<String>,
}

/// How the daemon or a part of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// All is well.
    Ok,
    /// It answers, but not everything can be told.
    Degraded,
}

/// For how long the driver shall be let go of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NvmlReleaseRequest {
    /// Seconds; 60 when absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 3600)]
    pub seconds: Option<u64>,
}

/// Until when the driver is let go of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvmlReleaseAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// Until when no device file of the driver is held open, RFC 3339.
    pub released_until: String,
}
