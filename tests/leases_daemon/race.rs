//! Many clients against the real daemon on its socket. Holders are real processes. They take memory
//! late, in part, not at all or beyond their lease, and free it when they crash. The test kills the
//! daemon and starts it again.

use std::cell::RefCell;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use hf_mem_core::report::Question;
use hf_mem_core::report::lease::EndReason;
use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ContextQuestion;
use hf_mem_probe::api::client::{Client, ClientError};
use hf_mem_probe::api::lease::LeaseRequest;
use tokio::sync::watch;

use super::Daemon;
use super::cards::Cards;
use super::model;

const MIB: u64 = 1 << 20;
/// The time to live of leases that expire. It is long compared with the time in which holders take
/// their memory, also on a slow machine.
const EXPIRES_AFTER: Duration = Duration::from_secs(10);

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The outcome of a race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) granted: u64,
    /// Granted leases on several cards.
    pub(crate) multi_card: u64,
    pub(crate) refused: u64,
    /// Holders that were killed while they held memory.
    pub(crate) crashed: u64,
    /// Leases that were neither used nor released.
    pub(crate) abandoned: u64,
    /// Leases that expired while their memory was held.
    pub(crate) expired: u64,
    pub(crate) took_less: u64,
    pub(crate) took_more: u64,
    /// How often the daemon was killed.
    pub(crate) kills: u64,
    /// Requests that were repeated because a kill cut off the answer.
    pub(crate) retried: u64,
    /// Holders that ran out of memory within their lease.
    pub(crate) over_commits: u64,
    /// Leases that ended while their holder relied on them.
    pub(crate) lost: u64,
    /// Leases that are live after all clients ended.
    pub(crate) leaked: u64,
}

/// The size of a race.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RaceConfig {
    pub(crate) clients: u64,
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
    /// The maximum number of answers before the daemon is killed.
    pub(crate) max_answers_per_daemon: u64,
}

struct Race {
    cards: Cards,
    client: Client,
    question: Question,
    config: RaceConfig,
    outcome: RefCell<Outcome>,
    /// Counts answers.
    answers: watch::Sender<u64>,
}

impl Race {
    fn count(&self, what: impl FnOnce(&mut Outcome)) {
        what(&mut self.outcome.borrow_mut());
    }

    /// Repeats a call until a daemon answers; the daemon may be restarted meanwhile.
    async fn persist<T>(
        &self,
        call: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        loop {
            let error = match call().await {
                Err(error)
                    if error.daemon_is_leaving() || error.daemon_is_absent() || is_late(&error) =>
                {
                    error
                }
                done => {
                    self.answers.send_modify(|answers| *answers += 1);
                    return done;
                }
            };

            if error.daemon_is_leaving() || is_late(&error) {
                self.count(|outcome| outcome.retried += 1);
            }

            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn run_client(self: Rc<Self>, number: u64) {
        let mut random = Random(
            self.config
                .seed
                .wrapping_mul(1_000_003)
                .wrapping_add(number),
        );
        let mut child = HolderProcess::start();

        for round in 0..self.config.rounds {
            if self
                .round(
                    &mut random,
                    child.id(),
                    &format!("{}-{number}-{round}", self.config.seed),
                )
                .await
                .is_err()
            {
                child.kill();
                // The driver frees the memory of a process a moment after its exit.
                pause(&mut random).await;
                self.cards.drop_all(child.id());
                child = HolderProcess::start();
                self.count(|outcome| outcome.crashed += 1);
            }
        }

        child.kill();
        self.cards.drop_all(child.id());
    }

    /// Requests and uses one lease. It returns an error if the holder crashes.
    async fn round(&self, random: &mut Random, pid: u32, key: &str) -> Result<(), ()> {
        let (abandons, expires) = (random.one_in(200), random.one_in(400));
        let mut question = self.question.clone();
        let max_gib = max_gib(random);
        question.workload.context = Some(ContextQuestion::Tokens(
            16_384 * (1 + random.below(max_gib)),
        ));

        let request = LeaseRequest {
            question,
            ttl_seconds: Some(match (abandons, expires) {
                (true, _) => 2,
                (_, true) => EXPIRES_AFTER.as_secs(),
                _ => 600,
            }),
            holder: Some(Holder::Pid(pid)),
            idempotency_key: Some(key.to_owned()),
            wait_seconds: u64::from(random.one_in(50)),
            strict: false,
        };

        // Taken before the grant, so the lease cannot expire earlier than its time to live after
        // this.
        let requested_at = tokio::time::Instant::now();
        let answer = self
            .persist(async || self.client.create_lease(&request).await)
            .await;
        let lease = match answer {
            Ok(answer) => answer.lease,
            // The queue is full.
            Err(ClientError::Problem(problem)) if problem.reason == Reason::Busy => None,
            // A short lease expired before its client received it.
            Err(ClientError::Problem(problem))
                if problem.detail.contains("has ended") && (abandons || expires) =>
            {
                None
            }
            Err(error) => panic!("{error}"),
        };

        let Some(lease) = lease else {
            self.count(|outcome| outcome.refused += 1);
            tokio::task::yield_now().await;
            return Ok(());
        };

        self.count(|outcome| outcome.granted += 1);
        if lease.devices.len() > 1 {
            self.count(|outcome| outcome.multi_card += 1);
        }

        if abandons {
            self.count(|outcome| outcome.abandoned += 1);
            return Ok(());
        }

        let takes_less = random.one_in(8);
        self.count(|outcome| outcome.took_less += u64::from(takes_less));

        for device in &lease.devices {
            pause(random).await;
            let wanted = if takes_less {
                device.granted_bytes / 3
            } else {
                device.granted_bytes
            };

            let first = random.below(wanted + 1);
            for bytes in [first, wanted - first] {
                // An expired lease guarantees nothing.
                let is_valid = !expires || requested_at.elapsed() < Duration::from_millis(1500);
                if is_valid && !self.cards.take(pid, &device.uuid, bytes) {
                    self.count(|outcome| outcome.over_commits += 1);
                }
                pause(random).await;
            }
        }

        if random.one_in(50) {
            self.count(|outcome| outcome.took_more += 1);
            self.cards
                .take_more(pid, &lease.devices[0].uuid, (1 + random.below(128)) * MIB);
            pause(random).await;
        }

        if random.one_in(16) {
            return Err(());
        }

        if expires {
            self.count(|outcome| outcome.expired += 1);
            tokio::time::sleep(EXPIRES_AFTER + Duration::from_millis(500)).await;
            self.cards.drop_all(pid);
            return Ok(());
        }

        self.cards.drop_all(pid);
        let released = self
            .persist(async || self.client.release_lease(&lease.id).await)
            .await;
        if !released.is_ok_and(|lease| lease.reason == Some(EndReason::ByOwner)) {
            self.count(|outcome| outcome.lost += 1);
        }

        Ok(())
    }
}

/// Whether the machine is slow. The client then repeats the request with the same key.
fn is_late(error: &ClientError) -> bool {
    match error {
        ClientError::TimedOut { .. } => true,
        ClientError::Problem(problem) => {
            matches!(
                problem.reason,
                Reason::Timeout | Reason::NvmlUnavailable | Reason::NvmlOverdue
            )
        }
        _ => false,
    }
}

/// The largest size in GiB: mostly small, sometimes a whole card, sometimes two cards.
fn max_gib(random: &mut Random) -> u64 {
    [16, 16, 48, 48, 120][usize::try_from(random.below(5)).unwrap()]
}

async fn pause(random: &mut Random) {
    if random.one_in(4) {
        tokio::time::sleep(Duration::from_millis(random.below(4))).await;
    } else {
        tokio::task::yield_now().await;
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

/// Runs a race to its end. All files are in `directory`, except the driver, which is in `drivers`.
pub(crate) fn race(
    program: &Path,
    directory: &Path,
    drivers: &Path,
    config: RaceConfig,
) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let cards = Cards::install(drivers);
        let library = cards.library().to_str().unwrap().to_owned();
        let mut daemon = Daemon::start(program, directory, &["--nvml", &library]);
        let question = model::question(directory, SystemTime::now()).await;
        let client = Client::new(daemon.socket());
        let race = Rc::new(Race {
            cards,
            client,
            question,
            config,
            outcome: RefCell::default(),
            answers: watch::Sender::new(0),
        });

        let mut clients_left = tokio::task::JoinSet::new();
        for number in 0..config.clients {
            clients_left.spawn_local(Rc::clone(&race).run_client(number));
        }

        let mut random = Random(config.seed);
        loop {
            let all_ended = async {
                while let Some(done) = clients_left.join_next().await {
                    done.unwrap();
                }
            };

            let max_answers =
                *race.answers.borrow() + 1 + random.below(config.max_answers_per_daemon);
            let mut answers = race.answers.subscribe();
            tokio::select! {
                () = all_ended => break,
                _ = answers.wait_for(|answers| *answers >= max_answers) => {}
            }

            daemon.kill();
            race.count(|outcome| outcome.kills += 1);
            daemon.start_again();
        }

        // Abandoned leases live for two seconds; process exits end leases at once.
        let until = tokio::time::Instant::now() + Duration::from_secs(60);

        let left = loop {
            let left = race.client.leases().await.unwrap().leases.len();
            let claimed = race
                .client
                .gpus()
                .await
                .unwrap()
                .leased_bytes
                .values()
                .any(|bytes| *bytes > 0);

            if (left == 0 && !claimed) || tokio::time::Instant::now() > until {
                break left + usize::from(claimed);
            }

            tokio::time::sleep(Duration::from_millis(100)).await;
        };

        race.count(|outcome| outcome.leaked += left as u64);
        *race.outcome.borrow()
    })
}
