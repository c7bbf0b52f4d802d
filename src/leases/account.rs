//! The state at one time, computed from the journal: the answer of `explain --at`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::event::{Event, Subject};
use super::journal::{Checkpoint, Entry, MemoryChange};
use super::observed::{Gap, ObservedCoverage};

/// The leases and the memory at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalAccount {
    /// The requested time (RFC 3339).
    pub at: String,
    /// The leases that were live then, as last recorded.
    pub leases: Vec<Subject>,
    /// The processes that held memory then, the largest first. In a gap: those of the last reading
    /// before.
    pub memory: Vec<MemoryChange>,
    /// The last lines before that time and the first ones after it, in order.
    pub around: Vec<Entry>,
    /// When the journal begins (RFC 3339); nothing is known before. `null` for an empty journal.
    pub known_since: Option<String>,
    /// Devices whose state at that time is unknown, because no reading was near enough.
    #[serde(default)]
    pub gaps: Vec<Gap>,
}

/// The state after a number of lines.
#[derive(Debug, Default)]
struct HolderState {
    leases: BTreeMap<String, Subject>,
    memory: BTreeMap<(String, u32), MemoryChange>,
}

impl HolderState {
    fn apply(&mut self, entry: &Entry) {
        match &entry.event {
            Some(Event::Ended { lease, .. }) => {
                self.leases.remove(&lease.lease);
            }
            Some(event) => {
                if let Some(lease) = event.subject() {
                    self.leases.insert(lease.lease.clone(), lease.clone());
                }
            }
            None => {}
        }

        if let Some(change) = &entry.memory {
            let key = (change.device.clone(), change.pid);
            if change.after_bytes.is_some() {
                self.memory.insert(key, change.clone());
            } else {
                self.memory.remove(&key);
            }
        }

        if let Some(checkpoint) = &entry.checkpoint {
            self.replace(checkpoint);
        }
    }

    /// Replaces the state with a checkpoint. A process keeps its earlier line if that still
    /// matches, because the line also says how the process came to its memory.
    fn replace(&mut self, checkpoint: &Checkpoint) {
        self.leases = checkpoint
            .leases
            .iter()
            .map(|lease| (lease.lease.clone(), lease.clone()))
            .collect();

        let mut before = std::mem::take(&mut self.memory);
        for found in &checkpoint.memory {
            let key = (found.device.clone(), found.pid);
            let known = before.remove(&key).filter(|known| {
                (&known.name, known.uid, known.after_bytes)
                    == (&found.name, found.uid, found.after_bytes)
            });
            self.memory
                .insert(key, known.unwrap_or_else(|| found.clone()));
        }

        // A device that could not be read keeps what was last seen on it.
        before.retain(|(device, _), _| !checkpoint.devices.contains(device));

        self.memory.extend(before);
    }
}

impl JournalAccount {
    /// Applies the lines up to `at`, in the order in which they were written. The result includes
    /// `around` lines on each side.
    pub fn at(entries: &[Entry], at: SystemTime, around: usize) -> Self {
        // The order of writing decides, not the dates, because the clock may have been stepped.
        let end = entries
            .iter()
            .rposition(|entry| entry.at <= at)
            .map_or(0, |last| last + 1);
        let mut state = HolderState::default();
        entries
            .iter()
            .take(end)
            .for_each(|entry| state.apply(entry));
        let mut memory: Vec<_> = state.memory.into_values().collect();
        memory.sort_by_key(|change| std::cmp::Reverse(change.after_bytes));

        let mut coverage = ObservedCoverage::default();
        for entry in entries {
            if let Some(observed) = &entry.observed {
                coverage.add(entry.at, observed);
            }
        }

        let (before, after) = entries.split_at(end);
        let mut lines: Vec<Entry> = before
            .iter()
            .rev()
            .filter(|entry| is_change(entry))
            .take(around)
            .cloned()
            .collect();

        lines.reverse();
        lines.extend(
            after
                .iter()
                .filter(|entry| is_change(entry))
                .take(around)
                .cloned(),
        );

        Self {
            at: humantime::format_rfc3339_seconds(at).to_string(),
            leases: state.leases.into_values().collect(),
            memory,
            around: lines,
            known_since: entries
                .first()
                .map(|entry| humantime::format_rfc3339_seconds(entry.at).to_string()),
            gaps: if coverage.is_known() {
                coverage.gaps_at(at)
            } else {
                Vec::new()
            },
        }
    }
}

/// Whether a line is an event or a change of memory.
fn is_change(entry: &Entry) -> bool {
    entry.event.is_some() || entry.memory.is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::observed::Observed;
    use super::*;
    use hf_mem_core::bytes::Bytes;
    use hf_mem_core::report::lease::EndReason;

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

    fn memory_change(pid: u32, before: Option<u64>, after: Option<u64>) -> MemoryChange {
        MemoryChange {
            device: "GPU-a".to_owned(),
            pid,
            name: Some("python".to_owned()),
            uid: None,
            before_bytes: before.map(Bytes::gib),
            after_bytes: after.map(Bytes::gib),
            free_bytes: Some(Bytes::gib(1)),
            found: false,
        }
    }

    #[test]
    fn account_shows_holders_at_time() {
        let entries = [
            Entry::event(second(10), Event::Granted(subject("one"))),
            Entry::memory(second(11), memory_change(7, None, Some(8))),
            Entry::event(second(12), Event::Granted(subject("two"))),
            Entry::memory(second(13), memory_change(9, None, Some(12))),
            Entry::event(
                second(20),
                Event::Ended {
                    lease: subject("one"),
                    reason: EndReason::HolderDied,
                },
            ),
            Entry::memory(second(21), memory_change(7, Some(8), None)),
        ];
        let then = JournalAccount::at(&entries, second(15), 1);
        assert_eq!(
            then.leases
                .iter()
                .map(|lease| lease.lease.as_str())
                .collect::<Vec<_>>(),
            ["one", "two"]
        );

        assert_eq!(
            then.memory
                .iter()
                .map(|change| change.pid)
                .collect::<Vec<_>>(),
            [9, 7]
        );

        assert_eq!(then.around, entries[3..5]);
        assert!(
            then.gaps.is_empty(),
            "a journal of an older daemon does not record its readings"
        );
        let later = JournalAccount::at(&entries, second(30), 0);
        assert_eq!(later.leases.len(), 1);
        assert_eq!(later.memory.len(), 1);
        let before = JournalAccount::at(&entries, second(1), 5);
        assert!(before.leases.is_empty() && before.memory.is_empty());
        assert_eq!(before.known_since.as_deref(), Some("1970-01-01T00:00:10Z"));
    }

    #[test]
    fn checkpoint_replaces_earlier_state() {
        let found = |pid, after| MemoryChange {
            found: true,
            ..memory_change(pid, None, Some(after))
        };

        let checkpoint = Checkpoint {
            leases: vec![subject("two")],
            memory: vec![found(7, 8), found(11, 30)],
            devices: BTreeSet::from(["GPU-a".to_owned()]),
        };

        let elsewhere = MemoryChange {
            device: "GPU-b".to_owned(),
            ..memory_change(5, None, Some(2))
        };

        let entries = [
            Entry::event(second(10), Event::Granted(subject("one"))),
            Entry::memory(second(11), memory_change(7, None, Some(8))),
            Entry::memory(second(12), memory_change(9, None, Some(12))),
            Entry::memory(second(13), elsewhere.clone()),
            Entry::checkpoint(second(900), checkpoint),
        ];
        let then = JournalAccount::at(&entries, second(901), 9);
        assert_eq!(then.leases, [subject("two")]);

        assert_eq!(
            then.memory,
            [found(11, 30), memory_change(7, None, Some(8)), elsewhere],
            "process 9 exited while nothing was read"
        );

        assert_eq!(then.around.len(), 4, "a checkpoint is not a change");
    }

    #[test]
    fn gap_at_time_is_reported() {
        let observed = |since| Observed {
            since: second(since),
            gap_seconds: 60,
            devices: BTreeSet::from(["GPU-a".to_owned()]),
        };

        let entries = [
            Entry::observed(second(100), observed(10)),
            Entry::memory(second(100), memory_change(7, None, Some(8))),
            Entry::observed(second(700), observed(600)),
        ];
        let gap = &JournalAccount::at(&entries, second(300), 0).gaps[0];
        assert_eq!(
            (&gap.device, gap.from.as_deref()),
            (&None, Some("1970-01-01T00:01:40Z"))
        );
        assert_eq!(gap.until.as_deref(), Some("1970-01-01T00:10:00Z"));
        assert!(JournalAccount::at(&entries, second(650), 0).gaps.is_empty());
    }
}
