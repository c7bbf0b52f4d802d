//! Many clients against the lease broker with its real store. Holders are real processes with
//! simulated memory. They take it late, in part or not at all, and free it when they crash. The
//! test stops and restarts the broker.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a race's own machinery")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceFacts, DeviceKind, Process, ProcessKind, Snapshot};
use hf_mem_core::placement::Strategy;
use hf_mem_core::report::Problem;
use hf_mem_core::report::answer::{Answer, DeviceShare, PlacementAnswer, Verdict};
use hf_mem_core::report::lease::EndReason;
use hf_mem_core::report::lease::{Holder, LeaseAnswer};
use hf_mem_probe::api::peer::{Caller, Peer};
use hf_mem_probe::devices::sampler::Reading;
use hf_mem_probe::leases::broker::{
    BrokerConfig, BrokerHandle, Devices, GrantCommand, LeaseBroker, Plan, Sampling, open,
};
use hf_mem_probe::leases::ledger::LedgerConfig;
use tokio::sync::watch;

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

const CARDS: [(&str, u64); 4] = [("GPU-a", 24), ("GPU-b", 24), ("GPU-c", 80), ("GPU-d", 16)];

/// The cards, and the memory that processes hold on them.
#[derive(Default)]
pub(crate) struct Cards(Mutex<BTreeMap<(u32, &'static str), u64>>);

impl Cards {
    /// Takes memory. Returns whether the card had enough.
    fn take(&self, pid: u32, uuid: &str, bytes: u64) -> bool {
        let (name, gib) = CARDS
            .iter()
            .find(|(name, _)| *name == uuid)
            .copied()
            .unwrap();

        let mut held = self.0.lock().unwrap();
        let used: u64 = held
            .iter()
            .filter(|((_, on), _)| *on == name)
            .map(|(_, bytes)| *bytes)
            .sum();

        let had = used + bytes <= Bytes::gib(gib).get();
        if had {
            *held.entry((pid, name)).or_default() += bytes;
        }

        had
    }

    fn drop_all(&self, pid: u32) {
        self.0
            .lock()
            .unwrap()
            .retain(|(holder, _), _| *holder != pid);
    }
}

impl Devices for Cards {
    fn sample(&self, _deadline: Duration) -> Sampling<'_> {
        let held = self.0.lock().unwrap().clone();
        let device = |(place, (uuid, gib)): (usize, &(&str, u64))| {
            let mut device = Device::idle(DeviceFacts {
                uuid: (*uuid).to_owned(),
                index: u32::try_from(place).unwrap(),
                name: "simulated".to_owned(),
                kind: DeviceKind::Gpu,
                total_bytes: Bytes::gib(*gib),
                reserved_bytes: Some(Bytes::ZERO),
                compute_capability: None,
                multiprocessors: None,
                parent_uuid: None,
                pci_bus_id: None,
                numa_node: None,
            });

            let on_card: Vec<_> = held
                .iter()
                .filter(|((_, card), bytes)| card == uuid && **bytes > 0)
                .collect();

            let used: u64 = on_card.iter().map(|(_, bytes)| **bytes).sum();
            device.used_bytes = Some(Bytes::new(used));
            device.free_bytes = Bytes::gib(*gib).less(Bytes::new(used));

            device.processes = on_card
                .into_iter()
                .map(|((pid, _), bytes)| Process {
                    pid: *pid,
                    used_bytes: Some(Bytes::new(*bytes)),
                    kind: ProcessKind::Compute,
                    name: None,
                    uid: None,
                    user: None,
                    unit: None,
                    container: None,
                    cgroup: None,
                    start_ticks: None,
                })
                .collect();

            device
        };

        let snapshot = Snapshot {
            source: "simulated".to_owned(),
            sampled_at: SystemTime::now(),
            stale: false,
            driver_version: None,
            devices: CARDS.iter().enumerate().map(device).collect(),
            links: Vec::new(),
            host: None,
        };

        // The reading takes a while, and other tasks continue.
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(Arc::new(snapshot))
        })
    }

    fn readings(&self) -> Option<watch::Receiver<Option<Arc<Reading>>>> {
        None
    }
}

/// A plan for `bytes` on each of the first `cards` cards that have them.
fn plan(cards: usize, bytes: u64) -> Plan {
    Box::new(move |snapshot, claims| {
        let available = |device: &Device| {
            let claimed = claims
                .get(&device.facts.uuid)
                .copied()
                .unwrap_or(Bytes::ZERO);
            device
                .free_bytes
                .and_then(|free| free.less(claimed))
                .unwrap_or(Bytes::ZERO)
        };

        let fitting = snapshot
            .devices
            .iter()
            .filter(|device| available(device) >= Bytes::new(bytes))
            .take(cards);

        let share = |device: &Device| DeviceShare {
            uuid: device.facts.uuid.clone(),
            index: device.facts.index,
            name: String::new(),
            total_bytes: device.facts.total_bytes.get(),
            free_bytes: device.free_bytes.map(Bytes::get),
            leased_bytes: 0,
            available_bytes: Some(available(device).get()),
            required_bytes: bytes,
            short_by_bytes: Some(0),
            takes_bytes: None,
            layers: (0, 1),
            components: Vec::new(),
        };

        let devices: Vec<DeviceShare> = fitting.map(share).collect();
        let fits = devices.len() == cards;

        let placement = PlacementAnswer {
            strategy: Strategy::Single.into(),
            tensor_parallel: 1,
            pipeline_parallel: 1,
            devices,
            host: None,
            max_context: None,
            max_sequences: None,
            kv_cache_tokens: None,
            kv_cache_low_tokens: None,
            max_concurrency: None,
            launch: None,
        };

        Ok(Answer {
            verdict: Some(if fits {
                Verdict::Fits
            } else {
                Verdict::DoesNotFit
            }),
            placement: fits.then_some(placement),
            ..Answer::default()
        })
    })
}

/// The outcome of a race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) granted: u64,
    pub(crate) refused: u64,
    pub(crate) crashed: u64,
    pub(crate) abandoned: u64,
    pub(crate) restarts: u64,
    /// Holders that ran out of memory within their lease.
    pub(crate) over_commits: u64,
    /// Leases that ended while their holder relied on them.
    pub(crate) lost: u64,
    /// Leases that are live after all clients ended.
    pub(crate) leaked: u64,
}

struct Race {
    cards: Arc<Cards>,
    broker: watch::Receiver<BrokerHandle>,
    outcome: Mutex<Outcome>,
    /// Counts answers.
    answers: watch::Sender<u64>,
}

impl Race {
    fn count(&self, what: impl FnOnce(&mut Outcome)) {
        what(&mut self.outcome.lock().unwrap());
    }

    /// Repeats a call while the broker is restarted.
    async fn persist<T, F>(&self, mut call: impl FnMut(BrokerHandle) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        loop {
            let handle = self.broker.borrow().clone();
            match call(handle).await {
                Err(problem) if ["busy", "daemon_stopping"].contains(&problem.reason.word()) => {}
                done => {
                    self.answers.send_modify(|answers| *answers += 1);
                    return done;
                }
            }

            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn client(self: Rc<Self>, number: u64, rounds: u64, seed: u64) {
        let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut child = HolderProcess::start();

        for round in 0..rounds {
            let (cards, bytes) = (
                1 + usize::try_from(random.below(2)).unwrap(),
                Bytes::mib(256 + random.below(12 * 1024)).get(),
            );
            let pid = child.id();
            let key = format!("{seed}-{number}-{round}");
            let abandons = random.below(200) == 0;
            let ttl = Duration::from_secs(if abandons { 1 } else { 600 });
            let answer = self
                .persist(|broker| {
                    let command = grant_command(pid, ttl, key.clone(), plan(cards, bytes));
                    async move { broker.grant(command).await }
                })
                .await;

            let lease = match answer {
                Ok(answer) => answer.lease,
                // A short lease expired before its client received it.
                Err(problem) if abandons && problem.detail.contains("has ended") => None,
                Err(problem) => panic!("{problem}"),
            };

            let Some(lease) = lease else {
                self.count(|outcome| outcome.refused += 1);
                tokio::task::yield_now().await;
                continue;
            };

            self.count(|outcome| outcome.granted += 1);
            if abandons {
                self.count(|outcome| outcome.abandoned += 1);
                continue;
            }
            // The holder takes memory late, in steps, and sometimes only part of it.
            for device in &lease.devices {
                pause(&mut random).await;
                let wanted = if random.below(8) == 0 {
                    device.granted_bytes / 3
                } else {
                    device.granted_bytes
                };

                let first = random.below(wanted + 1);
                for bytes in [first, wanted - first] {
                    if !self.cards.take(pid, &device.uuid, bytes) {
                        self.count(|outcome| outcome.over_commits += 1);
                    }
                    pause(&mut random).await;
                }
            }

            if random.below(16) == 0 {
                child.kill();
                self.cards.drop_all(pid);
                child = HolderProcess::start();
                self.count(|outcome| outcome.crashed += 1);
                continue;
            }

            self.cards.drop_all(pid);
            let id = lease.id.clone();
            let released = self.persist(|broker| {
                let id = id.clone();
                let by = Caller {
                    peer: peer(pid),
                    token: None,
                    request_id: String::new(),
                };

                async move {
                    broker
                        .release(id, &by)
                        .await
                        .map_or_else(lost_or_restarted, |lease| Ok(Some(lease)))
                }
            });

            let was_live = released
                .await
                .unwrap()
                .is_some_and(|lease| lease.reason == Some(EndReason::ByOwner));

            if !was_live {
                self.count(|outcome| outcome.lost += 1);
            }
        }

        child.kill();
        self.cards.drop_all(child.id());
    }
}

type Released = Result<Option<LeaseAnswer>, Problem>;

/// Distinguishes a lost lease, which the ledger does not know, from a restart.
fn lost_or_restarted(problem: Problem) -> Released {
    if problem.reason.word() == "not_found" {
        Ok(None)
    } else {
        Err(problem)
    }
}

async fn pause(random: &mut Random) {
    if random.below(4) == 0 {
        tokio::time::sleep(Duration::from_millis(random.below(3))).await;
    } else {
        tokio::task::yield_now().await;
    }
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn peer(pid: u32) -> Peer {
    Peer {
        uid: uid(),
        gid: 0,
        pid: Some(pid),
    }
}

/// A process that holds memory. It ends with the test.
struct HolderProcess(Child);

impl HolderProcess {
    fn start() -> Self {
        Self(
            Command::new("sleep")
                .arg("100000")
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for HolderProcess {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn grant_command(pid: u32, ttl: Duration, key: String, plan: Plan) -> GrantCommand {
    GrantCommand {
        peer: peer(pid),
        request_id: "".into(),
        ttl: Some(ttl),
        holder: Some(Holder::Pid(pid)),
        idempotency_key: Some(key.clone()),
        wait: Duration::ZERO,
        strict: false,
        model: "owner/name".to_owned(),
        engine: None,
        digest: key,
        candidates: None,
        plan,
        room: None,
    }
}

fn start(directory: &Path, cards: &Arc<Cards>) -> (BrokerHandle, std::thread::JoinHandle<()>) {
    let config = BrokerConfig {
        read_interval: Duration::from_millis(20),
        ..BrokerConfig::default()
    };

    let rules = LedgerConfig {
        max_ended: 64,
        ..LedgerConfig::default()
    };

    let (durable, error) = open(directory, rules, Path::new("/proc"));
    assert!(error.is_none(), "{error:?}");
    let devices: Arc<dyn Devices> = Arc::clone(cards) as _;

    LeaseBroker::start(config, durable, devices).unwrap()
}

/// Runs a race to its end with the ledger in `directory`. The broker restarts after `restart_every`
/// answers.
pub(crate) fn race(
    directory: &Path,
    clients: u64,
    rounds: u64,
    seed: u64,
    restart_every: u64,
) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let cards = Arc::new(Cards::default());
        let (handle, mut thread) = start(directory, &cards);
        let (current, broker) = watch::channel(handle);
        let race = Rc::new(Race {
            cards: Arc::clone(&cards),
            broker,
            outcome: Mutex::default(),
            answers: watch::Sender::new(0),
        });

        let mut clients_left = tokio::task::JoinSet::new();
        for number in 0..clients {
            clients_left.spawn_local(Rc::clone(&race).client(number, rounds, seed));
        }

        loop {
            let all_ended = async {
                while let Some(done) = clients_left.join_next().await {
                    done.unwrap();
                }
            };

            let max_answers = *race.answers.borrow() + restart_every;
            let mut answers = race.answers.subscribe();
            tokio::select! {
                () = all_ended => break,
                _ = answers.wait_for(|answers| *answers >= max_answers) => {}
            }

            let old = current.borrow().clone();
            old.stop().await;
            thread.join().unwrap();
            let (handle, next) = start(directory, &cards);
            current.send_replace(handle);
            thread = next;
            race.count(|outcome| outcome.restarts += 1);
        }

        let broker = current.borrow().clone();
        let mut status = broker.status();

        // Abandoned leases live for a second; process exits end leases at once. Do not keep the
        // borrowed status: the broker cannot publish while it is borrowed.
        let no_leases = async { status.wait_for(|status| status.leases == 0).await.is_ok() };

        let left = tokio::time::timeout(Duration::from_secs(60), no_leases).await;
        if left != Ok(true) {
            let leaked = broker.list().await.unwrap().leases.len() as u64;
            race.count(|outcome| outcome.leaked += leaked);
        }

        broker.stop().await;
        thread.join().unwrap();

        *race.outcome.lock().unwrap()
    })
}
