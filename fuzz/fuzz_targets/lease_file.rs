//! The file of leases of any bytes: a ledger or a reason to set it aside; and whatever leases it
//! holds can be lived with.
#![no_main]

use std::time::{Duration, SystemTime};

use hf_mem_probe::leases::ledger::{Ledger, Saved, LedgerConfig};
use hf_mem_probe::leases::clock::{Boottime, Now};
use hf_mem_probe::leases::{store, view};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(saved) = store::decode(data) {
        live_with(saved);
    }
    // The checksum hides from chance what lies behind it: the same bytes as its content.
    if let Ok(saved) = serde_json::from_slice::<Saved>(data) {
        live_with(saved);
    }
});

fn live_with(saved: Saved) {
    let hour = Duration::from_secs(3600);
    for (boot, alive) in [("b", true), ("b", false), ("another", true)] {
        let mut now = Now { boottime: Boottime::from_millis(10_000_000), wall: SystemTime::UNIX_EPOCH + hour };
        let mut ledger = Ledger::restore(LedgerConfig::default(), boot, 1, saved.clone(), now, |_| alive);
        let lived: Vec<String> = ledger.live().map(|lease| lease.id.clone()).collect();
        for id in lived {
            let _ = ledger.get(&id).map(|lease| view::lease(lease, now));
            let _ = ledger.renew(&id, 0, Some(hour), now);
        }

        now.boottime = now.boottime.after(hour * 24);
        ledger.expire(now);
        let again = ledger.saved(now);
        let text = serde_json::to_vec(&again).expect("what lives can be written down");
        assert!(serde_json::from_slice::<Saved>(&text).is_ok(), "and is found again");
    }
}
