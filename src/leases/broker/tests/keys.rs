//! Idempotency keys and lost answers.

use super::*;
use crate::leases::journal::{JournalLimits, read};

#[test]
fn repeated_key_returns_same_lease() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);

        let keyed = |gib| GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..grant_command(gib)
        };

        let (first, second) = tokio::join!(broker.grant(keyed(16)), broker.grant(keyed(16)));
        assert_eq!(lease_id(&first.unwrap()), lease_id(&second.unwrap()));
        assert_eq!(broker.list().await.unwrap().leases.len(), 1);

        assert_eq!(
            broker.grant(keyed(3)).await.unwrap_err().reason,
            Reason::Usage
        );
    });
}

#[test]
fn repeated_key_keeps_undelivered_lease() {
    run(async {
        let devices = FakeDevices::new(24);
        let keyed = || GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..grant_command(16)
        };

        // The first answer is lost at any stage.
        for polls in 1..60_u32 {
            let broker = start_broker(&devices);
            let mut first = Box::pin(broker.grant(keyed()));
            let mut ready = None;

            for _ in 0..polls {
                match std::future::poll_fn(|context| {
                    std::task::Poll::Ready(first.as_mut().poll(context))
                })
                .await
                {
                    std::task::Poll::Ready(answer) => {
                        ready = Some(answer);
                        break;
                    }
                    std::task::Poll::Pending => tokio::task::yield_now().await,
                }
            }

            if ready.is_some() {
                break;
            }

            let again = tokio::spawn({
                let broker = broker.clone();
                async move { broker.grant(keyed()).await }
            });
            tokio::task::yield_now().await;
            drop(first);
            let id = lease_id(&again.await.unwrap().unwrap());
            broker.ping().await.unwrap();
            let state = broker.get(id).await.unwrap().state;
            assert_eq!(
                state,
                State::Granted,
                "lost after {polls} polls, although the second client has it"
            );

            broker.stop().await;
        }
    });
}

#[test]
fn key_of_lost_answer_is_reusable() {
    run(async {
        let (devices, keyed) = (FakeDevices::new(24), || GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..grant_command(16)
        });
        let broker = start_broker(&devices);
        for polls in 1..40_u32 {
            let mut lost = Box::pin(broker.grant(keyed()));
            let mut answered = false;

            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(lost.as_mut().poll(context))
                })
                .await;
                answered = polled.is_ready();

                if answered {
                    break;
                }

                tokio::task::yield_now().await;
            }

            drop(lost);
            if answered {
                break;
            }

            broker.ping().await.unwrap();
        }

        assert!(broker.grant(keyed()).await.unwrap().lease.is_some());
        assert_eq!(broker.list().await.unwrap().leases.len(), 1);
    });
}

#[test]
fn key_is_answered_after_restart() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let margin = Bytes::gib(1);
        let rules = LedgerConfig {
            margin,
            ..LedgerConfig::default()
        };

        let devices = FakeDevices::new(24);
        let keyed = || {
            let placed = plan(16);

            // Like the daemon's own plan, it does not use the margin.
            let with_margin: Plan = Box::new(move |snapshot, claims| {
                let mut snapshot = snapshot.clone();
                snapshot.devices[0].free_bytes = snapshot.devices[0]
                    .free_bytes
                    .and_then(|free| free.less(margin));
                placed(&snapshot, claims)
            });

            GrantCommand {
                idempotency_key: Some("k".to_owned()),
                plan: with_margin,
                ..grant_command(16)
            }
        };

        let start = || {
            let (durable, error) = open(
                directory.path(),
                rules.clone(),
                std::path::Path::new("/proc"),
            );
            assert!(error.is_none(), "{error:?}");
            let devices: Arc<dyn Devices> = Arc::clone(&devices) as _;
            LeaseBroker::start(config(), durable, devices).unwrap()
        };

        let (broker, thread) = start();
        let first = lease_id(&broker.grant(keyed()).await.unwrap());
        broker.stop().await;
        thread.join().unwrap();
        devices.set_free(2);
        let (broker, _thread) = start();
        let again = broker.grant(keyed()).await.unwrap();
        assert_eq!(
            (lease_id(&again), again.verdict),
            (first, Some(Verdict::Fits)),
            "{}",
            again.message
        );
    });
}

#[test]
fn long_answer_is_recomputed_for_key() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let max_remembered = crate::admission::server_limits::MAX_CACHED_ANSWER_BYTES;

        for (key, length, plans) in [
            ("short", max_remembered / 2, 1),
            ("long", max_remembered, 2),
        ] {
            let planned = Arc::new(std::sync::atomic::AtomicU32::new(0));
            let keyed = || {
                let (placed, planned) = (plan(8), Arc::clone(&planned));
                let padded: Plan = Box::new(move |snapshot, claims| {
                    planned.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok(Answer {
                        warnings: vec!["x".repeat(length)],
                        ..placed(snapshot, claims)?
                    })
                });

                GrantCommand {
                    idempotency_key: Some(key.to_owned()),
                    plan: padded,
                    ..grant_command(8)
                }
            };

            let first = broker.grant(keyed()).await.unwrap();

            // No memory is left for another lease of this size: the answer is recomputed for the
            // lease's own share.
            let others = broker.grant(grant_command(10)).await.unwrap();
            let again = broker.grant(keyed()).await.unwrap();
            assert_eq!(
                (lease_id(&again), again.verdict),
                (lease_id(&first), Some(Verdict::Fits)),
                "{key}"
            );

            assert_eq!(again.warnings, first.warnings, "{key}");
            assert_eq!(
                planned.load(std::sync::atomic::Ordering::Relaxed),
                plans,
                "{key}"
            );

            broker.release(lease_id(&others), &caller()).await.unwrap();
            broker.release(lease_id(&first), &caller()).await.unwrap();
        }
    });
}

#[test]
fn unlogged_grant_is_logged_after_restart() {
    run(async {
        let (directory, devices) = (tempfile::tempdir().unwrap(), FakeDevices::new(24));
        let keyed = || GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..grant_command(16)
        };

        let start = |journal: bool| {
            let (durable, error) = open(
                directory.path(),
                LedgerConfig::default(),
                std::path::Path::new("/proc"),
            );
            assert!(error.is_none(), "{error:?}");

            let limits = JournalLimits {
                max_bytes: 1 << 20,
                max_age: Duration::from_secs(3600),
            };

            let journal_config = JournalConfig {
                directory: directory.path().to_owned(),
                limits,
                gap: Duration::from_secs(60),
            };

            let journal = journal.then_some(journal_config);
            let devices: Arc<dyn Devices> = Arc::clone(&devices) as _;

            LeaseBroker::start(
                BrokerConfig {
                    journal,
                    ..config()
                },
                durable,
                devices,
            )
            .unwrap()
        };

        // The lease is on disk and its line is not, as after a kill in between.
        let (broker, thread) = start(false);
        let lost = lease_id(&broker.grant(keyed()).await.unwrap());
        broker.stop().await;
        thread.join().unwrap();

        for restart in 1..=2 {
            let (broker, thread) = start(true);
            assert_eq!(
                lease_id(&broker.grant(keyed()).await.unwrap()),
                lost,
                "the retry"
            );

            broker.stop().await;
            thread.join().unwrap();
            let (entries, _) = read(directory.path()).unwrap();
            let granted = entries
                .iter()
                .filter(|entry| matches!(&entry.event, Some(Event::Granted(subject)) if subject.lease == lost));
            assert_eq!(granted.count(), 1, "restart {restart}");
        }
    });
}
