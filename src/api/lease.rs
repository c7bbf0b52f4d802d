//! Leases on the wire: what is asked for, and what is told of one that is held.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Question;
use crate::leases::lease::{EndReason, State};

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

/// Who holds a lease: `{"name": "..."}` or `{"pid": 4121}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A name; the lease ends by release or by its TTL.
    Name(String),
    /// A process; the lease also ends when the process does.
    Pid(u32),
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

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseAnswer {
    /// Its id.
    pub id: String,
    /// Where in its life it is.
    pub state: State,
    /// Why it ended; `null` while it lives.
    pub reason: Option<EndReason>,
    /// The model that it was granted for.
    pub model: String,
    /// Who holds it.
    pub holder: Holder,
    /// uid of the user who asked for it.
    pub uid: u32,
    /// When it was granted, RFC 3339.
    pub granted_at: String,
    /// When it ends unless renewed, or when it ended, RFC 3339.
    pub expires_at: String,
    /// Seconds until then, by the clock that nobody steps; 0 once it has ended.
    pub expires_in_seconds: u64,
    /// Seconds that a renewal without a TTL adds.
    pub ttl_seconds: u64,
    /// What it holds on each device.
    pub devices: Vec<LeasedDevice>,
    /// What a lease is not.
    pub note: String,
}

/// One device of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeasedDevice {
    /// The device's UUID.
    pub uuid: String,
    /// Bytes that were promised here.
    pub granted_bytes: u64,
    /// Bytes of them that its holder is seen to use.
    pub visible_bytes: u64,
    /// Bytes of them still claimed, because they are not seen in use yet.
    pub claimed_bytes: u64,
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
