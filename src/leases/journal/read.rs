//! Reading the journal back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::time::SystemTime;

use super::{CURRENT, Entry, MAX_FILE, PREVIOUS};
use crate::leases::event::Event;
use crate::leases::lease::Lease;

/// Whether a directory holds a journal, even an empty one.
pub fn exists(directory: &Path) -> bool {
    [PREVIOUS, CURRENT]
        .iter()
        .any(|name| fs::symlink_metadata(directory.join(name)).is_ok())
}

/// Returns all lines, the oldest first, and the number of unreadable lines.
pub fn read(directory: &Path) -> io::Result<(Vec<Entry>, usize)> {
    let mut entries = Vec::new();
    let unreadable = scan(directory, |entry| entries.push(entry))?;
    Ok((entries, unreadable))
}

/// Calls `each` for every line, the oldest first. Returns the number of unreadable lines.
fn scan(directory: &Path, mut each: impl FnMut(Entry)) -> io::Result<usize> {
    let mut unreadable = 0;
    for name in [PREVIOUS, CURRENT] {
        let file = match File::open(directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };

        for line in BufReader::new(file.take(MAX_FILE)).split(b'\n') {
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

/// Returns those of `leases` that no line names although the journal goes back to their grant. The
/// daemon was killed between writing the lease and writing the line.
pub fn unnamed_leases<'l>(
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
        let in_checkpoint = entry
            .checkpoint
            .iter()
            .flat_map(|checkpoint| &checkpoint.leases);

        for subject in entry
            .event
            .as_ref()
            .and_then(Event::subject)
            .into_iter()
            .chain(in_checkpoint)
        {
            unnamed.remove(subject.lease.as_str());
        }
    })?;

    // Only if there is a second file may older lines have been dropped.
    let dropped = fs::symlink_metadata(directory.join(PREVIOUS)).is_ok();
    let mut unnamed: Vec<&Lease> = unnamed
        .into_values()
        .filter(|lease| !dropped || begins.is_some_and(|begins| lease.granted_wall >= begins))
        .collect();
    unnamed.sort_by_key(|lease| lease.serial);

    Ok(unnamed)
}

/// Returns the date of a file's first line, if it is readable.
pub(super) fn first_date(path: &Path) -> io::Result<Option<SystemTime>> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?.take(MAX_FILE)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice::<Entry>(&line)
        .ok()
        .map(|entry| entry.at))
}
