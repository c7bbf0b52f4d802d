//! `explain`: who had been promised what, and who had taken what, at a time.

use super::arguments::ExplainArguments;
use super::output::Output;
use super::text::{event, size};
use crate::api::Problem;
use crate::api::problem::Reason;
use crate::bytes::Bytes;
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
    let place = arguments.journal.display();
    let failed = |error: std::io::Error| {
        Problem::new(Reason::NotFound, format!("the journal in {place} cannot be read: {error}"))
            .hint("name the daemon's state directory with --journal; it is readable by the daemon's user and root")
    };
    // An empty folder and a wrong one look the same to the reader.
    std::fs::read_dir(&arguments.journal).map_err(failed)?;
    let (entries, unreadable) = read(&arguments.journal).map_err(failed)?;
    if entries.is_empty() {
        let detail = format!("there is no journal in {place}");
        return Err(Problem::new(Reason::NotFound, detail).hint("name the daemon's state directory with --journal"));
    }
    if unreadable > 0 {
        super::output::remark(&format!("{unreadable} lines of the journal could not be read"));
    }
    Ok(Account::at(&entries, arguments.at, arguments.around))
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
