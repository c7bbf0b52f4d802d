//! Asking for a lease: only the daemon can give one.

use std::time::{Duration, SystemTime};

use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem, Question};
use tokio::time::Instant;

use super::arguments::{ConnectionArguments, FitsArguments, QuestionArguments};
use super::connection::AnswerEffort;
use super::{in_process, output};
use crate::api::client::{Client, ClientError, block_on};
use crate::api::lease::LeaseRequest;

/// How a lease is asked for.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) ttl: Option<Duration>,
    pub(super) wait: Duration,
    /// Who holds it; this process when absent.
    pub(super) holder: Option<Holder>,
    /// Whether "tight" is a no.
    pub(super) strict: bool,
}

/// `fits --reserve`. This process ends with its answer, so the one that called it holds the lease:
/// what it starts next is of its tree.
pub(super) fn reserve(question: Question, arguments: &FitsArguments) -> Result<Answer, Problem> {
    let caller = || rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    let holder = match &arguments.holder {
        Some(name) => Holder::Name(name.clone()),
        // Init adopts what its caller left behind, and never dies: such a lease would.
        None => caller()
            .filter(|pid| *pid > 1)
            .map_or_else(|| Holder::Name("fits".to_owned()), Holder::Pid),
    };

    let terms = Terms {
        ttl: arguments.ttl,
        wait: arguments.wait.unwrap_or_default(),
        holder: Some(holder),
        strict: arguments.strict,
    };

    lease(question, &arguments.question, terms, &arguments.connection)
}

/// Asks the daemon for an answer that is held. A daemon that goes away meanwhile is waited for, and
/// asked again: with the same key, so that nothing is promised twice.
pub(super) fn lease(
    mut question: Question,
    arguments: &QuestionArguments,
    terms: Terms,
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
            idempotency_key: Some(key()),
            wait_seconds: whole_seconds(terms.wait),
            strict: terms.strict,
        };

        persist(&client, request, terms.wait).await.map_err(|error| match error {
            ClientError::Unreachable { .. } => Problem::from(error).hint(
                "only the daemon gives leases: start it, or go without one (run --no-lease, fits without --reserve)",
            ),
            error => error.into_daemon_problem(),
        })
    };

    let answer = block_on(everything)
        .map_err(|error| Problem::new(Reason::Internal, format!("no runtime: {error}")))??;
    output::remark(&format!(
        "answered by the daemon at {}",
        connection.socket.display()
    ));

    Ok(answer)
}

/// How long a daemon that went away is waited for, also where less is left of the wait for memory.
const RESTART_PATIENCE: Duration = Duration::from_secs(30);
/// How soon one that is not there yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Asks until there is an answer. Who never reached a daemon is told so at once.
async fn persist(
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
                output::remark(&format!("{error}; waiting for the next one"));
            }
            // Each time anew: a daemon that came back and left again was there.
            lost_at = Some(now);
        }

        let Some(lost) = lost_at.filter(|_| error.daemon_is_leaving() || error.daemon_is_absent())
        else {
            return Err(error);
        };

        if now >= until.max(lost + RESTART_PATIENCE) {
            return Err(error);
        }

        tokio::time::sleep(ASK_AGAIN).await;
        request.wait_seconds = whole_seconds(until.saturating_duration_since(Instant::now()));
    }
}

/// A key that no other asker uses: one process, one moment.
fn key() -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("hf-mem-probe-{}-{}", std::process::id(), since.as_nanos())
}

/// Seconds, rounded up: a wait of half a second is not none.
fn whole_seconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
}
