//! Promises that are on disk and cannot be read: until the last of them must have ended, nothing else is promised.
//!
//! The journal does not bring them back: it names no time to live and no holder's start, and its last lines are not synced.

use std::fmt;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ledger::Settings;
use super::moment::{Boottime, Now};

/// How files begin that held leases and could not be read.
pub(super) const SET_ASIDE: &str = "leases.json.set-aside-";

/// A file of leases that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is.
    pub path: PathBuf,
    /// When it was last written; `None` where that is not known either.
    pub written_at: Option<SystemTime>,
}

impl Unreadable {
    /// Those that were set aside in a directory, at this start or before.
    pub(super) fn in_directory(directory: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(SET_ASIDE) {
                found.push(Self::of(&entry));
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Renaming a file leaves the time of its last change as it is.
    fn of(entry: &DirEntry) -> Self {
        let written_at = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        Self { path: entry.path(), written_at }
    }
}

/// That leases may be alive which nobody can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blindness {
    /// When the last of them must have ended, by the clock that nobody moves.
    until: Boottime,
    /// The same for people.
    until_wall: SystemTime,
    /// The files that hold them.
    files: Vec<PathBuf>,
}

impl Blindness {
    /// What these files still hide at `now`: a lease ends no later than the longest time to live after its file was last
    /// written, or than growing memory may push its end out. A date that is not known, or in the future because the clock
    /// was set back, is taken for now.
    pub fn of(files: &[Unreadable], settings: &Settings, now: Now) -> Option<Self> {
        let longest = settings.longest_ttl.max(settings.growth_grace);
        let hidden = files.iter().filter_map(|file| {
            let age = file.written_at.and_then(|written| now.wall.duration_since(written).ok()).unwrap_or_default();
            let left = longest.checked_sub(age).filter(|left| !left.is_zero())?;
            Some((now.boottime.after(left), file.path.clone()))
        });
        let hidden: Vec<_> = hidden.collect();
        let until = hidden.iter().map(|(until, _)| *until).max()?;
        let files = hidden.into_iter().map(|(_, path)| path).collect();
        Some(Self { until, until_wall: now.wall_at(until), files })
    }

    /// Whether all of them have ended.
    pub fn is_over(&self, now: Boottime) -> bool {
        now >= self.until
    }

    /// When all of them will have ended, for the owner's timer.
    pub fn until(&self) -> Boottime {
        self.until
    }

    /// What a person can do about it.
    pub fn cure(&self) -> String {
        format!(
            "wait until then; or, where nothing that was promised before is still needed, remove {} and restart the daemon",
            self.names()
        )
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        names.join(" and ")
    }
}

impl fmt::Display for Blindness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "leases of an earlier run cannot be read ({}); until {}, when the last of them must have ended, no lease is granted",
            self.names(),
            humantime::format_rfc3339_seconds(self.until_wall)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Now = Now { boottime: Boottime::from_millis(50_000), wall: SystemTime::UNIX_EPOCH };

    fn settings() -> Settings {
        Settings { longest_ttl: Duration::from_secs(3600), ..Settings::default() }
    }

    fn until(written_at: Option<SystemTime>, now: Now) -> Option<Duration> {
        let file = Unreadable { path: PathBuf::from("/s/leases.json.set-aside-1"), written_at };
        let blind = Blindness::of(&[file], &settings(), now)?;
        assert!(blind.to_string().contains("/s/leases.json.set-aside-1"), "{blind}");
        assert!(!blind.is_over(now.boottime) && blind.is_over(blind.until()));
        Some(blind.until().since(now.boottime))
    }

    #[test]
    fn a_file_hides_leases_for_the_longest_time_to_live_after_it_was_written() {
        let now = Now { wall: NOW.wall + Duration::from_secs(100_000), ..NOW };
        let hour = Duration::from_secs(3600);
        assert_eq!(until(Some(now.wall), now), Some(hour));
        assert_eq!(until(Some(now.wall - Duration::from_secs(600)), now), Some(Duration::from_secs(3000)));
        assert_eq!(until(Some(now.wall - hour), now), None);
        // The host is up for less than that: what was written in another boot may be older than this one.
        assert_eq!(until(Some(now.wall - Duration::from_secs(99_000)), now), None);
    }

    #[test]
    fn a_date_that_cannot_be_is_no_reason_to_promise() {
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(until(Some(NOW.wall + Duration::from_secs(9_000)), NOW), hour, "the clock was set back");
        assert_eq!(until(None, NOW), hour);
    }

    #[test]
    fn growing_memory_outlives_a_short_time_to_live() {
        let settings = Settings { longest_ttl: Duration::from_secs(5), ..Settings::default() };
        let file = Unreadable { path: PathBuf::new(), written_at: Some(NOW.wall) };
        let blind = Blindness::of(&[file], &settings, NOW).unwrap();
        assert_eq!(blind.until(), NOW.boottime.after(settings.growth_grace));
    }

    #[test]
    fn the_last_of_several_files_decides() {
        let now = Now { wall: NOW.wall + Duration::from_secs(100_000), ..NOW };
        let file = |name: &str, age| Unreadable {
            path: PathBuf::from(name),
            written_at: Some(now.wall - Duration::from_secs(age)),
        };
        let blind = Blindness::of(&[file("a", 10), file("b", 9_000), file("c", 20)], &settings(), now).unwrap();
        assert_eq!(blind.until(), now.boottime.after(Duration::from_secs(3590)));
        assert!(blind.cure().contains("remove a and c and restart"), "{}", blind.cure());
        assert_eq!(Blindness::of(&[], &settings(), now), None);
    }
}
