//! Idempotency keys, and answers that are lost on their way.

use super::*;
use crate::leases::journal::{Bounds, read};

#[test]
fn the_same_key_gives_the_same_lease() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);

        let keyed = |gib| GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..ask(gib)
        };

        let (first, second) = tokio::join!(office.grant(keyed(16)), office.grant(keyed(16)));
        assert_eq!(lease_id(&first.unwrap()), lease_id(&second.unwrap()));
        assert_eq!(office.list().await.unwrap().leases.len(), 1);

        assert_eq!(
            office.grant(keyed(3)).await.unwrap_err().reason,
            Reason::Usage
        );
    });
}

#[test]
fn a_lease_whose_first_answer_was_lost_is_kept_by_one_that_asked_again() {
    run(async {
        let bench = Bench::new(24);
        let keyed = || GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..ask(16)
        };

        // Wherever on its way the first answer is lost.
        for polls in 1..60_u32 {
            let office = office(&bench);
            let mut first = Box::pin(office.grant(keyed()));
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
                let office = office.clone();
                async move { office.grant(keyed()).await }
            });
            tokio::task::yield_now().await;
            drop(first);
            let id = lease_id(&again.await.unwrap().unwrap());
            office.ping().await.unwrap();
            let state = office.get(id).await.unwrap().state;
            assert_eq!(
                state,
                State::Granted,
                "lost after {polls} polls, though somebody was told of it"
            );

            office.stop().await;
        }
    });
}

#[test]
fn a_key_whose_answer_reached_nobody_may_be_asked_again() {
    run(async {
        let (bench, keyed) = (Bench::new(24), || GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..ask(16)
        });
        let office = office(&bench);
        for polls in 1..40_u32 {
            let mut lost = Box::pin(office.grant(keyed()));
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

            office.ping().await.unwrap();
        }

        assert!(office.grant(keyed()).await.unwrap().lease.is_some());
        assert_eq!(office.list().await.unwrap().leases.len(), 1);
    });
}

#[test]
fn after_a_restart_a_key_is_answered_as_before_whatever_else_is_there_now() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let margin = Bytes::gib(1);
        let rules = LedgerConfig {
            margin,
            ..LedgerConfig::default()
        };

        let bench = Bench::new(24);
        let keyed = || {
            let placed = plan(16);

            // As the daemon's own plan: what is kept back is not placed on.
            let kept_back: Plan = Box::new(move |snapshot, claims| {
                let mut snapshot = snapshot.clone();
                snapshot.devices[0].free_bytes = snapshot.devices[0]
                    .free_bytes
                    .and_then(|free| free.less(margin));
                placed(&snapshot, claims)
            });

            GrantCommand {
                idempotency_key: Some("k".to_owned()),
                plan: kept_back,
                ..ask(16)
            }
        };

        let start = || {
            let (keeper, trouble) = open(
                directory.path(),
                rules.clone(),
                std::path::Path::new("/proc"),
            );
            assert!(trouble.is_none(), "{trouble:?}");
            let devices: Arc<dyn Devices> = Arc::clone(&bench) as _;
            LeaseBroker::start(settings(), keeper, devices).unwrap()
        };

        let (office, thread) = start();
        let first = lease_id(&office.grant(keyed()).await.unwrap());
        office.stop().await;
        thread.join().unwrap();
        bench.set_free(2);
        let (office, _thread) = start();
        let again = office.grant(keyed()).await.unwrap();
        assert_eq!(
            (lease_id(&again), again.verdict),
            (first, Some(Verdict::Fits)),
            "{}",
            again.message
        );
    });
}

#[test]
fn a_short_answer_is_kept_for_its_key_and_a_long_one_worked_out_anew_for_the_same_lease() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let kept_up_to = crate::admission::limits::MAX_CACHED_ANSWER_BYTES;

        for (key, length, plans) in [("short", kept_up_to / 2, 1), ("long", kept_up_to, 2)] {
            let planned = Arc::new(std::sync::atomic::AtomicU32::new(0));
            let keyed = || {
                let (placed, planned) = (plan(8), Arc::clone(&planned));
                let told: Plan = Box::new(move |snapshot, claims| {
                    planned.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok(Answer {
                        warnings: vec!["x".repeat(length)],
                        ..placed(snapshot, claims)?
                    })
                });

                GrantCommand {
                    idempotency_key: Some(key.to_owned()),
                    plan: told,
                    ..ask(8)
                }
            };

            let first = office.grant(keyed()).await.unwrap();

            // Nothing is left for another of this size: what is worked out anew is worked out for
            // the lease's own share.
            let others = office.grant(ask(10)).await.unwrap();
            let again = office.grant(keyed()).await.unwrap();
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

            office.release(lease_id(&others), &caller()).await.unwrap();
            office.release(lease_id(&first), &caller()).await.unwrap();
        }
    });
}

#[test]
fn grant_untold_before_kill_is_told() {
    run(async {
        let (directory, bench) = (tempfile::tempdir().unwrap(), Bench::new(24));
        let keyed = || GrantCommand {
            idempotency_key: Some("k".to_owned()),
            ..ask(16)
        };

        let start = |journal: bool| {
            let (keeper, trouble) = open(
                directory.path(),
                LedgerConfig::default(),
                std::path::Path::new("/proc"),
            );
            assert!(trouble.is_none(), "{trouble:?}");

            let bounds = Bounds {
                most_bytes: 1 << 20,
                longest: Duration::from_secs(3600),
            };

            let settings_of_journal = JournalSettings {
                directory: directory.path().to_owned(),
                bounds,
                gap: Duration::from_secs(60),
            };

            let journal = journal.then_some(settings_of_journal);
            let devices: Arc<dyn Devices> = Arc::clone(&bench) as _;

            LeaseBroker::start(
                BrokerConfig {
                    journal,
                    ..settings()
                },
                keeper,
                devices,
            )
            .unwrap()
        };

        // The lease is on disk and its line is not, as after a kill in between.
        let (office, thread) = start(false);
        let lost = lease_id(&office.grant(keyed()).await.unwrap());
        office.stop().await;
        thread.join().unwrap();

        for restart in 1..=2 {
            let (office, thread) = start(true);
            assert_eq!(
                lease_id(&office.grant(keyed()).await.unwrap()),
                lost,
                "the retry"
            );

            office.stop().await;
            thread.join().unwrap();
            let (entries, _) = read(directory.path()).unwrap();
            let granted = entries
                .iter()
                .filter(|entry| matches!(&entry.event, Some(Event::Granted(subject)) if subject.lease == lost));
            assert_eq!(granted.count(), 1, "restart {restart}");
        }
    });
}
