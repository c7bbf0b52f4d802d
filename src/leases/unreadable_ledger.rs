//! Promises that are on disk and cannot be read: until the last of them must have ended, nothing
//! else is promised.
//!
//! The journal does not bring them back: it names no time to live and no holder's start, and its
//! last lines are not synced.

use std::fmt;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::clock::{Boottime, Now};
use super::header::{self, HeaderGrant, LedgerHeader};
use super::ledger::LedgerConfig;

/// How files begin that held leases and could not be read.
pub(super) const SET_ASIDE: &str = "leases.json.set-aside-";

/// A file of leases that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is.
    pub path: PathBuf,
    /// When it was last written; `None` where that is not known either.
    pub written_at: Option<SystemTime>,
    /// What its first line says, where that much of it is whole.
    pub promised: Option<HeaderGrant>,
}

impl Unreadable {
    /// Those that were set aside in a directory, at this start or before.
    pub fn in_directory(directory: &Path) -> io::Result<Vec<Self>> {
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
        let (path, metadata) = (entry.path(), entry.metadata());
        let written_at = metadata
            .as_ref()
            .ok()
            .and_then(|metadata| metadata.modified().ok());

        // Whatever else has the name may be a pipe, and is not opened.
        let plain = metadata.is_ok_and(|metadata| metadata.is_file());
        let promised = plain
            .then(|| first_line(&path))
            .and_then(Result::ok)
            .and_then(|content| {
                let (header, _) = LedgerHeader::read(&content).ok()?;
                header.promised()
            });

        Self {
            path,
            written_at,
            promised,
        }
    }

    /// How long after `now` its leases may live: as its first line says, or as long as any lease
    /// may live that was written down when it was.
    fn hides_for(&self, longest: Duration, boot_id: &str, now: Now) -> Duration {
        let Some(promised) = &self.promised else {
            // A date that is not known, or in the future because the clock was set back, is taken
            // for now.
            let age = self
                .written_at
                .and_then(|written| now.wall.duration_since(written).ok())
                .unwrap_or_default();
            return longest.saturating_sub(age);
        };

        let (saved_at, Some(last_end)) = (promised.saved_at, promised.last_end) else {
            return Duration::ZERO;
        };

        if promised.boot_id == boot_id && saved_at.boottime <= now.boottime {
            return last_end.since(now.boottime);
        }
        // Of another boot: only the wall's clock spans both, as when a ledger is restored.
        let passed = now.wall.duration_since(saved_at.wall).unwrap_or_default();

        last_end.since(saved_at.boottime).saturating_sub(passed)
    }
}

/// The beginning of a file, as much as a first line may have.
fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(header::LONGEST as u64)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// That leases may be alive which nobody can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableLedger {
    /// When the last of them must have ended, by the clock that nobody moves.
    until: Boottime,
    /// The same for people.
    until_wall: SystemTime,
    /// The files that hold them.
    files: Vec<PathBuf>,
}

impl UnreadableLedger {
    /// What these files still hide at `now`, in the boot `boot_id`: until the last end that a
    /// file's first line names, and where that is damaged too, for the longest time to live after
    /// it was last written, or for as long as growing memory may push an end out.
    pub fn of(
        files: &[Unreadable],
        settings: &LedgerConfig,
        boot_id: &str,
        now: Now,
    ) -> Option<Self> {
        let longest = settings.longest_ttl.max(settings.growth_grace);
        let hidden = files.iter().filter_map(|file| {
            let left = file.hides_for(longest, boot_id, now);
            (!left.is_zero()).then(|| (now.boottime.after(left), file.path.clone()))
        });
        let hidden: Vec<_> = hidden.collect();
        let until = hidden.iter().map(|(until, _)| *until).max()?;
        let files = hidden.into_iter().map(|(_, path)| path).collect();

        Some(Self {
            until,
            until_wall: now.wall_at(until),
            files,
        })
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
        let names: Vec<String> = self
            .files
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        names.join(" and ")
    }
}

impl fmt::Display for UnreadableLedger {
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
    use super::*;

    const NOW: Now = Now {
        boottime: Boottime::from_millis(50_000),
        wall: SystemTime::UNIX_EPOCH,
    };

    fn settings() -> LedgerConfig {
        LedgerConfig {
            longest_ttl: Duration::from_secs(3600),
            ..LedgerConfig::default()
        }
    }

    fn until(written_at: Option<SystemTime>, now: Now) -> Option<Duration> {
        let file = Unreadable {
            path: PathBuf::from("/s/leases.json.set-aside-1"),
            written_at,
            promised: None,
        };

        let blind = UnreadableLedger::of(&[file], &settings(), "boot", now)?;
        assert!(
            blind.to_string().contains("/s/leases.json.set-aside-1"),
            "{blind}"
        );
        assert!(!blind.is_over(now.boottime) && blind.is_over(blind.until()));

        Some(blind.until().since(now.boottime))
    }

    #[test]
    fn a_file_hides_leases_for_the_longest_time_to_live_after_it_was_written() {
        let now = Now {
            wall: NOW.wall + Duration::from_secs(100_000),
            ..NOW
        };

        let hour = Duration::from_secs(3600);
        assert_eq!(until(Some(now.wall), now), Some(hour));

        assert_eq!(
            until(Some(now.wall - Duration::from_secs(600)), now),
            Some(Duration::from_secs(3000))
        );
        assert_eq!(until(Some(now.wall - hour), now), None);

        // The host is up for less than that: what was written in another boot may be older than
        // this one.
        assert_eq!(
            until(Some(now.wall - Duration::from_secs(99_000)), now),
            None
        );
    }

    #[test]
    fn a_date_that_cannot_be_is_no_reason_to_promise() {
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(
            until(Some(NOW.wall + Duration::from_secs(9_000)), NOW),
            hour,
            "the clock was set back"
        );

        assert_eq!(until(None, NOW), hour);
    }

    #[test]
    fn growing_memory_outlives_a_short_time_to_live() {
        let settings = LedgerConfig {
            longest_ttl: Duration::from_secs(5),
            ..LedgerConfig::default()
        };

        let file = Unreadable {
            path: PathBuf::new(),
            written_at: Some(NOW.wall),
            promised: None,
        };

        let blind = UnreadableLedger::of(&[file], &settings, "boot", NOW).unwrap();
        assert_eq!(blind.until(), NOW.boottime.after(settings.growth_grace));
    }

    #[test]
    fn the_last_of_several_files_decides() {
        let now = Now {
            wall: NOW.wall + Duration::from_secs(100_000),
            ..NOW
        };

        let file = |name: &str, age| Unreadable {
            path: PathBuf::from(name),
            written_at: Some(now.wall - Duration::from_secs(age)),
            promised: None,
        };

        let blind = UnreadableLedger::of(
            &[file("a", 10), file("b", 9_000), file("c", 20)],
            &settings(),
            "boot",
            now,
        )
        .unwrap();
        assert_eq!(blind.until(), now.boottime.after(Duration::from_secs(3590)));

        assert!(
            blind.cure().contains("remove a and c and restart"),
            "{}",
            blind.cure()
        );

        assert_eq!(UnreadableLedger::of(&[], &settings(), "boot", now), None);
    }

    #[test]
    fn a_first_line_that_is_whole_says_when_the_last_lease_ends() {
        let now = Now {
            wall: NOW.wall + Duration::from_secs(100_000),
            ..NOW
        };

        let saved_at = Now {
            boottime: Boottime::from_millis(20_000),
            wall: now.wall - Duration::from_secs(30),
        };

        let left = |boot_id: &str, last_end: Option<u64>, now: Now| {
            let last_end =
                last_end.map(|seconds| saved_at.boottime.after(Duration::from_secs(seconds)));
            let promised = Some(HeaderGrant {
                boot_id: boot_id.to_owned(),
                saved_at,
                last_end,
            });

            let file = Unreadable {
                path: PathBuf::new(),
                written_at: Some(now.wall),
                promised,
            };

            UnreadableLedger::of(&[file], &settings(), "boot", now)
                .map(|blind| blind.until().since(now.boottime).as_secs())
        };

        assert_eq!(left("boot", Some(120), now), Some(90));
        let stepped = Now {
            wall: now.wall + Duration::from_secs(50_000),
            ..now
        };

        assert_eq!(
            left("boot", Some(120), stepped),
            Some(90),
            "the wall's clock has no say in the same boot"
        );

        assert_eq!(left("boot", Some(20), now), None);
        assert_eq!(left("boot", None, now), None, "nothing was promised in it");

        assert_eq!(
            left("another", Some(120), now),
            Some(90),
            "by the wall's clock: no other spans both"
        );

        assert_eq!(left("another", Some(120), stepped), None);
        let earlier = Now {
            boottime: Boottime::from_millis(10),
            ..now
        };

        assert_eq!(
            left("boot", Some(120), earlier),
            Some(90),
            "a virtual machine set back has another clock"
        );
    }
}
