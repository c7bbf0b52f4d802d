//! The journal: which client leased how much memory and which process took it, to be read after an
//! out-of-memory. It is one JSON object a line, in two files of bounded size and age. A new file
//! begins with a [`Checkpoint`], so that deleting an old file loses nothing that still matters.

mod entry;
mod read;

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use self::entry::{Checkpoint, Entry, MemoryChange};
use self::read::first_date;
pub use self::read::{exists, read, unnamed_leases};

const CURRENT: &str = "journal.jsonl";
const PREVIOUS: &str = "journal.1.jsonl";
/// The maximum size of a file: the daemon writes none larger and reads nothing beyond it.
const MAX_FILE: u64 = 256 << 20;

/// The writing end of the journal.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    length: u64,
    limits: JournalLimits,
    /// When the first line of the file was written; `None` for an empty file.
    begun: Option<SystemTime>,
    /// Whether the file may end in an incomplete line.
    torn: bool,
    /// Whether the file is new and must begin with a checkpoint.
    lacks_checkpoint: bool,
}

/// When one of the journal's files is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// The maximum size of one file.
    pub max_bytes: u64,
    /// The longest time that one file covers.
    pub max_age: Duration,
}

impl Journal {
    /// Opens or creates the journal in a directory. It keeps two files, each within `limits`.
    pub fn open(directory: &Path, limits: JournalLimits) -> io::Result<Self> {
        let (file, length) = open_end(&directory.join(CURRENT))?;
        let begun = first_date(&directory.join(CURRENT))?;

        let limits = JournalLimits {
            max_bytes: limits.max_bytes.min(MAX_FILE),
            ..limits
        };

        Ok(Self {
            directory: directory.to_owned(),
            file,
            length,
            limits,
            begun,
            torn: false,
            lacks_checkpoint: false,
        })
    }

    /// Appends lines, all or none. It does not sync each line: a crash of the host may lose the
    /// last seconds, a crash of the daemon loses nothing.
    ///
    /// A new file begins with `checkpoint`, the state after all lines before.
    pub fn append(
        &mut self,
        entries: &[Entry],
        checkpoint: impl FnOnce() -> Option<Entry>,
    ) -> io::Result<()> {
        let Some(first) = entries.first() else {
            return Ok(());
        };

        let mut lines = if self.torn {
            b"\n".to_vec()
        } else {
            Vec::new()
        };

        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }

        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.is_full(length, first.at) {
            self.begin_file()?;
        }

        if self.lacks_checkpoint
            && let Some(checkpoint) = checkpoint()
        {
            let mut line = serde_json::to_vec(&checkpoint)?;
            line.push(b'\n');
            // A checkpoint that would fill the file is omitted, and the state before this file is
            // lost with the previous one.
            if u64::try_from(line.len()).is_ok_and(|length| length <= self.limits.max_bytes / 2) {
                lines.splice(0..0, line);
            }
        }

        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if let Err(error) = self.file.write_all(&lines) {
            // A full disk writes part of a line. The next line must not continue it: both would be
            // unreadable.
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }

        self.torn = false;
        self.length = self.length.saturating_add(length);
        self.lacks_checkpoint = false;
        self.begun.get_or_insert(first.at);

        Ok(())
    }

    /// Whether lines of `length` bytes, the first of them of `at`, belong in the next file.
    fn is_full(&self, length: u64, at: SystemTime) -> bool {
        let old = self.begun.and_then(|begun| at.duration_since(begun).ok());
        let too_old = old.is_some_and(|old| old >= self.limits.max_age);
        self.length > 0 && (too_old || self.length.saturating_add(length) > self.limits.max_bytes)
    }

    /// Makes the file the previous one and creates the next.
    fn begin_file(&mut self) -> io::Result<()> {
        let path = self.directory.join(CURRENT);
        match fs::rename(&path, self.directory.join(PREVIOUS)) {
            // The last attempt renamed the file and then failed.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }

        (self.file, self.length) = open_end(&path)?;
        (self.begun, self.torn, self.lacks_checkpoint) = (None, false, true);

        Ok(())
    }
}

/// Opens a file to append to. It first ends a line that a crash left incomplete, so that the next
/// line is readable.
fn open_end(path: &Path) -> io::Result<(File, u64)> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(path)?;
    let mut length = file.metadata()?.len();
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }

    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use hf_mem_core::bytes::Bytes;

    use super::*;
    use crate::leases::event::{Event, Subject};

    fn second(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn subject(lease: &str) -> Subject {
        Subject {
            lease: lease.to_owned(),
            uid: 1000,
            pid: Some(7),
            name: None,
            model: "m".to_owned(),
            granted_bytes: BTreeMap::from([("GPU-a".to_owned(), Bytes::gib(8))]),
            visible_bytes: BTreeMap::new(),
        }
    }

    fn limits(max_bytes: u64) -> JournalLimits {
        JournalLimits {
            max_bytes,
            max_age: Duration::from_secs(3600),
        }
    }

    #[test]
    fn journal_survives_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let entry = Entry::event(second(1), Event::Granted(subject("one")));
        let mut journal = Journal::open(directory.path(), limits(2_000)).unwrap();
        for _ in 0..100 {
            journal
                .append(std::slice::from_ref(&entry), || None)
                .unwrap();
        }

        drop(journal);
        for name in [CURRENT, PREVIOUS] {
            assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= 2_000);
        }

        let whole = read(directory.path()).unwrap().0.len();
        let path = directory.path().join(CURRENT);
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"at\":\"19")
            .unwrap();

        let mut journal = Journal::open(directory.path(), limits(2_000_000)).unwrap();
        journal
            .append(std::slice::from_ref(&entry), || None)
            .unwrap();
        let (entries, unreadable) = read(directory.path()).unwrap();
        assert_eq!((entries.len(), unreadable), (whole + 1, 1));
        assert_eq!(entries.last(), Some(&entry));
    }

    #[test]
    fn next_file_begins_with_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), limits(20_000)).unwrap();
        let leases = vec![subject("long ago")];
        let checkpoint = Checkpoint {
            leases,
            memory: Vec::new(),
            devices: BTreeSet::new(),
        };

        let mut append = |at: u64| {
            let entry = Entry::event(second(at), Event::Granted(subject("new")));
            journal
                .append(&[entry], || {
                    Some(Entry::checkpoint(second(at), checkpoint.clone()))
                })
                .unwrap();
        };

        append(0);
        append(3_599);
        assert!(!directory.path().join(PREVIOUS).exists());

        // A file is full by age too: an hour has passed.
        for at in [3_600, 3_700, 7_200] {
            append(at);
        }

        let (entries, _) = read(directory.path()).unwrap();
        let dates: Vec<u64> = entries
            .iter()
            .map(|entry| entry.at.duration_since(second(0)).unwrap().as_secs())
            .collect();
        assert_eq!(
            dates,
            [3_600, 3_600, 3_700, 7_200, 7_200],
            "at most two files, each with its checkpoint"
        );

        assert_eq!(entries[3].checkpoint, Some(checkpoint.clone()));

        // After a restart the age of the file is still known.
        let mut journal = Journal::open(directory.path(), limits(20_000)).unwrap();
        journal
            .append(
                &[Entry::event(second(10_800), Event::Granted(subject("new")))],
                || None,
            )
            .unwrap();

        assert_eq!(read(directory.path()).unwrap().0.len(), 3);
    }
}
