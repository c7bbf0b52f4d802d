//! Stores that keep nothing or hang, and plans that break.

use super::*;

#[test]
fn without_a_store_grants_are_refused_and_the_rest_works() {
    run(async {
        let bench = Bench::new(24);
        let storage = Box::new(NoStore {
            why: "no such directory".to_owned(),
        });
        let office = LeaseBroker::start(settings(), keeper(storage), bench)
            .unwrap()
            .0;
        let refused = office.grant(ask(16)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::BadConfiguration);
        assert!(refused.detail.contains("no such directory"), "{refused}");
        assert!(office.list().await.unwrap().leases.is_empty());
        let answer = office.grant(ask(30)).await.unwrap();
        assert_eq!(
            answer.verdict,
            Some(Verdict::DoesNotFit),
            "what does not fit is answered all the same"
        );
    });
}

/// A disk that hangs until the test lets go.
struct Hanging(std::sync::mpsc::Receiver<()>);

impl LedgerStorage for Hanging {
    fn save(&mut self, _saved: &crate::leases::ledger::Saved) -> Result<(), StoreError> {
        self.0.recv().map_err(|_| StoreError::None {
            why: "the test is over".to_owned(),
        })
    }
}

#[test]
fn a_disk_that_hangs_is_told_to_those_who_ask_and_forgotten_when_it_is_back() {
    run(async {
        let bench = Bench::new(24);
        let (let_go, hangs) = std::sync::mpsc::channel();

        let settings = BrokerConfig {
            stuck_after: Duration::from_millis(500),
            ..settings()
        };

        let office = LeaseBroker::start(settings, keeper(Box::new(Hanging(hangs))), bench)
            .unwrap()
            .0;

        // An owner that comes to it late counts as stuck until it is there.
        while office.ping().await.is_err() {}
        let asker = office.clone();
        let first = tokio::spawn(async move {
            loop {
                match asker.grant(ask(16)).await {
                    Err(problem) if problem.reason == Reason::Busy => {
                        tokio::task::yield_now().await;
                    }
                    done => return done,
                }
            }
        });

        while office.stuck_for().is_none() {
            tokio::task::yield_now().await;
        }

        assert_eq!(office.ping().await.unwrap_err().reason, Reason::Busy);
        assert!(
            office
                .list()
                .await
                .unwrap_err()
                .detail
                .contains("has not answered")
        );

        assert_eq!(
            office.grant(ask(1)).await.unwrap_err().reason,
            Reason::Busy,
            "nobody waits behind it"
        );

        office.stop().await; // comes back, though the owner does not

        let_go.send(()).unwrap();
        lease_id(&first.await.unwrap().unwrap());

        let listed = loop {
            match office.list().await {
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
fn a_plan_that_breaks_costs_nobody_the_ledger() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);

        let broken = GrantCommand {
            plan: Box::new(|_, _| panic!("a plan's own fault")),
            ..ask(1)
        };

        assert_eq!(
            office.grant(broken).await.unwrap_err().reason,
            Reason::Internal
        );
        let refused = GrantCommand {
            plan: Box::new(|_, _| Err(Problem::new(Reason::NotFound, "no"))),
            ..ask(1)
        };

        assert_eq!(
            office.grant(refused).await.unwrap_err().reason,
            Reason::NotFound
        );
        lease_id(&office.grant(ask(24)).await.unwrap());
    });
}

/// A disk that takes as long for each write as the test wants.
struct Slow {
    begins: std::sync::mpsc::Sender<()>,
    goes: std::sync::mpsc::Receiver<()>,
}

impl LedgerStorage for Slow {
    fn save(&mut self, _saved: &crate::leases::ledger::Saved) -> Result<(), StoreError> {
        let over = |_| StoreError::None {
            why: "the test is over".to_owned(),
        };

        self.begins
            .send(())
            .map_err(|_| over(std::sync::mpsc::RecvError))?;
        self.goes.recv().map_err(over)
    }
}

#[test]
fn renewals_without_end_keep_nobody_from_a_lease() {
    run(async {
        let (begins, begun) = std::sync::mpsc::channel();
        let (go, goes) = std::sync::mpsc::channel();

        let settings = BrokerConfig {
            longest_round: Duration::ZERO,
            stuck_after: Duration::from_secs(600),
            ..settings()
        };

        let devices: Arc<dyn Devices> = Bench::new(24);
        let office = LeaseBroker::start(settings, keeper(Box::new(Slow { begins, goes })), devices)
            .unwrap()
            .0;
        let first = tokio::spawn({
            let office = office.clone();
            async move { office.grant(ask(1)).await }
        });
        go.send(()).unwrap();
        let id = lease_id(&first.await.unwrap().unwrap());
        begun.recv().unwrap();

        let renew = || {
            let (office, id) = (office.clone(), id.clone());
            tokio::spawn(async move {
                office
                    .renew(id, &caller(), Some(Duration::from_secs(900)))
                    .await
            })
        };

        let _first = renew();
        while begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }

        let mut victim = tokio::spawn({
            let office = office.clone();
            async move { office.grant(ask(1)).await }
        });

        // Whenever one is written down, the next has arrived already.
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
            flood = tokio::time::timeout(Duration::from_secs(120), flood) => flood.expect("the renewals come first"),
        }
    });
}
