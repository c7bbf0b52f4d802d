//! A lease from its grant to its end.

use super::*;

#[test]
fn a_lease_is_given_listed_renewed_and_given_back() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let answer = office.grant(ask(16)).await.unwrap();
        let id = lease_id(&answer);

        assert_eq!(
            office.leased(),
            BTreeMap::from([(A.to_owned(), Bytes::gib(16))])
        );
        let listed = office.list().await.unwrap();
        assert_eq!(listed.leases.len(), 1);

        assert_eq!(
            (listed.leases[0].id.as_str(), listed.leases[0].state),
            (id.as_str(), State::Granted)
        );
        let second = office.grant(ask(16)).await.unwrap();
        assert_eq!(
            (second.verdict, second.lease),
            (Some(Verdict::DoesNotFit), None)
        );

        let renewed = office
            .renew(id.clone(), &caller(), Some(Duration::from_secs(900)))
            .await
            .unwrap();
        assert_eq!(renewed.ttl_seconds, 900);
        let stranger = office.release(id.clone(), &stranger()).await;
        assert_eq!(stranger.unwrap_err().reason, Reason::Forbidden);
        let released = office.release(id.clone(), &caller()).await.unwrap();
        assert_eq!(
            (released.state, released.reason),
            (State::Released, Some(EndReason::ByOwner))
        );

        assert_eq!(
            office.release(id.clone(), &caller()).await.unwrap().state,
            State::Released,
            "twice is harmless"
        );

        assert_eq!(
            office.renew(id, &caller(), None).await.unwrap_err().reason,
            Reason::Usage
        );
        lease_id(&office.grant(ask(24)).await.unwrap());

        assert_eq!(
            office.get("x".to_owned()).await.unwrap_err().reason,
            Reason::NotFound
        );
        office.ping().await.unwrap();
        office.stop().await;
        assert_eq!(office.ping().await.unwrap_err().reason, Reason::Busy);
    });
}

#[test]
fn engine_takes_nothing_of_others() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);

        let taking = || GrantCommand {
            plan: plan_taking(8, Some(2)),
            ..ask(8)
        };

        let other = lease_id(&office.grant(ask(12)).await.unwrap());
        let refused = office.grant(taking()).await.unwrap();
        assert_eq!(
            (refused.known_reason(), refused.lease),
            (Some(Reason::Leased), None),
            "it needs 8 of 12 GiB and would take 22"
        );

        office.release(other, &caller()).await.unwrap();
        lease_id(&office.grant(taking()).await.unwrap());

        assert_eq!(
            office.leased(),
            BTreeMap::from([(A.to_owned(), Bytes::gib(22))])
        );
    });
}

#[test]
fn what_is_claimed_ends_with_the_last_lease() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let id = lease_id(&office.grant(ask(16)).await.unwrap());
        office.release(id, &caller()).await.unwrap();
        let mut standing = office.standing();
        standing
            .wait_for(|standing| standing.leased.values().all(|bytes| *bytes == Bytes::ZERO))
            .await
            .unwrap();
    });
}

#[test]
fn a_dead_holder_gives_back_at_once() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);

        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let held = GrantCommand {
            holder: Some(Holder::Pid(child.id())),
            ..ask(16)
        };

        let id = lease_id(&office.grant(held).await.unwrap());
        let mut waits = std::pin::pin!(office.grant(waiting(20)));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(waits.as_mut().poll(context)))
                .await
                .is_pending()
        );

        child.kill().unwrap();
        child.wait().unwrap();
        lease_id(&waits.await.unwrap());

        assert_eq!(
            office.get(id).await.unwrap().reason,
            Some(EndReason::HolderDied)
        );
        let dead = GrantCommand {
            holder: Some(Holder::Pid(child.id())),
            ..ask(1)
        };

        assert_eq!(office.grant(dead).await.unwrap_err().reason, Reason::Usage);
    });
}
