//! The ledger as it lies on disk, taken up at the start.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use super::AnyStorage;
use crate::leases::clock::Now;
use crate::leases::durable_ledger::DurableLedger;
use crate::leases::holder::{ProcessIdentity, is_alive};
use crate::leases::ledger::{Ledger, LedgerConfig};
use crate::leases::store::{Loaded, NoStore, Store, StoreError, boot_id};
use crate::leases::unreadable_ledger::Unreadable;

/// How long the daemon before this one may take to let go of the ledger: without it no lease is
/// granted at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes up the leases kept in `directory`, or says why none can be kept there: then every grant is
/// refused with that reason, and all else works.
pub fn open(
    directory: &Path,
    settings: LedgerConfig,
    proc_root: &Path,
) -> (DurableLedger<AnyStorage>, Option<StoreError>) {
    let now = Now::read();
    let taken = boot_id(proc_root).and_then(|boot_id| {
        let mut store = Store::open_within(directory, PATIENCE)?;
        let loaded = store.load()?;
        let unreadable = store.unreadable()?;
        Ok((boot_id, store, (loaded, unreadable)))
    });

    match taken {
        Ok((boot_id, store, loaded)) => {
            let keeper = resume(settings.clone(), &boot_id, store, loaded, now, proc_root);
            (keeper, None)
        }
        Err(error) => {
            let boot_id = boot_id(proc_root).unwrap_or_default();
            let error = error.hiding(directory, &settings, &boot_id, now);
            let ledger = Ledger::new(settings, "", run());

            (
                DurableLedger::new(
                    ledger,
                    Box::new(NoStore {
                        why: error.to_string(),
                    }),
                ),
                Some(error),
            )
        }
    }
}

/// How often a ledger that another holds is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// As [`open`], but a disk that hangs holds the daemon up for `patience` only: it then starts
/// without a ledger and says so. What comes last turns true once the ledger could be had after all,
/// and a restart would find the leases: the disk has answered, or another daemon has let go of it
/// (one that hung in the disk too cannot be killed, and holds it until then).
pub fn open_in_time(
    directory: &Path,
    settings: LedgerConfig,
    proc_root: &Path,
    patience: Duration,
) -> (
    DurableLedger<AnyStorage>,
    Option<StoreError>,
    Arc<AtomicBool>,
) {
    let late = Arc::new(AtomicBool::new(false));

    // Holds nothing: what is sent is either taken, or known not to have been.
    let (opened, taken) = sync_channel(0);
    let work = {
        let (directory, settings, proc_root) =
            (directory.to_owned(), settings.clone(), proc_root.to_owned());
        let late = Arc::clone(&late);

        move || {
            let found = open(&directory, settings, &proc_root);
            let in_use = matches!(found.1, Some(StoreError::InUse { .. }));

            // Not sent is dropped, and with it the lock on the folder.
            let in_time = opened.send(found).is_ok();
            if in_time && !in_use {
                return;
            }

            while in_use && matches!(Store::open(&directory), Err(StoreError::InUse { .. })) {
                std::thread::sleep(LOOK_AGAIN);
            }

            late.store(true, Ordering::Relaxed);
        }
    };

    let trouble = match std::thread::Builder::new()
        .name("leases-open".to_owned())
        .spawn(work)
    {
        Ok(_thread) => match taken.recv_timeout(patience) {
            Ok((keeper, trouble)) => return (keeper, trouble, late),
            Err(_) => StoreError::Hangs {
                directory: directory.display().to_string(),
                seconds: patience.as_secs(),
            },
        },
        Err(error) => {
            let why = format!("no thread to read {} with: {error}", directory.display());
            StoreError::None { why }.unread(directory)
        }
    };

    let ledger = Ledger::new(settings, "", run());
    let keeper = DurableLedger::new(
        ledger,
        Box::new(NoStore {
            why: trouble.to_string(),
        }) as AnyStorage,
    );

    (keeper, Some(trouble), late)
}

fn resume(
    settings: LedgerConfig,
    boot_id: &str,
    store: Store,
    (loaded, unreadable): (Loaded, Vec<Unreadable>),
    now: Now,
    proc_root: &Path,
) -> DurableLedger<AnyStorage> {
    let storage: AnyStorage = Box::new(store);
    let alive = |process: &ProcessIdentity| is_alive(proc_root, process);

    DurableLedger::resume(
        storage,
        (loaded, &unreadable),
        settings,
        boot_id,
        run(),
        now,
        alive,
    )
}

/// Differs from start to start, so that no old id means a new lease.
fn run() -> u32 {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mixed = wall.as_nanos()
        ^ (u128::from(std::process::id()) << 64)
        ^ u128::from(Now::read().boottime.as_millis());

    // FNV-1a (Fowler, Noll, Vo) over the bytes: what differs anywhere differs everywhere.
    mixed.to_le_bytes().iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_hangs_delays_the_start_for_a_while_only() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("leases.lock");

        // Who opens a pipe to write waits until somebody reads: as good as a disk that hangs.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &lock,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();

        std::fs::set_permissions(&lock, Permissions::from_mode(0o600)).unwrap();
        let open = |patience| {
            open_in_time(
                folder.path(),
                LedgerConfig::default(),
                Path::new("/proc"),
                patience,
            )
        };

        let (_keeper, trouble, late) = open(Duration::from_millis(50));
        assert!(matches!(trouble, Some(StoreError::Hangs { .. })));
        assert!(!late.load(Ordering::Relaxed));

        // The disk is back: that is told, and the folder is free for the next.
        drop(File::open(&lock).unwrap());
        while !late.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }

        std::fs::remove_file(&lock).unwrap();
        let (keeper, trouble, late) = open(Duration::from_secs(60));
        assert!(trouble.is_none() && !late.load(Ordering::Relaxed));

        // Another holds it, and lets go.
        let (_without, trouble, late) = open(Duration::from_secs(60));
        assert!(matches!(trouble, Some(StoreError::InUse { .. })) && !late.load(Ordering::Relaxed));
        drop(keeper);

        while !late.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
    }
}
