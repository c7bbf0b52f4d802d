//! Opens the ledger at the start.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use super::AnyStorage;
use crate::leases::clock::Timestamp;
use crate::leases::durable_ledger::DurableLedger;
use crate::leases::holder::{ProcessIdentity, is_alive};
use crate::leases::ledger::{Ledger, LedgerConfig};
use crate::leases::store::{Loaded, NoStore, Store, StoreError, boot_id};
use crate::leases::unreadable_ledger::Unreadable;

/// How long to wait until the previous daemon closes the ledger: without a ledger the daemon grants
/// no lease.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the ledger in `directory`. On failure it returns the error and a ledger that refuses every
/// grant with that error; everything else works.
pub fn open(
    directory: &Path,
    settings: LedgerConfig,
    proc_root: &Path,
) -> (DurableLedger<AnyStorage>, Option<StoreError>) {
    let now = Timestamp::now();
    let opened = boot_id(proc_root).and_then(|boot_id| {
        let mut store = Store::open_within(directory, LOCK_TIMEOUT)?;
        let loaded = store.load()?;
        let unreadable = store.unreadable()?;
        Ok((boot_id, store, (loaded, unreadable)))
    });

    match opened {
        Ok((boot_id, store, loaded)) => {
            let durable = resume(settings.clone(), &boot_id, store, loaded, now, proc_root);
            (durable, None)
        }
        Err(error) => {
            let boot_id = boot_id(proc_root).unwrap_or_default();
            let error = error.or_hidden_leases(directory, &settings, &boot_id, now);
            (without_storage(settings, &error), Some(error))
        }
    }
}

/// How often to check whether another daemon still holds the ledger.
const LOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the ledger like [`open`], but a disk that hangs delays the start for at most `timeout`.
/// After that the daemon starts without a ledger, with an error.
///
/// The returned flag becomes true once a restart would find the leases: the disk has answered, or
/// another daemon has closed the ledger. A daemon that hung on the same disk cannot be killed, and
/// holds the ledger until the disk answers.
pub fn open_in_time(
    directory: &Path,
    settings: LedgerConfig,
    proc_root: &Path,
    timeout: Duration,
) -> (
    DurableLedger<AnyStorage>,
    Option<StoreError>,
    Arc<AtomicBool>,
) {
    let available_later = Arc::new(AtomicBool::new(false));

    // Without a buffer, a send fails if no receiver takes the value.
    let (opened_sender, opened) = sync_channel(0);
    let open_ledger = {
        let (directory, settings, proc_root) =
            (directory.to_owned(), settings.clone(), proc_root.to_owned());
        let available_later = Arc::clone(&available_later);

        move || {
            let found = open(&directory, settings, &proc_root);
            let in_use = matches!(found.1, Some(StoreError::InUse { .. }));

            // A value that is not received is dropped, and with it the lock on the folder.
            let in_time = opened_sender.send(found).is_ok();
            if in_time && !in_use {
                return;
            }

            while in_use && matches!(Store::open(&directory), Err(StoreError::InUse { .. })) {
                std::thread::sleep(LOCK_CHECK_INTERVAL);
            }

            available_later.store(true, Ordering::Relaxed);
        }
    };

    let error = match std::thread::Builder::new()
        .name("leases-open".to_owned())
        .spawn(open_ledger)
    {
        Ok(_thread) => match opened.recv_timeout(timeout) {
            Ok((durable, error)) => return (durable, error, available_later),
            Err(_) => StoreError::Hangs {
                directory: directory.display().to_string(),
                seconds: timeout.as_secs(),
            },
        },
        Err(error) => {
            let why = format!(
                "cannot start a thread to read {}: {error}",
                directory.display()
            );
            StoreError::None { why }.with_unknown_leases(directory)
        }
    };

    (
        without_storage(settings, &error),
        Some(error),
        available_later,
    )
}

/// A ledger that refuses every grant with `error`.
fn without_storage(settings: LedgerConfig, error: &StoreError) -> DurableLedger<AnyStorage> {
    let ledger = Ledger::new(settings, "", run_id());
    let storage = NoStore {
        why: error.to_string(),
    };

    DurableLedger::new(ledger, Box::new(storage))
}

fn resume(
    settings: LedgerConfig,
    boot_id: &str,
    store: Store,
    (loaded, unreadable): (Loaded, Vec<Unreadable>),
    now: Timestamp,
    proc_root: &Path,
) -> DurableLedger<AnyStorage> {
    let storage: AnyStorage = Box::new(store);
    DurableLedger::resume(
        storage,
        (loaded, &unreadable),
        settings,
        boot_id,
        run_id(),
        now,
        |process: &ProcessIdentity| is_alive(proc_root, process),
    )
}

/// Returns an id that differs from start to start, so that no old lease id names a new lease.
fn run_id() -> u32 {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();

    // The hasher has random keys; the clocks and the pid make sure that two starts differ.
    let hash = RandomState::new().hash_one((
        since_epoch.as_nanos(),
        std::process::id(),
        Timestamp::now().boottime,
    ));
    let [a, b, c, d, ..] = hash.to_le_bytes();

    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn hanging_disk_delays_start_briefly() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("leases.lock");

        // Opening a pipe for writing blocks until a reader opens it, like a disk that hangs.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &lock,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();

        std::fs::set_permissions(&lock, Permissions::from_mode(0o600)).unwrap();
        let open = |timeout| {
            open_in_time(
                folder.path(),
                LedgerConfig::default(),
                Path::new("/proc"),
                timeout,
            )
        };

        let (_keeper, error, available_later) = open(Duration::from_millis(50));
        assert!(matches!(error, Some(StoreError::Hangs { .. })));
        assert!(!available_later.load(Ordering::Relaxed));

        // The disk is back: the flag is set, and the folder is free.
        drop(File::open(&lock).unwrap());
        while !available_later.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }

        std::fs::remove_file(&lock).unwrap();
        let (durable, error, available_later) = open(Duration::from_secs(60));
        assert!(error.is_none() && !available_later.load(Ordering::Relaxed));

        // Another daemon holds the ledger, and closes it.
        let (_without, error, available_later) = open(Duration::from_secs(60));
        assert!(
            matches!(error, Some(StoreError::InUse { .. }))
                && !available_later.load(Ordering::Relaxed)
        );
        drop(durable);

        while !available_later.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}
