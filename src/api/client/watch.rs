//! The lines of a watch stream.

use hf_mem_core::report::Problem;
use hf_mem_core::strict_json;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Client, ClientError, MAX_ANSWER_BYTES};
use crate::api::status::WatchLine;

/// The lines of a watch stream.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    body: Incoming,
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(client: Client, body: Incoming) -> Self {
        Self {
            client,
            body,
            pending: Vec::new(),
        }
    }

    /// Returns the next line; `None` when the daemon has stopped. A line can be a problem while the
    /// daemon cannot read the devices.
    pub async fn next(&mut self) -> Result<Option<Result<WatchLine, Problem>>, ClientError> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return match strict_json::from_slice(&line) {
                    Ok(answer) => Ok(Some(Ok(answer))),
                    Err(error) => strict_json::from_slice(&line)
                        .map(|problem| Some(Err(problem)))
                        .map_err(|_| self.client.invalid_response(error.to_string())),
                };
            }
            if self.pending.len() > MAX_ANSWER_BYTES {
                return Err(self
                    .client
                    .invalid_response("a line is too long".to_owned()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.transport_error(&error)),
                Some(Ok(frame)) => {
                    if let Some(chunk) = frame.data_ref() {
                        self.pending.extend_from_slice(chunk);
                    }
                }
            }
        }
    }
}
