//! A lease as clients see it.

use serde::{Deserialize, Serialize};

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Promised; nothing of it is seen on a device yet.
    Granted,
    /// Part of it is seen.
    Settling,
    /// All of it is seen, or the holder has taken what it wanted: something, and nothing more for a
    /// while.
    Settled,
    /// Given back, by its owner or by its holder's death.
    Released,
    /// Its time ran out.
    Expired,
    /// Its holder was gone when the daemon came back.
    Orphaned,
}

impl State {
    /// Whether the promise still holds.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Granted | Self::Settling | Self::Settled)
    }
}

/// Why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The owner or root gave it back.
    ByOwner,
    /// The holding process died.
    HolderDied,
    /// The time to live passed without a renewal.
    TtlPassed,
    /// The holding process had died, or its pid was another's, when the daemon came back.
    HolderGoneAtRestart,
    /// The host was restarted, and with it the holding process.
    Rebooted,
}

impl EndReason {
    /// The word as it stands in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ByOwner => "by_owner",
            Self::HolderDied => "holder_died",
            Self::TtlPassed => "ttl_passed",
            Self::HolderGoneAtRestart => "holder_gone_at_restart",
            Self::Rebooted => "rebooted",
        }
    }

    /// The state that a lease which ended so is in.
    pub fn state(self) -> State {
        match self {
            Self::ByOwner | Self::HolderDied => State::Released,
            Self::TtlPassed => State::Expired,
            Self::HolderGoneAtRestart | Self::Rebooted => State::Orphaned,
        }
    }
}

/// Who holds a lease: `{"name": "..."}` or `{"pid": 4121}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A name; the lease ends by release or by its TTL.
    Name(String),
    /// A process; the lease also ends when the process does.
    Pid(u32),
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
