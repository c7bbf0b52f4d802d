//! `explain`: who had been promised what, and who had taken what, at a time.

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

/// Reads the journal back.
pub(super) fn run(arguments: &ExplainArguments) -> u8 {
    let output = Output {
        json: arguments.json,
    };

    match account(arguments) {
        Ok(account) => {
            output.data(&account, words);
            Reason::Fits.exit_code()
        }
        Err(problem) => output.problem(&problem),
    }
}

fn account(arguments: &ExplainArguments) -> Result<JournalAccount, Problem> {
    let failed = |error| unreadable(&arguments.journal, &error);
    let journal = arguments.journal.clone();
    let whole = move |disk: &Disk| {
        // An empty folder and a wrong one look the same to the reader.
        disk.list(&journal, 0, |_| false)?;
        let (entries, unreadable) = read(&journal)?;
        Ok((entries, unreadable, exists(&journal)))
    };

    let (entries, unreadable, is_there) =
        files::try_wait(&arguments.journal, whole).map_err(failed)?;
    if entries.is_empty() && !is_there {
        let detail = format!("there is no journal in {}", arguments.journal.display());
        return Err(Problem::new(Reason::NotFound, detail)
            .hint("name the daemon's state directory with --journal"));
    }

    if unreadable > 0 {
        super::output::remark(&format!(
            "{unreadable} lines of the journal could not be read"
        ));
    }

    Ok(JournalAccount::at(&entries, arguments.at, arguments.around))
}

/// A journal that is there and may not be read is told from one that is elsewhere.
fn unreadable(journal: &Path, error: &io::Error) -> Problem {
    let detail = format!(
        "the journal in {} cannot be read: {error}",
        journal.display()
    );

    match error.kind() {
        io::ErrorKind::PermissionDenied => Problem::new(Reason::Forbidden, detail).hint(
            "it names everybody's jobs: only root and the daemon's own user may read it; ask as one of them (sudo)",
        ),
        _ => Problem::new(Reason::NotFound, detail).hint("name the daemon's state directory with --journal"),
    }
}

fn words(account: &JournalAccount) -> String {
    let mut out = format!("at {}\n", account.at);
    let Some(since) = &account.known_since else {
        out.push_str("  nothing was recorded yet\n");
        return out;
    };

    if *since > account.at {
        out.push_str(&format!(
            "  the journal begins later, at {since}: nothing is known of that time\n"
        ));
    } else {
        out.push_str(&then(account));
    }

    out.push_str("around it\n");
    for entry in &account.around {
        out.push_str(&format!(
            "  {}  {}\n",
            humantime::format_rfc3339_seconds(entry.at),
            line(entry)
        ));
    }

    out
}

/// How things stood then.
fn then(account: &JournalAccount) -> String {
    let mut out = String::new();
    for gap in &account.gaps {
        out.push_str(&format!("  {}\n", unobserved(gap)));
    }

    for lease in &account.leases {
        out.push_str(&format!("  promised: {}\n", event::subject(lease)));
    }

    for change in &account.memory {
        let in_gap = account.gaps.iter().any(|gap| {
            gap.device
                .as_ref()
                .is_none_or(|device| *device == change.device)
        });
        let held = if in_gap {
            "before the gap:"
        } else {
            "in use:  "
        };

        out.push_str(&format!("  {held} {}\n", memory(change)));
    }

    match (
        account.leases.is_empty(),
        account.memory.is_empty(),
        account.gaps.is_empty(),
    ) {
        (true, true, true) => {
            out.push_str("  no lease was held, and no process was seen to hold memory\n");
        }
        (true, _, false) => out.push_str("  no lease was held\n"),
        _ => {}
    }

    out
}

/// A time in which nobody looked.
fn unobserved(gap: &Gap) -> String {
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

fn memory(change: &MemoryChange) -> String {
    let name = change.name.as_deref().unwrap_or("?");
    let bytes = |bytes: Option<Bytes>| {
        bytes.map_or_else(|| "nothing".to_owned(), |bytes| size(bytes.get()))
    };

    let free = change
        .free_bytes
        .map_or_else(|| "unknown".to_owned(), |free| size(free.get()));
    let holder = format!("pid {} ({name}) on {}", change.pid, change.device);
    let after = bytes(change.after_bytes);

    match (change.found, change.before_bytes, change.after_bytes) {
        (true, None, Some(_)) => {
            format!("{holder}: {after}, there when it was first looked at, then free {free}")
        }
        (found, before, _) => {
            let when = if found { ", found after a gap" } else { "" };
            format!(
                "{holder}: {} to {after}{when}, then free {free}",
                bytes(before)
            )
        }
    }
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
        assert_eq!(
            (refused.reason, refused.reason.exit_code()),
            (Reason::Forbidden, 77)
        );
        assert_eq!(problem(io::ErrorKind::NotFound).reason, Reason::NotFound);
    }

    fn account(change: impl FnOnce(&mut JournalAccount)) -> String {
        let mut account = JournalAccount {
            at: "2026-11-23T15:00:00Z".to_owned(),
            leases: Vec::new(),
            memory: Vec::new(),
            around: Vec::new(),
            known_since: Some("2026-11-23T14:00:00Z".to_owned()),
            gaps: Vec::new(),
        };

        change(&mut account);
        words(&account)
    }

    #[test]
    fn unknown_times_are_not_called_empty() {
        let empty = "no process was seen to hold memory";
        assert!(account(|_| {}).contains(empty));
        let fresh = account(|account| account.known_since = None);
        assert!(
            fresh.contains("nothing was recorded yet") && !fresh.contains(empty),
            "{fresh}"
        );
        let before =
            account(|account| account.known_since = Some("2026-11-23T16:00:00Z".to_owned()));
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

        let gap = account(|account| {
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
            gap.contains("before the gap: pid 7 (python) on GPU-a: 30.00 GiB, there when"),
            "{gap}"
        );
    }
}
