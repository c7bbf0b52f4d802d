//! Calls that only the daemon can answer.

use std::future::Future;

use hf_mem_core::report::Problem;

use super::output::runtime_problem;
use crate::api::client::{ClientError, block_on};

/// Runs `call`. Its errors do not suggest `--local`, because only the daemon can answer.
pub(super) fn call<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, Problem> {
    let result = block_on(call).map_err(|error| runtime_problem(&error))?;
    result.map_err(ClientError::into_daemon_problem)
}
