//! The typed client: what the command line and tests speak to the daemon with.
//!
//! One connection a call, over hyper's HTTP/1.1 without a pool: a command asks once and ends. Every
//! failure comes back as a [`ClientError`] that knows whether the daemon is simply not there, so
//! that a caller may answer without it.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use hf_mem_core::report::TogetherAnswer;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem, Question};
use hf_mem_core::strict_json;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use super::peer::HubToken;
use super::status::{GpusAnswer, HealthAnswer, NvmlReleaseAnswer, NvmlReleaseRequest, WatchLine};

/// Longest wait for the daemon to take a connection. Connecting to a Unix socket takes microseconds
/// unless the daemon is at its cap.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks at a queue that is full.
const QUEUE_LOOK: Duration = Duration::from_millis(5);

/// Longest wait for an answer when nothing else is said: the daemon's own deadline and a little
/// more.
const ANSWER_DEADLINE: Duration = Duration::from_secs(65);

/// The most that is read of one answer or of one line of a stream.
const ANSWER_CAP_BYTES: usize = 64 << 20;

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
    token: Option<HubToken>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon answers at {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone took the connection, but no answer came in time.
    #[error("the daemon at {} did not answer within {}", socket.display(), humantime::format_duration(*deadline))]
    Late {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        deadline: Duration,
    },
    /// The daemon went away before it had answered: killed, or restarted.
    #[error("the daemon at {} went away before it answered: {why}", socket.display())]
    Cut {
        /// The socket.
        socket: PathBuf,
        /// How it was seen.
        why: String,
    },
    /// What came is no answer of this program.
    #[error("what answers at {} does not speak this program's language: {why}", socket.display())]
    NotOurs {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The daemon says what is wrong.
    #[error("{0}")]
    Problem(Box<Problem>),
}

impl ClientError {
    /// Whether the daemon was there and is going or gone: what was asked may be asked again of the
    /// next one.
    pub fn daemon_is_leaving(&self) -> bool {
        match self {
            Self::Cut { .. } => true,
            // It was killed before it had accepted the connection.
            Self::Unreachable { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                )
            }
            Self::Problem(problem) => problem.reason == Reason::DaemonStopping,
            _ => false,
        }
    }

    /// Whether no daemon runs there at all, so that the question may be answered without one.
    pub fn daemon_is_absent(&self) -> bool {
        let Self::Unreachable { source, .. } = self else {
            return false;
        };

        matches!(
            source.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotADirectory
        )
    }

    /// As a problem of a call that nothing but the daemon can answer: its cures do not go without
    /// one.
    pub fn of_the_daemon_alone(self) -> Problem {
        let hint = match &self {
            Self::Problem(problem) => return problem.as_ref().clone(),
            Self::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "your user may not connect: it must be in the socket's group (`hf-mem-probe` unless configured \
                 otherwise); log in again after being added"
            }
            Self::Unreachable { .. } => {
                "start it with `systemctl start hf-mem-probe.socket` or `hf-mem-probe daemon`, or name its socket with \
                 --socket"
            }
            Self::Cut { .. } => "ask again; see `journalctl -u hf-mem-probe` for why it ended",
            Self::Late { .. } => {
                "it may be stopped, or busy: see `systemctl status hf-mem-probe`; --timeout sets how long to wait"
            }
            Self::NotOurs { .. } => {
                "another program or another version may listen there; check --socket"
            }
        };

        Problem::new(Reason::DaemonUnreachable, self.to_string()).hint(hint)
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let alone = match &error {
            ClientError::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                "; or ask without it and without the leases that it knows of (--local)"
            }
            ClientError::Unreachable { .. } | ClientError::Late { .. } => {
                "; or ask without it (--local)"
            }
            ClientError::Cut { .. } | ClientError::NotOurs { .. } | ClientError::Problem(_) => "",
        };

        let mut problem = error.of_the_daemon_alone();
        if let Some(hint) = &mut problem.hint {
            hint.push_str(alone);
        }

        problem
    }
}

/// Runs one call to its end on this thread: what a command does. A runtime for one thread starts in
/// microseconds.
pub fn block_on<T>(call: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(call))
}

impl Client {
    /// A client of the daemon at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            deadline: ANSWER_DEADLINE,
            token: None,
        }
    }

    /// The same with another deadline for whole answers.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same with a Hub token of the caller's own, which the daemon then uses instead of its
    /// own.
    pub fn token(mut self, token: Option<HubToken>) -> Self {
        self.token = token;
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `POST /v1/fits` with one question.
    pub async fn fits(&self, question: &Question) -> Result<Answer, ClientError> {
        self.call(Method::POST, "/v1/fits", Some(question), self.deadline)
            .await
    }

    /// `POST /v1/fits` with several questions that must fit together.
    pub async fn fits_together(
        &self,
        questions: &[Question],
    ) -> Result<TogetherAnswer, ClientError> {
        let body = serde_json::json!({ "questions": questions });
        self.call(Method::POST, "/v1/fits", Some(&body), self.deadline)
            .await
    }

    /// `POST /v1/estimates`.
    pub async fn estimate(&self, question: &Question) -> Result<Answer, ClientError> {
        self.call(Method::POST, "/v1/estimates", Some(question), self.deadline)
            .await
    }

    /// `GET /v1/gpus`.
    pub async fn gpus(&self) -> Result<GpusAnswer, ClientError> {
        self.get("/v1/gpus").await
    }

    /// `GET /v1/gpus?fresh=true`: by a reading that begins now. A daemon that does not know the
    /// word answers by its last.
    pub async fn fresh_gpus(&self) -> Result<GpusAnswer, ClientError> {
        self.get("/v1/gpus?fresh=true").await
    }

    /// `GET /v1/health`.
    pub async fn health(&self) -> Result<HealthAnswer, ClientError> {
        self.get("/v1/health").await
    }

    /// `POST /v1/leases`; the time that it may wait for memory comes on top of the deadline.
    pub async fn create_lease(&self, request: &LeaseRequest) -> Result<Answer, ClientError> {
        let deadline = self
            .deadline
            .saturating_add(Duration::from_secs(request.wait_seconds));
        self.call(Method::POST, "/v1/leases", Some(request), deadline)
            .await
    }

    /// `GET /v1/leases`.
    pub async fn leases(&self) -> Result<LeasesAnswer, ClientError> {
        self.get("/v1/leases").await
    }

    /// `GET /v1/leases/{id}`.
    pub async fn lease(&self, id: &str) -> Result<LeaseAnswer, ClientError> {
        self.get(&format!("/v1/leases/{}", segment(id))).await
    }

    /// `POST /v1/leases/{id}/renew`.
    pub async fn renew_lease(
        &self,
        id: &str,
        request: RenewRequest,
    ) -> Result<LeaseAnswer, ClientError> {
        self.call(
            Method::POST,
            &format!("/v1/leases/{}/renew", segment(id)),
            Some(&request),
            self.deadline,
        )
        .await
    }

    /// `DELETE /v1/leases/{id}`.
    pub async fn release_lease(&self, id: &str) -> Result<LeaseAnswer, ClientError> {
        self.call(
            Method::DELETE,
            &format!("/v1/leases/{}", segment(id)),
            None::<&()>,
            self.deadline,
        )
        .await
    }

    /// `POST /v1/nvml/release`.
    pub async fn release_nvml(
        &self,
        seconds: Option<u64>,
    ) -> Result<NvmlReleaseAnswer, ClientError> {
        self.call(
            Method::POST,
            "/v1/nvml/release",
            Some(&NvmlReleaseRequest { seconds }),
            self.deadline,
        )
        .await
    }

    /// `GET /metrics`.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let body = self
            .bytes(Method::GET, "/metrics", None, self.deadline)
            .await?;
        String::from_utf8(body.to_vec()).map_err(|error| self.not_ours(error.to_string()))
    }

    /// Follows `GET /v1/gpus/watch`: the deadline holds for the first answer, the stream itself has
    /// none.
    pub async fn watch_gpus(&self) -> Result<Lines, ClientError> {
        let response = self
            .within(
                self.deadline,
                self.send(Method::GET, "/v1/gpus/watch", None),
            )
            .await?;

        if response.status().is_success() {
            Ok(Lines {
                client: self.clone(),
                body: response.into_body(),
                pending: Vec::new(),
            })
        } else {
            let body = self.within(self.deadline, self.body(response)).await?;
            Err(self.failure(&body))
        }
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.call(Method::GET, path, None::<&()>, self.deadline)
            .await
    }

    /// Any call: `body` as JSON out, an `A` or a problem document back.
    pub async fn call<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<A, ClientError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| self.not_ours(error.to_string()))?;
        let answer = self.bytes(method, path, body, deadline).await?;
        strict_json::from_slice(&answer).map_err(|error| self.not_ours(error.to_string()))
    }

    /// The body of a success, or the problem.
    async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Bytes, ClientError> {
        self.within(deadline, async {
            // A daemon that stops may close a connection whose request it has not read yet: the
            // next one is asked, for which the socket unit's socket keeps the caller waiting. Only
            // what changes nothing is asked twice.
            if method == Method::GET || matches!(path, "/v1/fits" | "/v1/estimates") {
                match self.exchange(method.clone(), path, body.clone()).await {
                    Err(error) if error.daemon_is_leaving() => {}
                    answered => return answered,
                }
            }
            self.exchange(method, path, body).await
        })
        .await
    }

    /// One request, and the body of its answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ClientError> {
        let response = self.send(method, path, body).await?;
        let success = response.status().is_success();
        let body = self.body(response).await?;

        if success {
            Ok(body)
        } else {
            Err(self.failure(&body))
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, connect(&self.socket));
        let stream = connecting
            .await
            .map_err(|_| self.late(CONNECT_DEADLINE))?
            .map_err(|source| ClientError::Unreachable {
                socket: self.socket.clone(),
                source,
            })?;

        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.not_ours(error.to_string()))?;

        // Ends with the answer's last byte; its errors reach the caller through the request.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }

        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }

        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.not_ours(error.to_string()))?;

        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        let gone = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        if gone || has_io_source(error) {
            ClientError::Cut {
                socket: self.socket.clone(),
                why: error.to_string(),
            }
        } else {
            self.not_ours(error.to_string())
        }
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let collected = Limited::new(response.into_body(), ANSWER_CAP_BYTES)
            .collect()
            .await;

        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| match error.downcast_ref::<hyper::Error>() {
                Some(error) => self.broken(error),
                None => self.not_ours(error.to_string()),
            })
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(deadline, work)
            .await
            .unwrap_or_else(|_| Err(self.late(deadline)))
    }

    fn failure(&self, body: &[u8]) -> ClientError {
        match strict_json::from_slice(body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(error) => self.not_ours(format!("its failure is no problem document: {error}")),
        }
    }

    fn late(&self, deadline: Duration) -> ClientError {
        ClientError::Late {
            socket: self.socket.clone(),
            deadline,
        }
    }

    fn not_ours(&self, why: String) -> ClientError {
        ClientError::NotOurs {
            socket: self.socket.clone(),
            why,
        }
    }
}

/// Whether the connection itself failed, as by a reset.
fn has_io_source(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<io::Error>)
}

/// `text` as one segment of a path: whatever could end it or leave it is escaped.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

/// The lines of a watch stream.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    body: Incoming,
    pending: Vec<u8>,
}

impl Lines {
    /// The next reading; `None` when the daemon stopped. A line may be a problem: the devices
    /// cannot be read for now.
    pub async fn next(&mut self) -> Result<Option<Result<WatchLine, Problem>>, ClientError> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return match strict_json::from_slice(&line) {
                    Ok(answer) => Ok(Some(Ok(answer))),
                    Err(error) => strict_json::from_slice(&line)
                        .map(|problem| Some(Err(problem)))
                        .map_err(|_| self.client.not_ours(error.to_string())),
                };
            }
            if self.pending.len() > ANSWER_CAP_BYTES {
                return Err(self.client.not_ours("a line without end".to_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.broken(&error)),
                Some(Ok(frame)) => {
                    if let Some(chunk) = frame.data_ref() {
                        self.pending.extend_from_slice(chunk);
                    }
                }
            }
        }
    }
}

/// Connects; where the kernel's queue of callers is full, once there is a place in it. A blocking
/// call would wait for that, this one fails at once.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(QUEUE_LOOK).await;
            }
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_daemon_is_told_from_a_forbidden_one() {
        let error = |kind: io::ErrorKind| ClientError::Unreachable {
            socket: "/x".into(),
            source: kind.into(),
        };

        assert!(error(io::ErrorKind::NotFound).daemon_is_absent());
        assert!(error(io::ErrorKind::ConnectionRefused).daemon_is_absent());
        assert!(!error(io::ErrorKind::PermissionDenied).daemon_is_absent());
        let problem = Problem::from(error(io::ErrorKind::PermissionDenied));
        assert_eq!(problem.reason, Reason::DaemonUnreachable);
        assert!(problem.hint.unwrap().contains("group"));
    }

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(segment("../health"), "..%2Fhealth");
        assert_eq!(segment("a b"), "a%20b");
    }

    #[test]
    fn a_question_that_a_leaving_daemon_did_not_read_is_asked_of_the_next() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let client = Client::new(&path);

        block_on(async {
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let serving = tokio::spawn(async move {
                for leaving in [true, false, true] {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    if leaving {
                        continue;
                    }

                    let mut request = [0; 4096];
                    assert!(stream.read(&mut request).await.unwrap() > 0);
                    let answer =
                        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });

            assert_eq!(client.metrics().await.unwrap(), "ok");
            let released = client.release_lease("x").await.unwrap_err();
            assert!(
                matches!(released, ClientError::Cut { .. }),
                "what changes something is asked once: {released}"
            );
            serving.await.unwrap();
        })
        .unwrap();
    }

    #[test]
    fn a_missing_socket_is_reported_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(folder.path().join("none.sock"));
        let error = block_on(client.health()).unwrap().unwrap_err();
        assert!(error.daemon_is_absent(), "{error}");
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut before = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => before.push(stream),
                Err(error) => break error,
            }
        };

        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut waits = std::pin::pin!(connect(&path));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(listener.accept().await.unwrap());
        waits.await.unwrap();
    }
}
