//! A lease as clients see it.

use serde::{Deserialize, Serialize};

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Granted; none of its memory is in use yet.
    Granted,
    /// Part of its memory is in use.
    Settling,
    /// All of its memory is in use, or the holder has taken a part and nothing more for a while.
    Settled,
    /// Released, by its owner or because its holder exited.
    Released,
    /// Its time to live has passed.
    Expired,
    /// Its holder did not exist when the daemon restarted.
    Orphaned,
}

impl State {
    /// Whether the lease still claims memory.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Granted | Self::Settling | Self::Settled)
    }
}

/// The reason why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The owner or root released it.
    ByOwner,
    /// The holding process exited.
    HolderDied,
    /// The time to live passed without a renewal.
    TtlPassed,
    /// When the daemon restarted, the holding process had exited or its pid belonged to another.
    HolderGoneAtRestart,
    /// The host was rebooted, so the holding process has ended.
    Rebooted,
}

impl EndReason {
    /// Returns the word as it is written in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ByOwner => "by_owner",
            Self::HolderDied => "holder_died",
            Self::TtlPassed => "ttl_passed",
            Self::HolderGoneAtRestart => "holder_gone_at_restart",
            Self::Rebooted => "rebooted",
        }
    }

    /// Returns the state of a lease that ended for this reason.
    pub fn state(self) -> State {
        match self {
            Self::ByOwner | Self::HolderDied => State::Released,
            Self::TtlPassed => State::Expired,
            Self::HolderGoneAtRestart | Self::Rebooted => State::Orphaned,
        }
    }
}

/// The holder of a lease: `{"name": "..."}` or `{"pid": 4121}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A name; the lease ends by release or by its TTL.
    Name(String),
    /// A process; the lease also ends when the process does.
    Pid(u32),
}

/// The current state of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseAnswer {
    /// The id.
    pub id: String,
    /// The state.
    pub state: State,
    /// Why it ended; `null` while it is live.
    pub reason: Option<EndReason>,
    /// The model of the lease.
    pub model: String,
    /// The holder.
    pub holder: Holder,
    /// The uid of the user who requested it.
    pub uid: u32,
    /// The time of the grant, RFC 3339.
    pub granted_at: String,
    /// The time at which it ends unless renewed, or at which it ended, RFC 3339.
    pub expires_at: String,
    /// Seconds until then, by the monotonic clock; 0 after it has ended.
    pub expires_in_seconds: u64,
    /// Seconds that a renewal without a TTL adds.
    pub ttl_seconds: u64,
    /// The memory on each device.
    pub devices: Vec<LeasedDevice>,
    /// The limits of a lease: it is advisory.
    pub note: String,
}

/// One device of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasedDevice {
    /// The device's UUID.
    pub uuid: String,
    /// Bytes granted on the device.
    pub granted_bytes: u64,
    /// Bytes of the grant that the holder uses.
    pub visible_bytes: u64,
    /// Bytes of the grant still claimed because they are not in use yet.
    pub claimed_bytes: u64,
}
