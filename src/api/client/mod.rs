//! The typed client with which the command line and tests call the daemon.
//!
//! Each call opens one connection, without a pool: a command asks once and ends. A failed call
//! returns a [`ClientError`], which says whether there is no daemon at all, so that a caller can
//! answer without one.

mod error;
mod http;
mod watch;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_mem_core::report::TogetherAnswer;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::{Answer, Question};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::lease::{LeaseRequest, LeasesAnswer, RenewRequest};
use super::peer::HubToken;
use super::status::{GpusAnswer, HealthAnswer, NvmlReleaseAnswer, NvmlReleaseRequest};

pub use error::ClientError;
pub use watch::Lines;

/// The default deadline for an answer: the daemon's own deadline and a little more.
const ANSWER_DEADLINE: Duration = Duration::from_secs(65);

/// The largest answer, or line of a stream, that the client reads.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
    token: Option<HubToken>,
}

/// Runs one call to its end on this thread, as a command does. A runtime with one thread starts in
/// microseconds.
pub fn block_on<T>(call: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(call))
}

impl Client {
    /// Creates a client of the daemon at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            deadline: ANSWER_DEADLINE,
            token: None,
        }
    }

    /// Sets the deadline for whole answers.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets a Hub token of your own, which the daemon then uses instead of its token.
    pub fn token(mut self, token: Option<HubToken>) -> Self {
        self.token = token;
        self
    }

    /// The daemon's socket.
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

    /// `GET /v1/gpus?fresh=true`: waits for a reading that begins now. A daemon that does not know
    /// the parameter answers with its last reading.
    pub async fn fresh_gpus(&self) -> Result<GpusAnswer, ClientError> {
        self.get("/v1/gpus?fresh=true").await
    }

    /// `GET /v1/health`.
    pub async fn health(&self) -> Result<HealthAnswer, ClientError> {
        self.get("/v1/health").await
    }

    /// `POST /v1/leases`. The wait for memory is added to the deadline.
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
        String::from_utf8(body.to_vec()).map_err(|error| self.invalid_response(error.to_string()))
    }

    /// `GET /v1/gpus/watch`. The deadline applies to the response's head; the stream has none.
    pub async fn watch_gpus(&self) -> Result<Lines, ClientError> {
        let response = self
            .within(
                self.deadline,
                self.send(Method::GET, "/v1/gpus/watch", None),
            )
            .await?;

        if response.status().is_success() {
            Ok(Lines::new(self.clone(), response.into_body()))
        } else {
            let body = self.within(self.deadline, self.body(response)).await?;
            Err(self.failure(&body))
        }
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.call(Method::GET, path, None::<&()>, self.deadline)
            .await
    }
}

/// Returns `text` as one segment of a path. It escapes everything that could end the segment or
/// leave it.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_one_segment() {
        assert_eq!(segment("../health"), "..%2Fhealth");
        assert_eq!(segment("a b"), "a%20b");
    }
}
