//! Asking what only the daemon can say.

use std::future::Future;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use crate::api::client::{ClientError, block_on};

/// Runs `call` to its end. No cure of a failure is to go without the daemon.
pub(super) fn call<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, Problem> {
    let done = block_on(call)
        .map_err(|error| Problem::new(Reason::Internal, format!("no runtime: {error}")))?;
    done.map_err(ClientError::into_daemon_problem)
}
