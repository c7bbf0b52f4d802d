//! `explain`: shows the leases and processes of a past moment, from the daemon's journal.

use std::io;
use std::path::Path;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use super::arguments::ExplainArguments;
use super::output::Output;
use super::text::{event, size};
use crate::files::{self, Disk};
use crate::leases::account::JournalAccount;
use crate::leases::journal::{Entry, MemoryChange, exists, read};
use crate::leases::observed::Gap;

/// Runs `explain`.
pub(super) fn run(arguments: &ExplainArguments) -> u8 {
    let output = Output {
        json: arguments.json,
    };

    match account(arguments) {
        Ok(account) => {
            output.data(&account, account_text);
            Reason::Fits.exit_code()
        }
        Err(problem) => output.problem(&problem),
    }
}

fn account(arguments: &ExplainArguments) -> Result<JournalAccount, Problem> {
    let journal = arguments.journal.clone();
    let read_journal = move |disk: &Disk| {
        // `read` cannot tell an empty directory from a missing one.
        disk.list(&journal, 0, |_| false)?;
        let (entries, unreadable) = read(&journal)?;
        Ok((entries, unreadable, exists(&journal)))
    };

    let (entries, unreadable, is_there) = files::try_wait(&arguments.journal, read_journal)
        .map_err(|error| journal_problem(&arguments.journal, &error))?;
    if entries.is_empty() && !is_there {
        let detail = format!("no journal found in {}", arguments.journal.display());
        return Err(Problem::new(Reason::NotFound, detail)
            .hint("set --journal to the daemon's state directory"));
    }

    if unreadable > 0 {
        super::output::remark(&format!(
            "warning: skipped {unreadable} unreadable lines of the journal"
        ));
    }

    Ok(JournalAccount::at(&entries, arguments.at, arguments.around))
}

/// Returns the problem of a journal that cannot be read: 77 if access is denied, else 5.
fn journal_problem(journal: &Path, error: &io::Error) -> Problem {
    let detail = format!("cannot read the journal in {}: {error}", journal.display());

    match error.kind() {
        io::ErrorKind::PermissionDenied => Problem::new(Reason::Forbidden, detail).hint(
            "the journal names every user's jobs: run the command as root or as the daemon's user",
        ),
        _ => Problem::new(Reason::NotFound, detail)
            .hint("set --journal to the daemon's state directory"),
    }
}

fn account_text(account: &JournalAccount) -> String {
    let mut out = format!("at {}\n", account.at);
    let Some(since) = &account.known_since else {
        out.push_str("  the journal is empty: nothing was recorded yet\n");
        return out;
    };

    if *since > account.at {
        out.push_str(&format!(
            "  the journal begins later, at {since}: the state at this time is unknown\n"
        ));
    } else {
        out.push_str(&state_text(account));
    }

    out.push_str("events around it\n");
    for entry in &account.around {
        out.push_str(&format!(
            "  {}  {}\n",
            humantime::format_rfc3339_seconds(entry.at),
            entry_text(entry)
        ));
    }

    out
}

/// Returns the lines about leases and processes at the time of `account`.
fn state_text(account: &JournalAccount) -> String {
    let mut out = String::new();
    for gap in &account.gaps {
        out.push_str(&format!("  {}\n", gap_text(gap)));
    }

    for lease in &account.leases {
        out.push_str(&format!("  leased:   {}\n", event::subject(lease)));
    }

    for change in &account.memory {
        let in_gap = account.gaps.iter().any(|gap| {
            gap.device
                .as_ref()
                .is_none_or(|device| *device == change.device)
        });
        let label = if in_gap {
            "before the gap:"
        } else {
            "in use:  "
        };

        out.push_str(&format!("  {label} {}\n", change_text(change)));
    }

    match (
        account.leases.is_empty(),
        account.memory.is_empty(),
        account.gaps.is_empty(),
    ) {
        (true, true, true) => {
            out.push_str("  no lease was active, and no process was seen using memory\n");
        }
        (true, _, false) => out.push_str("  no lease was active\n"),
        _ => {}
    }

    out
}

/// Returns the line about a time without device readings.
fn gap_text(gap: &Gap) -> String {
    let device = gap
        .device
        .as_ref()
        .map(|device| format!("{device} "))
        .unwrap_or_default();

    match (&gap.from, &gap.until) {
        (Some(from), Some(until)) => format!("{device}not observed from {from} to {until}"),
        (Some(from), None) => format!("{device}not observed since {from}"),
        (None, Some(until)) => format!("{device}not observed before {until}"),
        (None, None) => format!("{device}never observed"),
    }
}

fn change_text(change: &MemoryChange) -> String {
    let name = change.name.as_deref().unwrap_or("?");
    let free = change
        .free_bytes
        .map_or_else(|| "unknown".to_owned(), |free| size(free.get()));
    let holder = format!("pid {} ({name}) on {}", change.pid, change.device);
    let before = size_or_nothing(change.before_bytes);
    let after = size_or_nothing(change.after_bytes);

    match (change.found, change.before_bytes, change.after_bytes) {
        (true, None, Some(_)) => {
            format!("{holder}: {after} at the first reading; free after it: {free}")
        }
        (true, _, _) => {
            format!("{holder}: {before} to {after}, seen after a gap; free after it: {free}")
        }
        (false, _, _) => format!("{holder}: {before} to {after}; free after it: {free}"),
    }
}

fn size_or_nothing(bytes: Option<Bytes>) -> String {
    bytes.map_or_else(|| "nothing".to_owned(), |bytes| size(bytes.get()))
}

fn entry_text(entry: &Entry) -> String {
    match (&entry.event, &entry.memory) {
        (Some(event), _) => event::description(event),
        (None, Some(change)) => change_text(change),
        (None, None) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_journal_is_not_called_missing() {
        let journal = Path::new("/var/lib/hf-mem-probe");
        let denied = journal_problem(journal, &io::ErrorKind::PermissionDenied.into());
        let missing = journal_problem(journal, &io::ErrorKind::NotFound.into());

        assert_eq!(
            (denied.reason, denied.reason.exit_code()),
            (Reason::Forbidden, 77)
        );
        assert_eq!(missing.reason, Reason::NotFound);
    }

    /// Returns the text of an empty account after `change`.
    fn text_after(change: impl FnOnce(&mut JournalAccount)) -> String {
        let mut account = JournalAccount {
            at: "2026-11-23T15:00:00Z".to_owned(),
            leases: Vec::new(),
            memory: Vec::new(),
            around: Vec::new(),
            known_since: Some("2026-11-23T14:00:00Z".to_owned()),
            gaps: Vec::new(),
        };

        change(&mut account);
        account_text(&account)
    }

    #[test]
    fn unknown_times_are_not_called_empty() {
        let empty = "no process was seen using memory";
        assert!(text_after(|_| {}).contains(empty));
        let fresh = text_after(|account| account.known_since = None);
        assert!(
            fresh.contains("nothing was recorded yet") && !fresh.contains(empty),
            "{fresh}"
        );
        let before =
            text_after(|account| account.known_since = Some("2026-11-23T16:00:00Z".to_owned()));
        assert!(
            before.contains("the journal begins later") && !before.contains(empty),
            "{before}"
        );

        let holder = MemoryChange {
            device: "GPU-a".to_owned(),
            pid: 7,
            name: Some("python".to_owned()),
            uid: None,
            before_bytes: None,
            after_bytes: Some(Bytes::gib(30)),
            free_bytes: None,
            found: true,
        };

        let gap = text_after(|account| {
            let times = ["14:50", "15:10"].map(|time| Some(format!("2026-11-23T{time}:00Z")));
            let [from, until] = times;
            account.gaps = vec![Gap {
                device: None,
                from,
                until,
            }];
            account.memory = vec![holder];
        });
        assert!(
            gap.contains("not observed from 2026-11-23T14:50:00Z to 2026-11-23T15:10:00Z"),
            "{gap}"
        );

        assert!(
            gap.contains("before the gap: pid 7 (python) on GPU-a: 30.00 GiB at the first reading"),
            "{gap}"
        );
    }
}
