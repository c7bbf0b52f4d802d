//! Two clocks: the boot clock, which no administrator and no NTP step changes, and the wall clock,
//! which is only printed.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Milliseconds since boot, suspended time included (`CLOCK_BOOTTIME`). All deadlines and ages use
/// it.
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

    /// This moment plus a duration, saturating.
    pub fn after(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The same instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Counts: deadlines and ages.
    pub boottime: Boottime,
    /// Is printed.
    #[serde(with = "hf_mem_core::rfc3339")]
    pub wall: SystemTime,
}

impl Timestamp {
    /// Reads both clocks. The ledger never calls it: its owner passes the time in.
    pub fn now() -> Self {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or_default();
        let milliseconds = u64::try_from(since_boot.tv_nsec / 1_000_000).unwrap_or_default();
        Self {
            boottime: Boottime(seconds.saturating_mul(1000).saturating_add(milliseconds)),
            wall: SystemTime::now(),
        }
    }

    /// The time that the wall clock shows at `moment`, past or future, unless it is stepped.
    pub fn wall_time_at(&self, moment: Boottime) -> SystemTime {
        let at = if moment >= self.boottime {
            self.wall.checked_add(moment.since(self.boottime))
        } else {
            self.wall.checked_sub(self.boottime.since(moment))
        };
        at.unwrap_or(self.wall)
    }

    /// The boot time of something that has only a wall time, such as a snapshot. It is exact unless
    /// the wall clock was stepped in between. A date in the future counts as now. Prefer to read
    /// [`Boottime`] when the thing is made.
    pub fn boottime_of(&self, wall: SystemTime) -> Boottime {
        let age = self.wall.duration_since(wall).unwrap_or_default();
        let age_millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Boottime(self.boottime.0.saturating_sub(age_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stepped_wall_clock_moves_no_moment() {
        let now = Timestamp {
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

        // A snapshot dated in the future, because the clock was set back since, counts as now.
        assert_eq!(
            now.boottime_of(SystemTime::UNIX_EPOCH + Duration::from_secs(60)),
            now.boottime
        );
        assert_eq!(
            now.wall_time_at(Boottime::from_millis(12_000)),
            SystemTime::UNIX_EPOCH + Duration::from_secs(2)
        );
    }

    #[test]
    fn clocks_can_be_read() {
        assert!(Timestamp::now().boottime > Boottime::BOOT);
    }
}
