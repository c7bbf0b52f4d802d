//! Storage that fails or hangs, and plans that panic.

use super::*;

#[test]
fn grants_fail_without_storage() {
    run(async {
        let devices = FakeDevices::new(24);
        let storage = Box::new(NoStore {
            why: "no such directory".to_owned(),
        });
        let broker = LeaseBroker::start(config(), durable_ledger(storage), devices)
            .unwrap()
            .0;
        let refused = broker.grant(grant_command(16)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::BadConfiguration);
        assert!(refused.detail.contains("no such directory"), "{refused}");
        assert!(broker.list().await.unwrap().leases.is_empty());
        let answer = broker.grant(grant_command(30)).await.unwrap();
        assert_eq!(
            answer.verdict,
            Some(Verdict::DoesNotFit),
            "a request that does not fit is answered anyway"
        );
    });
}

/// A disk that hangs until the test releases it.
struct Hanging(std::sync::mpsc::Receiver<()>);

impl LedgerStorage for Hanging {
    fn save(&mut self, _saved: &crate::leases::ledger::Saved) -> Result<(), StoreError> {
        self.0.recv().map_err(|_| StoreError::None {
            why: "the test is over".to_owned(),
        })
    }
}

#[test]
fn hanging_disk_fails_requests_until_back() {
    run(async {
        let devices = FakeDevices::new(24);
        let (let_go, hangs) = std::sync::mpsc::channel();

        let config = BrokerConfig {
            stuck_after: Duration::from_millis(500),
            ..config()
        };

        let broker = LeaseBroker::start(config, durable_ledger(Box::new(Hanging(hangs))), devices)
            .unwrap()
            .0;

        // A broker that is late counts as stuck until it answers.
        while broker.ping().await.is_err() {}
        let client = broker.clone();
        let first = tokio::spawn(async move {
            loop {
                match client.grant(grant_command(16)).await {
                    Err(problem) if problem.reason == Reason::Busy => {
                        tokio::task::yield_now().await;
                    }
                    done => return done,
                }
            }
        });

        while broker.stuck_for().is_none() {
            tokio::task::yield_now().await;
        }

        assert_eq!(broker.ping().await.unwrap_err().reason, Reason::Busy);
        assert!(
            broker
                .list()
                .await
                .unwrap_err()
                .detail
                .contains("has not answered")
        );

        assert_eq!(
            broker.grant(grant_command(1)).await.unwrap_err().reason,
            Reason::Busy,
            "no request waits for a stuck broker"
        );

        broker.stop().await; // returns, although the broker is stuck

        let_go.send(()).unwrap();
        lease_id(&first.await.unwrap().unwrap());

        let listed = loop {
            match broker.list().await {
                Ok(listed) => break listed,
                Err(problem) => assert_eq!(problem.reason, Reason::Busy),
            }
            tokio::task::yield_now().await;
        };

        assert_eq!(listed.leases.len(), 1);
        drop(let_go);
    });
}

#[test]
fn panicking_plan_harms_no_lease() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);

        let broken = GrantCommand {
            plan: Box::new(|_, _| panic!("on purpose")),
            ..grant_command(1)
        };

        assert_eq!(
            broker.grant(broken).await.unwrap_err().reason,
            Reason::Internal
        );
        let refused = GrantCommand {
            plan: Box::new(|_, _| Err(Problem::new(Reason::NotFound, "no"))),
            ..grant_command(1)
        };

        assert_eq!(
            broker.grant(refused).await.unwrap_err().reason,
            Reason::NotFound
        );
        lease_id(&broker.grant(grant_command(24)).await.unwrap());
    });
}

/// A disk on which each write takes as long as the test wants.
struct Slow {
    begins: std::sync::mpsc::Sender<()>,
    goes: std::sync::mpsc::Receiver<()>,
}

impl LedgerStorage for Slow {
    fn save(&mut self, _saved: &crate::leases::ledger::Saved) -> Result<(), StoreError> {
        let test_ended = |_| StoreError::None {
            why: "the test is over".to_owned(),
        };

        self.begins
            .send(())
            .map_err(|_| test_ended(std::sync::mpsc::RecvError))?;
        self.goes.recv().map_err(test_ended)
    }
}

#[test]
fn endless_renewals_delay_no_grant() {
    run(async {
        let (begins, begun) = std::sync::mpsc::channel();
        let (go, goes) = std::sync::mpsc::channel();

        let config = BrokerConfig {
            max_round: Duration::ZERO,
            stuck_after: Duration::from_secs(600),
            ..config()
        };

        let devices: Arc<dyn Devices> = FakeDevices::new(24);
        let broker = LeaseBroker::start(
            config,
            durable_ledger(Box::new(Slow { begins, goes })),
            devices,
        )
        .unwrap()
        .0;
        let first = tokio::spawn({
            let broker = broker.clone();
            async move { broker.grant(grant_command(1)).await }
        });
        go.send(()).unwrap();
        let id = lease_id(&first.await.unwrap().unwrap());
        begun.recv().unwrap();

        let renew = || {
            let (broker, id) = (broker.clone(), id.clone());
            tokio::spawn(async move {
                broker
                    .renew(id, &caller(), Some(Duration::from_secs(900)))
                    .await
            })
        };

        let _first = renew();
        while begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }

        let mut victim = tokio::spawn({
            let broker = broker.clone();
            async move { broker.grant(grant_command(1)).await }
        });

        // Whenever one renewal is written, the next has arrived already.
        let flood = async {
            loop {
                let _next = renew();
                tokio::task::yield_now().await;
                go.send(()).unwrap();
                while begun.try_recv().is_err() {
                    tokio::task::yield_now().await;
                }
            }
        };

        tokio::select! {
            served = &mut victim => drop(lease_id(&served.unwrap().unwrap())),
            flood = tokio::time::timeout(Duration::from_secs(120), flood) => {
                flood.expect("the grant is served between renewals");
            }
        }
    });
}
