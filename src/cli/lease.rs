//! `lease`: lists, renews and releases leases.

use hf_mem_core::report::Problem;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::arguments::{LeaseAction, LeaseArguments};
use super::connection::AnswerEffort;
use super::output::Output;
use super::{daemon_only, text};
use crate::api::lease::RenewRequest;

/// Runs `lease`.
pub(super) fn run(arguments: &LeaseArguments) -> u8 {
    match &arguments.action {
        LeaseAction::List { connection } => {
            let output = Output {
                json: connection.json,
            };
            finish(
                output,
                daemon_only::call(connection.client(AnswerEffort::ReadOrRecord).leases()),
                text::lease::list,
            )
        }
        LeaseAction::Renew {
            id,
            ttl,
            connection,
        } => {
            let output = Output {
                json: connection.json,
            };

            let request = RenewRequest {
                ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
            };

            finish(
                output,
                daemon_only::call(
                    connection
                        .client(AnswerEffort::ReadOrRecord)
                        .renew_lease(id, request),
                ),
                renewed_text,
            )
        }
        LeaseAction::Release { id, connection } => {
            let output = Output {
                json: connection.json,
            };

            finish(
                output,
                daemon_only::call(
                    connection
                        .client(AnswerEffort::ReadOrRecord)
                        .release_lease(id),
                ),
                released_text,
            )
        }
    }
}

fn finish<T: Serialize + DeserializeOwned>(
    output: Output,
    result: Result<T, Problem>,
    as_text: impl FnOnce(&T) -> String,
) -> u8 {
    match result {
        Ok(answer) => {
            output.data(&answer, as_text);
            Reason::Fits.exit_code()
        }
        Err(problem) => output.problem(&problem),
    }
}

fn renewed_text(lease: &LeaseAnswer) -> String {
    format!(
        "lease {} ends at {} unless you renew it\n",
        lease.id, lease.expires_at
    )
}

fn released_text(lease: &LeaseAnswer) -> String {
    format!("lease {} has ended\n", lease.id)
}
