//! A test double of the service, the daemon around it, and a client that sends raw bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hf_mem_core::device::Snapshot;
use hf_mem_core::report::TogetherAnswer;
use hf_mem_core::report::answer::{Answer, ModelAnswer, Shortfall, Verdict};
use hf_mem_core::report::lease::State;
use hf_mem_core::report::lease::{Holder, LeaseAnswer, LeasedDevice};
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ModelQuestion;
use hf_mem_core::report::{Problem, Question, SCHEMA_VERSION};
use hf_mem_probe::accounts::Accounts;
use hf_mem_probe::admission::server_limits::ServerLimits;
use hf_mem_probe::api::client::Client;
use hf_mem_probe::api::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use hf_mem_probe::api::peer::Caller;
use hf_mem_probe::api::status::{
    GpusAnswer, HealthAnswer, HealthPart, HealthStatus, NvmlReleaseAnswer,
};
use hf_mem_probe::config::{Config, SocketConfig};
use hf_mem_probe::daemon::{Daemon, Ended, Notifier, Options, RunError, Signal, run, socket};
use hf_mem_probe::metrics::{HubOutcome, Metrics};
use hf_mem_probe::server::service::{BodyReservation, SerializedAnswer, Service};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

/// A service whose answers depend on the model's name alone.
///
/// The answer to `known/x` is cached, `slow/...` waits for [`Double::gate`], `panic/...` panics,
/// `gone/...` is a problem, and `wants/token` needs the caller's token.
pub(crate) struct Double {
    /// Each permit lets one slow question continue.
    pub(crate) gate: Semaphore,
    /// Counts questions that have begun.
    pub(crate) begun: watch::Sender<u64>,
    /// Changes the devices.
    pub(crate) changes: watch::Sender<u64>,
    /// The error of [`Service::liveness`].
    pub(crate) stuck: Mutex<Option<String>>,
    /// Counts reloaded configurations.
    pub(crate) reloads: watch::Sender<u64>,
    /// Whether [`Service::stop`] was called.
    pub(crate) stopped: Mutex<bool>,
}

impl Default for Double {
    fn default() -> Self {
        Self {
            gate: Semaphore::new(0),
            begun: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            stuck: Mutex::default(),
            reloads: watch::Sender::new(0),
            stopped: Mutex::default(),
        }
    }
}

pub(crate) fn question(repo: &str) -> Question {
    let model = ModelQuestion {
        repo: repo.to_owned(),
        ..ModelQuestion::default()
    };

    Question {
        model,
        ..Question::default()
    }
}

fn answer(repo: &str) -> Answer {
    Answer {
        schema_version: SCHEMA_VERSION,
        verdict: Some(Verdict::Fits),
        reason: Some(Reason::Fits.into()),
        message: "It fits.".to_owned(),
        model: ModelAnswer {
            repo: repo.to_owned(),
            ..ModelAnswer::default()
        },
        engine: None,
        workload: None,
        requirement: None,
        placement: None,
        alternatives: Vec::new(),
        suggestions: Vec::new(),
        short_by_bytes: Shortfall::Bytes(0),
        lease: None,
        sampled_at: None,
        stale: false,
        assumptions: Vec::new(),
        warnings: Vec::new(),
        files: None,
        frontier: None,
    }
}

fn lease(id: &str, uid: u32, ttl_seconds: u64) -> LeaseAnswer {
    LeaseAnswer {
        id: id.to_owned(),
        model: "a/b".to_owned(),
        holder: Holder::Name("test".to_owned()),
        uid,
        granted_at: "2026-11-23T15:04:05Z".to_owned(),
        expires_at: "2026-11-23T15:06:05Z".to_owned(),
        ttl_seconds,
        devices: vec![LeasedDevice {
            uuid: "GPU-1".to_owned(),
            granted_bytes: 7,
            visible_bytes: 0,
            claimed_bytes: 7,
        }],
        state: State::Granted,
        reason: None,
        expires_in_seconds: ttl_seconds,
        note: hf_mem_probe::leases::ADVISORY.to_owned(),
    }
}

impl Double {
    async fn answered(&self, caller: Caller, question: Question) -> Result<Answer, Problem> {
        self.begun.send_modify(|begun| *begun += 1);
        let repo = question.model.repo;
        if repo.starts_with("slow/") {
            self.gate.acquire().await.unwrap().forget();
        }

        assert!(!repo.starts_with("panic/"), "this model panics");
        if repo.starts_with("gone/") {
            let mut problem =
                Problem::new(Reason::RateLimited, "the Hub asks to wait").hint("wait");
            problem.retry_after_seconds = Some(7);
            return Err(problem);
        }

        if repo == "wants/token" && caller.token.is_none_or(|token| token.reveal() != "hf_mine") {
            return Err(Problem::new(Reason::Gated, "this needs a token"));
        }

        if let Some(count) = repo.strip_prefix("large/") {
            let mut large = answer(&repo);
            large.message = "x".repeat(count.parse().unwrap());
            return Ok(large);
        }

        Ok(answer(&repo))
    }
}

impl Service for Double {
    async fn cached_answer(
        &self,
        _caller: &Caller,
        body: &[u8],
    ) -> Result<Option<SerializedAnswer>, Problem> {
        let body = std::str::from_utf8(body).unwrap_or_default();
        assert!(!body.contains("known/panic"), "this model panics");
        Ok(body
            .contains("\"known/x\"")
            .then(|| SerializedAnswer::new(&answer("known/x"))))
    }

    async fn fits(
        &self,
        caller: Caller,
        question: Question,
        _body: Option<bytes::Bytes>,
    ) -> Result<SerializedAnswer, Problem> {
        Ok(SerializedAnswer::new(
            &self.answered(caller, question).await?,
        ))
    }

    async fn fits_together(
        &self,
        caller: Caller,
        questions: Vec<Question>,
    ) -> Result<TogetherAnswer, Problem> {
        let mut answers = Vec::new();
        for question in questions {
            answers.push(self.answered(caller.clone(), question).await?);
        }

        let (verdict, reason, message) =
            (Verdict::Fits, Reason::Fits.into(), "They fit.".to_owned());
        Ok(TogetherAnswer {
            schema_version: SCHEMA_VERSION,
            verdict,
            reason,
            message,
            answers,
        })
    }

    async fn estimate(&self, caller: Caller, question: Question) -> Result<Answer, Problem> {
        self.answered(caller, question).await
    }

    async fn gpus(&self, fresh: bool) -> Result<GpusAnswer, Problem> {
        let snapshot = Snapshot {
            source: if fresh { "read now" } else { "declared" }.to_owned(),
            sampled_at: SystemTime::UNIX_EPOCH,
            stale: false,
            driver_version: Some(self.changes.borrow().to_string()),
            devices: Vec::new(),
            links: Vec::new(),
            host: None,
        };

        Ok(GpusAnswer {
            schema_version: SCHEMA_VERSION,
            snapshot,
            leased_bytes: BTreeMap::new(),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn health(&self) -> HealthAnswer {
        let reason = Some("libnvidia-ml.so.1 is not there".to_owned());
        HealthAnswer::of(
            vec![HealthPart {
                name: "devices".to_owned(),
                status: HealthStatus::Degraded,
                reason,
            }],
            3,
        )
    }

    async fn create_lease(
        &self,
        caller: Caller,
        request: LeaseRequest,
        _reservation: BodyReservation,
    ) -> Result<Answer, Problem> {
        let uid = caller.peer.uid;
        let mut answer = self.answered(caller, request.question).await?;
        answer.lease = Some(lease("new", uid, request.ttl_seconds.unwrap_or(120)));
        Ok(answer)
    }

    async fn leases(&self, caller: Caller) -> Result<LeasesAnswer, Problem> {
        Ok(LeasesAnswer {
            schema_version: SCHEMA_VERSION,
            leases: vec![lease("l-1", caller.peer.uid, 120)],
            waiting: Vec::new(),
            note: String::new(),
            warnings: Vec::new(),
        })
    }

    async fn lease(&self, caller: Caller, id: String) -> Result<LeaseAnswer, Problem> {
        if id == "l-1" {
            Ok(lease(&id, caller.peer.uid, 120))
        } else {
            Err(Problem::new(Reason::NotFound, "no lease"))
        }
    }

    async fn renew_lease(
        &self,
        caller: Caller,
        id: String,
        request: RenewRequest,
    ) -> Result<LeaseAnswer, Problem> {
        Ok(lease(
            &id,
            caller.peer.uid,
            request.ttl_seconds.unwrap_or(120),
        ))
    }

    async fn release_lease(&self, caller: Caller, id: String) -> Result<LeaseAnswer, Problem> {
        Ok(lease(&id, caller.peer.uid, 0))
    }

    async fn release_nvml(
        &self,
        _caller: Caller,
        seconds: u64,
    ) -> Result<NvmlReleaseAnswer, Problem> {
        Ok(NvmlReleaseAnswer {
            schema_version: SCHEMA_VERSION,
            released_until: format!("in {seconds}"),
        })
    }

    fn observe(&self, metrics: &Metrics) {
        metrics.set_leases(1, 0);
        metrics.set_hub_requests(HubOutcome::Ok, 1);
    }

    async fn liveness(&self) -> Result<(), String> {
        self.stuck.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn reload(&self, config: Config) -> Result<Vec<String>, Problem> {
        self.reloads.send_modify(|count| *count += 1);
        if config.hub.endpoint == "http://hangs" {
            std::future::pending::<()>().await;
        }

        if config.hub.offline {
            Ok(vec!["socket.path".to_owned()])
        } else {
            Ok(Vec::new())
        }
    }

    async fn stop(&self) {
        *self.stopped.lock().unwrap() = true;
    }
}

/// Longer than any test takes, shorter than the default deadlines.
const PATIENCE: Duration = Duration::from_secs(15);

/// A daemon in a temporary folder.
pub(crate) struct Running {
    pub(crate) folder: TempDir,
    pub(crate) service: Arc<Double>,
    pub(crate) signals: mpsc::Sender<Signal>,
    pub(crate) notifications: mpsc::UnboundedReceiver<String>,
    pub(crate) ended: JoinHandle<Result<Ended, RunError>>,
}

/// Limits far above what a test needs. A test lowers the one that it tests.
pub(crate) fn default_limits() -> ServerLimits {
    ServerLimits::new(&SocketConfig::default(), Duration::from_secs(3600))
}

pub(crate) fn start(limits: ServerLimits) -> Running {
    start_with(limits, None, None)
}

pub(crate) fn start_with(
    limits: ServerLimits,
    watchdog: Option<Duration>,
    config_text: Option<&str>,
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let config = SocketConfig {
        path: folder.path().join("api.sock"),
        ..SocketConfig::default()
    };

    let config_file = config_text.map(|text| {
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        path
    });

    let listening = socket::bind(&config, &Accounts::default()).unwrap();
    let options = Options {
        config_file,
        ..Options::default()
    };

    let (signals, received_signals) = mpsc::channel(4);
    let (sender, notifications) = mpsc::unbounded_channel();
    let notifier = Notifier::to(move |state| drop(sender.send(state.to_owned())), watchdog);
    let service = Arc::new(Double::default());
    let daemon = Daemon {
        service: Arc::clone(&service),
        metrics: Arc::default(),
        limits,
        notifier,
        options,
    };

    let ended = tokio::spawn(run(daemon, listening, received_signals));
    Running {
        folder,
        service,
        signals,
        notifications,
        ended,
    }
}

impl Running {
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket()).deadline(PATIENCE)
    }

    pub(crate) async fn stop(self) -> Ended {
        self.signals.send(Signal::Stop("SIGTERM")).await.unwrap();
        self.ended.await.unwrap().unwrap()
    }

    /// Waits until `count` questions have begun.
    pub(crate) async fn begun(&self, count: u64) {
        self.service
            .begun
            .subscribe()
            .wait_for(|begun| *begun >= count)
            .await
            .unwrap();
    }

    /// Returns the next message to the service manager that starts with `name`.
    pub(crate) async fn notification(&mut self, name: &str) -> String {
        loop {
            let state = self.notifications.recv().await.unwrap();
            if state.starts_with(name) {
                return state;
            }
        }
    }
}

/// The parsed response to raw bytes.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Raw {
    fn parse(text: &str) -> Self {
        let (headers, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = headers
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0);

        Self {
            status,
            headers: headers.to_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Returns the body as a problem, after checks that apply to all problems.
    pub(crate) fn problem(&self) -> Problem {
        assert!(
            self.headers
                .contains("content-type: application/problem+json"),
            "{self:?}"
        );

        assert!(self.headers.contains("x-request-id: "), "{self:?}");
        let problem: Problem = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem.status, self.status);

        assert_eq!(
            problem.kind,
            format!("urn:hf-mem-probe:problem:{}", problem.reason.word())
        );
        assert!(!problem.title.is_empty() && !problem.detail.is_empty());

        problem
    }
}

/// Sends `bytes` and reads until the daemon closes.
pub(crate) async fn raw(socket: &Path, bytes: &[u8]) -> Raw {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // The daemon can answer and close before it has read everything. Some tests need that.
    let _refused_early = stream.write_all(bytes).await;
    Raw::parse(&rest(&mut stream).await)
}

/// Reads until the end of the connection.
pub(crate) async fn rest(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text))
        .await
        .unwrap();
    String::from_utf8(text).unwrap()
}

/// Returns a whole request with `connection: close`.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
