//! The broker's handle: how all other threads reach it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::lease::LeaseAnswer;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::commands::{BrokerCommand, BrokerNotice, Change, LeaseChange};
use super::grant_command::GrantCommand;
use super::reply::Reply;
use super::stuck_detector::StuckDetector;
use crate::api::lease::LeasesAnswer;
use crate::api::peer::Caller;
use crate::leases::clock::Boottime;
use crate::leases::event::{Counters, Dated};
use crate::leases::ledger::LedgerConfig;
use crate::leases::unreadable_ledger::UnreadableLedger;

/// The state of the ledger after the broker's last step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Bytes that leases claim beyond what the last reading saw in use, by device UUID.
    pub leased: BTreeMap<String, Bytes>,
    /// How many leases are live.
    pub leases: usize,
    /// How many grants wait in the queue.
    pub waiting: usize,
    /// Event counts since the start.
    pub counters: Counters,
    /// Whether the ledger has changes that could not be written.
    pub behind: bool,
    /// Leases of an earlier run that cannot be read and may still be live.
    pub unreadable: Option<UnreadableLedger>,
}

/// A handle to the broker. Dropping the last one stops the broker.
#[derive(Clone, Debug)]
pub struct BrokerHandle {
    pub(super) commands: mpsc::Sender<BrokerCommand>,
    pub(super) notices: mpsc::WeakUnboundedSender<BrokerNotice>,
    pub(super) events: broadcast::WeakSender<Dated>,
    pub(super) status: watch::Receiver<BrokerStatus>,
    pub(super) stuck_detector: StuckDetector,
    /// How long a step may last, and how long a caller waits for an answer.
    pub(super) stuck_after: Duration,
}

/// Notifies the broker when a client disconnects, so that those behind it in the queue need not
/// wait for the next reading.
struct DisconnectGuard(Option<mpsc::WeakUnboundedSender<BrokerNotice>>);

impl Drop for DisconnectGuard {
    fn drop(&mut self) {
        if let Some(notices) = self.0.take().and_then(|notices| notices.upgrade()) {
            let _broker_gone = notices.send(BrokerNotice::Disconnected);
        }
    }
}

impl BrokerHandle {
    /// Bytes that leases claim as of the last reading, by device UUID. This is cheap and accurate
    /// enough to display. To place a model on your own reading, call [`Self::leased_in`].
    pub fn leased(&self) -> BTreeMap<String, Bytes> {
        self.status.borrow().leased.clone()
    }

    /// Subscribes to the status. Drop a borrowed status at once: the broker cannot publish while it
    /// is borrowed.
    pub fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.status.clone()
    }

    /// Borrows the current status. Drop it before you await anything: the broker cannot publish
    /// while it is borrowed.
    pub fn current_status(&self) -> watch::Ref<'_, BrokerStatus> {
        self.status.borrow()
    }

    /// Bytes that leases claim beyond what this reading, which began at `taken_at`, shows in use.
    /// The ledger does not record the reading.
    pub async fn leased_in(
        &self,
        snapshot: Arc<Snapshot>,
        taken_at: Boottime,
    ) -> Result<BTreeMap<String, Bytes>, Problem> {
        self.request(|reply_to| BrokerCommand::Claims(snapshot, taken_at, reply_to))
            .await
    }

    /// Plans on a fresh reading and leases the planned memory, in one step. "No" is an answer.
    ///
    /// You can drop the future at any time: the request then leaves the queue, and the broker
    /// releases a lease that was not delivered.
    pub async fn grant(&self, command: GrantCommand) -> Result<Answer, Problem> {
        self.check_not_stuck()?;
        let (reply_to, reply) = oneshot::channel::<Reply>();
        self.commands
            .send(BrokerCommand::Grant(Box::new(command), reply_to))
            .await
            .map_err(|_| stopped())?;
        let mut guard = DisconnectGuard(Some(self.notices.clone()));

        // Locals drop in reverse order: the receiver first, so that it is closed when the broker
        // gets the notice.
        let reply = reply;
        let delivered = reply.await;
        guard.0 = None;

        delivered
            .ok()
            .and_then(Reply::receive)
            .unwrap_or_else(|| Err(stopped()))
    }

    /// Lists all live leases and all waiting grants.
    pub async fn list(&self) -> Result<LeasesAnswer, Problem> {
        self.request(BrokerCommand::List).await
    }

    /// Returns one lease, live or recently ended.
    pub async fn get(&self, id: String) -> Result<LeaseAnswer, Problem> {
        self.request(|reply_to| BrokerCommand::Get(id, reply_to))
            .await?
    }

    /// Renews a lease.
    pub async fn renew(
        &self,
        id: String,
        by: &Caller,
        ttl: Option<Duration>,
    ) -> Result<LeaseAnswer, Problem> {
        self.change(id, by, LeaseChange::Renew(ttl)).await
    }

    /// Releases a lease. Releasing it twice is harmless.
    pub async fn release(&self, id: String, by: &Caller) -> Result<LeaseAnswer, Problem> {
        self.change(id, by, LeaseChange::Release).await
    }

    async fn change(
        &self,
        id: String,
        by: &Caller,
        change: LeaseChange,
    ) -> Result<LeaseAnswer, Problem> {
        self.request(|reply_to| {
            BrokerCommand::Change(Change {
                id,
                by: by.into(),
                action: change,
                reply_to,
            })
        })
        .await?
    }

    /// Subscribes to all events from now on. A slow subscriber loses events and learns how many.
    pub fn events(&self) -> Option<broadcast::Receiver<Dated>> {
        self.events.upgrade().map(|events| events.subscribe())
    }

    /// Replaces the rules, as on a reload.
    pub async fn set_rules(
        &self,
        rules: LedgerConfig,
        default_ttl: Duration,
    ) -> Result<(), Problem> {
        self.commands
            .send(BrokerCommand::SetRules(Box::new(rules), default_ttl))
            .await
            .map_err(|_| stopped())
    }

    /// How long the broker has been stuck in one step, if it is stuck. Most likely the disk hangs.
    pub fn stuck_for(&self) -> Option<Duration> {
        self.stuck_detector
            .step_duration()
            .filter(|duration| *duration > self.stuck_after)
    }

    /// Returns once the broker has handled all commands before this one.
    pub async fn ping(&self) -> Result<(), Problem> {
        self.request(BrokerCommand::Ping).await
    }

    /// Writes what is unwritten, rejects the waiting grants and ends the broker's thread. A broker
    /// that is stuck is left running.
    pub async fn stop(&self) {
        let _stopped_before = self.request(BrokerCommand::Stop).await;
    }

    /// Fails if the broker is stuck, so that no caller waits for it.
    fn check_not_stuck(&self) -> Result<(), Problem> {
        self.stuck_for()
            .map_or(Ok(()), |duration| Err(stuck(duration)))
    }

    /// Sends a command that the broker handles in one step. If the answer times out, it is unknown
    /// whether the broker handled it.
    async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> BrokerCommand,
    ) -> Result<T, Problem> {
        self.check_not_stuck()?;
        let (reply_to, reply) = oneshot::channel();
        let answered = async {
            self.commands
                .send(command(reply_to))
                .await
                .map_err(|_| stopped())?;
            reply.await.map_err(|_| stopped())
        };

        timeout(self.stuck_after, answered)
            .await
            .unwrap_or_else(|_| Err(stuck(self.stuck_after)))
    }
}

fn stuck(duration: Duration) -> Problem {
    let detail = format!(
        "the lease broker has not answered for {} s",
        duration.as_secs()
    );
    Problem::new(Reason::Busy, detail).hint(
        "the disk under leases.state_directory may hang; see `hf-mem-probe health` and the \
         kernel log",
    )
}

fn stopped() -> Problem {
    Problem::new(Reason::Busy, "the lease broker has stopped")
        .hint("ask again; the daemon may be restarting")
}
