//! Two clocks: the one since boot, which no administrator and no NTP step moves, and the wall's,
//! which is only printed.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Milliseconds since boot, suspended time included (`CLOCK_BOOTTIME`): what every deadline and
/// every age is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boottime(u64);

impl Boottime {
    /// The moment of boot.
    pub const BOOT: Self = Self(0);

    /// `milliseconds` after boot.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since boot.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment and a while; the far end of time where that leaves the range.
    pub fn after(self, while_: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(while_.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; nothing when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The same instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Decides.
    pub boottime: Boottime,
    /// Is printed.
    #[serde(with = "rfc3339")]
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks: for the shell around the ledger, never called by the ledger.
    pub fn read() -> Self {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or_default();
        let milliseconds = u64::try_from(since_boot.tv_nsec / 1_000_000).unwrap_or_default();
        Self {
            boottime: Boottime(seconds.saturating_mul(1000).saturating_add(milliseconds)),
            wall: SystemTime::now(),
        }
    }

    /// What the wall's clock will show (or has shown) at `moment`, if nobody steps it.
    pub fn wall_at(&self, moment: Boottime) -> SystemTime {
        let at = if moment >= self.boottime {
            self.wall.checked_add(moment.since(self.boottime))
        } else {
            self.wall.checked_sub(self.boottime.since(moment))
        };
        at.unwrap_or(self.wall)
    }

    /// The moment of something that only the wall's clock dated, such as a snapshot. Exact unless
    /// the clock was stepped in between; a date in the future is taken for now. Prefer to read
    /// [`Boottime`] where the thing is made.
    pub fn moment_of(&self, wall: SystemTime) -> Boottime {
        let age = self.wall.duration_since(wall).unwrap_or_default();
        let age_millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Boottime(self.boottime.0.saturating_sub(age_millis))
    }
}

pub(crate) mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        at: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*at))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_wall_clock_moves_no_moment() {
        let now = Now {
            boottime: Boottime::from_millis(10_000),
            wall: SystemTime::UNIX_EPOCH,
        };

        assert_eq!(
            now.boottime.after(Duration::from_secs(5)),
            Boottime::from_millis(15_000)
        );
        assert_eq!(
            now.boottime.since(Boottime::from_millis(99_000)),
            Duration::ZERO
        );

        // A snapshot dated in the future (the clock was set back since) is not taken for a later
        // reading than now.
        assert_eq!(
            now.moment_of(SystemTime::UNIX_EPOCH + Duration::from_secs(60)),
            now.boottime
        );
        assert_eq!(
            now.wall_at(Boottime::from_millis(12_000)),
            SystemTime::UNIX_EPOCH + Duration::from_secs(2)
        );
    }

    #[test]
    fn the_real_clocks_can_be_read() {
        assert!(Now::read().boottime > Boottime::BOOT);
    }
}
