//! The queue: order, waits and turns.

use super::*;

#[test]
fn wait_reserves_only_named_devices() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let id = lease_id(&broker.grant(grant_command(16)).await.unwrap());

        let elsewhere = GrantCommand {
            candidates: Some(["GPU-other".to_owned()].into()),
            ..waiting(20)
        };

        let named = GrantCommand {
            candidates: Some(["GPU-".to_owned()].into()),
            ..waiting(20)
        };

        assert_eq!(
            decide::candidates(elsewhere.candidates.as_ref(), &devices.0.lock().unwrap()),
            None,
            "no such device here"
        );

        let known = decide::candidates(named.candidates.as_ref(), &devices.0.lock().unwrap());
        assert_eq!(known, Some([A.to_owned()].into()));

        let waits = tokio::spawn({
            let broker = broker.clone();
            async move { broker.grant(named).await }
        });
        broker
            .status()
            .wait_for(|status| status.waiting == 1)
            .await
            .unwrap();

        let queue = broker.list().await.unwrap().waiting;
        assert_eq!(
            (queue[0].position, queue[0].pid),
            (1, None),
            "the holder is a name"
        );
        broker.release(id, &caller()).await.unwrap();
        lease_id(&waits.await.unwrap().unwrap());
    });
}

#[test]
fn queue_head_is_served_first() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let id = lease_id(&broker.grant(grant_command(16)).await.unwrap());

        let big = tokio::spawn({
            let broker = broker.clone();
            async move { broker.grant(waiting(20)).await }
        });
        broker
            .status()
            .wait_for(|status| status.waiting == 1)
            .await
            .unwrap();

        let small = broker.grant(grant_command(2)).await.unwrap();
        assert_eq!(
            (small.verdict, small.known_reason()),
            (Some(Verdict::DoesNotFit), Some(Reason::Leased)),
            "{}",
            small.message
        );

        assert_eq!(broker.list().await.unwrap().waiting[0].position, 1);
        broker.release(id, &caller()).await.unwrap();
        lease_id(&big.await.unwrap().unwrap());
        assert!(broker.list().await.unwrap().waiting.is_empty());
        lease_id(&broker.grant(grant_command(2)).await.unwrap());
    });
}

#[test]
fn disconnected_client_leaks_nothing() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let id = lease_id(&broker.grant(grant_command(16)).await.unwrap());

        let gone = tokio::spawn({
            let broker = broker.clone();
            async move { broker.grant(waiting(20)).await }
        });
        broker
            .status()
            .wait_for(|status| status.waiting == 1)
            .await
            .unwrap();

        gone.abort();
        broker
            .status()
            .wait_for(|status| status.waiting == 0)
            .await
            .unwrap();

        broker.release(id, &caller()).await.unwrap();

        // Clients that disconnect at any stage of their grant.
        for polls in 0..200_u32 {
            let mut grant = Box::pin(broker.grant(grant_command(20)));
            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(grant.as_mut().poll(context))
                })
                .await;
                if let std::task::Poll::Ready(answer) = polled {
                    if let Some(lease) = answer.unwrap().lease {
                        let id = lease.id;
                        broker.release(id, &caller()).await.unwrap();
                    }
                    break;
                }

                tokio::task::yield_now().await;
            }
        }

        broker
            .status()
            .wait_for(|status| status.leases == 0)
            .await
            .unwrap();

        lease_id(&broker.grant(grant_command(24)).await.unwrap());
    });
}

#[test]
fn hopeless_request_does_not_wait() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let never = broker.grant(waiting(30)).await.unwrap();
        assert_eq!(never.verdict, Some(Verdict::DoesNotFit));
        devices.set_free(4);

        let late = broker
            .grant(GrantCommand {
                wait: Duration::from_millis(20),
                ..grant_command(20)
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

        assert!(late.message.contains("position 1 of 1"), "{}", late.message);
        let patient = broker.grant(waiting(20));

        let freed = async {
            broker
                .status()
                .wait_for(|status| status.waiting == 1)
                .await
                .unwrap();
            devices.set_free(24);
        };

        let (answer, ()) = tokio::join!(patient, freed);
        lease_id(&answer.unwrap());
    });
}

/// A plan that reports its start and continues when the test lets it.
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
fn slow_user_delays_others_one_plan() {
    run(async {
        let devices = FakeDevices::new(24);
        let config = BrokerConfig {
            max_round: Duration::ZERO,
            ..config()
        };

        let devices: Arc<dyn Devices> = Arc::clone(&devices) as _;
        let broker = LeaseBroker::start(config, durable_ledger(Box::new(Memory)), devices)
            .unwrap()
            .0;
        let (begun, begins) = std::sync::mpsc::channel();
        let (let_go, go) = std::sync::mpsc::channel();
        let go = Arc::new(Mutex::new(go));
        let many: Vec<_> = (0..6)
            .map(|_| {
                let (broker, plan) = (broker.clone(), gated(1, begun.clone(), Arc::clone(&go)));
                tokio::spawn(async move {
                    broker
                        .grant(GrantCommand {
                            plan,
                            ..grant_command(1)
                        })
                        .await
                })
            })
            .collect();

        while begins.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        // The first of the six plans runs. Another user asks, and is served next.
        let other = Peer {
            uid: peer().uid + 1,
            ..peer()
        };

        let mut victim = Box::pin(broker.grant(GrantCommand {
            peer: other,
            ..grant_command(2)
        }));
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(victim.as_mut().poll(context)))
                .await;
        assert!(polled.is_pending());
        let_go.send(()).unwrap();

        // Any other plan that began before would wait for the test without end.
        let served = tokio::time::timeout(Duration::from_secs(20), victim).await;
        lease_id(&served.expect("no other plan began before").unwrap());

        for _ in 1..6 {
            let_go.send(()).unwrap();
        }

        for grant in many {
            lease_id(&grant.await.unwrap().unwrap());
        }
    });
}

#[test]
fn blocked_grants_run_no_plans() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let id = lease_id(&broker.grant(grant_command(16)).await.unwrap());
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
            let (broker, command) = (broker.clone(), counted(who, 20));
            tokio::spawn(async move { broker.grant(command).await })
        };

        let head = join("head");
        broker
            .status()
            .wait_for(|status| status.waiting == 1)
            .await
            .unwrap();

        let behind = join("behind");
        broker
            .status()
            .wait_for(|status| status.waiting == 2)
            .await
            .unwrap();

        let planned = begins.try_iter().filter(|who| *who == "behind").count();

        // Readings continue, and the head's plan runs on each.
        let mut seen = 0;
        while seen < 10 {
            match begins.try_recv() {
                Ok("head") => seen += 1,
                Ok(_) => panic!("ran a plan of a blocked grant, after {planned} plans to join"),
                Err(_) => tokio::task::yield_now().await,
            }
        }

        broker.release(id, &caller()).await.unwrap();
        let id = lease_id(&head.await.unwrap().unwrap());
        broker.release(id, &caller()).await.unwrap();
        lease_id(&behind.await.unwrap().unwrap());
    });
}

/// Devices whose reading never ends.
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
fn disconnected_client_frees_its_plan() {
    run(async {
        let broker = LeaseBroker::start(config(), durable_ledger(Box::new(Memory)), Arc::new(Hung))
            .unwrap()
            .0;
        let resource = Arc::new(());

        // The first begins a reading; the second waits for the next one.
        for _ in 0..2 {
            let held = Arc::clone(&resource);
            let plan: Plan = Box::new(move |_, _| {
                let why = format!(
                    "there is no reading, and {} references are left",
                    Arc::strong_count(&held)
                );
                Err(Problem::new(Reason::Internal, why))
            });

            let mut client = Box::pin(broker.grant(GrantCommand {
                plan,
                ..grant_command(1)
            }));
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(client.as_mut().poll(context))
            })
            .await;
            assert!(polled.is_pending());
            broker.ping().await.unwrap(); // the broker has the command now
            drop(client);

            let gone = async {
                while Arc::strong_count(&resource) > 1 {
                    tokio::task::yield_now().await;
                }
            };

            tokio::time::timeout(Duration::from_secs(20), gone)
                .await
                .expect("the broker keeps the plan of a disconnected client");
        }
    });
}

/// Like `plan`, but the high end needs 4 GiB more.
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
fn strict_request_gets_no_tight_lease() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);

        let asking = |strict| GrantCommand {
            plan: tight_plan(22),
            strict,
            ..grant_command(22)
        };

        let answer = broker.grant(asking(true)).await.unwrap();
        assert_eq!(
            (answer.verdict, answer.lease.is_none()),
            (Some(Verdict::Tight), true),
            "{}",
            answer.message
        );

        assert!(broker.list().await.unwrap().leases.is_empty());

        // No device is ever large enough, so the request does not wait.
        let answer = broker
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
        lease_id(&broker.grant(asking(false)).await.unwrap());
    });
}

#[test]
fn strict_wait_outlasts_tight_plan() {
    run(async {
        let devices = FakeDevices::new(24);
        devices.set_free(18);
        let broker = start_broker(&devices);

        let asking = |wait| GrantCommand {
            plan: tight_plan(16),
            strict: true,
            wait,
            ..grant_command(16)
        };

        let over = broker
            .grant(asking(Duration::from_millis(20)))
            .await
            .unwrap();
        assert_eq!(
            (over.verdict, over.known_reason(), over.lease.is_none()),
            (Some(Verdict::Tight), Some(Reason::WaitOver), true)
        );

        let waiting = tokio::spawn({
            let (broker, ask) = (broker.clone(), asking(Duration::from_secs(600)));
            async move { broker.grant(ask).await }
        });
        while broker.list().await.unwrap().waiting.is_empty() {
            tokio::task::yield_now().await;
        }

        devices.set_free(24);
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(answer.verdict, Some(Verdict::Fits));
        lease_id(&answer);
    });
}
