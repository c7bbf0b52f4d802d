//! Problems: the stable word of each reason, its HTTP status and its exit code.

use serde::{Deserialize, Serialize};

use crate::device::UnusableReason;
use crate::wire_word::{WireWord, Word};

/// An RFC 9457 problem document; on the command line the one object that `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The version of the wire types.
    pub schema_version: u32,
    /// A URI reference for the kind of problem: `urn:hf-mem-probe:problem:not_found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// The failure, and its object.
    pub detail: String,
    /// How to fix it, if known.
    pub hint: Option<String>,
    /// A stable word.
    pub reason: Reason,
    /// Seconds after which a retry makes sense, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

macro_rules! reasons {
    ($($variant:ident $word:literal $status:literal $exit:literal $title:literal;)+) => {
        /// A reason for a failure or for a verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        #[expect(missing_docs, reason = "each variant's text is its title below")]
        pub enum Reason { $($variant,)+ }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the word as it is written in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Returns the HTTP status of a failure with this reason. Verdicts have status 200.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// Returns the exit code of the process.
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)+ }
            }

            /// Returns a few words for a person.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }

        impl Word for Reason {
            const ALL: &'static [Self] = Self::ALL;

            fn word(self) -> &'static str {
                self.word()
            }
        }
    };
}

reasons! {
    Fits "fits" 200 0 "It fits";
    InsufficientMemory "insufficient_memory" 200 1 "Not enough memory";
    NoLegalSplit "no_legal_split" 200 1 "No legal split over these devices";
    ComputeCapability "compute_capability" 200 1 "The devices cannot run this model";
    Leased "leased" 200 1 "The memory is leased to others";
    Usage "usage" 400 2 "Invalid request";
    UnsupportedArchitecture "unsupported_architecture" 422 3 "Architecture not understood";
    UnsupportedEngineVersion "unsupported_engine_version" 422 3 "Unknown engine version";
    UnsupportedParameter "unsupported_parameter" 422 3 "Engine parameter not counted";
    MissingMetadata "missing_metadata" 422 3 "Metadata missing or unreadable";
    NvmlUnavailable "nvml_unavailable" 503 4 "The driver's library cannot be used";
    GpuLost "gpu_lost" 503 4 "A GPU is lost";
    NoDevices "no_devices" 503 4 "No usable device";
    DriverVersionMismatch "driver_version_mismatch" 503 4 "The driver's library and module do not match";
    NvmlOverdue "nvml_overdue" 503 4 "The driver does not answer in time";
    NvmlReleased "nvml_released" 503 75 "The driver is released for a while";
    NoPermission "no_permission" 503 4 "The driver refuses access";
    ResetRequired "reset_required" 503 4 "The GPU must be reset";
    RowRemapFailure "row_remap_failure" 503 4 "The GPU's memory is broken";
    FabricNotReady "fabric_not_ready" 503 4 "The NVLink fabric is not ready";
    Drain "drain" 503 4 "The GPU is being drained";
    NotReady "not_ready" 503 4 "The GPU is still starting";
    Prohibited "prohibited" 503 4 "The compute mode forbids all work";
    ExclusiveProcess "exclusive_process" 503 4 "The GPU is held exclusively";
    MigWithoutInstances "mig_without_instances" 503 4 "MIG is enabled without instances";
    MemoryUnreadable "memory_unreadable" 503 4 "The GPU's memory cannot be read";
    Asleep "asleep" 503 4 "The GPU is suspended";
    NotFound "not_found" 404 5 "Not found";
    Gated "gated" 403 5 "The repository is gated";
    Unauthorized "unauthorized" 401 5 "The token was not accepted";
    DaemonUnreachable "daemon_unreachable" 503 69 "The daemon does not answer";
    HubUnreachable "hub_unreachable" 502 75 "The Hub does not answer";
    RateLimited "rate_limited" 429 75 "The Hub asks to wait";
    WaitOver "wait_over" 200 75 "Timed out waiting for memory";
    MemoryDraining "memory_draining" 200 75 "Memory is being released";
    BadConfiguration "bad_configuration" 500 78 "Bad configuration";
    Forbidden "forbidden" 403 77 "Not allowed";
    NotFoundRoute "not_found_route" 404 2 "No such route";
    MethodNotAllowed "method_not_allowed" 405 2 "No such method on this route";
    Busy "busy" 503 75 "The daemon is busy";
    DaemonStopping "daemon_stopping" 503 75 "The daemon is stopping";
    TooLarge "too_large" 413 2 "The request is too large";
    Timeout "timeout" 504 75 "The answer took too long";
    Internal "internal" 500 70 "Internal error";
}

impl Reason {
    /// Returns the reason for a device that is not usable; [`Reason::NoDevices`] for a word that is
    /// no reason.
    pub fn of_device(unusable: &WireWord<UnusableReason>) -> Self {
        WireWord::new(unusable.as_str())
            .known()
            .unwrap_or(Self::NoDevices)
    }
}

impl Problem {
    /// Returns a problem with `reason`.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            schema_version: super::SCHEMA_VERSION,
            kind: format!("urn:hf-mem-probe:problem:{}", reason.word()),
            title: reason.title().to_owned(),
            status: reason.status(),
            detail: detail.into(),
            hint: None,
            reason,
            retry_after_seconds: None,
        }
    }

    /// Adds a hint how to fix it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that the question's draft has this problem, not its model.
    #[must_use]
    pub fn with_draft(mut self) -> Self {
        self.detail = format!("the draft: {}", self.detail);
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_serde() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.word());
        }
    }

    #[test]
    fn failures_have_error_status() {
        // These are verdicts; no failure has them.
        let verdicts = [
            "fits",
            "insufficient_memory",
            "no_legal_split",
            "compute_capability",
            "leased",
            "wait_over",
        ];

        for reason in Reason::ALL {
            let verdict = verdicts.contains(&reason.word()) || *reason == Reason::MemoryDraining;
            assert_eq!(
                (400..600).contains(&reason.status()),
                !verdict,
                "{reason:?}"
            );
        }
    }

    #[test]
    fn exit_codes_avoid_reserved_ranges() {
        for reason in Reason::ALL {
            let code = reason.exit_code();
            assert!(code <= 5 || (64..=78).contains(&code), "{reason:?}: {code}");
        }
    }
}
