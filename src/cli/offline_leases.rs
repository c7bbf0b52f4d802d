//! Leases of a stopped daemon, which stay on disk.
//!
//! An answer that does not count them may offer memory that is already leased.

use std::io;
use std::path::Path;

use crate::api::client::ClientError;
use crate::config::{DEFAULT_PATH, LeasesConfig};
use crate::leases::clock::Timestamp;
use crate::leases::lease::Lease;
use crate::leases::ledger::{LedgerConfig, Saved};
use crate::leases::store::{boot_id, peek};
use crate::leases::unreadable_ledger::{Unreadable, UnreadableLedger};

/// Returns a warning if a stopped daemon may hold leases. `error` is the failure at `socket`.
pub(super) fn warning(socket: &Path, error: &ClientError) -> Option<String> {
    let ClientError::Unreachable { source, .. } = error else {
        return None;
    };
    let state = LeasesConfig::default().state_directory;
    warning_at(socket, source.kind(), Path::new(DEFAULT_PATH), &state)
}

/// Looks for leases in `state` if `socket` is the default one.
///
/// The state directory of any other daemon is unknown, so only its socket file is evidence.
fn warning_at(
    socket: &Path,
    error: io::ErrorKind,
    default_socket: &Path,
    state: &Path,
) -> Option<String> {
    // A killed daemon leaves its socket file; an orderly stop removes it.
    let was_killed = error == io::ErrorKind::ConnectionRefused;
    let evidence = if socket == default_socket {
        match peek(state) {
            Ok(Some(saved)) if count_live(&saved) > 0 => {
                format!("{} in {}", count_live(&saved), state.display())
            }
            // The directory is readable: no lease was granted, or none is left.
            Ok(_) if state.is_dir() => match has_unreadable_leases(state) {
                Ok(true) => format!("{} holds an unreadable ledger", state.display()),
                Ok(false) => return None,
                Err(why) => format!("cannot check: {}: {why}", state.display()),
            },
            Ok(_) if was_killed || socket.parent().is_some_and(Path::is_dir) => {
                "a daemon was running here".to_owned()
            }
            Ok(_) => return None,
            Err(why) => format!("cannot check: {why}"),
        }
    } else if was_killed {
        "its socket still exists".to_owned()
    } else {
        return None;
    };

    Some(format!(
        "no daemon answers at {}: leases of a stopped daemon may still be active and are not \
         counted ({evidence})",
        socket.display()
    ))
}

/// Whether an unreadable ledger may hold live leases, by the default maximum time to live.
fn has_unreadable_leases(state: &Path) -> io::Result<bool> {
    let files = Unreadable::in_directory(state)?;
    let boot = boot_id(Path::new("/proc")).unwrap_or_default();

    let settings = LedgerConfig {
        max_ttl: LeasesConfig::default().max_ttl,
        ..LedgerConfig::default()
    };

    Ok(UnreadableLedger::of(&files, &settings, &boot, Timestamp::now()).is_some())
}

/// Counts the leases of `saved` that a restarted daemon would restore, by their remaining time.
///
/// See [`crate::leases::ledger::Ledger::restore`].
fn count_live(saved: &Saved) -> usize {
    let now = Timestamp::now();
    let same_boot = saved.saved_at.boottime <= now.boottime
        && boot_id(Path::new("/proc")).is_ok_and(|boot| boot == saved.boot_id);

    // Only the wall clock spans two boots.
    let passed = now
        .wall
        .duration_since(saved.saved_at.wall)
        .unwrap_or_default();
    let has_time_left = |lease: &Lease| {
        if same_boot {
            return lease.expires_at > now.boottime;
        }

        let left = lease
            .expires_at
            .since(saved.saved_at.boottime)
            .min(lease.ttl());
        lease.holder.process.is_none() && left > passed
    };

    saved
        .leases
        .iter()
        .filter(|lease| lease.is_live() && has_time_left(lease))
        .count()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::leases::store::{LedgerStorage as _, Store};

    #[test]
    fn stopped_daemon_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let (default, state) = (
            directory.path().join("run/api.sock"),
            directory.path().join("state"),
        );
        let find_warning = |socket: &Path, error| warning_at(socket, error, &default, &state);
        let (missing, refused) = (io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused);
        assert_eq!(find_warning(&default, missing), None, "never installed");
        let elsewhere = directory.path().join("api.sock");
        assert_eq!(find_warning(&elsewhere, missing), None);

        assert!(
            find_warning(&elsewhere, refused)
                .unwrap()
                .contains("its socket still exists")
        );

        fs::create_dir(directory.path().join("run")).unwrap();
        assert!(
            find_warning(&default, missing)
                .unwrap()
                .contains("a daemon was running here"),
            "as in a container"
        );
        fs::create_dir(&state).unwrap();
        assert_eq!(find_warning(&default, refused), None, "no lease granted");
        let saved_at = Timestamp::now();
        let mut store = Store::open(&state).unwrap();
        store
            .save(&Saved {
                boot_id: "b".to_owned(),
                saved_at,
                leases: Vec::new(),
            })
            .unwrap();

        assert_eq!(find_warning(&default, refused), None, "no live lease");
        drop(store);
        fs::write(state.join("leases.json.set-aside-1"), "torn").unwrap();

        assert!(
            find_warning(&default, missing)
                .unwrap()
                .contains("holds an unreadable ledger"),
            "it may hold leases"
        );
        fs::write(state.join("leases.json"), "torn").unwrap();

        assert!(
            find_warning(&default, missing)
                .unwrap()
                .contains("first line is not a header")
        );
    }

    #[test]
    fn unexpired_leases_count() {
        let boot = boot_id(Path::new("/proc")).unwrap();
        let now = Timestamp::now();

        let make_lease = |named: bool, left: i64| {
            let process = (!named).then(|| serde_json::json!({ "pid": 1, "start_ticks": 1 }));
            let json = serde_json::json!({
                "id": "1-1", "serial": 1, "uid": 1, "state": "granted", "ttl_millis": 60_000, "granted_at": 0,
                "holder": { "process": process, "name": "n", "unit": null, "cgroup": null },
                "question": { "model": "m", "engine": null, "digest": "d" }, "idempotency_key": null, "devices": {},
                "granted_wall": "2026-11-25T00:00:00Z", "baseline_at": 0, "extendable_until": 0, "grown_at": null,
                "expires_at": now.boottime.as_millis().saturating_add_signed(left), "members": [], "ending": null,
            });

            serde_json::from_value::<Lease>(json).unwrap()
        };

        let count_after = |boot_id: &str, saved_at: Timestamp| {
            let leases = vec![
                make_lease(true, 60_000),
                make_lease(false, 60_000),
                make_lease(false, -1),
            ];
            count_live(&Saved {
                boot_id: boot_id.to_owned(),
                saved_at,
                leases,
            })
        };

        assert_eq!(
            (count_after(&boot, now), count_after("another", now)),
            (2, 1)
        );
        let long_ago = Timestamp {
            wall: now.wall - Duration::from_secs(90 * 86_400),
            ..now
        };

        assert_eq!(
            count_after("another", long_ago),
            0,
            "time passes while the host is down"
        );
    }
}
