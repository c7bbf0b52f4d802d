//! Leases on the wire: requests, and the list of leases.

use hf_mem_core::report::Question;
use hf_mem_core::report::lease::{Holder, LeaseAnswer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request to hold the memory that an answer names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The question.
    pub question: Question,
    /// Seconds until the lease expires unless you renew it; the daemon's default when absent. The
    /// maximum is `leases.max_ttl` (3600 unless configured).
    #[serde(default)]
    #[schema(minimum = 1)]
    pub ttl_seconds: Option<u64>,
    /// The holder of the lease; the calling process when absent.
    #[serde(default)]
    pub holder: Option<Holder>,
    /// Repeat a request with the same key to get the same lease instead of a second one. Keys are
    /// separate for each user.
    #[serde(default)]
    #[schema(max_length = 512)]
    pub idempotency_key: Option<String>,
    /// Seconds to wait for memory before the answer is no, up to `leases.max_wait`.
    #[serde(default)]
    #[schema(maximum = 3600)]
    pub wait_seconds: u64,
    /// Whether the verdict `tight` counts as no: it then grants no lease, and a wait continues.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// A request to renew a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Seconds from now; the lease's own TTL when absent. The maximum is `leases.max_ttl` (3600
    /// unless configured).
    #[serde(default)]
    #[schema(minimum = 1)]
    pub ttl_seconds: Option<u64>,
}

/// All leases that the caller may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeasesAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// The leases, oldest first.
    pub leases: Vec<LeaseAnswer>,
    /// The waiting callers, the head of the queue first.
    pub waiting: Vec<Waiting>,
    /// The limits of what a lease guarantees.
    pub note: String,
    /// Leases that are missing here because the daemon cannot read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A caller that waits for memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// Its ticket.
    pub ticket: u64,
    /// The uid of the user who waits.
    pub uid: u32,
    /// The process that waits, if it is known.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Position in the queue; 1 is the head.
    pub position: u64,
    /// Seconds in the queue so far.
    pub waited_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_name_or_process() {
        assert_eq!(
            serde_json::from_str::<Holder>(r#"{"pid": 4121}"#).unwrap(),
            Holder::Pid(4121)
        );
        assert_eq!(
            serde_json::from_str::<Holder>(r#"{"name": "job 7"}"#).unwrap(),
            Holder::Name("job 7".into())
        );
        let error = serde_json::from_str::<Holder>(r#"{"user": "x"}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("unknown variant `user`, expected `name` or `pid`"),
            "{error}"
        );
        serde_json::from_str::<Holder>(r#"{"name": "x", "pid": 1}"#).unwrap_err();
    }
}
