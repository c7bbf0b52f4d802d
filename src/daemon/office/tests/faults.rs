//! Stores that keep nothing or hang, and plans that break.

use super::*;

#[test]
fn without_a_store_grants_are_refused_and_the_rest_works() {
    run(async {
        let bench = Bench::new(24);
        let storage = Box::new(NoStore { why: "no such directory".to_owned() });
        let office = Office::start(settings(), keeper(storage), bench).unwrap().0;
        let refused = office.grant(ask(16)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::BadConfiguration);
        assert!(refused.detail.contains("no such directory"), "{refused}");
        assert!(office.list().await.unwrap().leases.is_empty());
        let answer = office.grant(ask(30)).await.unwrap();
        assert_eq!(answer.verdict, Some(Verdict::DoesNotFit), "what does not fit is answered all the same");
    });
}

/// A disk that hangs until the test lets go.
struct Hanging(std::sync::mpsc::Receiver<()>);

impl Storage for Hanging {
    fn save(&mut self, _saved: &crate::leases::ledger::Saved) -> Result<(), StoreError> {
        self.0.recv().map_err(|_| StoreError::None { why: "the test is over".to_owned() })
    }
}

#[test]
fn a_disk_that_hangs_is_told_to_those_who_ask_and_forgotten_when_it_is_back() {
    run(async {
        let bench = Bench::new(24);
        let (let_go, hangs) = std::sync::mpsc::channel();
        let settings = OfficeSettings { stuck_after: Duration::from_millis(500), ..settings() };
        let office = Office::start(settings, keeper(Box::new(Hanging(hangs))), bench).unwrap().0;
        office.ping().await.unwrap();
        assert_eq!(office.stuck_for(), None);
        let asker = office.clone();
        let first = tokio::spawn(async move { asker.grant(ask(16)).await });
        while office.stuck_for().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(office.ping().await.unwrap_err().reason, Reason::Busy);
        assert!(office.list().await.unwrap_err().detail.contains("has not answered"));
        assert_eq!(office.grant(ask(1)).await.unwrap_err().reason, Reason::Busy, "nobody waits behind it");
        office.stop().await; // comes back, though the owner does not

        let_go.send(()).unwrap();
        lease_id(&first.await.unwrap().unwrap());
        while office.stuck_for().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(office.list().await.unwrap().leases.len(), 1);
        drop(let_go);
    });
}

#[test]
fn a_plan_that_breaks_costs_nobody_the_ledger() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let broken = GrantAsk { plan: Box::new(|_, _| panic!("a plan's own fault")), ..ask(1) };
        assert_eq!(office.grant(broken).await.unwrap_err().reason, Reason::Internal);
        let refused = GrantAsk { plan: Box::new(|_, _| Err(Problem::new(Reason::NotFound, "no"))), ..ask(1) };
        assert_eq!(office.grant(refused).await.unwrap_err().reason, Reason::NotFound);
        lease_id(&office.grant(ask(24)).await.unwrap());
    });
}
