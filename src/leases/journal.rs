//! What happened, kept to be read after an out-of-memory: who was promised what, and who took what,
//! when. One JSON object a line, in two files of bounded size and age. A file begins with a
//! [`Checkpoint`], so that nothing is lost with the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clock::rfc3339;
use super::event::{Event, Subject};
use super::lease::Lease;
use super::observed::Observed;

const CURRENT: &str = "journal.jsonl";
const PREVIOUS: &str = "journal.1.jsonl";
/// No file of ours is larger, and nothing beyond it is read.
const LONGEST_FILE: u64 = 256 << 20;

/// A process took memory on a device, or gave it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryChange {
    /// The device.
    pub device: String,
    /// The process.
    pub pid: u32,
    /// Its command, where known.
    pub name: Option<String>,
    /// Its user, where known.
    pub uid: Option<u32>,
    /// What it held when it was last written down; `null`: nothing.
    #[schema(value_type = Option<u64>)]
    pub before_bytes: Option<Bytes>,
    /// What it holds now; `null`: nothing.
    #[schema(value_type = Option<u64>)]
    pub after_bytes: Option<Bytes>,
    /// What is free on the device now, where it could be read.
    #[schema(value_type = Option<u64>)]
    pub free_bytes: Option<Bytes>,
    /// Whether it was found so after a time without readings: when it came about is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

/// All that is known at one time. It takes the place of what earlier lines say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// The leases that are alive.
    pub leases: Vec<Subject>,
    /// Who holds memory on the devices that could be read.
    pub memory: Vec<MemoryChange>,
    /// The devices that could be read, by UUID.
    pub devices: BTreeSet<String>,
}

/// One line: an event of a lease, a change of a process's memory, a span of readings, or a
/// checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// When (by the wall's clock, which is what a person looks for).
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub at: SystemTime,
    /// What happened to a lease.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "hf_mem_core::strict_json::tagged"
    )]
    pub event: Option<Event>,
    /// Who took or gave back memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryChange>,
    /// When devices were read, until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// All that is known then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

impl Entry {
    /// A line for an event.
    pub fn event(at: SystemTime, event: Event) -> Self {
        Self {
            event: Some(event),
            ..Self::empty(at)
        }
    }

    /// A line for a change of memory.
    pub fn memory(at: SystemTime, memory: MemoryChange) -> Self {
        Self {
            memory: Some(memory),
            ..Self::empty(at)
        }
    }

    /// A line for a span of readings that ends at `at`.
    pub fn observed(at: SystemTime, observed: Observed) -> Self {
        Self {
            observed: Some(observed),
            ..Self::empty(at)
        }
    }

    /// A line for all that is known.
    pub fn checkpoint(at: SystemTime, checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint: Some(checkpoint),
            ..Self::empty(at)
        }
    }

    fn empty(at: SystemTime) -> Self {
        Self {
            at,
            event: None,
            memory: None,
            observed: None,
            checkpoint: None,
        }
    }
}

/// Tells, reading after reading, whose memory moved by more than a step.
#[derive(Clone, Debug)]
pub struct MemoryWatch {
    step: Bytes,
    known: BTreeMap<(String, u32), MemoryChange>,
}

impl MemoryWatch {
    /// Changes smaller than `step` are not worth a line; they add up until they are.
    pub fn new(step: Bytes) -> Self {
        Self {
            step,
            known: BTreeMap::new(),
        }
    }

    /// Who holds memory, as it was last told.
    pub fn holders(&self) -> impl Iterator<Item = &MemoryChange> {
        self.known.values()
    }

    /// What moved since it was last told, as far as it `is_told` now; what is not is told later,
    /// with what moved since. A device or a process that could not be read has not moved. On
    /// devices that are not `followed` this reading comes after a gap.
    pub fn changes(
        &mut self,
        snapshot: &Snapshot,
        followed: &BTreeSet<String>,
        mut is_told: impl FnMut(&MemoryChange) -> bool,
    ) -> Vec<MemoryChange> {
        let mut changes = Vec::new();
        let readable = || {
            snapshot
                .devices
                .iter()
                .filter(|device| device.free_bytes.is_some())
        };

        // What went first: else those that come would keep it from being told, and it would be kept
        // for ever.
        for device in readable() {
            let uuid = &device.facts.uuid;
            let found = !followed.contains(uuid);

            self.known.retain(|_, known| {
                if known.device != *uuid
                    || device
                        .processes
                        .iter()
                        .any(|process| process.pid == known.pid)
                {
                    return true;
                }

                let (before_bytes, free_bytes) = (known.after_bytes, device.free_bytes);
                let gone = MemoryChange {
                    before_bytes,
                    after_bytes: None,
                    free_bytes,
                    found,
                    ..known.clone()
                };

                let told = is_told(&gone);
                if told {
                    changes.push(gone);
                }

                !told
            });
        }

        for device in readable() {
            let uuid = &device.facts.uuid;
            let found = !followed.contains(uuid);

            for process in &device.processes {
                let Some(after) = process.used_bytes else {
                    continue;
                };

                let key = (uuid.clone(), process.pid);
                let before = self.known.get(&key).and_then(|known| known.after_bytes);
                let known = before.unwrap_or(Bytes::ZERO);
                if known
                    .max(after)
                    .less(known.min(after))
                    .is_some_and(|moved| moved < self.step)
                {
                    continue;
                }

                let change = MemoryChange {
                    device: uuid.clone(),
                    pid: process.pid,
                    name: process.name.clone(),
                    uid: process.uid,
                    before_bytes: before,
                    after_bytes: Some(after),
                    free_bytes: device.free_bytes,
                    found,
                };

                if is_told(&change) {
                    self.known.insert(key, change.clone());
                    changes.push(change);
                }
            }
        }

        changes
    }
}

/// The file that is written to.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    length: u64,
    bounds: Bounds,
    /// When the file's first line was written; `None` for an empty file.
    begun: Option<SystemTime>,
    /// Whether the file may end in a part of a line.
    torn: bool,
    /// Whether the file is a next one that does not say yet what the one before added up to.
    lacks_checkpoint: bool,
}

/// When a file of the journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most bytes of one file.
    pub most_bytes: u64,
    /// The longest time that one file covers.
    pub longest: Duration,
}

impl Journal {
    /// Opens (or begins) the journal in a directory. Two files within `bounds` each are kept.
    pub fn open(directory: &Path, bounds: Bounds) -> io::Result<Self> {
        let (file, length) = open_end(&directory.join(CURRENT))?;
        let begun = first_date(&directory.join(CURRENT))?;

        let bounds = Bounds {
            most_bytes: bounds.most_bytes.min(LONGEST_FILE),
            ..bounds
        };

        Ok(Self {
            directory: directory.to_owned(),
            file,
            length,
            bounds,
            begun,
            torn: false,
            lacks_checkpoint: false,
        })
    }

    /// Writes lines at the end, all or none. They are not synced one by one: a crash of the host
    /// may cost the last seconds, a crash of the daemon costs nothing.
    ///
    /// A new file begins with `checkpoint`, which says what the lines before add up to.
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
            // One that would fill the file is left out: what it says is lost with the previous
            // file.
            if u64::try_from(line.len()).is_ok_and(|length| length <= self.bounds.most_bytes / 2) {
                lines.splice(0..0, line);
            }
        }

        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if let Err(error) = self.file.write_all(&lines) {
            // A full disk takes a part. The next line must not continue it: both would be
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

    /// Whether lines of `length` bytes, the first of them of `at`, belong into the next file.
    fn is_full(&self, length: u64, at: SystemTime) -> bool {
        let old = self.begun.and_then(|begun| at.duration_since(begun).ok());
        let too_old = old.is_some_and(|old| old >= self.bounds.longest);
        self.length > 0 && (too_old || self.length.saturating_add(length) > self.bounds.most_bytes)
    }

    /// Makes the file the previous one and begins the next.
    fn begin_file(&mut self) -> io::Result<()> {
        let path = self.directory.join(CURRENT);
        match fs::rename(&path, self.directory.join(PREVIOUS)) {
            // The last attempt came no further than this.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }

        (self.file, self.length) = open_end(&path)?;
        (self.begun, self.torn, self.lacks_checkpoint) = (None, false, true);

        Ok(())
    }
}

/// The date of the first line of a file, where it has one that can be read.
fn first_date(path: &Path) -> io::Result<Option<SystemTime>> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?.take(LONGEST_FILE)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice::<Entry>(&line)
        .ok()
        .map(|entry| entry.at))
}

/// Whether there is a journal in a directory, be it an empty one.
pub fn exists(directory: &Path) -> bool {
    [PREVIOUS, CURRENT]
        .iter()
        .any(|name| fs::symlink_metadata(directory.join(name)).is_ok())
}

/// Opens a file to append to. A line that a crash left half-written is ended first, so that it
/// spoils no other.
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

/// All lines that are kept, the oldest first, and how many could not be read.
pub fn read(directory: &Path) -> io::Result<(Vec<Entry>, usize)> {
    let mut entries = Vec::new();
    let unreadable = scan(directory, |entry| entries.push(entry))?;
    Ok((entries, unreadable))
}

/// Calls `each` for every line that is kept, the oldest first. Returns how many could not be read.
pub fn scan(directory: &Path, mut each: impl FnMut(Entry)) -> io::Result<usize> {
    let mut unreadable = 0;
    for name in [PREVIOUS, CURRENT] {
        let file = match File::open(directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };

        for line in BufReader::new(file.take(LONGEST_FILE)).split(b'\n') {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            match hf_mem_core::strict_json::from_slice(&line) {
                Ok(entry) => each(entry),
                Err(_) => unreadable += 1,
            }
        }
    }

    Ok(unreadable)
}

/// The leases of `leases` that no line of the journal names although it goes back to their grant:
/// the daemon was killed between writing the lease and writing the line.
pub fn unnamed<'l>(
    directory: &Path,
    leases: impl IntoIterator<Item = &'l Lease>,
) -> io::Result<Vec<&'l Lease>> {
    let mut unnamed: BTreeMap<&str, &Lease> = leases
        .into_iter()
        .map(|lease| (lease.id.as_str(), lease))
        .collect();
    if unnamed.is_empty() {
        return Ok(Vec::new());
    }

    let mut begins = None;
    scan(directory, |entry| {
        begins.get_or_insert(entry.at);
        let noted = entry
            .checkpoint
            .iter()
            .flat_map(|checkpoint| &checkpoint.leases);

        for subject in entry
            .event
            .as_ref()
            .and_then(Event::subject)
            .into_iter()
            .chain(noted)
        {
            unnamed.remove(subject.lease.as_str());
        }
    })?;

    // Lines of before may have been dropped only where there is a second file.
    let dropped = fs::symlink_metadata(directory.join(PREVIOUS)).is_ok();
    let covered =
        |lease: &&Lease| !dropped || begins.is_some_and(|begins| lease.granted_wall >= begins);
    let mut unnamed: Vec<&Lease> = unnamed.into_values().filter(covered).collect();
    unnamed.sort_by_key(|lease| lease.serial);

    Ok(unnamed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::leases::testing::process;

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

    fn bounds(most_bytes: u64) -> Bounds {
        Bounds {
            most_bytes,
            longest: Duration::from_secs(3600),
        }
    }

    #[test]
    fn stays_within_two_files_and_survives_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let entry = Entry::event(second(1), Event::Granted(subject("one")));
        let mut journal = Journal::open(directory.path(), bounds(2_000)).unwrap();
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

        let mut journal = Journal::open(directory.path(), bounds(2_000_000)).unwrap();
        journal
            .append(std::slice::from_ref(&entry), || None)
            .unwrap();
        let (entries, unreadable) = read(directory.path()).unwrap();
        assert_eq!((entries.len(), unreadable), (whole + 1, 1));
        assert_eq!(entries.last(), Some(&entry));
    }

    #[test]
    fn small_moves_add_up() {
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        let followed = BTreeSet::from(["GPU-a".to_owned()]);
        let mut watch = MemoryWatch::new(Bytes::mib(256));
        let mut told = Vec::new();
        for used in [100, 300, 400, 600] {
            snapshot.devices[0].processes = vec![process(7, used)];
            told.extend(
                watch
                    .changes(&snapshot, &followed, |_| true)
                    .into_iter()
                    .map(|change| change.after_bytes),
            );
        }

        snapshot.devices[0].free_bytes = None;
        snapshot.devices[0].processes.clear();

        assert!(
            watch.changes(&snapshot, &followed, |_| true).is_empty(),
            "a failed reading is no move"
        );
        snapshot.devices[0].free_bytes = Some(Bytes::gib(80));

        told.extend(
            watch
                .changes(&snapshot, &followed, |_| true)
                .into_iter()
                .map(|change| change.after_bytes),
        );

        assert_eq!(told, [Some(Bytes::mib(300)), Some(Bytes::mib(600)), None]);
        assert!(watch.changes(&snapshot, &followed, |_| true).is_empty());
    }

    #[test]
    fn processes_that_come_and_go_are_not_kept_for_ever() {
        let followed = BTreeSet::from(["GPU-a".to_owned()]);
        let mut watch = MemoryWatch::new(Bytes::mib(256));
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        for reading in 0..1_000 {
            // Two new processes at each reading, of which one line may be told.
            snapshot.devices[0].processes = vec![
                process(1000 + 2 * reading, 600),
                process(1001 + 2 * reading, 600),
            ];
            let mut may_be_told = true;
            watch.changes(&snapshot, &followed, |_| std::mem::take(&mut may_be_told));
        }

        assert!(watch.known.len() < 3, "{} are kept", watch.known.len());
    }

    #[test]
    fn next_file_begins_with_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path(), bounds(20_000)).unwrap();
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

        // By age as by size: an hour is over.
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
        let mut journal = Journal::open(directory.path(), bounds(20_000)).unwrap();
        journal
            .append(
                &[Entry::event(second(10_800), Event::Granted(subject("new")))],
                || None,
            )
            .unwrap();

        assert_eq!(read(directory.path()).unwrap().0.len(), 3);
    }
}
