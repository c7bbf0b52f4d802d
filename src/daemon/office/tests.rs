//! The office with devices and plans of the test's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::api::answer::{DeviceShare, PlacementAnswer, Verdict};
use crate::api::lease::Holder;
use crate::api::peer::Peer;
use crate::api::problem::Reason;
use crate::api::{Answer, Problem};
use crate::bytes::Bytes;
use crate::devices::Snapshot;
use crate::leases::lease::{EndReason, State};
use crate::leases::ledger::{Ledger, Settings};
use crate::leases::store::{NoStore, StoreError};

const A: &str = "GPU-a";

/// Devices that the test moves.
struct Bench(Mutex<Snapshot>);

impl Bench {
    fn new(gib: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(crate::leases::testing::snapshot(&[(A, gib)]))))
    }

    fn set_free(&self, gib: u64) {
        self.0.lock().unwrap().devices[0].free_bytes = Some(Bytes::gib(gib));
    }
}

impl Devices for Bench {
    fn sample(&self, _deadline: Duration) -> Sampling<'_> {
        Box::pin(async { Ok(Arc::new(self.0.lock().unwrap().clone())) })
    }
}

/// Keeps everything, nowhere.
struct Memory;

impl Storage for Memory {
    fn save(&mut self, _saved: &crate::leases::ledger::Saved) -> Result<(), StoreError> {
        Ok(())
    }
}

fn keeper(storage: AnyStorage) -> Keeper<AnyStorage> {
    Keeper::new(Ledger::new(Settings::default(), "boot", 7), storage)
}

fn settings() -> OfficeSettings {
    OfficeSettings { read_every: Duration::from_millis(5), most_waiting: 4, ..OfficeSettings::default() }
}

fn office(bench: &Arc<Bench>) -> OfficeHandle {
    let devices: Arc<dyn Devices> = Arc::clone(bench) as _;
    Office::start(settings(), keeper(Box::new(Memory)), devices).unwrap().0
}

fn peer() -> Peer {
    Peer { uid: rustix::process::getuid().as_raw(), gid: 0, pid: Some(std::process::id()) }
}

/// So many GiB on the one device.
fn plan(gib: u64) -> Plan {
    Box::new(move |snapshot, claims| {
        let device = &snapshot.devices[0];
        let claimed = claims.get(A).copied().unwrap_or(Bytes::ZERO);
        let available = device.free_bytes.and_then(|free| free.less(claimed));
        let asked = Bytes::gib(gib);
        let fits = available.is_some_and(|available| available >= asked);
        let share = DeviceShare {
            uuid: A.to_owned(),
            index: 0,
            name: String::new(),
            total_bytes: device.facts.total_bytes.get(),
            free_bytes: device.free_bytes.map(Bytes::get),
            leased_bytes: claimed.get(),
            available_bytes: available.map(Bytes::get),
            required_bytes: asked.get(),
            short_by_bytes: 0,
            takes_bytes: None,
            layers: (0, 1),
            components: Vec::new(),
        };
        Ok(Answer {
            verdict: Some(if fits { Verdict::Fits } else { Verdict::DoesNotFit }),
            reason: if fits { "fits" } else { "insufficient_memory" }.to_owned(),
            placement: Some(PlacementAnswer {
                strategy: "single".to_owned(),
                tensor_parallel: 1,
                pipeline_parallel: 1,
                devices: vec![share],
                host: None,
                max_context: None,
                max_sequences: None,
                launch: None,
            }),
            ..Answer::default()
        })
    })
}

fn ask(gib: u64) -> GrantAsk {
    GrantAsk {
        peer: peer(),
        ttl: None,
        holder: Some(Holder::Name("test".to_owned())),
        idempotency_key: None,
        wait: Duration::ZERO,
        model: "owner/name".to_owned(),
        engine: None,
        digest: format!("{gib}"),
        candidates: None,
        plan: plan(gib),
    }
}

fn waiting(gib: u64) -> GrantAsk {
    GrantAsk { wait: Duration::from_secs(600), ..ask(gib) }
}

fn lease_id(answer: &Answer) -> String {
    answer.lease.as_ref().unwrap()["id"].as_str().unwrap().to_owned()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn a_lease_is_given_listed_renewed_and_given_back() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let answer = office.grant(ask(16)).await.unwrap();
        let id = lease_id(&answer);
        assert_eq!(office.leased(), BTreeMap::from([(A.to_owned(), Bytes::gib(16))]));
        let listed = office.list().await.unwrap();
        assert_eq!(listed.leases.len(), 1);
        assert_eq!((listed.leases[0].id.as_str(), listed.leases[0].state), (id.as_str(), State::Granted));
        let second = office.grant(ask(16)).await.unwrap();
        assert_eq!((second.verdict, second.lease), (Some(Verdict::DoesNotFit), None));
        let renewed = office.renew(id.clone(), peer().uid, Some(Duration::from_secs(900))).await.unwrap();
        assert_eq!(renewed.ttl_seconds, 900);
        let stranger = office.release(id.clone(), peer().uid.wrapping_add(4321)).await;
        assert_eq!(stranger.unwrap_err().reason, Reason::Forbidden);
        let released = office.release(id.clone(), peer().uid).await.unwrap();
        assert_eq!((released.state, released.reason), (State::Released, Some(EndReason::ByOwner)));
        assert_eq!(office.release(id.clone(), peer().uid).await.unwrap().state, State::Released, "twice is harmless");
        assert_eq!(office.renew(id, peer().uid, None).await.unwrap_err().reason, Reason::Usage);
        lease_id(&office.grant(ask(24)).await.unwrap());
        assert_eq!(office.get("x".to_owned()).await.unwrap_err().reason, Reason::NotFound);
        office.ping().await.unwrap();
        office.stop().await;
        assert_eq!(office.ping().await.unwrap_err().reason, Reason::Busy);
    });
}

#[test]
fn what_is_claimed_ends_with_the_last_lease() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let id = lease_id(&office.grant(ask(16)).await.unwrap());
        office.release(id, peer().uid).await.unwrap();
        let mut standing = office.standing();
        standing.wait_for(|standing| standing.leased.values().all(|bytes| *bytes == Bytes::ZERO)).await.unwrap();
    });
}

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
        let settings = OfficeSettings { stuck_after: Duration::from_millis(50), ..settings() };
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
fn the_same_key_gives_the_same_lease() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let keyed = |gib| GrantAsk { idempotency_key: Some("k".to_owned()), ..ask(gib) };
        let (first, second) = tokio::join!(office.grant(keyed(16)), office.grant(keyed(16)));
        assert_eq!(lease_id(&first.unwrap()), lease_id(&second.unwrap()));
        assert_eq!(office.list().await.unwrap().leases.len(), 1);
        assert_eq!(office.grant(keyed(3)).await.unwrap_err().reason, Reason::Usage);
    });
}

#[test]
fn a_lease_whose_first_answer_was_lost_is_kept_by_one_that_asked_again() {
    run(async {
        let bench = Bench::new(24);
        let keyed = || GrantAsk { idempotency_key: Some("k".to_owned()), ..ask(16) };
        // Wherever on its way the first answer is lost.
        for polls in 1..60_u32 {
            let office = office(&bench);
            let mut first = Box::pin(office.grant(keyed()));
            let mut ready = None;
            for _ in 0..polls {
                match std::future::poll_fn(|context| std::task::Poll::Ready(first.as_mut().poll(context))).await {
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
            assert_eq!(state, State::Granted, "lost after {polls} polls, though somebody was told of it");
            office.stop().await;
        }
    });
}

#[test]
fn a_key_whose_answer_reached_nobody_may_be_asked_again() {
    run(async {
        let (bench, keyed) = (Bench::new(24), || GrantAsk { idempotency_key: Some("k".to_owned()), ..ask(16) });
        let office = office(&bench);
        for polls in 1..40_u32 {
            let mut lost = Box::pin(office.grant(keyed()));
            let mut answered = false;
            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| std::task::Poll::Ready(lost.as_mut().poll(context))).await;
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
        let rules = Settings { margin, ..Settings::default() };
        let bench = Bench::new(24);
        let keyed = || {
            let placed = plan(16);
            // As the daemon's own plan: what is kept back is not placed on.
            let kept_back: Plan = Box::new(move |snapshot, claims| {
                let mut snapshot = snapshot.clone();
                snapshot.devices[0].free_bytes = snapshot.devices[0].free_bytes.and_then(|free| free.less(margin));
                placed(&snapshot, claims)
            });
            GrantAsk { idempotency_key: Some("k".to_owned()), plan: kept_back, ..ask(16) }
        };
        let start = || {
            let (keeper, trouble) = open(directory.path(), rules.clone(), std::path::Path::new("/proc"));
            assert!(trouble.is_none(), "{trouble:?}");
            let devices: Arc<dyn Devices> = Arc::clone(&bench) as _;
            Office::start(settings(), keeper, devices).unwrap()
        };
        let (office, thread) = start();
        let first = lease_id(&office.grant(keyed()).await.unwrap());
        office.stop().await;
        thread.join().unwrap();
        bench.set_free(2);
        let (office, _thread) = start();
        let again = office.grant(keyed()).await.unwrap();
        assert_eq!((lease_id(&again), again.verdict), (first, Some(Verdict::Fits)), "{}", again.message);
    });
}

#[test]
fn one_that_waits_for_one_card_does_not_close_the_others() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let id = lease_id(&office.grant(ask(16)).await.unwrap());
        let elsewhere = GrantAsk { candidates: Some(["GPU-other".to_owned()].into()), ..waiting(20) };
        let named = GrantAsk { candidates: Some(["GPU-".to_owned()].into()), ..waiting(20) };
        assert_eq!(decide::candidates(elsewhere.candidates.as_ref(), &bench.0.lock().unwrap()), None, "not known here");
        let known = decide::candidates(named.candidates.as_ref(), &bench.0.lock().unwrap());
        assert_eq!(known, Some([A.to_owned()].into()));
        let waits = tokio::spawn({
            let office = office.clone();
            async move { office.grant(named).await }
        });
        office.standing().wait_for(|standing| standing.waiting == 1).await.unwrap();
        let line = office.list().await.unwrap().waiting;
        assert_eq!((line[0].position, line[0].pid), (1, None), "held by a name");
        office.release(id, peer().uid).await.unwrap();
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
        office.standing().wait_for(|standing| standing.waiting == 1).await.unwrap();
        let small = office.grant(ask(2)).await.unwrap();
        assert_eq!((small.verdict, small.reason.as_str()), (Some(Verdict::DoesNotFit), "leased"), "{}", small.message);
        assert_eq!(office.list().await.unwrap().waiting[0].position, 1);
        office.release(id, peer().uid).await.unwrap();
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
        office.standing().wait_for(|standing| standing.waiting == 1).await.unwrap();
        gone.abort();
        office.standing().wait_for(|standing| standing.waiting == 0).await.unwrap();
        office.release(id, peer().uid).await.unwrap();
        // Askers that hang up at any stage of their grant.
        for polls in 0..200_u32 {
            let mut grant = Box::pin(office.grant(ask(20)));
            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| std::task::Poll::Ready(grant.as_mut().poll(context))).await;
                if let std::task::Poll::Ready(answer) = polled {
                    if let Some(lease) = answer.unwrap().lease {
                        let id = lease["id"].as_str().unwrap().to_owned();
                        office.release(id, peer().uid).await.unwrap();
                    }
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        office.standing().wait_for(|standing| standing.leases == 0).await.unwrap();
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
        let late = office.grant(GrantAsk { wait: Duration::from_millis(20), ..ask(20) }).await.unwrap();
        assert_eq!((late.verdict, late.lease), (Some(Verdict::DoesNotFit), None));
        assert_eq!(late.reason, "wait_over", "it may be a yes another time");
        assert!(late.message.contains("place 1 of 1"), "{}", late.message);
        let patient = office.grant(waiting(20));
        let freed = async {
            office.standing().wait_for(|standing| standing.waiting == 1).await.unwrap();
            bench.set_free(24);
        };
        let (answer, ()) = tokio::join!(patient, freed);
        lease_id(&answer.unwrap());
    });
}

#[test]
fn a_dead_holder_gives_back_at_once() {
    run(async {
        let bench = Bench::new(24);
        let office = office(&bench);
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let held = GrantAsk { holder: Some(Holder::Pid(child.id())), ..ask(16) };
        let id = lease_id(&office.grant(held).await.unwrap());
        let mut waits = std::pin::pin!(office.grant(waiting(20)));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(waits.as_mut().poll(context))).await.is_pending()
        );
        child.kill().unwrap();
        child.wait().unwrap();
        lease_id(&waits.await.unwrap());
        assert_eq!(office.get(id).await.unwrap().reason, Some(EndReason::HolderDied));
        let dead = GrantAsk { holder: Some(Holder::Pid(child.id())), ..ask(1) };
        assert_eq!(office.grant(dead).await.unwrap_err().reason, Reason::Usage);
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

/// A plan that is heard of, and that goes on once the test lets it.
fn gated(gib: u64, begun: std::sync::mpsc::Sender<()>, go: Arc<Mutex<std::sync::mpsc::Receiver<()>>>) -> Plan {
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
        let settings = OfficeSettings { longest_round: Duration::ZERO, ..settings() };
        let devices: Arc<dyn Devices> = Arc::clone(&bench) as _;
        let office = Office::start(settings, keeper(Box::new(Memory)), devices).unwrap().0;
        let (begun, begins) = std::sync::mpsc::channel();
        let (let_go, go) = std::sync::mpsc::channel();
        let go = Arc::new(Mutex::new(go));
        let many: Vec<_> = (0..6)
            .map(|_| {
                let (office, plan) = (office.clone(), gated(1, begun.clone(), Arc::clone(&go)));
                tokio::spawn(async move { office.grant(GrantAsk { plan, ..ask(1) }).await })
            })
            .collect();
        while begins.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        // The first of the six is being planned. Another user comes, and is served next.
        let other = Peer { uid: peer().uid + 1, ..peer() };
        let mut victim = Box::pin(office.grant(GrantAsk { peer: other, ..ask(2) }));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(victim.as_mut().poll(context))).await;
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
            GrantAsk { plan, ..waiting(gib) }
        };
        let join = |who| {
            let (asker, ask) = (office.clone(), counted(who, 20));
            tokio::spawn(async move { asker.grant(ask).await })
        };
        let head = join("head");
        office.standing().wait_for(|standing| standing.waiting == 1).await.unwrap();
        let behind = join("behind");
        office.standing().wait_for(|standing| standing.waiting == 2).await.unwrap();
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
        office.release(id, peer().uid).await.unwrap();
        let id = lease_id(&head.await.unwrap().unwrap());
        office.release(id, peer().uid).await.unwrap();
        lease_id(&behind.await.unwrap().unwrap());
    });
}
