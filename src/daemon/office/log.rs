//! What happened, passed on: to the journal, to the log, to those who listen.

use std::path::PathBuf;
use std::time::SystemTime;

use tokio::sync::broadcast;
use tracing::{info, warn};

use crate::bytes::Bytes;
use crate::devices::Snapshot;
use crate::leases::event::{Dated, Event};
use crate::leases::journal::{Entry, Journal, MemoryWatch};

/// Moves of a process's memory below this are not worth a line of the journal.
const MEMORY_STEP: Bytes = Bytes::mib(256);

/// The ways out.
#[derive(Debug)]
pub(super) struct Log {
    journal: Option<Journal>,
    memory: MemoryWatch,
    listeners: broadcast::Sender<Dated>,
    failing: bool,
}

impl Log {
    pub(super) fn new(journal: Option<&(PathBuf, u64)>, listeners: broadcast::Sender<Dated>) -> Self {
        let journal = journal.and_then(|(directory, most_bytes)| {
            let opened = Journal::open(directory, *most_bytes);
            let told = opened.inspect_err(|error| {
                warn!(directory = %directory.display(), %error, "no journal can be kept there; `explain` will know nothing");
            });
            told.ok()
        });
        Self { journal, memory: MemoryWatch::new(MEMORY_STEP), listeners, failing: false }
    }

    /// Events of leases and of the line.
    pub(super) fn tell(&mut self, events: Vec<Event>, at: SystemTime) {
        let mut entries = Vec::with_capacity(events.len());
        for event in events {
            match &event {
                Event::Warning { message } => warn!(%message, "leases"),
                Event::Overdrawn { device, short_by_bytes, leases, .. } => {
                    warn!(%device, %short_by_bytes, ?leases, "memory that was promised has been taken by others");
                }
                other => info!(event = ?other, "leases"),
            }
            entries.push(Entry::event(at, event.clone()));
            // Nobody listening is no failure.
            let _listeners = self.listeners.send(Dated { at, event });
        }
        self.write(&entries);
    }

    /// Whose memory moved.
    pub(super) fn observe(&mut self, snapshot: &Snapshot, at: SystemTime) {
        if self.journal.is_some() {
            let changes = self.memory.changes(snapshot);
            let entries: Vec<Entry> = changes.into_iter().map(|change| Entry::memory(at, change)).collect();
            self.write(&entries);
        }
    }

    fn write(&mut self, entries: &[Entry]) {
        let Some(journal) = &mut self.journal else { return };
        match journal.append(entries) {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(%error, "the journal cannot be written; `explain` will have a gap");
            }
            Err(_) => {}
        }
    }
}
