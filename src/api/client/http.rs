//! Requests and responses over hyper's HTTP/1.1, one connection a call.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
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

use super::{Client, ClientError, MAX_ANSWER_BYTES};

/// The longest wait until the daemon accepts a connection. Connecting to a Unix socket takes
/// microseconds unless the daemon is at its cap.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The time between two attempts while the kernel's queue is full.
const QUEUE_POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Client {
    /// Sends `body` as JSON and parses the answer, an `A` or a problem document.
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
            .map_err(|error| self.invalid_response(error.to_string()))?;
        let answer = self.bytes(method, path, body, deadline).await?;
        strict_json::from_slice(&answer).map_err(|error| self.invalid_response(error.to_string()))
    }

    /// Returns the body of a successful answer, or the problem.
    pub(super) async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Bytes, ClientError> {
        self.within(deadline, async {
            // A daemon that stops can close a connection before it reads the request. The client
            // then asks the next daemon, and the socket unit's socket queues it until that one
            // starts. It repeats only requests that change nothing.
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

    /// Sends one request and returns the body of its answer.
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

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, connect(&self.socket));
        let stream = connecting
            .await
            .map_err(|_| self.timed_out(CONNECT_DEADLINE))?
            .map_err(|source| ClientError::Unreachable {
                socket: self.socket.clone(),
                source,
            })?;

        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.invalid_response(error.to_string()))?;

        // The task ends with the answer's last byte. The request returns its errors.
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
            .map_err(|error| self.invalid_response(error.to_string()))?;

        sender
            .send_request(request)
            .await
            .map_err(|error| self.transport_error(&error))
    }

    pub(super) fn transport_error(&self, error: &hyper::Error) -> ClientError {
        let closed = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        if closed || has_io_source(error) {
            ClientError::Disconnected {
                socket: self.socket.clone(),
                why: error.to_string(),
            }
        } else {
            self.invalid_response(error.to_string())
        }
    }

    pub(super) async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let collected = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await;

        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| match error.downcast_ref::<hyper::Error>() {
                Some(error) => self.transport_error(error),
                None => self.invalid_response(error.to_string()),
            })
    }

    pub(super) async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(deadline, work)
            .await
            .unwrap_or_else(|_| Err(self.timed_out(deadline)))
    }

    pub(super) fn failure(&self, body: &[u8]) -> ClientError {
        match strict_json::from_slice(body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(error) => {
                self.invalid_response(format!("its error is not a problem document: {error}"))
            }
        }
    }

    fn timed_out(&self, deadline: Duration) -> ClientError {
        ClientError::TimedOut {
            socket: self.socket.clone(),
            deadline,
        }
    }

    pub(super) fn invalid_response(&self, why: String) -> ClientError {
        ClientError::InvalidResponse {
            socket: self.socket.clone(),
            why,
        }
    }
}

/// Returns whether the connection itself failed, for example by a reset.
fn has_io_source(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<io::Error>)
}

/// Connects, and waits while the kernel's queue of callers is full. A blocking `connect` would wait
/// itself; this one fails at once.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(QUEUE_POLL_INTERVAL).await;
            }
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_on;
    use super::*;

    #[test]
    fn reads_are_retried_when_daemon_leaves() {
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
                matches!(released, ClientError::Disconnected { .. }),
                "a request that changes something is sent once: {released}"
            );
            serving.await.unwrap();
        })
        .unwrap();
    }

    #[test]
    fn missing_socket_fails_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(folder.path().join("none.sock"));
        let error = block_on(client.health()).unwrap().unwrap_err();
        assert!(error.daemon_is_absent(), "{error}");
    }

    #[tokio::test]
    async fn connect_waits_for_full_queue() {
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
