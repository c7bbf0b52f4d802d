//! Who waits, for how long, and whose turn it is.

use super::*;

#[test]
fn one_that_waits_for_one_card_does_not_close_the_others() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let id = lease_id(&office.grant(ask(16)).await.unwrap());

        let elsewhere = GrantCommand {
            candidates: Some(["GPU-other".to_owned()].into()),
            ..waiting(20)
        };

        let named = GrantCommand {
            candidates: Some(["GPU-".to_owned()].into()),
            ..waiting(20)
        };

        assert_eq!(
            decide::candidates(elsewhere.candidates.as_ref(), &bench.0.lock().unwrap()),
            None,
            "not known here"
        );

        let known = decide::candidates(named.candidates.as_ref(), &bench.0.lock().unwrap());
        assert_eq!(known, Some([A.to_owned()].into()));

        let waits = tokio::spawn({
            let office = office.clone();
            async move { office.grant(named).await }
        });
        office
            .standing()
            .wait_for(|standing| standing.waiting == 1)
            .await
            .unwrap();

        let line = office.list().await.unwrap().waiting;
        assert_eq!((line[0].position, line[0].pid), (1, None), "held by a name");
        office.release(id, &caller()).await.unwrap();
        lease_id(&waits.await.unwrap().unwrap());
    });
}

#[test]
fn one_in_line_is_served_when_memory_is_given_back_and_before_those_behind() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let id = lease_id(&office.grant(ask(16)).await.unwrap());

        let big = tokio::spawn({
            let office = office.clone();
            async move { office.grant(waiting(20)).await }
        });
        office
            .standing()
            .wait_for(|standing| standing.waiting == 1)
            .await
            .unwrap();

        let small = office.grant(ask(2)).await.unwrap();
        assert_eq!(
            (small.verdict, small.known_reason()),
            (Some(Verdict::DoesNotFit), Some(Reason::Leased)),
            "{}",
            small.message
        );

        assert_eq!(office.list().await.unwrap().waiting[0].position, 1);
        office.release(id, &caller()).await.unwrap();
        lease_id(&big.await.unwrap().unwrap());
        assert!(office.list().await.unwrap().waiting.is_empty());
        lease_id(&office.grant(ask(2)).await.unwrap());
    });
}

#[test]
fn one_that_hangs_up_leaves_the_line_and_leaks_nothing() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let id = lease_id(&office.grant(ask(16)).await.unwrap());

        let gone = tokio::spawn({
            let office = office.clone();
            async move { office.grant(waiting(20)).await }
        });
        office
            .standing()
            .wait_for(|standing| standing.waiting == 1)
            .await
            .unwrap();

        gone.abort();
        office
            .standing()
            .wait_for(|standing| standing.waiting == 0)
            .await
            .unwrap();

        office.release(id, &caller()).await.unwrap();

        // Askers that hang up at any stage of their grant.
        for polls in 0..200_u32 {
            let mut grant = Box::pin(office.grant(ask(20)));
            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(grant.as_mut().poll(context))
                })
                .await;
                if let std::task::Poll::Ready(answer) = polled {
                    if let Some(lease) = answer.unwrap().lease {
                        let id = lease.id;
                        office.release(id, &caller()).await.unwrap();
                    }
                    break;
                }

                tokio::task::yield_now().await;
            }
        }

        office
            .standing()
            .wait_for(|standing| standing.leases == 0)
            .await
            .unwrap();

        lease_id(&office.grant(ask(24)).await.unwrap());
    });
}

#[test]
fn what_can_never_fit_does_not_wait_and_a_wait_that_ends_is_a_no() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let never = office.grant(waiting(30)).await.unwrap();
        assert_eq!(never.verdict, Some(Verdict::DoesNotFit));
        bench.set_free(4);

        let late = office
            .grant(GrantCommand {
                wait: Duration::from_millis(20),
                ..ask(20)
            })
            .await
            .unwrap();
        assert_eq!(
            (late.verdict, late.lease),
            (Some(Verdict::DoesNotFit), None)
        );

        assert_eq!(
            late.reason,
            Some(Reason::WaitOver.into()),
            "it may be a yes another time"
        );

        assert!(late.message.contains("place 1 of 1"), "{}", late.message);
        let patient = office.grant(waiting(20));

        let freed = async {
            office
                .standing()
                .wait_for(|standing| standing.waiting == 1)
                .await
                .unwrap();
            bench.set_free(24);
        };

        let (answer, ()) = tokio::join!(patient, freed);
        lease_id(&answer.unwrap());
    });
}

/// A plan that is heard of, and that goes on once the test lets it.
fn gated(
    gib: u64,
    begun: std::sync::mpsc::Sender<()>,
    go: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
) -> Plan {
    let plan = plan(gib);
    Box::new(move |snapshot, claims| {
        begun.send(()).unwrap();
        go.lock().unwrap().recv().unwrap();
        plan(snapshot, claims)
    })
}

#[test]
fn one_who_asks_much_that_takes_long_holds_up_nobody_else_for_more_than_one_plan() {
    run(async {
        let bench = Bench::new(24);
        let settings = BrokerConfig {
            longest_round: Duration::ZERO,
            ..settings()
        };

        let devices: Arc<dyn Devices> = Arc::clone(&bench) as _;
        let office = LeaseBroker::start(settings, keeper(Box::new(Memory)), devices)
            .unwrap()
            .0;
        let (begun, begins) = std::sync::mpsc::channel();
        let (let_go, go) = std::sync::mpsc::channel();
        let go = Arc::new(Mutex::new(go));
        let many: Vec<_> = (0..6)
            .map(|_| {
                let (office, plan) = (office.clone(), gated(1, begun.clone(), Arc::clone(&go)));
                tokio::spawn(async move { office.grant(GrantCommand { plan, ..ask(1) }).await })
            })
            .collect();

        while begins.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        // The first of the six is being planned. Another user comes, and is served next.
        let other = Peer {
            uid: peer().uid + 1,
            ..peer()
        };

        let mut victim = Box::pin(office.grant(GrantCommand {
            peer: other,
            ..ask(2)
        }));
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(victim.as_mut().poll(context)))
                .await;
        assert!(polled.is_pending());
        let_go.send(()).unwrap();

        // Whatever else were planned before would wait for the test for ever.
        let served = tokio::time::timeout(Duration::from_secs(20), victim).await;
        lease_id(&served.expect("another plan was begun before").unwrap());

        for _ in 1..6 {
            let_go.send(()).unwrap();
        }

        for asker in many {
            lease_id(&asker.await.unwrap().unwrap());
        }
    });
}

#[test]
fn those_behind_in_line_cost_no_plans() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let id = lease_id(&office.grant(ask(16)).await.unwrap());
        let (begun, begins) = std::sync::mpsc::channel();
        let counted = move |who: &'static str, gib| {
            let (plan, begun) = (plan(gib), begun.clone());
            let plan: Plan = Box::new(move |snapshot, claims| {
                begun.send(who).unwrap();
                plan(snapshot, claims)
            });

            GrantCommand {
                plan,
                ..waiting(gib)
            }
        };

        let join = |who| {
            let (asker, ask) = (office.clone(), counted(who, 20));
            tokio::spawn(async move { asker.grant(ask).await })
        };

        let head = join("head");
        office
            .standing()
            .wait_for(|standing| standing.waiting == 1)
            .await
            .unwrap();

        let behind = join("behind");
        office
            .standing()
            .wait_for(|standing| standing.waiting == 2)
            .await
            .unwrap();

        let planned = begins.try_iter().filter(|who| *who == "behind").count();

        // Readings go on, and the head is planned on each.
        let mut seen = 0;
        while seen < 10 {
            match begins.try_recv() {
                Ok("head") => seen += 1,
                Ok(_) => panic!("planned for one who is behind, after {planned} plans to join"),
                Err(_) => tokio::task::yield_now().await,
            }
        }

        office.release(id, &caller()).await.unwrap();
        let id = lease_id(&head.await.unwrap().unwrap());
        office.release(id, &caller()).await.unwrap();
        lease_id(&behind.await.unwrap().unwrap());
    });
}

/// Devices whose reading never comes.
struct Hung;

impl Devices for Hung {
    fn sample(&self, _deadline: Duration) -> Sampling<'_> {
        Box::pin(std::future::pending())
    }

    fn readings(&self) -> Option<watch::Receiver<Option<Arc<crate::devices::sampler::Reading>>>> {
        None
    }
}

#[test]
fn what_an_asker_brought_goes_with_it_also_before_a_reading_comes() {
    run(async {
        let office = LeaseBroker::start(settings(), keeper(Box::new(Memory)), Arc::new(Hung))
            .unwrap()
            .0;
        let brought = Arc::new(());

        // The first begins a reading; the second waits for the next one.
        for _ in 0..2 {
            let held = Arc::clone(&brought);
            let plan: Plan = Box::new(move |_, _| {
                let why = format!(
                    "there is no reading, and {} hold it",
                    Arc::strong_count(&held)
                );
                Err(Problem::new(Reason::Internal, why))
            });

            let mut asker = Box::pin(office.grant(GrantCommand { plan, ..ask(1) }));
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(asker.as_mut().poll(context))
            })
            .await;
            assert!(polled.is_pending());
            office.ping().await.unwrap(); // behind it: the owner has it now
            drop(asker);

            let gone = async {
                while Arc::strong_count(&brought) > 1 {
                    tokio::task::yield_now().await;
                }
            };

            tokio::time::timeout(Duration::from_secs(20), gone)
                .await
                .expect("it is kept for nobody");
        }
    });
}

/// What `plan` answers, with the upper tenth of the device for the high end only.
fn tight_plan(gib: u64) -> Plan {
    let (likely, high) = (plan(gib), plan(gib + 4));
    Box::new(move |snapshot, claims| {
        let answer = high(snapshot, claims)?;
        if answer.verdict == Some(Verdict::Fits) {
            return Ok(answer);
        }

        let answer = likely(snapshot, claims)?;
        let tight = (answer.verdict == Some(Verdict::Fits)).then_some(Verdict::Tight);

        Ok(Answer {
            verdict: tight.or(answer.verdict),
            ..answer
        })
    })
}

#[test]
fn strict_request_holds_no_tight_plan() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);

        let asking = |strict| GrantCommand {
            plan: tight_plan(22),
            strict,
            ..ask(22)
        };

        let answer = office.grant(asking(true)).await.unwrap();
        assert_eq!(
            (answer.verdict, answer.lease.is_none()),
            (Some(Verdict::Tight), true),
            "{}",
            answer.message
        );

        assert!(office.list().await.unwrap().leases.is_empty());

        // No device is ever large enough: the wait is over before it begins.
        let answer = office
            .grant(GrantCommand {
                wait: Duration::from_secs(600),
                ..asking(true)
            })
            .await
            .unwrap();
        assert_eq!(
            (answer.verdict, answer.lease.is_none()),
            (Some(Verdict::Tight), true)
        );
        lease_id(&office.grant(asking(false)).await.unwrap());
    });
}

#[test]
fn strict_wait_outlasts_tight_plan() {
    run(async {
        let bench = Bench::new(24);
        bench.set_free(18);
        let office = office(&bench);

        let asking = |wait| GrantCommand {
            plan: tight_plan(16),
            strict: true,
            wait,
            ..ask(16)
        };

        let over = office
            .grant(asking(Duration::from_millis(20)))
            .await
            .unwrap();
        assert_eq!(
            (over.verdict, over.known_reason(), over.lease.is_none()),
            (Some(Verdict::Tight), Some(Reason::WaitOver), true)
        );

        let waiting = tokio::spawn({
            let (office, ask) = (office.clone(), asking(Duration::from_secs(600)));
            async move { office.grant(ask).await }
        });
        while office.list().await.unwrap().waiting.is_empty() {
            tokio::task::yield_now().await;
        }

        bench.set_free(24);
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(answer.verdict, Some(Verdict::Fits));
        lease_id(&answer);
    });
}
