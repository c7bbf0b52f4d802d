//! What happened, kept to be read after an out-of-memory: who was promised what, and who took what, when. One JSON object a
//! line, in two files of bounded size.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::event::{Event, Subject};
use super::lease::Lease;
use super::moment::rfc3339;
use crate::bytes::Bytes;
use crate::devices::Snapshot;

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
}

/// One line: either an event of a lease or a change of a process's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// When (by the wall's clock, which is what a person looks for).
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub at: SystemTime,
    /// What happened to a lease.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::strict_json::tagged")]
    pub event: Option<Event>,
    /// Who took or gave back memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryChange>,
}

impl Entry {
    /// A line for an event.
    pub fn event(at: SystemTime, event: Event) -> Self {
        Self { at, event: Some(event), memory: None }
    }

    /// A line for a change of memory.
    pub fn memory(at: SystemTime, memory: MemoryChange) -> Self {
        Self { at, event: None, memory: Some(memory) }
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
        Self { step, known: BTreeMap::new() }
    }

    /// What moved since it was last told, as far as it `is_told` now; what is not is told later, with what moved since. A
    /// device or a process that could not be read has not moved.
    pub fn changes(
        &mut self,
        snapshot: &Snapshot,
        mut is_told: impl FnMut(&MemoryChange) -> bool,
    ) -> Vec<MemoryChange> {
        let mut changes = Vec::new();
        let readable = || snapshot.devices.iter().filter(|device| device.free_bytes.is_some());
        // What went first: else those that come would keep it from being told, and it would be kept for ever.
        for device in readable() {
            let uuid = &device.facts.uuid;
            self.known.retain(|_, known| {
                if known.device != *uuid || device.processes.iter().any(|process| process.pid == known.pid) {
                    return true;
                }
                let (before_bytes, free_bytes) = (known.after_bytes, device.free_bytes);
                let gone = MemoryChange { before_bytes, after_bytes: None, free_bytes, ..known.clone() };
                let told = is_told(&gone);
                if told {
                    changes.push(gone);
                }
                !told
            });
        }
        for device in readable() {
            let uuid = &device.facts.uuid;
            for process in &device.processes {
                let Some(after) = process.used_bytes else { continue };
                let key = (uuid.clone(), process.pid);
                let before = self.known.get(&key).and_then(|known| known.after_bytes);
                let known = before.unwrap_or(Bytes::ZERO);
                if known.max(after).less(known.min(after)).is_some_and(|moved| moved < self.step) {
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
    most: u64,
    /// Whether the file may end in a part of a line.
    torn: bool,
}

impl Journal {
    /// Opens (or begins) the journal in a directory; two files of at most `most_bytes` each are kept.
    pub fn open(directory: &Path, most_bytes: u64) -> io::Result<Self> {
        let (file, length) = open_end(&directory.join(CURRENT))?;
        Ok(Self { directory: directory.to_owned(), file, length, most: most_bytes.min(LONGEST_FILE), torn: false })
    }

    /// The directory that it is in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes lines at the end, all or none. They are not synced one by one: a crash of the host may cost the last seconds,
    /// a crash of the daemon costs nothing.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = if self.torn { b"\n".to_vec() } else { Vec::new() };
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.length > 0 && self.length.saturating_add(length) > self.most {
            self.begin_file()?;
        }
        if let Err(error) = self.file.write_all(&lines) {
            // A full disk takes a part. The next line must not continue it: both would be unreadable.
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.torn = false;
        self.length = self.length.saturating_add(length);
        Ok(())
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
        Ok(())
    }
}

/// Opens a file to append to. A line that a crash left half-written is ended first, so that it spoils no other.
fn open_end(path: &Path) -> io::Result<(File, u64)> {
    let mut file = File::options().create(true).append(true).read(true).open(path)?;
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
            match crate::strict_json::from_slice(&line) {
                Ok(entry) => each(entry),
                Err(_) => unreadable += 1,
            }
        }
    }
    Ok(unreadable)
}

/// The leases of `leases` that no line of the journal names although it goes back to their grant: the daemon was killed
/// between writing the lease and writing the line.
pub fn unnamed<'l>(directory: &Path, leases: impl IntoIterator<Item = &'l Lease>) -> io::Result<Vec<&'l Lease>> {
    let mut unnamed: BTreeMap<&str, &Lease> = leases.into_iter().map(|lease| (lease.id.as_str(), lease)).collect();
    if unnamed.is_empty() {
        return Ok(Vec::new());
    }

    let mut begins = None;
    scan(directory, |entry| {
        begins.get_or_insert(entry.at);
        if let Some(subject) = entry.event.as_ref().and_then(Event::subject) {
            unnamed.remove(subject.lease.as_str());
        }
    })?;

    // Lines of before may have been dropped only where there is a second file.
    let dropped = fs::symlink_metadata(directory.join(PREVIOUS)).is_ok();
    let covered = |lease: &&Lease| !dropped || begins.is_some_and(|begins| lease.granted_wall >= begins);
    let mut unnamed: Vec<&Lease> = unnamed.into_values().filter(covered).collect();
    unnamed.sort_by_key(|lease| lease.serial);
    Ok(unnamed)
}

/// How things stood at one time: what `explain --at` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// The time asked for (RFC 3339).
    pub at: String,
    /// The leases that were alive then, as last written down.
    pub leases: Vec<Subject>,
    /// Who held memory then, the largest first.
    pub memory: Vec<MemoryChange>,
    /// The last lines until then and the first after it, in order.
    pub around: Vec<Entry>,
    /// When the journal begins (RFC 3339): before it nothing is known. `null` for an empty journal.
    pub known_since: Option<String>,
}

impl Account {
    /// Goes through the lines up to `at`, in the order in which they were written; `around` lines are given on each side.
    pub fn at(entries: &[Entry], at: SystemTime, around: usize) -> Self {
        // The order of writing decides, not the dates: the clock may have been stepped.
        let end = entries.iter().rposition(|entry| entry.at <= at).map_or(0, |last| last + 1);
        let (mut leases, mut memory) = (BTreeMap::new(), BTreeMap::new());
        for entry in entries.iter().take(end) {
            match &entry.event {
                Some(
                    Event::Granted(lease)
                    | Event::Settling(lease)
                    | Event::Settled(lease)
                    | Event::Extended(lease)
                    | Event::Renewed(lease),
                ) => {
                    leases.insert(lease.lease.clone(), lease.clone());
                }
                Some(Event::Ended { lease, .. }) => {
                    leases.remove(&lease.lease);
                }
                _ => {}
            }
            if let Some(change) = &entry.memory {
                let key = (change.device.clone(), change.pid);
                if change.after_bytes.is_some() {
                    memory.insert(key, change.clone());
                } else {
                    memory.remove(&key);
                }
            }
        }
        let mut memory: Vec<_> = memory.into_values().collect();
        memory.sort_by_key(|change| std::cmp::Reverse(change.after_bytes));
        let first = end.saturating_sub(around);
        let known_since = entries.first().map(|entry| humantime::format_rfc3339_seconds(entry.at).to_string());
        Self {
            at: humantime::format_rfc3339_seconds(at).to_string(),
            leases: leases.into_values().collect(),
            memory,
            around: entries.iter().skip(first).take(end - first + around).cloned().collect(),
            known_since,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::lease::EndReason;
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

    fn took(pid: u32, before: Option<u64>, after: Option<u64>) -> MemoryChange {
        MemoryChange {
            device: "GPU-a".to_owned(),
            pid,
            name: Some("python".to_owned()),
            uid: None,
            before_bytes: before.map(Bytes::gib),
            after_bytes: after.map(Bytes::gib),
            free_bytes: Some(Bytes::gib(1)),
        }
    }

    #[test]
    fn says_who_held_what_at_a_time() {
        let entries = [
            Entry::event(second(10), Event::Granted(subject("one"))),
            Entry::memory(second(11), took(7, None, Some(8))),
            Entry::event(second(12), Event::Granted(subject("two"))),
            Entry::memory(second(13), took(9, None, Some(12))),
            Entry::event(second(20), Event::Ended { lease: subject("one"), reason: EndReason::HolderDied }),
            Entry::memory(second(21), took(7, Some(8), None)),
        ];
        let then = Account::at(&entries, second(15), 1);
        assert_eq!(then.leases.iter().map(|lease| lease.lease.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(then.memory.iter().map(|change| change.pid).collect::<Vec<_>>(), [9, 7]);
        assert_eq!(then.around, entries[3..5]);
        let later = Account::at(&entries, second(30), 0);
        assert_eq!(later.leases.len(), 1);
        assert_eq!(later.memory.len(), 1);
        let before = Account::at(&entries, second(1), 5);
        assert!(before.leases.is_empty() && before.memory.is_empty());
        assert_eq!(before.known_since.as_deref(), Some("1970-01-01T00:00:10Z"));
    }

    #[test]
    fn stays_within_two_files_and_survives_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let entry = Entry::event(second(1), Event::Granted(subject("one")));
        let mut journal = Journal::open(directory.path(), 2_000).unwrap();
        for _ in 0..100 {
            journal.append(std::slice::from_ref(&entry)).unwrap();
        }
        drop(journal);
        for name in [CURRENT, PREVIOUS] {
            assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= 2_000);
        }
        let whole = read(directory.path()).unwrap().0.len();
        let path = directory.path().join(CURRENT);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"at\":\"19").unwrap();
        Journal::open(directory.path(), 2_000_000).unwrap().append(std::slice::from_ref(&entry)).unwrap();
        let (entries, unreadable) = read(directory.path()).unwrap();
        assert_eq!((entries.len(), unreadable), (whole + 1, 1));
        assert_eq!(entries.last(), Some(&entry));
    }

    #[test]
    fn small_moves_add_up() {
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        let mut watch = MemoryWatch::new(Bytes::mib(256));
        let mut told = Vec::new();
        for used in [100, 300, 400, 600] {
            snapshot.devices[0].processes = vec![process(7, used)];
            told.extend(watch.changes(&snapshot, |_| true).into_iter().map(|change| change.after_bytes));
        }
        snapshot.devices[0].free_bytes = None;
        snapshot.devices[0].processes.clear();
        assert!(watch.changes(&snapshot, |_| true).is_empty(), "a failed reading is no move");
        snapshot.devices[0].free_bytes = Some(Bytes::gib(80));
        told.extend(watch.changes(&snapshot, |_| true).into_iter().map(|change| change.after_bytes));
        assert_eq!(told, [Some(Bytes::mib(300)), Some(Bytes::mib(600)), None]);
        assert!(watch.changes(&snapshot, |_| true).is_empty());
    }

    #[test]
    fn processes_that_come_and_go_are_not_kept_for_ever() {
        let mut watch = MemoryWatch::new(Bytes::mib(256));
        let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
        for reading in 0..1_000 {
            // Two new processes at each reading, of which one line may be told.
            snapshot.devices[0].processes = vec![process(1000 + 2 * reading, 600), process(1001 + 2 * reading, 600)];
            let mut may_be_told = true;
            watch.changes(&snapshot, |_| std::mem::take(&mut may_be_told));
        }
        assert!(watch.known.len() < 3, "{} are kept", watch.known.len());
    }
}
