//! Leases on the wire: what is asked for, and what is told of one that is held.

use hf_mem_core::report::Question;
use hf_mem_core::report::lease::{Holder, LeaseAnswer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A question whose answer is to be held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The question.
    pub question: Question,
    /// Seconds until the lease ends unless renewed; the daemon's default when absent.
    /// `leases.max_ttl` is the most (3600 unless configured).
    #[serde(default)]
    #[schema(minimum = 1)]
    pub ttl_seconds: Option<u64>,
    /// Who holds it; the calling process when absent.
    #[serde(default)]
    pub holder: Option<Holder>,
    /// The same key from the same user gets the same lease again instead of a second one.
    #[serde(default)]
    #[schema(max_length = 512)]
    pub idempotency_key: Option<String>,
    /// Seconds to wait for memory before the answer is no, up to `leases.max_wait`.
    #[serde(default)]
    #[schema(maximum = 3600)]
    pub wait_seconds: u64,
    /// Whether "tight" is a no: it then holds nothing, and a wait goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// How long a lease shall go on from now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Seconds from now; the lease's own TTL when absent. `leases.max_ttl` is the most (3600 unless
    /// configured).
    #[serde(default)]
    #[schema(minimum = 1)]
    pub ttl_seconds: Option<u64>,
}

/// Every lease that the asker may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeasesAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// The leases, oldest first.
    pub leases: Vec<LeaseAnswer>,
    /// Those in line, the head first.
    pub waiting: Vec<Waiting>,
    /// What a lease is not.
    pub note: String,
    /// Leases that are not among these because they cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One in line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// Its ticket.
    pub ticket: u64,
    /// uid of the user who waits.
    pub uid: u32,
    /// The process that waits, where one does.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Place in line, 1 is the head.
    pub position: u64,
    /// Seconds in line so far.
    pub waited_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_a_name_or_a_process() {
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
