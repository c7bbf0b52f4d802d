//! The closed sets of label values.

use crate::repository::HubOutcome;

/// The stages of a question, for the latency histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the request's head to its answer's head.
    Request,
    /// Finding the model's metadata.
    Model,
    /// Preparing the engine and planning.
    Plan,
    /// Deciding on a lease and persisting it.
    Lease,
    /// Reading all devices.
    Sample,
}

impl Stage {
    pub(super) const ALL: [Self; 5] = [
        Self::Request,
        Self::Model,
        Self::Plan,
        Self::Lease,
        Self::Sample,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Model => "model",
            Self::Plan => "plan",
            Self::Lease => "lease",
            Self::Sample => "sample",
        }
    }
}

/// Returns the label of a Hub request's outcome.
pub(super) const fn outcome_word(outcome: HubOutcome) -> &'static str {
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

/// The place where a model's metadata was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// In memory.
    Memory,
    /// On disk.
    Disk,
    /// In no cache: it was read from the Hub.
    Miss,
    /// In the question: the client read it.
    Sent,
}

impl CacheResult {
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::Disk, Self::Miss, Self::Sent];

    /// Returns the word for the metrics and the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Miss => "miss",
            Self::Sent => "sent",
        }
    }
}

/// Why a connection or a request is rejected, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A user has as many connections as one user can.
    UserConnections,
    /// All connections are in use.
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
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::UserConnections,
        Self::Connections,
        Self::Exhausted,
        Self::Bodies,
        Self::Watchers,
        Self::Browser,
    ];

    pub(super) const fn word(self) -> &'static str {
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

/// The reasons why nothing can be placed on a device, as labels. Any other reason is `other`.
pub(super) const UNUSABLE: [&str; 15] = [
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

/// XIDs after which a GPU needs attention. Their counters exist from a GPU's first reading on, so
/// that a rate shows the first one.
pub(super) const WATCHED_XIDS: [u64; 9] = [48, 63, 64, 74, 79, 94, 95, 119, 120];
