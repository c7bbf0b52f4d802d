//! The event log over a journal in a temporary directory.

use std::collections::BTreeMap;

use super::*;
use crate::leases::account::JournalAccount;
use crate::leases::attribution::HolderReading;
use crate::leases::clock::Boottime;
use crate::leases::durable_ledger::DurableLedger;
use crate::leases::holder::Ancestry;
use crate::leases::journal::{JournalLimits, read};
use crate::leases::lease::{Holder, QuestionSummary};
use crate::leases::ledger::{GrantRequest, Ledger, LedgerConfig, Saved};
use crate::leases::store::{LedgerStorage, StoreError};
use crate::leases::testing::process;
use hf_mem_core::device::Process;
use hf_mem_core::report::lease::EndReason;

fn publish(log: &mut EventLog, events: Vec<Event>, now: Timestamp) {
    for event in events {
        log.collect(event, None);
    }

    log.publish(now);
}

fn journal_config(directory: &tempfile::TempDir, max_bytes: u64) -> JournalConfig {
    let limits = JournalLimits {
        max_bytes,
        max_age: Duration::from_secs(86_400),
    };

    JournalConfig {
        directory: directory.path().to_owned(),
        limits,
        gap: Duration::from_secs(60),
    }
}

#[test]
fn churn_does_not_displace_other_users() {
    let directory = tempfile::tempdir().unwrap();
    let most = 200_000;
    let mut log = EventLog::new(
        Some(&journal_config(&directory, most)),
        broadcast::channel(1).0,
    );

    let now = |seconds| Timestamp {
        boottime: Boottime::from_millis(seconds * 1000),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
    };

    let subject = |uid: u32, lease: String| Subject {
        lease,
        uid,
        pid: None,
        name: Some("n".repeat(128)),
        model: "m".repeat(200),
        granted_bytes: [(
            "GPU-00000000-0000-4000-8000-000000000000".to_owned(),
            Bytes::gib(1),
        )]
        .into(),
        visible_bytes: [(
            "GPU-00000000-0000-4000-8000-000000000000".to_owned(),
            Bytes::ZERO,
        )]
        .into(),
    };

    publish(
        &mut log,
        vec![Event::Granted(subject(1, "victim".to_owned()))],
        now(10),
    );
    for second in 11..41 {
        let churn = (0..100).flat_map(|number| {
            let lease = subject(2, format!("{second}-{number}"));
            [
                Event::Granted(lease.clone()),
                Event::Ended {
                    lease,
                    reason: EndReason::ByOwner,
                },
            ]
        });
        publish(&mut log, churn.collect(), now(second));
    }

    let (entries, unreadable) = read(directory.path()).unwrap();
    assert_eq!(unreadable, 0);

    assert!(
        entries.len() < 400,
        "{} lines of 6001 events",
        entries.len()
    );

    let then = JournalAccount::at(&entries, now(41).wall, 0);
    assert_eq!(
        then.leases
            .iter()
            .map(|lease| lease.lease.as_str())
            .collect::<Vec<_>>(),
        ["victim"]
    );

    // Memory that comes and goes does not displace it either.
    let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
    for reading in 0..1000 {
        let swing = if reading % 2 == 0 { 600 } else { 300 };
        snapshot.devices[0].processes = (100..164).map(|pid| process(pid, swing)).collect();
        snapshot.sampled_at = now(42).wall + Duration::from_millis(10 * reading);
        log.observe(&snapshot, now(42 + reading / 100));
    }

    let lines = read(directory.path()).unwrap().0.len();
    assert!(
        lines - entries.len() <= 142,
        "{} lines of 64000 moves",
        lines - entries.len()
    );

    let last = read(directory.path())
        .unwrap()
        .0
        .into_iter()
        .filter_map(|entry| entry.memory)
        .next_back()
        .unwrap();
    snapshot.devices[0].processes = vec![process(last.pid, 5_000)];
    snapshot.sampled_at = now(1000).wall;
    log.observe(&snapshot, now(1000));

    let mut memory = read(directory.path())
        .unwrap()
        .0
        .into_iter()
        .filter_map(|entry| entry.memory);
    let next = memory
        .rfind(|memory| memory.after_bytes == Some(Bytes::mib(5_000)))
        .unwrap();
    assert_eq!(
        next.before_bytes, last.after_bytes,
        "the next line includes what was omitted"
    );

    let reports = entries.iter().filter(|entry| {
        matches!(&entry.event, Some(Event::Warning { message })
        if message.contains("uid 2"))
    });
    assert_eq!(reports.count(), 1);
}

/// Storage that keeps nothing.
struct Nowhere;

impl LedgerStorage for Nowhere {
    fn save(&mut self, _: &Saved) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn swinging_memory_is_recorded_to_bound() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = EventLog::new(
        Some(&journal_config(&directory, 4 << 20)),
        broadcast::channel(1).0,
    );

    let at = |seconds: u64| Timestamp {
        boottime: Boottime::from_millis(seconds * 1000),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
    };

    let mut durable = DurableLedger::new(Ledger::new(LedgerConfig::default(), "boot", 7), Nowhere);
    let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
    let ancestry = Ancestry::default();
    let unit = Some("u.service".to_owned());

    for _ in 0..64 {
        let now = at(1);
        let reading = HolderReading {
            snapshot: &snapshot,
            taken_at: now.boottime,
            ancestry: &ancestry,
        };

        let request = GrantRequest {
            devices: [("GPU-a".to_owned(), Bytes::mib(8))].into(),
            ttl: Duration::from_secs(500),
            holder: Holder {
                process: None,
                name: Some("n".to_owned()),
                unit: unit.clone(),
                cgroup: None,
            },
            uid: 2,
            idempotency_key: None,
            question: QuestionSummary::default(),
        };

        durable.grant(request, &reading, now).unwrap();
    }

    let mut publish_and_count = |durable: &mut DurableLedger<Nowhere>, now| {
        publish(&mut log, durable.drain_events(), now);

        read(directory.path()).unwrap().0.len()
    };

    let before = publish_and_count(&mut durable, at(2));
    let mut lines = before;

    for second in 3..123 {
        let process = Process {
            unit: unit.clone(),
            start_ticks: Some(5),
            ..process(77, 64 * 8)
        };

        snapshot.devices[0].processes = if second % 2 == 0 {
            Vec::new()
        } else {
            vec![process]
        };

        let reading = HolderReading {
            snapshot: &snapshot,
            taken_at: at(second).boottime,
            ancestry: &ancestry,
        };

        durable.settle(&reading, at(second));
        lines = publish_and_count(&mut durable, at(second));
    }

    assert!(
        lines > before && lines - before < 260,
        "{} lines of one user in 120 s",
        lines - before
    );
}

#[test]
fn earlier_holder_is_recorded_as_found() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = EventLog::new(
        Some(&journal_config(&directory, 4 << 20)),
        broadcast::channel(1).0,
    );
    let mut snapshot = crate::leases::testing::snapshot(&[("GPU-a", 80)]);
    let observe = |log: &mut EventLog, snapshot: &mut Snapshot, second: u64, pids: &[u32]| {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        snapshot.devices[0].processes = pids.iter().map(|pid| process(*pid, 30 << 10)).collect();
        snapshot.sampled_at = wall;

        log.observe(
            snapshot,
            Timestamp {
                boottime: Boottime::from_millis(second * 1000),
                wall,
            },
        );
    };

    let account = |second: u64| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        JournalAccount::at(&read(directory.path()).unwrap().0, at, 0)
    };

    // No lease and no queue: the readings alone are recorded.
    observe(&mut log, &mut snapshot, 100, &[7]);
    observe(&mut log, &mut snapshot, 130, &[7, 8]);
    observe(&mut log, &mut snapshot, 160, &[7, 8]);
    observe(&mut log, &mut snapshot, 900, &[7, 8, 9]);
    log.close_span();

    let found = |second: u64| {
        account(second)
            .memory
            .into_iter()
            .map(|change| (change.pid, change.found))
    };

    assert_eq!(
        found(100).collect::<Vec<_>>(),
        [(7, true)],
        "it was there before"
    );

    let mut then: Vec<_> = found(150).collect();
    then.sort_unstable();

    assert_eq!(
        then,
        [(7, true), (8, false)],
        "it came between two readings"
    );

    assert!(account(150).gaps.is_empty());
    assert_eq!(
        account(500).gaps[0].from.as_deref(),
        Some("1970-01-01T00:02:40Z")
    );
    let mut last: Vec<_> = found(900).collect();
    last.sort_unstable();

    assert_eq!(
        last,
        [(7, true), (8, false), (9, true)],
        "it came during the gap"
    );

    // A device that could not be read for a while has its own gap.
    snapshot.devices[0].free_bytes = None;
    snapshot.sampled_at = SystemTime::UNIX_EPOCH + Duration::from_secs(910);

    log.observe(
        &snapshot,
        Timestamp {
            boottime: Boottime::from_millis(910_000),
            wall: snapshot.sampled_at,
        },
    );

    snapshot.devices[0].free_bytes = Some(Bytes::gib(80));
    observe(&mut log, &mut snapshot, 920, &[7, 8, 9, 10]);
    log.close_span();
    assert!(found(920).any(|holder| holder == (10, true)));

    // The next daemon finds that one of them is gone, at an unknown time.
    let mut next = EventLog::new(
        Some(&journal_config(&directory, 4 << 20)),
        broadcast::channel(1).0,
    );
    observe(&mut next, &mut snapshot, 5_000, &[7, 9]);
    let mut last: Vec<_> = found(5_000).map(|(pid, _)| pid).collect();
    last.sort_unstable();
    assert_eq!(last, [7, 9]);
}

#[test]
fn journal_opens_late_and_misses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let absent = JournalConfig {
        directory: directory.path().join("absent"),
        ..journal_config(&directory, 1 << 20)
    };

    let mut log = EventLog::new(Some(&absent), broadcast::channel(1).0);
    let now = |seconds| Timestamp {
        boottime: Boottime::from_millis(seconds * 1000),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
    };

    let warning = |number: u64| Event::Warning {
        message: number.to_string(),
    };

    for number in 0..3 {
        publish(&mut log, vec![warning(number)], now(number));
    }

    assert!(log.journal.is_behind());
    log.retry(now(4));
    assert!(log.journal.is_behind());

    std::fs::create_dir(&absent.directory).unwrap();
    log.retry(now(5));
    assert!(!log.journal.is_behind());
    publish(&mut log, vec![warning(3)], now(6));

    let events: Vec<_> = read(&absent.directory)
        .unwrap()
        .0
        .into_iter()
        .filter_map(|entry| entry.event)
        .collect();
    assert_eq!(events, [0, 1, 2, 3].map(warning));
}

#[test]
fn due_retry_is_not_postponed() {
    let mut log = EventLog::new(None, broadcast::channel(1).0);
    let due = Instant::now();
    log.retry_at = Some(due);
    log.plan_retry(true);
    assert_eq!(log.retry_at(), Some(due), "other events leave it due");

    log.retry(Timestamp::now());
    assert_eq!(log.retry_at(), None);
    log.plan_retry(true);
    assert!(log.retry_at().is_some_and(|next| next > due));
}

#[test]
fn only_request_events_have_request_id() {
    let subject = || Subject {
        lease: "1".to_owned(),
        uid: 1,
        pid: None,
        name: None,
        model: "m".to_owned(),
        granted_bytes: BTreeMap::new(),
        visible_bytes: BTreeMap::new(),
    };

    let request = RequestId::from("r");
    let request_id_of = |event| AttributedEvent::new(event, Some(&request)).request_id;

    let ended = |reason| Event::Ended {
        lease: subject(),
        reason,
    };

    for event in [
        Event::Granted(subject()),
        Event::Renewed(subject()),
        ended(EndReason::ByOwner),
        Event::Waiting {
            ticket: 1,
            uid: 1,
            position: 1,
        },
        Event::WaitEnded {
            ticket: 1,
            timed_out: true,
        },
    ] {
        assert_eq!(
            request_id_of(event.clone()).as_deref(),
            Some("r"),
            "{event:?}"
        );
    }

    for event in [
        Event::Settled(subject()),
        ended(EndReason::TtlPassed),
        ended(EndReason::HolderDied),
        Event::Recovered {
            device: "GPU-a".to_owned(),
        },
    ] {
        assert_eq!(request_id_of(event.clone()), None, "{event:?}");
    }

    assert_eq!(
        AttributedEvent::new(Event::Granted(subject()), None).request_id,
        None
    );
}
