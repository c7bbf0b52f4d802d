//! Why a promise is not given, or not changed.

use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::State;

use super::super::quota::QuotaExceeded;

/// Why nothing was promised. Whatever it is, nothing was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The request makes no sense.
    #[error("cannot lease {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// The time to live is out of bounds.
    #[error("a time to live of {asked:?} is not between {shortest:?} and {longest:?}")]
    TimeToLive {
        /// Asked for.
        asked: Duration,
        /// The least.
        shortest: Duration,
        /// The most.
        longest: Duration,
    },
    /// No such device.
    #[error("there is no device {uuid} on this host now")]
    UnknownDevice {
        /// Asked for.
        uuid: String,
    },
    /// Its free memory is not known: that is neither zero nor infinity, so nothing is promised.
    #[error("what is free on {uuid} is not known ({why}), so nothing can be promised there")]
    Unreadable {
        /// Asked for.
        uuid: String,
        /// Why not.
        why: String,
    },
    /// The reading is too old to promise anything on.
    #[error(
        "the last reading of the devices is {age:?} old, and older than {oldest:?} nothing is promised on it"
    )]
    StaleReading {
        /// How old.
        age: Duration,
        /// What is allowed.
        oldest: Duration,
    },
    /// Not enough.
    #[error(
        "{asked} on {uuid} cannot be promised: {available} of it are free, not promised to others and not kept back"
    )]
    Insufficient {
        /// The first device that lacks memory.
        uuid: String,
        /// Asked for there.
        asked: Bytes,
        /// Available there.
        available: Bytes,
    },
    /// The user's quota.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// Too many leases altogether.
    #[error("{live} leases are held, which is the most that are kept")]
    TooMany {
        /// Held now.
        live: usize,
    },
    /// The key was used for something else.
    #[error("the idempotency key was used for another question (lease {id}); use a new key")]
    KeyReused {
        /// Its lease.
        id: String,
    },
    /// The key's lease has ended: it is no promise any more.
    #[error(
        "the lease {id} of this idempotency key has ended ({state:?}); ask again with a new key"
    )]
    KeyEnded {
        /// Its lease.
        id: String,
        /// How.
        state: State,
    },
}

/// Why a lease could not be renewed or released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No such lease.
    #[error("there is no lease {id}; `hf-mem-probe lease list` shows those there are")]
    NotFound {
        /// Asked for.
        id: String,
    },
    /// Another user's.
    #[error("lease {id} belongs to uid {owner}; only that user and root may change it")]
    NotYours {
        /// Asked for.
        id: String,
        /// Whose it is.
        owner: u32,
    },
    /// It has ended, and is not brought back: its memory may have been promised to others since.
    #[error("lease {id} has ended ({state:?}) and cannot be renewed; ask for a new one")]
    Ended {
        /// Asked for.
        id: String,
        /// How.
        state: State,
    },
    /// The time to live is out of bounds.
    #[error("a time to live of {asked:?} is not between {shortest:?} and {longest:?}")]
    TimeToLive {
        /// Asked for.
        asked: Duration,
        /// The least.
        shortest: Duration,
        /// The most.
        longest: Duration,
    },
}
