//! Why a lease is not granted or not changed.

use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::State;

use super::super::quota::QuotaExceeded;

/// Why no lease was granted. In each case nothing was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The request is invalid.
    #[error("cannot lease {what}")]
    Invalid {
        /// The fault of the request.
        what: String,
    },
    /// The time to live is out of bounds.
    #[error("a time to live of {requested:?} is not between {min:?} and {max:?}")]
    TimeToLive {
        /// The requested time to live.
        requested: Duration,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
    /// The device does not exist.
    #[error("there is no device {uuid} on this host now")]
    UnknownDevice {
        /// The requested device.
        uuid: String,
    },
    /// The device's free memory is unknown.
    #[error("the free memory of {uuid} is unknown ({why}), so no lease can be granted there")]
    Unreadable {
        /// The requested device.
        uuid: String,
        /// Why it is unknown.
        why: String,
    },
    /// The reading is too old to grant a lease on.
    #[error(
        "the last reading of the devices is {age:?} old, which exceeds the maximum of \
         {max_age:?} for a grant"
    )]
    StaleReading {
        /// The age of the reading.
        age: Duration,
        /// The maximum age.
        max_age: Duration,
    },
    /// A device lacks memory.
    #[error(
        "cannot lease {requested} on {uuid}: {available} are available (free, not leased and \
         not reserved as margin)"
    )]
    Insufficient {
        /// The first device that lacks memory.
        uuid: String,
        /// The requested bytes there.
        requested: Bytes,
        /// The available bytes there.
        available: Bytes,
    },
    /// The grant would exceed the user's quota.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The daemon holds as many leases as it can.
    #[error("the daemon has {live} live leases, which is its limit; release one first")]
    TooMany {
        /// The live leases.
        live: usize,
    },
    /// The key was used for another question.
    #[error("the idempotency key was used for another question (lease {id}); use a new key")]
    KeyReused {
        /// The key's lease.
        id: String,
    },
    /// The key's lease has ended.
    #[error(
        "the lease {id} of this idempotency key has ended ({state:?}); ask again with a new key"
    )]
    KeyEnded {
        /// The key's lease.
        id: String,
        /// The lease's state.
        state: State,
    },
}

impl GrantError {
    pub(super) fn invalid(what: &str) -> Self {
        Self::Invalid {
            what: what.to_owned(),
        }
    }
}

/// Why a lease could not be renewed or released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The lease does not exist.
    #[error("there is no lease {id}; list the leases with `hf-mem-probe lease list`")]
    NotFound {
        /// The requested lease.
        id: String,
    },
    /// The lease belongs to another user.
    #[error("lease {id} belongs to uid {owner}; only that user and root may change it")]
    NotYours {
        /// The requested lease.
        id: String,
        /// Its user.
        owner: u32,
    },
    /// The lease has ended and cannot be revived: its memory may have been leased to others since.
    #[error("lease {id} has ended ({state:?}) and cannot be renewed; ask for a new one")]
    Ended {
        /// The requested lease.
        id: String,
        /// The lease's state.
        state: State,
    },
    /// The time to live is out of bounds.
    #[error("a time to live of {requested:?} is not between {min:?} and {max:?}")]
    TimeToLive {
        /// The requested time to live.
        requested: Duration,
        /// The shortest allowed.
        min: Duration,
        /// The longest allowed.
        max: Duration,
    },
}
