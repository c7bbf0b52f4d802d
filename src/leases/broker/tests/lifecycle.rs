//! A lease from its grant to its end.

use super::*;

#[test]
fn lease_is_listed_renewed_and_released() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let answer = broker.grant(grant_command(16)).await.unwrap();
        let id = lease_id(&answer);

        assert_eq!(
            broker.leased(),
            BTreeMap::from([(A.to_owned(), Bytes::gib(16))])
        );
        let listed = broker.list().await.unwrap();
        assert_eq!(listed.leases.len(), 1);

        assert_eq!(
            (listed.leases[0].id.as_str(), listed.leases[0].state),
            (id.as_str(), State::Granted)
        );
        let second = broker.grant(grant_command(16)).await.unwrap();
        assert_eq!(
            (second.verdict, second.lease),
            (Some(Verdict::DoesNotFit), None)
        );

        let renewed = broker
            .renew(id.clone(), &caller(), Some(Duration::from_secs(900)))
            .await
            .unwrap();
        assert_eq!(renewed.ttl_seconds, 900);
        let by_stranger = broker.release(id.clone(), &stranger()).await;
        assert_eq!(by_stranger.unwrap_err().reason, Reason::Forbidden);
        let released = broker.release(id.clone(), &caller()).await.unwrap();
        assert_eq!(
            (released.state, released.reason),
            (State::Released, Some(EndReason::ByOwner))
        );

        assert_eq!(
            broker.release(id.clone(), &caller()).await.unwrap().state,
            State::Released,
            "releasing twice is harmless"
        );

        assert_eq!(
            broker.renew(id, &caller(), None).await.unwrap_err().reason,
            Reason::Usage
        );
        lease_id(&broker.grant(grant_command(24)).await.unwrap());

        assert_eq!(
            broker.get("x".to_owned()).await.unwrap_err().reason,
            Reason::NotFound
        );
        broker.ping().await.unwrap();
        broker.stop().await;
        assert_eq!(broker.ping().await.unwrap_err().reason, Reason::Busy);
    });
}

#[test]
fn engine_takes_no_leased_memory() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);

        let taking = || GrantCommand {
            plan: plan_taking(8, Some(2)),
            ..grant_command(8)
        };

        let other = lease_id(&broker.grant(grant_command(12)).await.unwrap());
        let refused = broker.grant(taking()).await.unwrap();
        assert_eq!(
            (refused.known_reason(), refused.lease),
            (Some(Reason::Leased), None),
            "it needs 8 of 12 GiB and would take 22"
        );

        broker.release(other, &caller()).await.unwrap();
        lease_id(&broker.grant(taking()).await.unwrap());

        assert_eq!(
            broker.leased(),
            BTreeMap::from([(A.to_owned(), Bytes::gib(22))])
        );
    });
}

#[test]
fn claims_end_with_last_lease() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);
        let id = lease_id(&broker.grant(grant_command(16)).await.unwrap());
        broker.release(id, &caller()).await.unwrap();
        let mut status = broker.status();
        status
            .wait_for(|status| status.leased.values().all(|bytes| *bytes == Bytes::ZERO))
            .await
            .unwrap();
    });
}

#[test]
fn exit_of_holder_releases_lease() {
    run(async {
        let devices = FakeDevices::new(24);
        let broker = start_broker(&devices);

        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let held = GrantCommand {
            holder: Some(Holder::Pid(child.id())),
            ..grant_command(16)
        };

        let id = lease_id(&broker.grant(held).await.unwrap());
        let mut waits = std::pin::pin!(broker.grant(waiting(20)));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(waits.as_mut().poll(context)))
                .await
                .is_pending()
        );

        child.kill().unwrap();
        child.wait().unwrap();
        lease_id(&waits.await.unwrap());

        assert_eq!(
            broker.get(id).await.unwrap().reason,
            Some(EndReason::HolderDied)
        );
        let dead = GrantCommand {
            holder: Some(Holder::Pid(child.id())),
            ..grant_command(1)
        };

        assert_eq!(broker.grant(dead).await.unwrap_err().reason, Reason::Usage);
    });
}
