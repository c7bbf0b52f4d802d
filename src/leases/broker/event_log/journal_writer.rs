//! The journal's writer: keeps the lines that could not be written, and retries them in order.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::leases::event::{Event, Subject};
use crate::leases::journal::{Entry, Journal, JournalLimits, unnamed_leases};
use crate::leases::lease::Lease;

/// How many lines are kept while the journal cannot be written.
const MAX_UNWRITTEN: usize = 1024;

/// The journal's directory and limits.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The journal's directory.
    pub directory: PathBuf,
    /// When one of the journal's two files is full.
    pub limits: JournalLimits,
    /// Readings further apart than this leave a gap.
    pub gap: Duration,
}

/// The journal, and the lines that it still owes.
#[derive(Debug)]
pub(super) struct JournalWriter {
    /// `None`: the daemon keeps no journal.
    config: Option<JournalConfig>,
    /// `None` until the journal could be opened.
    journal: Option<Journal>,
    /// Lines that could not be written yet, the oldest first.
    unwritten: Vec<Entry>,
    /// Lines that were dropped because more than [`MAX_UNWRITTEN`] were unwritten.
    dropped: usize,
}

impl JournalWriter {
    /// Opens the journal; if that fails, a later write retries.
    pub(super) fn new(config: Option<&JournalConfig>) -> Self {
        let mut writer = Self {
            config: config.cloned(),
            journal: None,
            unwritten: Vec::new(),
            dropped: 0,
        };

        if let (Some(config), Err(error)) = (config, writer.open()) {
            let directory = config.directory.display();
            warn!(%directory, %error, "cannot open the journal; the daemon keeps its lines and \
                retries every second");
        }

        writer
    }

    pub(super) fn is_configured(&self) -> bool {
        self.config.is_some()
    }

    /// Whether lines are still unwritten.
    pub(super) fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The grants of `restored` leases that the journal does not name.
    pub(super) fn unlogged_grants<'l>(
        &self,
        restored: impl IntoIterator<Item = &'l Lease>,
    ) -> Vec<Event> {
        let Some(config) = &self.config else {
            return Vec::new();
        };

        let unnamed = unnamed_leases(&config.directory, restored).unwrap_or_else(|error| {
            warn!(%error, "cannot read the journal; it may lack grants of the last run");
            Vec::new()
        });

        unnamed
            .into_iter()
            .map(|lease| Event::Granted(Subject::of(lease)))
            .collect()
    }

    /// Writes `entries` after those that could not be written yet. A new file begins with
    /// `checkpoint`.
    pub(super) fn write(
        &mut self,
        entries: Vec<Entry>,
        checkpoint: impl FnOnce(SystemTime) -> Entry,
    ) {
        if self.config.is_none() || entries.is_empty() {
            return;
        }

        if self.unwritten.is_empty() {
            let Err(error) = self.append(&entries, checkpoint) else {
                return;
            };
            warn!(%error, "cannot write the journal; the daemon keeps its lines and retries \
                every second");
        }

        self.unwritten.extend(entries);
        let excess = self.unwritten.len().saturating_sub(MAX_UNWRITTEN);
        self.unwritten.drain(..excess);
        self.dropped = self.dropped.saturating_add(excess);
    }

    /// Retries to write what could not be written, after a line that counts the dropped ones.
    pub(super) fn retry(&mut self, now: SystemTime, checkpoint: impl FnOnce(SystemTime) -> Entry) {
        let mut entries = std::mem::take(&mut self.unwritten);
        if self.dropped > 0 {
            let message = format!(
                "{} lines of the journal were lost while it could not be written",
                self.dropped
            );
            entries.insert(0, Entry::event(now, Event::Warning { message }));
        }

        if self.append(&entries, checkpoint).is_ok() {
            self.dropped = 0;
            return;
        }

        if self.dropped > 0 {
            entries.remove(0);
        }

        self.unwritten = entries;
    }

    fn append(
        &mut self,
        entries: &[Entry],
        checkpoint: impl FnOnce(SystemTime) -> Entry,
    ) -> io::Result<()> {
        match self.open()? {
            Some(journal) => journal.append(entries, || Some(checkpoint(entries.first()?.at))),
            None => Ok(()),
        }
    }

    /// The journal, opened if it is not open yet; `None` if the daemon keeps none.
    fn open(&mut self) -> io::Result<Option<&mut Journal>> {
        let Some(config) = &self.config else {
            return Ok(None);
        };

        let journal = match &mut self.journal {
            Some(journal) => journal,
            closed @ None => closed.insert(Journal::open(&config.directory, config.limits)?),
        };

        Ok(Some(journal))
    }
}
