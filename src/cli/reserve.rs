//! Lease requests. Only the daemon grants leases.

use std::time::{Duration, SystemTime};

use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::{Answer, Problem, Question};
use tokio::time::Instant;

use super::arguments::{ConnectionArguments, FitsArguments, QuestionArguments};
use super::connection::AnswerEffort;
use super::in_process;
use super::output::{self, runtime_problem};
use crate::api::client::{Client, ClientError, block_on};
use crate::api::lease::LeaseRequest;

/// The terms of a requested lease.
#[derive(Debug, Default)]
pub(super) struct LeaseTerms {
    pub(super) ttl: Option<Duration>,
    pub(super) wait: Duration,
    /// The holder; this process if absent.
    pub(super) holder: Option<Holder>,
    /// Whether "tight" counts as "does not fit".
    pub(super) strict: bool,
}

/// Requests the lease of `fits --reserve`.
///
/// This process exits with its answer, so the calling process holds the lease. The programs that
/// the caller starts next belong to its process tree.
pub(super) fn reserve(question: Question, arguments: &FitsArguments) -> Result<Answer, Problem> {
    let caller = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    let holder = match &arguments.holder {
        Some(name) => Holder::Name(name.clone()),
        // Init adopts orphans and never exits, so a lease that it held would last too long.
        None => caller
            .filter(|pid| *pid > 1)
            .map_or_else(|| Holder::Name("fits".to_owned()), Holder::Pid),
    };

    let terms = LeaseTerms {
        ttl: arguments.ttl,
        wait: arguments.wait.unwrap_or_default(),
        holder: Some(holder),
        strict: arguments.strict,
    };

    request_lease(question, &arguments.question, terms, &arguments.connection)
}

/// Asks the daemon for an answer with a lease.
///
/// If the daemon goes away meanwhile, waits for it and repeats the request with the same
/// idempotency key, so that it grants only one lease.
pub(super) fn request_lease(
    mut question: Question,
    arguments: &QuestionArguments,
    terms: LeaseTerms,
    connection: &ConnectionArguments,
) -> Result<Answer, Problem> {
    let everything = async {
        let source = in_process::Source::new(arguments)?;
        source.complete(&mut question).await?;
        let client = connection.client(AnswerEffort::Plan).token(source.token());

        let request = LeaseRequest {
            question,
            ttl_seconds: terms.ttl.map(whole_seconds),
            holder: terms.holder,
            idempotency_key: Some(idempotency_key()),
            wait_seconds: whole_seconds(terms.wait),
            strict: terms.strict,
        };

        send_until_answered(&client, request, terms.wait)
            .await
            .map_err(|error| match error {
                ClientError::Unreachable { .. } => Problem::from(error).hint(
                    "start the daemon, or do without a lease: run --no-lease, fits without --reserve",
                ),
                error => error.into_daemon_problem(),
            })
    };

    let answer = block_on(everything).map_err(|error| runtime_problem(&error))??;
    output::remark(&format!(
        "answered by the daemon at {}",
        connection.socket.display()
    ));

    Ok(answer)
}

/// The minimum wait for a daemon that went away, even if `--wait` ends sooner.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval between attempts to reach a restarting daemon.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Repeats the request until the daemon answers. Fails at once if no daemon was ever reached.
async fn send_until_answered(
    client: &Client,
    mut request: LeaseRequest,
    wait: Duration,
) -> Result<Answer, ClientError> {
    let until = Instant::now() + wait;
    let mut lost_at: Option<Instant> = None;

    loop {
        let error = match client.create_lease(&request).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };

        let now = Instant::now();
        if error.daemon_is_leaving() {
            if lost_at.is_none() {
                output::remark(&format!("{error}; waiting for it to restart"));
            }
            // A daemon that came back and left again restarts the timeout.
            lost_at = Some(now);
        }

        let Some(lost) = lost_at.filter(|_| error.daemon_is_leaving() || error.daemon_is_absent())
        else {
            return Err(error);
        };

        if now >= until.max(lost + RESTART_TIMEOUT) {
            return Err(error);
        }

        tokio::time::sleep(RETRY_INTERVAL).await;
        request.wait_seconds = whole_seconds(until.saturating_duration_since(Instant::now()));
    }
}

/// Returns a unique key, from this process's pid and the time.
fn idempotency_key() -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("hf-mem-probe-{}-{}", std::process::id(), since.as_nanos())
}

/// Returns seconds, rounded up, so that a wait of half a second does not become zero.
fn whole_seconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
}
