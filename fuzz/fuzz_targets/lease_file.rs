//! A lease file of any bytes gives a ledger or the reason why it is set aside.
//!
//! The ledger works with any leases in it.
#![no_main]

use std::time::{Duration, SystemTime};

use hf_mem_probe::leases::clock::{Boottime, Timestamp};
use hf_mem_probe::leases::ledger::{Ledger, LedgerConfig, Saved};
use hf_mem_probe::leases::{store, view};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(saved) = store::decode(data) {
        exercise_ledger(saved);
    }

    // Random bytes never match the file's checksum, so they are also parsed as its content.
    if let Ok(saved) = serde_json::from_slice::<Saved>(data) {
        exercise_ledger(saved);
    }
});

/// Restores the leases, renews and expires them, and saves them again.
fn exercise_ledger(saved: Saved) {
    let hour = Duration::from_secs(3600);
    for (boot, alive) in [("b", true), ("b", false), ("another", true)] {
        let mut now = Timestamp {
            boottime: Boottime::from_millis(10_000_000),
            wall: SystemTime::UNIX_EPOCH + hour,
        };
        let config = LedgerConfig::default();
        let mut ledger = Ledger::restore(config, boot, 1, saved.clone(), now, |_| alive);

        let ids: Vec<String> = ledger.live().map(|lease| lease.id.clone()).collect();
        for id in ids {
            let _ = ledger.get(&id).map(|lease| view::lease(lease, now));
            let _ = ledger.renew(&id, 0, Some(hour), now);
        }

        now.boottime = now.boottime.after(hour * 24);
        ledger.expire(now);
        let saved_again = ledger.saved(now);
        let text = serde_json::to_vec(&saved_again).expect("leases can be serialized");
        assert!(
            serde_json::from_slice::<Saved>(&text).is_ok(),
            "serialized leases can be parsed"
        );
    }
}
