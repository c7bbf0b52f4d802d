//! The ledger as it lies on disk, taken up at the start.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::AnyStorage;
use crate::leases::holder::is_alive;
use crate::leases::keeper::Keeper;
use crate::leases::ledger::{Ledger, Settings};
use crate::leases::moment::Now;
use crate::leases::store::{Loaded, NoStore, Store, StoreError, boot_id};

/// How long the daemon before this one may take to let go of the ledger: without it no lease is granted at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes up the leases kept in `directory`, or says why none can be kept there: then every grant is refused with that
/// reason, and all else works.
pub fn open(directory: &Path, settings: Settings, proc_root: &Path) -> (Keeper<AnyStorage>, Option<StoreError>) {
    let now = Now::read();
    let taken = boot_id(proc_root).and_then(|boot_id| {
        let mut store = Store::open_within(directory, PATIENCE)?;
        let loaded = store.load()?;
        Ok((boot_id, store, loaded))
    });
    match taken {
        Ok((boot_id, store, loaded)) => {
            let keeper = resume(settings.clone(), &boot_id, store, loaded, now, proc_root);
            (keeper, None)
        }
        Err(error) => {
            let ledger = Ledger::new(settings, "", run());
            (Keeper::new(ledger, Box::new(NoStore { why: error.to_string() })), Some(error))
        }
    }
}

fn resume(
    settings: Settings,
    boot_id: &str,
    store: Store,
    loaded: Loaded,
    now: Now,
    proc_root: &Path,
) -> Keeper<AnyStorage> {
    let storage: AnyStorage = Box::new(store);
    Keeper::resume(storage, loaded, settings, boot_id, run(), now, |process| is_alive(proc_root, process))
}

/// Differs from start to start, so that no old id means a new lease.
fn run() -> u32 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mixed = wall.as_nanos() ^ (u128::from(std::process::id()) << 64) ^ u128::from(Now::read().boottime.as_millis());
    // FNV-1a (Fowler, Noll, Vo) over the bytes: what differs anywhere differs everywhere.
    mixed.to_le_bytes().iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
