//! Leases that are on disk and cannot be read. Until the last of them must have ended, the daemon
//! grants no lease.
//!
//! The journal cannot restore them: it contains no time to live and no holder's start time, and its
//! last lines are not synced.

use std::fmt;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::clock::{Boottime, Timestamp};
use super::header::{self, LastLeaseEnd, LedgerHeader};
use super::ledger::LedgerConfig;

/// The name prefix of unreadable files of leases.
pub(super) const SET_ASIDE: &str = "leases.json.set-aside-";

/// A file of leases that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is.
    pub path: PathBuf,
    /// When it was last written; `None` if that is unknown too.
    pub written_at: Option<SystemTime>,
    /// When its last lease ends, if its first line is intact.
    pub last_end: Option<LastLeaseEnd>,
}

impl Unreadable {
    /// Finds the files that were set aside in a directory, at this start or before.
    pub fn in_directory(directory: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(SET_ASIDE) {
                found.push(Self::of(&entry));
            }
        }

        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn of(entry: &DirEntry) -> Self {
        let (path, metadata) = (entry.path(), entry.metadata());
        // Renaming a file keeps its modification time.
        let written_at = metadata
            .as_ref()
            .ok()
            .and_then(|metadata| metadata.modified().ok());

        // Anything else may be a pipe, so it is not opened.
        let is_file = metadata.is_ok_and(|metadata| metadata.is_file());
        let last_end = is_file
            .then(|| first_line(&path))
            .and_then(Result::ok)
            .and_then(|content| {
                let (header, _) = LedgerHeader::read(&content).ok()?;
                header.last_end()
            });

        Self {
            path,
            written_at,
            last_end,
        }
    }

    /// How long after `now` its leases may live: until the end that its first line names, or for
    /// the longest time to live since the file was written.
    fn blocks_for(&self, max_ttl: Duration, boot_id: &str, now: Timestamp) -> Duration {
        let Some(last_end) = &self.last_end else {
            // An unknown date counts as now, and so does one in the future, because the clock was
            // set back.
            let age = self
                .written_at
                .and_then(|written| now.wall.duration_since(written).ok())
                .unwrap_or_default();
            return max_ttl.saturating_sub(age);
        };

        let (saved_at, Some(ends_at)) = (last_end.saved_at, last_end.ends_at) else {
            return Duration::ZERO;
        };

        if last_end.boot_id == boot_id && saved_at.boottime <= now.boottime {
            return ends_at.since(now.boottime);
        }
        // The file is of another boot. Only the wall clock spans both, as for a restored ledger.
        let passed = now.wall.duration_since(saved_at.wall).unwrap_or_default();

        ends_at.since(saved_at.boottime).saturating_sub(passed)
    }
}

/// Reads the beginning of a file, up to the maximum length of a first line.
fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(header::MAX_BYTES as u64)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// Leases that cannot be read and may still be live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableLedger {
    /// When the last of them must have ended, by the boot clock.
    until: Boottime,
    /// The same for people.
    until_wall: SystemTime,
    /// The files that hold them.
    files: Vec<PathBuf>,
}

impl UnreadableLedger {
    /// Returns the leases that these files may still hold at `now`, in the boot `boot_id`; `None`
    /// if all of them must have ended.
    ///
    /// A file's first line names its last end. If that line is damaged too, its leases may live for
    /// the longest time to live after the file was written, or for the growth grace if that is
    /// longer.
    pub fn of(
        files: &[Unreadable],
        settings: &LedgerConfig,
        boot_id: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let max_ttl = settings.max_ttl.max(settings.growth_grace);
        let blocking = files.iter().filter_map(|file| {
            let left = file.blocks_for(max_ttl, boot_id, now);
            (!left.is_zero()).then(|| (now.boottime.after(left), file.path.clone()))
        });
        let blocking: Vec<_> = blocking.collect();
        let until = blocking.iter().map(|(until, _)| *until).max()?;
        let files = blocking.into_iter().map(|(_, path)| path).collect();

        Some(Self {
            until,
            until_wall: now.wall_time_at(until),
            files,
        })
    }

    /// Whether all of them have ended.
    pub fn is_over(&self, now: Boottime) -> bool {
        now >= self.until
    }

    /// When all of them will have ended.
    pub fn until(&self) -> Boottime {
        self.until
    }

    /// The remedy for an operator.
    pub fn remedy(&self) -> String {
        format!(
            "wait until then; or, if none of these leases is still needed, remove {} and \
             restart the daemon",
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
            "leases of an earlier run cannot be read ({}); until {}, when the last of them must \
             have ended, no lease is granted",
            self.names(),
            humantime::format_rfc3339_seconds(self.until_wall)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp {
        boottime: Boottime::from_millis(50_000),
        wall: SystemTime::UNIX_EPOCH,
    };

    fn settings() -> LedgerConfig {
        LedgerConfig {
            max_ttl: Duration::from_secs(3600),
            ..LedgerConfig::default()
        }
    }

    fn until(written_at: Option<SystemTime>, now: Timestamp) -> Option<Duration> {
        let file = Unreadable {
            path: PathBuf::from("/s/leases.json.set-aside-1"),
            written_at,
            last_end: None,
        };

        let unreadable = UnreadableLedger::of(&[file], &settings(), "boot", now)?;
        assert!(
            unreadable
                .to_string()
                .contains("/s/leases.json.set-aside-1"),
            "{unreadable}"
        );
        assert!(!unreadable.is_over(now.boottime) && unreadable.is_over(unreadable.until()));

        Some(unreadable.until().since(now.boottime))
    }

    #[test]
    fn file_blocks_for_max_ttl() {
        let now = Timestamp {
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

        // The host is up for less than that: the file may be older than this boot.
        assert_eq!(
            until(Some(now.wall - Duration::from_secs(99_000)), now),
            None
        );
    }

    #[test]
    fn impossible_date_counts_as_now() {
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(
            until(Some(NOW.wall + Duration::from_secs(9_000)), NOW),
            hour,
            "the clock was set back"
        );

        assert_eq!(until(None, NOW), hour);
    }

    #[test]
    fn growth_grace_outlives_short_ttl() {
        let settings = LedgerConfig {
            max_ttl: Duration::from_secs(5),
            ..LedgerConfig::default()
        };

        let file = Unreadable {
            path: PathBuf::new(),
            written_at: Some(NOW.wall),
            last_end: None,
        };

        let unreadable = UnreadableLedger::of(&[file], &settings, "boot", NOW).unwrap();
        assert_eq!(
            unreadable.until(),
            NOW.boottime.after(settings.growth_grace)
        );
    }

    #[test]
    fn last_of_several_files_decides() {
        let now = Timestamp {
            wall: NOW.wall + Duration::from_secs(100_000),
            ..NOW
        };

        let file = |name: &str, age| Unreadable {
            path: PathBuf::from(name),
            written_at: Some(now.wall - Duration::from_secs(age)),
            last_end: None,
        };

        let unreadable = UnreadableLedger::of(
            &[file("a", 10), file("b", 9_000), file("c", 20)],
            &settings(),
            "boot",
            now,
        )
        .unwrap();
        assert_eq!(
            unreadable.until(),
            now.boottime.after(Duration::from_secs(3590))
        );

        assert!(
            unreadable.remedy().contains("remove a and c and restart"),
            "{}",
            unreadable.remedy()
        );

        assert_eq!(UnreadableLedger::of(&[], &settings(), "boot", now), None);
    }

    #[test]
    fn intact_first_line_names_last_end() {
        let now = Timestamp {
            wall: NOW.wall + Duration::from_secs(100_000),
            ..NOW
        };

        let saved_at = Timestamp {
            boottime: Boottime::from_millis(20_000),
            wall: now.wall - Duration::from_secs(30),
        };

        let remaining_after = |boot_id: &str, ends_at: Option<u64>, now: Timestamp| {
            let ends_at =
                ends_at.map(|seconds| saved_at.boottime.after(Duration::from_secs(seconds)));
            let last_end = Some(LastLeaseEnd {
                boot_id: boot_id.to_owned(),
                saved_at,
                ends_at,
            });

            let file = Unreadable {
                path: PathBuf::new(),
                written_at: Some(now.wall),
                last_end,
            };

            UnreadableLedger::of(&[file], &settings(), "boot", now)
                .map(|unreadable| unreadable.until().since(now.boottime).as_secs())
        };

        assert_eq!(remaining_after("boot", Some(120), now), Some(90));
        let stepped = Timestamp {
            wall: now.wall + Duration::from_secs(50_000),
            ..now
        };

        assert_eq!(
            remaining_after("boot", Some(120), stepped),
            Some(90),
            "in the same boot the boot clock decides"
        );

        assert_eq!(remaining_after("boot", Some(20), now), None);
        assert_eq!(
            remaining_after("boot", None, now),
            None,
            "it held no live lease"
        );

        assert_eq!(
            remaining_after("another", Some(120), now),
            Some(90),
            "in another boot the wall clock decides"
        );

        assert_eq!(remaining_after("another", Some(120), stepped), None);
        let earlier = Timestamp {
            boottime: Boottime::from_millis(10),
            ..now
        };

        assert_eq!(
            remaining_after("boot", Some(120), earlier),
            Some(90),
            "the clock of a virtual machine that was set back is another one"
        );
    }
}
