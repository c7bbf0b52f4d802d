//! Leases that may be held although no daemon answers: they outlive it, on disk. An answer without
//! them may promise memory that is promised already.

use std::io;
use std::path::Path;

use crate::api::client::ClientError;
use crate::config::{DEFAULT_PATH, LeasesConfig};
use crate::leases::clock::Timestamp;
use crate::leases::lease::Lease;
use crate::leases::ledger::{LedgerConfig, Saved};
use crate::leases::store::{boot_id, peek};
use crate::leases::unreadable_ledger::{Unreadable, UnreadableLedger};

/// What speaks for such leases, now that asking at `socket` failed with `error`: a sentence for the
/// answer's warnings.
pub(super) fn leases(socket: &Path, error: &ClientError) -> Option<String> {
    let ClientError::Unreachable { source, .. } = error else {
        return None;
    };
    let state = LeasesConfig::default().state_directory;
    signs(socket, source.kind(), Path::new(DEFAULT_PATH), &state)
}

/// The state directory of a daemon elsewhere is not known from here: there only the socket itself
/// speaks.
fn signs(socket: &Path, error: io::ErrorKind, usual_socket: &Path, state: &Path) -> Option<String> {
    // A socket is left behind by a daemon that was killed; an orderly end takes it away.
    let killed = error == io::ErrorKind::ConnectionRefused;
    let sign = if socket == usual_socket {
        match peek(state) {
            Ok(Some(saved)) if held(&saved) > 0 => {
                format!("{} are written down in {}", held(&saved), state.display())
            }
            // The directory is there and can be looked into: no lease was ever given, or none is
            // left.
            Ok(_) if state.is_dir() => match set_aside(state) {
                Ok(true) => format!("a ledger in {} could not be read", state.display()),
                Ok(false) => return None,
                Err(why) => format!("they cannot be seen from here: {}: {why}", state.display()),
            },
            Ok(_) if killed || socket.parent().is_some_and(Path::is_dir) => {
                "one has been there".to_owned()
            }
            Ok(_) => return None,
            Err(why) => format!("they cannot be seen from here: {why}"),
        }
    } else if killed {
        "its socket is still there".to_owned()
    } else {
        return None;
    };

    Some(format!(
        "no daemon answers at {}, and leases of a stopped one go on ({sign}): what they promise to others is not counted",
        socket.display()
    ))
}

/// Whether leases may be alive in a ledger that was set aside, as far as the usual longest time to
/// live tells.
fn set_aside(state: &Path) -> io::Result<bool> {
    let files = Unreadable::in_directory(state)?;
    let boot = boot_id(Path::new("/proc")).unwrap_or_default();

    let settings = LedgerConfig {
        max_ttl: LeasesConfig::default().max_ttl,
        ..LedgerConfig::default()
    };

    Ok(UnreadableLedger::of(&files, &settings, &boot, Timestamp::now()).is_some())
}

/// How many leases of `saved` would be there if the daemon came back, as far as their time tells:
/// see [`crate::leases::ledger::Ledger::restore`].
fn held(saved: &Saved) -> usize {
    let now = Timestamp::now();
    let same_boot = saved.saved_at.boottime <= now.boottime
        && boot_id(Path::new("/proc")).is_ok_and(|boot| boot == saved.boot_id);

    // Only the wall's clock spans two boots.
    let passed = now
        .wall
        .duration_since(saved.saved_at.wall)
        .unwrap_or_default();
    let goes_on = |lease: &&Lease| {
        let in_time = if same_boot {
            lease.expires_at > now.boottime
        } else {
            let left = lease
                .expires_at
                .since(saved.saved_at.boottime)
                .min(lease.ttl());
            lease.holder.process.is_none() && left > passed
        };

        lease.is_live() && in_time
    };

    saved.leases.iter().filter(goes_on).count()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::leases::store::{LedgerStorage as _, Store};

    #[test]
    fn a_stopped_daemon_is_told_from_none() {
        let directory = tempfile::tempdir().unwrap();
        let (usual, state) = (
            directory.path().join("run/api.sock"),
            directory.path().join("state"),
        );
        let sign = |socket: &Path, error| signs(socket, error, &usual, &state);
        let (gone, refused) = (io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused);
        assert_eq!(sign(&usual, gone), None, "never installed");
        let elsewhere = directory.path().join("api.sock");
        assert_eq!(sign(&elsewhere, gone), None);

        assert!(
            sign(&elsewhere, refused)
                .unwrap()
                .contains("its socket is still there")
        );

        fs::create_dir(directory.path().join("run")).unwrap();
        assert!(
            sign(&usual, gone).unwrap().contains("one has been there"),
            "as in a container"
        );
        fs::create_dir(&state).unwrap();
        assert_eq!(sign(&usual, refused), None, "no lease was ever given");
        let saved_at = Timestamp::now();
        let mut store = Store::open(&state).unwrap();
        store
            .save(&Saved {
                boot_id: "b".to_owned(),
                saved_at,
                leases: Vec::new(),
            })
            .unwrap();

        assert_eq!(sign(&usual, refused), None, "none is held");
        drop(store);
        fs::write(state.join("leases.json.set-aside-1"), "torn").unwrap();

        assert!(
            sign(&usual, gone).unwrap().contains("could not be read"),
            "it may have promised something"
        );
        fs::write(state.join("leases.json"), "torn").unwrap();

        assert!(
            sign(&usual, gone)
                .unwrap()
                .contains("first line is not a header")
        );
    }

    #[test]
    fn leases_count_while_their_time_runs() {
        let boot = boot_id(Path::new("/proc")).unwrap();
        let now = Timestamp::now();

        let lease = |named: bool, left: i64| {
            let process = (!named).then(|| serde_json::json!({ "pid": 1, "start_ticks": 1 }));
            let lease = serde_json::json!({
                "id": "1-1", "serial": 1, "uid": 1, "state": "granted", "ttl_millis": 60_000, "granted_at": 0,
                "holder": { "process": process, "name": "n", "unit": null, "cgroup": null },
                "question": { "model": "m", "engine": null, "digest": "d" }, "idempotency_key": null, "devices": {},
                "granted_wall": "2026-11-25T00:00:00Z", "baseline_at": 0, "extendable_until": 0, "grown_at": null,
                "expires_at": now.boottime.as_millis().saturating_add_signed(left), "members": [], "ending": null,
            });

            serde_json::from_value::<Lease>(lease).unwrap()
        };

        let of = |boot_id: &str, saved_at: Timestamp| {
            let leases = vec![lease(true, 60_000), lease(false, 60_000), lease(false, -1)];
            held(&Saved {
                boot_id: boot_id.to_owned(),
                saved_at,
                leases,
            })
        };

        assert_eq!((of(&boot, now), of("another", now)), (2, 1));
        let long_ago = Timestamp {
            wall: now.wall - Duration::from_secs(90 * 86_400),
            ..now
        };

        assert_eq!(
            of("another", long_ago),
            0,
            "its time ran on while the host was down"
        );
    }
}
