//! `explain`: who had been promised what, and who had taken what, at a time.

use std::io;
use std::path::Path;

use super::arguments::ExplainArguments;
use super::output::Output;
use super::text::{event, size};
use crate::api::Problem;
use crate::api::problem::Reason;
use crate::bytes::Bytes;
use crate::files::{self, Disk};
use crate::leases::journal::{Account, Entry, MemoryChange, read};

/// Reads the journal back.
pub(super) fn run(arguments: &ExplainArguments) -> u8 {
    let output = Output { json: arguments.json };
    match account(arguments) {
        Ok(account) => {
            output.data(&account, words);
            Reason::Fits.exit_code()
        }
        Err(problem) => output.problem(&problem),
    }
}

fn account(arguments: &ExplainArguments) -> Result<Account, Problem> {
    let failed = |error| unreadable(&arguments.journal, &error);
    let journal = arguments.journal.clone();
    let whole = move |disk: &Disk| {
        // An empty folder and a wrong one look the same to the reader.
        disk.list(&journal, 0, |_| false)?;
        read(&journal)
    };
    let (entries, unreadable) = files::try_wait(&arguments.journal, whole).map_err(failed)?;
    if entries.is_empty() {
        let detail = format!("there is no journal in {}", arguments.journal.display());
        return Err(Problem::new(Reason::NotFound, detail).hint("name the daemon's state directory with --journal"));
    }
    if unreadable > 0 {
        super::output::remark(&format!("{unreadable} lines of the journal could not be read"));
    }
    Ok(Account::at(&entries, arguments.at, arguments.around))
}

/// A journal that is there and may not be read is told from one that is elsewhere.
fn unreadable(journal: &Path, error: &io::Error) -> Problem {
    let detail = format!("the journal in {} cannot be read: {error}", journal.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => Problem::new(Reason::Forbidden, detail).hint(
            "it names everybody's jobs: only root and the daemon's own user may read it; ask as one of them (sudo)",
        ),
        _ => Problem::new(Reason::NotFound, detail).hint("name the daemon's state directory with --journal"),
    }
}

fn words(account: &Account) -> String {
    let mut out = format!("at {}\n", account.at);
    if account.known_since.as_ref().is_some_and(|since| *since > account.at) {
        out.push_str("  the journal begins later: nothing is known of that time\n");
    }
    for lease in &account.leases {
        out.push_str(&format!("  promised: {}\n", event::subject(lease)));
    }
    for change in &account.memory {
        out.push_str(&format!("  in use:   {}\n", memory(change)));
    }
    if account.leases.is_empty() && account.memory.is_empty() {
        out.push_str("  nothing was promised, and nobody was seen to hold memory\n");
    }
    out.push_str("around it\n");
    for entry in &account.around {
        out.push_str(&format!("  {}  {}\n", humantime::format_rfc3339_seconds(entry.at), line(entry)));
    }
    out
}

fn memory(change: &MemoryChange) -> String {
    let name = change.name.as_deref().unwrap_or("?");
    let bytes = |bytes: Option<Bytes>| bytes.map_or_else(|| "nothing".to_owned(), |bytes| size(bytes.get()));
    let free = change.free_bytes.map_or_else(|| "unknown".to_owned(), |free| size(free.get()));
    format!(
        "pid {} ({name}) on {}: {} to {}, then free {free}",
        change.pid,
        change.device,
        bytes(change.before_bytes),
        bytes(change.after_bytes)
    )
}

fn line(entry: &Entry) -> String {
    match (&entry.event, &entry.memory) {
        (Some(happened), _) => event::happened(happened),
        (None, Some(change)) => memory(change),
        (None, None) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_may_not_be_read_is_not_called_missing() {
        let problem = |kind| unreadable(Path::new("/var/lib/hf-mem-probe"), &io::Error::from(kind));
        let refused = problem(io::ErrorKind::PermissionDenied);
        assert_eq!((refused.reason, refused.reason.exit_code()), (Reason::Forbidden, 77));
        assert_eq!(problem(io::ErrorKind::NotFound).reason, Reason::NotFound);
    }
}
