//! The twelve known bugs of lease ledgers, with at least one test each, and related rules. Each
//! test fails if its rule is removed from the ledger.

mod leases_host;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::{EndReason, State};
use hf_mem_probe::leases::durable_ledger::{CommitError, DurableLedger};
use hf_mem_probe::leases::event::Event;
use hf_mem_probe::leases::lease::{Holder, Lease};
use hf_mem_probe::leases::ledger::{
    ChangeError, GrantError, Granted, Ledger, LedgerConfig, Release, Saved,
};
use hf_mem_probe::leases::queue::Queue;
use hf_mem_probe::leases::quota::{Quota, Quotas};
use hf_mem_probe::leases::store::{LedgerStorage, Store, StoreError};
use hf_mem_probe::leases::view;
use leases_host::{Host, gib, request};

const A: &str = "GPU-a";
const B: &str = "GPU-b";

fn ledger() -> Ledger {
    Ledger::new(LedgerConfig::default(), "boot-1", 1)
}

fn is_insufficient<T>(outcome: &Result<T, GrantError>) -> bool {
    matches!(outcome, Err(GrantError::Insufficient { .. }))
}

#[test]
fn bug_01_other_leases_are_subtracted() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let (first, second) = (host.start(), host.start());
    host.grant(&mut ledger, request(first, &[(A, 16)])).unwrap();
    let refused = host.grant(&mut ledger, request(second, &[(A, 16)]));
    assert!(is_insufficient(&refused), "{refused:?}");
    assert_eq!(host.available(&ledger, A), Some(gib(8)));
    host.grant(&mut ledger, request(second, &[(A, 8)])).unwrap();
}

#[test]
fn bug_02_seen_memory_counts_once() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    let child = host.fork(holder);
    host.allocate(child, A, gib(10));

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(8)),
        "a reading from before the grant shows nothing of it"
    );

    host.sample();
    host.settle(&mut ledger);

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(8)),
        "10 seen, 6 claimed, 14 free"
    );

    assert_eq!(ledger.get(&lease.id).unwrap().state, State::Settling);
    host.allocate(child, A, gib(8));
    host.sample();
    host.settle(&mut ledger);

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(6)),
        "all seen, 2 more than granted: never below zero"
    );

    assert_eq!(ledger.get(&lease.id).unwrap().state, State::Settled);

    // A child can outlive its parent: a process that was seen in the tree stays in it.
    host.orphan(child);
    host.sample();
    assert_eq!(host.available(&ledger, A), Some(gib(6)));
}

#[test]
fn only_identified_process_counts_for_lease() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    host.grant(&mut ledger, request(holder, &[(A, 8)])).unwrap();
    host.allocate(holder, A, gib(6));
    host.sample();

    // In another PID namespace the driver's pid names another process, whose start time is unknown.
    let start_ticks = host.snapshot.devices[0].processes[0].start_ticks.take();
    host.settle(&mut ledger);

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(10)),
        "18 free, all 8 still claimed"
    );

    host.sample();
    assert_eq!(
        host.snapshot.devices[0].processes[0].start_ticks,
        start_ticks
    );
    host.settle(&mut ledger);
    assert_eq!(
        host.available(&ledger, A),
        Some(gib(16)),
        "18 free, 2 claimed"
    );
}

#[test]
fn bug_02_sibling_leases_share_no_byte() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 48)]));
    let holder = host.start();
    host.grant(&mut ledger, request(holder, &[(A, 10)]))
        .unwrap();
    let second = host
        .grant(&mut ledger, request(holder, &[(A, 10)]))
        .unwrap();
    host.allocate(holder, A, gib(10));
    host.sample();
    host.settle(&mut ledger);

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(28)),
        "38 free, 10 still claimed"
    );

    // The first lease ends and its memory stays: it does not count for the second.
    let first = ledger.live().next().unwrap().id.clone();
    ledger.release(&first, 1000, host.now()).unwrap();

    for _ in 0..3 {
        host.sample();
        host.settle(&mut ledger);
        assert_eq!(host.available(&ledger, A), Some(gib(28)));
    }

    assert_eq!(
        ledger.get(&second.id).unwrap().devices[A].visible_bytes,
        Bytes::ZERO
    );
    host.allocate(holder, A, gib(10));
    host.sample();

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(28)),
        "28 free, nothing claimed"
    );
}

#[test]
fn bug_02_earlier_memory_does_not_count() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 48)]));
    let holder = host.start();
    host.allocate(holder, A, gib(12));
    host.sample();
    host.grant(&mut ledger, request(holder, &[(A, 10)]))
        .unwrap();
    host.sample();
    host.settle(&mut ledger);

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(26)),
        "36 free, 10 claimed"
    );
}

#[test]
fn bug_02_old_reading_counts_ended_lease() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let (holder, other) = (host.start(), host.start());
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    host.allocate(holder, A, gib(16));

    // The lease is released, its memory is still there, and the last reading does not show it.
    ledger.release(&lease.id, 1000, host.now()).unwrap();
    assert!(is_insufficient(
        &host.grant(&mut ledger, request(other, &[(A, 16)]))
    ));
    host.sample();
    assert!(is_insufficient(
        &host.grant(&mut ledger, request(other, &[(A, 16)]))
    ));
    host.exit(holder);
    host.sample();
    host.grant(&mut ledger, request(other, &[(A, 16)])).unwrap();
}

#[test]
fn bug_02_nearest_holder_gets_memory() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 80)]));
    let shell = host.start();
    let server = host.fork(shell);
    let worker = host.fork(server);
    let mut outer = request(shell, &[(A, 20)]);
    outer.ttl = Duration::from_secs(60);
    let outer = host.grant(&mut ledger, outer).unwrap();
    let inner = host
        .grant(&mut ledger, request(server, &[(A, 10)]))
        .unwrap();
    host.allocate(worker, A, gib(10));
    host.sample();
    host.settle(&mut ledger);
    let visible_bytes =
        |ledger: &Ledger, id: &str| ledger.get(id).unwrap().devices[A].visible_bytes;
    assert_eq!(
        (
            visible_bytes(&ledger, &outer.id),
            visible_bytes(&ledger, &inner.id)
        ),
        (Bytes::ZERO, gib(10))
    );

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(50)),
        "70 free, 20 still claimed by the outer"
    );

    // Memory beyond the grant of the nearest holder counts for the next one.
    host.allocate(worker, A, gib(5));
    host.sample();
    host.settle(&mut ledger);

    assert_eq!(
        (
            visible_bytes(&ledger, &outer.id),
            visible_bytes(&ledger, &inner.id)
        ),
        (gib(5), gib(10))
    );
    host.free(worker, A, gib(5));
    host.sample();
    host.settle(&mut ledger);

    // The shell's lease expires. The server's memory does not become the shell's, or the server's
    // lease would claim it again.
    host.pass(Duration::from_secs(61));
    ledger.expire(host.now());

    for _ in 0..3 {
        host.sample();
        host.settle(&mut ledger);
        assert_eq!(ledger.get(&outer.id).unwrap().state, State::Expired);
        assert_eq!(
            host.available(&ledger, A),
            Some(gib(70)),
            "all claimed memory is seen"
        );
    }

    assert_eq!(visible_bytes(&ledger, &inner.id), gib(10));
}

#[test]
fn bug_02_orphan_stays_with_nearest_holder() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 80)]));
    let shell = host.start();
    let server = host.fork(shell);
    let middle = host.fork(server);
    let worker = host.fork(middle);
    host.sample();
    let outer = host.grant(&mut ledger, request(shell, &[(A, 20)])).unwrap();
    let inner = host
        .grant(&mut ledger, request(server, &[(A, 10)]))
        .unwrap();
    host.allocate(worker, A, gib(4));
    host.sample();
    host.settle(&mut ledger);

    // Its parent is unknown now, but the process was seen before.
    host.exit(middle);
    host.orphan(worker);
    host.sample();
    host.settle(&mut ledger);
    let visible_bytes =
        |ledger: &Ledger, id: &str| ledger.get(id).unwrap().devices[A].visible_bytes;
    assert_eq!(
        (
            visible_bytes(&ledger, &outer.id),
            visible_bytes(&ledger, &inner.id)
        ),
        (Bytes::ZERO, gib(4))
    );
    ledger.release(&outer.id, 1000, host.now()).unwrap();
    host.sample();
    host.settle(&mut ledger);
    assert_eq!(visible_bytes(&ledger, &inner.id), gib(4));
    assert_eq!(host.available(&ledger, A), Some(gib(70)));
}

#[test]
fn long_lease_blocks_no_other_grant() {
    let settings = LedgerConfig {
        max_ended: 4,
        max_leases: 4,
        ..LedgerConfig::default()
    };

    let (mut ledger, mut host) = (Ledger::new(settings, "boot-1", 1), Host::new(&[(A, 80)]));
    let server = host.start();
    let long = host
        .grant(&mut ledger, request(server, &[(A, 10)]))
        .unwrap();
    host.allocate(server, A, gib(10));

    for round in 0..40 {
        let job = host.start();
        host.sample();
        host.settle(&mut ledger);
        let lease = host
            .grant(&mut ledger, request(job, &[(A, 8)]))
            .unwrap_or_else(|error| panic!("{round}: {error}"));
        host.allocate(job, A, gib(8));
        host.sample();
        host.settle(&mut ledger);

        // The job runs for a while after it released the lease.
        ledger.release(&lease.id, 1000, host.now()).unwrap();
        host.sample();
        host.settle(&mut ledger);
        host.exit(job);
        ledger.renew(&long.id, 1000, None, host.now()).unwrap();
    }

    host.sample();
    host.settle(&mut ledger);

    assert!(
        ledger.ended().count() <= 4,
        "ended leases that do not matter are forgotten"
    );
    assert_eq!(host.available(&ledger, A), Some(gib(70)));
}

#[test]
fn bug_03_expired_lease_is_not_renewed() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let (first, second) = (host.start(), host.start());
    let lease = host.grant(&mut ledger, request(first, &[(A, 16)])).unwrap();
    host.pass(Duration::from_secs(121)); // `expire` was not called in between.
    let late = ledger.renew(&lease.id, 1000, None, host.now());

    assert_eq!(
        late,
        Err(ChangeError::Ended {
            id: lease.id.clone(),
            state: State::Expired
        })
    );

    host.sample();
    host.grant(&mut ledger, request(second, &[(A, 24)]))
        .unwrap();
    assert!(ledger.renew(&lease.id, 1000, None, host.now()).is_err());

    assert!(
        ledger.renew(&lease.id, 0, None, host.now()).is_err(),
        "root cannot renew it either"
    );
}

#[test]
fn bug_04_failed_reading_grants_nothing() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    host.sample();
    host.snapshot.devices[0].free_bytes = None;
    assert_eq!(host.available(&ledger, A), None);

    assert!(matches!(
        host.grant(&mut ledger, request(holder, &[(A, 1)])),
        Err(GrantError::Unreadable { .. })
    ));
    assert!(matches!(
        host.grant(&mut ledger, request(holder, &[("GPU-x", 1)])),
        Err(GrantError::UnknownDevice { .. })
    ));
    host.sample();
    host.snapshot.stale = true;

    assert!(matches!(
        host.grant(&mut ledger, request(holder, &[(A, 1)])),
        Err(GrantError::StaleReading { .. })
    ));
    host.sample();
    host.pass(Duration::from_secs(11));

    assert!(matches!(
        host.grant(&mut ledger, request(holder, &[(A, 1)])),
        Err(GrantError::StaleReading { .. })
    ));

    // Free memory that overflowed is no memory either.
    host.sample();
    host.snapshot.devices[0].free_bytes = Some(Bytes::OVERFLOW);
    assert_eq!(host.available(&ledger, A), None);

    // A process with unknown memory reduces no claim.
    host.sample();
    host.grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    host.allocate(holder, A, gib(10));
    host.sample();
    host.snapshot.devices[0].processes[0].used_bytes = None;

    assert_eq!(
        host.available(&ledger, A),
        Some(Bytes::ZERO),
        "14 free, 16 claimed"
    );
}

#[test]
fn bug_05_repeated_key_returns_lease() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    let mut keyed = request(holder, &[(A, 16)]);
    keyed.idempotency_key = Some("k".to_owned());
    let first = host.grant(&mut ledger, keyed.clone()).unwrap();
    let again = ledger
        .grant(keyed.clone(), &host.reading(), host.now())
        .unwrap();
    assert_eq!(again, Granted::Existing(first.clone()));
    assert_eq!(ledger.live().count(), 1);

    // The key with another question, of another user, and after a restart.
    let mut other = keyed.clone();
    other.question.digest = "other".to_owned();

    assert_eq!(
        host.grant(&mut ledger, other),
        Err(GrantError::KeyReused {
            id: first.id.clone()
        })
    );

    let mut stranger = keyed.clone();
    (stranger.uid, stranger.devices) = (1001, [(A.to_owned(), gib(1))].into());
    assert_ne!(host.grant(&mut ledger, stranger).unwrap().id, first.id);
    let saved = ledger.saved(host.now());

    let mut ledger = Ledger::restore(
        LedgerConfig::default(),
        "boot-1",
        2,
        saved,
        host.now(),
        |p| host.is_alive(p),
    );
    assert_eq!(host.grant(&mut ledger, keyed.clone()).unwrap().id, first.id);

    // The key of an ended lease grants nothing.
    ledger.release(&first.id, 1000, host.now()).unwrap();
    assert!(matches!(
        host.grant(&mut ledger, keyed),
        Err(GrantError::KeyEnded { .. })
    ));
}

#[test]
fn bug_06_double_release_is_harmless() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    let first = host.grant(&mut ledger, request(holder, &[(A, 8)])).unwrap();
    host.grant(&mut ledger, request(holder, &[(A, 8)])).unwrap();

    assert!(matches!(
        ledger.release(&first.id, 1001, host.now()),
        Err(ChangeError::NotYours { owner: 1000, .. })
    ));
    assert!(matches!(
        ledger.release(&first.id, 1000, host.now()),
        Ok(Release::Done(_))
    ));
    ledger.drain_events();

    assert!(matches!(
        ledger.release(&first.id, 1000, host.now()),
        Ok(Release::Already(_))
    ));
    assert!(matches!(
        ledger.release(&first.id, 0, host.now()),
        Ok(Release::Already(_))
    ));
    assert!(ledger.drain_events().is_empty(), "one event only");
    host.sample();

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(16)),
        "the other lease is untouched"
    );

    assert!(matches!(
        ledger.release("nothing", 0, host.now()),
        Err(ChangeError::NotFound { .. })
    ));
}

#[test]
fn bug_07_reused_pid_inherits_nothing() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    let reused = host.replace(holder);
    assert_eq!(reused.pid, holder.pid);
    host.allocate(reused, A, gib(8));
    host.sample();
    host.settle(&mut ledger);

    assert_eq!(
        host.available(&ledger, A),
        Some(Bytes::ZERO),
        "16 free, and all 16 claimed: the 8 belong to another process"
    );

    ledger.holder_died(&reused, host.now());
    assert!(
        ledger.get(&lease.id).unwrap().is_live(),
        "another process with that pid exited"
    );
    ledger.holder_died(&holder, host.now());
    let ended = ledger.get(&lease.id).unwrap();
    assert_eq!(
        (ended.state, ended.ending.unwrap().reason),
        (State::Released, EndReason::HolderDied)
    );
    host.sample();

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(16)),
        "released at once"
    );
}

#[test]
fn bug_08_leases_survive_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut host = Host::new(&[(A, 64)]);
    let (stays, dies, reused) = (host.start(), host.start(), host.start());

    let open = |host: &Host, boot: &str| {
        let store = Store::open(directory.path()).unwrap();
        DurableLedger::open(store, LedgerConfig::default(), boot, 1, host.now(), |p| {
            host.is_alive(p)
        })
        .unwrap()
    };

    let mut durable = open(&host, "boot-1");
    let mut ids = Vec::new();

    for holder in [stays, dies, reused] {
        let granted = durable
            .grant(request(holder, &[(A, 8)]), &host.reading(), host.now())
            .unwrap();
        ids.push(granted.lease().id.clone());
    }

    let mut named = request(stays, &[(A, 8)]);
    named.holder = Holder::named("nightly");

    ids.push(
        durable
            .grant(named, &host.reading(), host.now())
            .unwrap()
            .lease()
            .id
            .clone(),
    );

    host.allocate(stays, A, gib(5));
    drop(durable); // Like a kill: what is not on disk by now is lost.
    host.exit(dies);
    host.replace(reused);
    host.pass(Duration::from_secs(30));

    let durable = open(&host, "boot-1");
    host.sample();

    let state = |durable: &DurableLedger<Store>, index: usize| {
        let lease = durable.ledger().get(&ids[index]).unwrap();
        (lease.state, lease.ending.map(|ending| ending.reason))
    };

    assert_eq!(state(&durable, 0), (State::Granted, None));
    assert_eq!(
        state(&durable, 1),
        (State::Orphaned, Some(EndReason::HolderGoneAtRestart))
    );

    assert_eq!(
        state(&durable, 2),
        (State::Orphaned, Some(EndReason::HolderGoneAtRestart))
    );
    assert_eq!(state(&durable, 3), (State::Granted, None));

    assert_eq!(
        host.available(durable.ledger(), A),
        Some(gib(64 - 8 - 8)),
        "5 seen, 3 and 8 claimed"
    );

    let first_expiry = durable.ledger().get(&ids[0]).unwrap().expires_at;
    let left = first_expiry.since(host.now().boottime).as_secs_f64();
    assert!(
        (left - 90.0).abs() < 0.1,
        "time passed while the daemon was down: {left}"
    );
    drop(durable);

    // Another boot: no process of the last one is left, and the boot clock starts again. A named
    // holder keeps the rest of its time.
    host.reboot(Duration::from_secs(40));
    let durable = open(&host, "boot-2");
    assert_eq!(
        state(&durable, 0),
        (State::Orphaned, Some(EndReason::Rebooted))
    );
    assert_eq!(state(&durable, 3), (State::Granted, None));

    let left = durable
        .ledger()
        .get(&ids[3])
        .unwrap()
        .expires_at
        .since(host.now().boottime)
        .as_secs_f64();
    assert!((left - 50.0).abs() < 0.1, "{left}");
    host.sample();
    assert_eq!(host.available(durable.ledger(), A), Some(gib(56)));
}

/// A disk that accepts a number of writes, and then none.
struct FullDisk(usize);

impl LedgerStorage for FullDisk {
    fn save(&mut self, _: &Saved) -> Result<(), StoreError> {
        let full = StoreError::Io {
            what: "write",
            path: "disk".into(),
            source: std::io::Error::other("full"),
        };

        self.0 = self.0.checked_sub(1).ok_or(full)?;
        Ok(())
    }
}

#[test]
fn bug_08_unpersisted_grant_fails() {
    let mut host = Host::new(&[(A, 24)]);
    let holder = host.start();
    let mut durable = DurableLedger::new(ledger(), FullDisk(1));
    let first = durable
        .grant(request(holder, &[(A, 8)]), &host.reading(), host.now())
        .unwrap();
    let refused = durable.grant(request(holder, &[(A, 8)]), &host.reading(), host.now());
    assert!(matches!(refused, Err(CommitError::Store(_))));
    assert_eq!(durable.ledger().live().count(), 1);
    assert_eq!(host.available(durable.ledger(), A), Some(gib(16)));
    let expires_at = first.lease().expires_at;
    host.pass(Duration::from_secs(5));

    assert!(
        durable
            .renew(&first.lease().id, 1000, None, host.now())
            .is_err()
    );

    assert_eq!(
        durable.ledger().get(&first.lease().id).unwrap().expires_at,
        expires_at
    );
    assert!(matches!(
        durable.release(&first.lease().id, 1000, host.now()),
        Err(CommitError::Store(_))
    ));
    assert!(durable.is_behind());

    let warnings = durable
        .drain_events()
        .into_iter()
        .filter(|event| matches!(event, Event::Warning { .. }));
    assert_eq!(warnings.count(), 1, "one warning for all failures");
    assert_eq!(durable.counters().store_failures, 3);
}

/// A disk that the test can fill, and its content.
#[derive(Clone, Default)]
struct FillingDisk(Rc<RefCell<(bool, Option<Saved>)>>);

impl FillingDisk {
    fn set_full(&self, full: bool) {
        self.0.borrow_mut().0 = full;
    }

    fn leases(&self) -> Vec<Lease> {
        self.0
            .borrow()
            .1
            .as_ref()
            .map(|saved| saved.leases.clone())
            .unwrap_or_default()
    }
}

impl LedgerStorage for FillingDisk {
    fn save(&mut self, saved: &Saved) -> Result<(), StoreError> {
        let mut disk = self.0.borrow_mut();
        if disk.0 {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::Io {
                what: "write",
                path: "disk".into(),
                source,
            });
        }

        disk.1 = Some(saved.clone());
        Ok(())
    }
}

#[test]
fn release_on_full_disk_keeps_lease() {
    let (mut host, disk) = (Host::new(&[(A, 24)]), FillingDisk::default());
    let holder = host.start();
    let mut durable = DurableLedger::new(ledger(), disk.clone());
    let granted = durable
        .grant(request(holder, &[(A, 8)]), &host.reading(), host.now())
        .unwrap();
    let lease = granted.lease().clone();
    durable.drain_events();

    disk.set_full(true);
    for _ in 0..2 {
        assert!(matches!(
            durable.release(&lease.id, 1000, host.now()),
            Err(CommitError::Store(_))
        ));
        assert_eq!(
            durable.ledger().get(&lease.id),
            Some(&lease),
            "the lease is unchanged"
        );

        assert_eq!(
            (
                durable.ledger().live().count(),
                durable.ledger().ended().count()
            ),
            (1, 0)
        );

        assert_eq!(host.available(durable.ledger(), A), Some(gib(16)));
    }

    let events = durable.drain_events();
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Ended { .. })),
        "{events:?}"
    );

    assert_eq!(durable.counters().released, 0);

    disk.set_full(false);
    assert!(matches!(
        durable.release(&lease.id, 1000, host.now()),
        Ok(Release::Done(_))
    ));
    let events = durable.drain_events();
    assert!(
        matches!(
            &events[..],
            [Event::Ended {
                reason: EndReason::ByOwner,
                ..
            }]
        ),
        "{events:?}"
    );

    assert!(!disk.leases()[0].is_live());
}

#[test]
fn endings_on_full_disk_take_effect() {
    let (mut host, disk) = (Host::new(&[(A, 24)]), FillingDisk::default());
    let (dies, expires) = (host.start(), host.start());
    let mut durable = DurableLedger::new(ledger(), disk.clone());
    for holder in [dies, expires] {
        durable
            .grant(request(holder, &[(A, 8)]), &host.reading(), host.now())
            .unwrap();
    }

    disk.set_full(true);
    host.exit(dies);
    durable.holder_died(&dies, host.now());

    assert_eq!(
        durable.ledger().live().count(),
        1,
        "its holder has exited, whatever the disk does"
    );

    host.pass(Duration::from_secs(120));
    durable.expire(host.now());
    assert_eq!(durable.ledger().live().count(), 0);
    assert!(durable.is_behind() && disk.leases().iter().all(Lease::is_live));

    // The broker retries.
    disk.set_full(false);
    durable.flush(host.now());
    assert!(!durable.is_behind());

    let ends: Vec<_> = disk
        .leases()
        .iter()
        .filter_map(|lease| Some(lease.ending?.reason))
        .collect();
    assert_eq!(ends, [EndReason::HolderDied, EndReason::TtlPassed]);
}

#[test]
fn bug_09_devices_are_all_or_nothing() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24), (B, 24)]));
    let (first, second) = (host.start(), host.start());
    host.grant(&mut ledger, request(first, &[(B, 20)])).unwrap();
    assert!(is_insufficient(
        &host.grant(&mut ledger, request(second, &[(A, 16), (B, 16)]))
    ));

    assert_eq!(
        host.available(&ledger, A),
        Some(gib(24)),
        "nothing of the part that fits is recorded"
    );

    assert_eq!(ledger.live().count(), 1);
    let both = host
        .grant(&mut ledger, request(second, &[(A, 4), (B, 4)]))
        .unwrap();
    ledger.release(&both.id, 1000, host.now()).unwrap();
    host.sample();
    assert_eq!(host.available(&ledger, A), Some(gib(24)));
    assert_eq!(host.available(&ledger, B), Some(gib(4)));
}

#[test]
fn bug_10_stepped_clock_changes_nothing() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    host.step_wall(Duration::from_secs(86_400), true);
    ledger.expire(host.now());
    assert!(ledger.get(&lease.id).unwrap().is_live(), "a day forward");
    assert_eq!(view::lease(&lease, host.now()).expires_in_seconds, 120);
    host.step_wall(Duration::from_secs(3 * 86_400), false);
    host.pass(Duration::from_secs(119));
    ledger.expire(host.now());
    assert!(ledger.get(&lease.id).unwrap().is_live());

    // The same over a restart of the daemon while the clock was set back.
    let saved = ledger.saved(host.now());
    host.step_wall(Duration::from_secs(86_400), false);
    host.pass(Duration::from_secs(1));

    let ledger = Ledger::restore(
        LedgerConfig::default(),
        "boot-1",
        2,
        saved,
        host.now(),
        |p| host.is_alive(p),
    );
    assert_eq!(
        ledger.get(&lease.id).unwrap().state,
        State::Expired,
        "the clock is two days back, but its time has passed"
    );
}

#[test]
fn bug_11_queue_head_is_not_starved() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24), (B, 24)]));
    let mut queue = Queue::new(16, 16);
    let small = host.start();
    let mut held = host.grant(&mut ledger, request(small, &[(A, 8)])).unwrap();
    let far = host.now().boottime.after(Duration::from_secs(3600));
    let only_a = Some(BTreeSet::from([A.to_owned()]));
    let big = queue.join(1000, only_a, far, host.now().boottime).unwrap();

    // A stream of small requests, each of which would fit, overlapping so that the device is never
    // empty.
    for _ in 0..50 {
        let next = host.start();
        if queue.may_pass([A]) {
            let lease = host.grant(&mut ledger, request(next, &[(A, 8)])).unwrap();
            ledger.release(&held.id, 1000, host.now()).unwrap();
            held = lease;
        }
        host.sample();
        host.settle(&mut ledger);
    }

    assert!(
        queue.may_pass([B]),
        "a request that cannot delay the head may pass"
    );
    ledger.release(&held.id, 1000, host.now()).unwrap();
    host.sample();
    assert!(queue.may_take(big, [A]));
    let holder = host.start();
    host.grant(&mut ledger, request(holder, &[(A, 24)]))
        .unwrap();
    assert_eq!(held.serial, 1, "no small request passed the head");
    assert!(queue.served(big));
}

#[test]
fn bug_12_settled_holder_may_allocate_again() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 48)]));
    let (holder, other) = (host.start(), host.start());

    // Other processes use as much memory as the lease: only the holder's own memory counts.
    let stranger = host.start();
    host.allocate(stranger, A, gib(20));
    host.sample();
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    host.allocate(holder, A, gib(16));
    host.sample();
    host.settle(&mut ledger);
    assert_eq!(ledger.get(&lease.id).unwrap().state, State::Settled);

    // An engine that sleeps or restarts its worker frees memory for a while: the lease still claims
    // it.
    host.free(holder, A, gib(14));
    host.sample();
    host.settle(&mut ledger);
    assert_eq!(host.available(&ledger, A), Some(gib(12)));
    assert!(is_insufficient(
        &host.grant(&mut ledger, request(other, &[(A, 14)]))
    ));
    host.allocate(holder, A, gib(14));
    host.sample();
    host.settle(&mut ledger);
    assert_eq!(host.available(&ledger, A), Some(gib(12)));
    assert_eq!(ledger.get(&lease.id).unwrap().state, State::Settled);
}

#[test]
fn growing_memory_extends_lease_to_bound() {
    let settings = LedgerConfig {
        max_extension: Duration::from_secs(100),
        ..LedgerConfig::default()
    };

    let (mut ledger, mut host) = (Ledger::new(settings, "boot-1", 1), Host::new(&[(A, 80)]));
    let holder = host.start();
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 70)]))
        .unwrap();
    let mut seconds = 0;
    while ledger.get(&lease.id).unwrap().is_live() {
        host.pass(Duration::from_secs(5));
        seconds += 5;
        host.allocate(holder, A, Bytes::mib(256));
        host.sample();
        host.settle(&mut ledger);
        assert!(seconds < 1000, "the lease never ends");
    }

    assert_eq!(seconds, 220, "120 s of its own and 100 s for growth");
    let idle = host.grant(&mut ledger, request(holder, &[(A, 2)])).unwrap();
    host.pass(Duration::from_secs(120));
    host.sample();
    host.settle(&mut ledger);

    assert_eq!(
        ledger.get(&idle.id).unwrap().state,
        State::Expired,
        "without growth nothing is extended"
    );
}

#[test]
fn overdrawn_device_causes_one_event() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let (holder, stranger) = (host.start(), host.start());
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    host.allocate(stranger, A, gib(12));
    ledger.drain_events();

    for _ in 0..3 {
        host.sample();
        host.settle(&mut ledger);
    }

    let events = ledger.drain_events();
    let [
        Event::Overdrawn {
            device,
            short_by_bytes,
            leases,
            strangers,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };

    assert_eq!(
        (device.as_str(), *short_by_bytes, leases),
        (A, gib(4), &vec![lease.id.clone()])
    );
    assert_eq!(strangers[0].pid, stranger.pid);
    host.exit(stranger);
    host.sample();
    host.settle(&mut ledger);

    assert!(matches!(
        ledger.drain_events().as_slice(),
        [Event::Recovered { .. }]
    ));
}

#[test]
fn smaller_holder_settles_and_keeps_rest() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 24)]));
    let holder = host.start();
    let lease = host
        .grant(&mut ledger, request(holder, &[(A, 16)]))
        .unwrap();
    host.allocate(holder, A, gib(14));
    host.sample();
    host.settle(&mut ledger);
    assert_eq!(ledger.get(&lease.id).unwrap().state, State::Settling);
    host.pass(Duration::from_secs(31));
    host.sample();
    host.settle(&mut ledger);
    assert_eq!(ledger.get(&lease.id).unwrap().state, State::Settled);
    assert_eq!(host.available(&ledger, A), Some(gib(8)));
    let printed = view::lease(ledger.get(&lease.id).unwrap(), host.now());
    assert_eq!(
        (
            printed.devices[0].visible_bytes,
            printed.devices[0].claimed_bytes
        ),
        (gib(14).get(), gib(2).get())
    );
}

#[test]
fn only_named_unit_counts_for_lease() {
    let (mut ledger, mut host) = (ledger(), Host::new(&[(A, 48)]));
    let service = host.start();
    host.set_unit(service, "vllm.service", "/system.slice/vllm.service/worker");
    let mut by_unit = request(service, &[(A, 8)]);
    by_unit.holder = Holder {
        unit: Some("vllm.service".to_owned()),
        ..Holder::named("u")
    };

    host.grant(&mut ledger, by_unit).unwrap();
    let mut by_cgroup = request(service, &[(A, 8)]);
    by_cgroup.holder = Holder {
        cgroup: Some("/system.slice/vllm.service".to_owned()),
        ..Holder::named("c")
    };

    host.grant(&mut ledger, by_cgroup).unwrap();
    let mut by_near_miss = request(service, &[(A, 8)]);
    by_near_miss.holder = Holder {
        cgroup: Some("/system.slice/vllm".to_owned()),
        ..Holder::named("n")
    };

    host.grant(&mut ledger, by_near_miss).unwrap();
    host.allocate(service, A, gib(20));
    host.sample();
    host.settle(&mut ledger);

    let seen: Vec<_> = ledger
        .live()
        .map(|lease| lease.devices[A].visible_bytes)
        .collect();
    assert_eq!(seen, [gib(8), gib(8), Bytes::ZERO]);
}

#[test]
fn quotas_and_bounds_are_enforced() {
    let default = Quota {
        bytes: Some(gib(10)),
        leases: Some(2),
    };

    let settings = LedgerConfig {
        quotas: Quotas {
            default,
            ..Quotas::default()
        },
        ..LedgerConfig::default()
    };

    let (mut ledger, mut host) = (
        Ledger::new(settings, "boot-1", 1),
        Host::new(&[(A, 80), (B, 80)]),
    );
    let holder = host.start();
    let exceeded = host.grant(&mut ledger, request(holder, &[(A, 6), (B, 6)]));
    assert!(
        matches!(exceeded, Err(GrantError::Quota(_))),
        "{exceeded:?}"
    );
    host.grant(&mut ledger, request(holder, &[(A, 2)])).unwrap();
    host.grant(&mut ledger, request(holder, &[(A, 2)])).unwrap();

    assert!(matches!(
        host.grant(&mut ledger, request(holder, &[(A, 2)])),
        Err(GrantError::Quota(_))
    ));
    let mut other = request(holder, &[(A, 2)]);
    other.uid = 1001;
    other.ttl = Duration::ZERO;

    assert!(matches!(
        host.grant(&mut ledger, other.clone()),
        Err(GrantError::TimeToLive { .. })
    ));
    other.ttl = Duration::from_secs(60);
    other.devices.clear();

    assert!(matches!(
        host.grant(&mut ledger, other.clone()),
        Err(GrantError::Invalid { .. })
    ));
    other.devices.insert(A.to_owned(), Bytes::OVERFLOW);

    assert!(matches!(
        host.grant(&mut ledger, other.clone()),
        Err(GrantError::Invalid { .. })
    ));
    other.devices.insert(A.to_owned(), gib(1));

    other.holder = Holder {
        process: None,
        name: None,
        unit: None,
        cgroup: None,
    };

    assert!(matches!(
        host.grant(&mut ledger, other),
        Err(GrantError::Invalid { .. })
    ));
}
