//! The supervisor's work for the lease: reports the queue position, then renews the lease.

use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::client::Client;
use crate::api::lease::RenewRequest;
use crate::cli::arguments::RunArguments;
use crate::cli::output;

/// The time limit of one request. A failed renewal is repeated soon.
const DEADLINE: Duration = Duration::from_secs(5);
/// The interval between reads of the queue position.
const QUEUE_INTERVAL: Duration = Duration::from_secs(1);

/// Renews the lease of the command's process, twice within its time to live.
pub(super) struct Renewal {
    client: Client,
    pid: Option<u32>,
    interval: Duration,
    next: Instant,
    /// Receives the lease's id when the lease is granted.
    lease_ids: mpsc::Receiver<String>,
    stage: RenewalStage,
    /// The last reported queue position and queue length.
    reported_position: Option<(u64, usize)>,
    /// The last reported failure.
    reported_failure: Option<Reason>,
}

/// The stage of the lease.
#[derive(Debug, PartialEq, Eq)]
enum RenewalStage {
    /// The request is under way, and cannot enter the queue.
    Requested,
    /// The request may wait in the queue.
    Queued,
    /// The lease of this id is granted.
    Granted(String),
    /// There is no lease to renew.
    Done,
}

impl Renewal {
    /// Returns the renewal for the process `pid`, whose lease id arrives on `lease_ids`.
    pub(super) fn new(
        arguments: &RunArguments,
        pid: Option<u32>,
        lease_ids: mpsc::Receiver<String>,
    ) -> Self {
        let interval = (arguments.ttl / 2).max(Duration::from_millis(500));
        let client = Client::new(&arguments.connection.socket).deadline(DEADLINE);

        let stage = match (arguments.no_lease, arguments.wait.is_zero()) {
            (true, _) => RenewalStage::Done,
            (false, true) => RenewalStage::Requested,
            (false, false) => RenewalStage::Queued,
        };

        Self {
            client,
            pid,
            interval,
            next: Instant::now() + QUEUE_INTERVAL,
            lease_ids,
            stage,
            reported_position: None,
            reported_failure: None,
        }
    }

    /// Works until dropped. Cancel safe: it can be dropped and called again at any time.
    pub(super) async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(id) = self.lease_ids.recv() => {
                    self.stage = RenewalStage::Granted(id);
                    self.next = Instant::now() + self.interval;
                }
                () = wait_until_due(&self.stage, self.next) => {
                    // Set before the step, because the caller can drop this future during it.
                    self.next = Instant::now() + QUEUE_INTERVAL.min(self.interval);
                    self.step().await;
                }
            }
        }
    }

    async fn step(&mut self) {
        match &self.stage {
            // The position is only information, so a failure is ignored.
            RenewalStage::Queued => drop(self.report_position().await),
            RenewalStage::Granted(id) => {
                let id = id.clone();
                self.renew(&id).await;
            }
            RenewalStage::Requested | RenewalStage::Done => {}
        }
    }

    async fn renew(&mut self, id: &str) {
        let renewed = self
            .client
            .renew_lease(id, RenewRequest::default())
            .await
            .map_err(Problem::from);
        let Err(problem) = renewed else {
            self.reported_failure = None;
            self.next = Instant::now() + self.interval;
            return;
        };

        // Retries sooner after a failure, because the daemon may be restarting.
        self.next = Instant::now() + self.interval / 4;
        if self.has_ended(id, &problem).await {
            self.stage = RenewalStage::Done;
            output::remark(&format!(
                "warning: the lease is lost: {problem}; the command continues without a lease, \
                 and its memory may be leased to others"
            ));
        } else if self.reported_failure.replace(problem.reason) != Some(problem.reason) {
            // Repeats of the same failure are not reported.
            output::remark(&format!(
                "warning: cannot renew the lease: {problem}; the command continues, and renewal \
                 is retried"
            ));
        }
    }

    /// Whether the lease whose renewal failed has ended.
    async fn has_ended(&self, id: &str, problem: &Problem) -> bool {
        match problem.reason {
            Reason::NotFound => true,
            Reason::Usage => self
                .client
                .lease(id)
                .await
                .is_ok_and(|lease| lease.reason.is_some()),
            _ => false,
        }
    }

    /// Prints the queue position after a change.
    ///
    /// The queue has pids in the daemon's pid namespace, so in a container nothing is found and
    /// nothing is printed.
    async fn report_position(&mut self) -> Result<(), Problem> {
        let leases = self.client.leases().await?;
        let own_request = leases
            .waiting
            .iter()
            .find(|waiting| waiting.pid.is_some() && waiting.pid == self.pid);
        let current = own_request.map(|waiting| (waiting.position, leases.waiting.len()));
        if let Some((position, length)) = current
            && self.reported_position != current
        {
            output::remark(&format!(
                "waiting for memory: place {position} of {length} in the queue"
            ));
        }

        self.reported_position = current.or(self.reported_position);
        Ok(())
    }
}

/// Sleeps until the next step is due; forever in a stage without steps.
async fn wait_until_due(stage: &RenewalStage, next: Instant) {
    match stage {
        RenewalStage::Queued | RenewalStage::Granted(_) => tokio::time::sleep_until(next).await,
        RenewalStage::Requested | RenewalStage::Done => std::future::pending().await,
    }
}
