//! The way to the owner, for everyone else.

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
use super::pending_reply::PendingReply;
use super::stuck_detector::StuckDetector;
use crate::api::lease::LeasesAnswer;
use crate::api::peer::Caller;
use crate::leases::clock::Boottime;
use crate::leases::event::{Counters, Dated};
use crate::leases::ledger::LedgerConfig;
use crate::leases::unreadable_ledger::UnreadableLedger;

/// How the ledger stands, as of its owner's last step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Bytes that leases claim beyond what was seen in use at the last reading, by device UUID.
    pub leased: BTreeMap<String, Bytes>,
    /// Leases that are alive.
    pub leases: usize,
    /// Askers in line.
    pub waiting: usize,
    /// What happened so far.
    pub counters: Counters,
    /// Whether something could not be written down.
    pub behind: bool,
    /// Promises that nobody can read, as long as they may not have ended.
    pub blind: Option<UnreadableLedger>,
}

/// The owner's address.
#[derive(Clone, Debug)]
pub struct BrokerHandle {
    errands: mpsc::Sender<BrokerCommand>,
    notes: mpsc::WeakUnboundedSender<BrokerNotice>,
    events: broadcast::WeakSender<Dated>,
    standing: watch::Receiver<BrokerStatus>,
    step: StuckDetector,
    /// How long a step may last, and with it how long an answer is waited for.
    stuck_after: Duration,
}

/// Tells the owner when an asker hangs up, so that those behind it need not wait for the next
/// reading.
struct HangUp(Option<mpsc::WeakUnboundedSender<BrokerNotice>>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(notes) = self.0.take().and_then(|notes| notes.upgrade()) {
            let _owner_is_gone = notes.send(BrokerNotice::HungUp);
        }
    }
}

impl BrokerHandle {
    pub(super) fn new(
        errands: mpsc::Sender<BrokerCommand>,
        notes: mpsc::WeakUnboundedSender<BrokerNotice>,
        events: broadcast::WeakSender<Dated>,
        standing: watch::Receiver<BrokerStatus>,
        (step, stuck_after): (StuckDetector, Duration),
    ) -> Self {
        Self {
            errands,
            notes,
            events,
            standing,
            step,
            stuck_after,
        }
    }

    /// Bytes that leases claim, by device UUID, as of the last reading: cheap, and good enough to
    /// be shown. To place something on a reading of one's own, ask [`Self::leased_in`].
    pub fn leased(&self) -> BTreeMap<String, Bytes> {
        self.standing.borrow().leased.clone()
    }

    /// How the ledger stands; changes whenever it does. What is borrowed from it must be let go at
    /// once: as long as it is looked at, the owner cannot go on.
    pub fn standing(&self) -> watch::Receiver<BrokerStatus> {
        self.standing.clone()
    }

    /// How the ledger stands, for one look. Drop it before anything is awaited: the owner waits for
    /// that.
    pub fn standing_now(&self) -> watch::Ref<'_, BrokerStatus> {
        self.standing.borrow()
    }

    /// Bytes that leases claim beyond what is seen in use in this very reading, which began at
    /// `taken_at`. The ledger's own view is not moved by it.
    pub async fn leased_in(
        &self,
        snapshot: Arc<Snapshot>,
        taken_at: Boottime,
    ) -> Result<BTreeMap<String, Bytes>, Problem> {
        self.ask(|reply| BrokerCommand::Claims(snapshot, taken_at, reply))
            .await
    }

    /// Plans on a fresh reading and holds what was planned, in one step. "No" is an answer.
    ///
    /// May be dropped at any time: the asker then leaves the line, and a lease that did not reach
    /// it is given back.
    pub async fn grant(&self, ask: GrantCommand) -> Result<Answer, Problem> {
        self.not_stuck()?;
        let (reply, answer) = oneshot::channel::<PendingReply>();
        self.errands
            .send(BrokerCommand::Grant(Box::new(ask), reply))
            .await
            .map_err(|_| gone())?;
        let mut hang_up = HangUp(Some(self.notes.clone()));

        // Dropped in reverse order: the receiver first, so that the owner finds it closed when it
        // hears of it.
        let answer = answer;
        let delivery = answer.await;
        hang_up.0 = None;

        delivery
            .ok()
            .and_then(PendingReply::take)
            .unwrap_or_else(|| Err(gone()))
    }

    /// All leases that are alive, and all who wait.
    pub async fn list(&self) -> Result<LeasesAnswer, Problem> {
        self.ask(BrokerCommand::List).await
    }

    /// One lease, alive or lately ended.
    pub async fn get(&self, id: String) -> Result<LeaseAnswer, Problem> {
        self.ask(|reply| BrokerCommand::Get(id, reply)).await?
    }

    /// Makes a lease go on.
    pub async fn renew(
        &self,
        id: String,
        by: &Caller,
        ttl: Option<Duration>,
    ) -> Result<LeaseAnswer, Problem> {
        self.ask(|reply| {
            BrokerCommand::Change(Change {
                id,
                by: by.into(),
                whereto: LeaseChange::Longer(ttl),
                reply,
            })
        })
        .await?
    }

    /// Gives a lease back. Doing it twice does no harm.
    pub async fn release(&self, id: String, by: &Caller) -> Result<LeaseAnswer, Problem> {
        self.ask(|reply| {
            BrokerCommand::Change(Change {
                id,
                by: by.into(),
                whereto: LeaseChange::End,
                reply,
            })
        })
        .await?
    }

    /// All that happens from now on. A listener that is too slow loses events, and is told how
    /// many.
    pub fn events(&self) -> Option<broadcast::Receiver<Dated>> {
        self.events.upgrade().map(|events| events.subscribe())
    }

    /// New rules, as on a reload.
    pub async fn set_rules(
        &self,
        settings: LedgerConfig,
        default_ttl: Duration,
    ) -> Result<(), Problem> {
        self.errands
            .send(BrokerCommand::Rules(Box::new(settings), default_ttl))
            .await
            .map_err(|_| gone())
    }

    /// How long the owner has been stuck in one step, where it is: the disk hangs, most likely.
    pub fn stuck_for(&self) -> Option<Duration> {
        self.step.lasts().filter(|lasts| *lasts > self.stuck_after)
    }

    /// Comes back once the owner has come to it.
    pub async fn ping(&self) -> Result<(), Problem> {
        self.ask(BrokerCommand::Ping).await
    }

    /// Writes down what is not yet, sends the waiters away and ends the owner's thread. One that is
    /// stuck is left behind.
    pub async fn stop(&self) {
        let _stopped_before = self.ask(BrokerCommand::Stop).await;
    }

    /// Nobody waits behind a step that does not end.
    fn not_stuck(&self) -> Result<(), Problem> {
        self.stuck_for().map_or(Ok(()), |lasts| Err(stuck(lasts)))
    }

    /// Brings an errand that is done in one step. Whether it was done is not known where no answer
    /// came in time.
    async fn ask<T>(
        &self,
        errand: impl FnOnce(oneshot::Sender<T>) -> BrokerCommand,
    ) -> Result<T, Problem> {
        self.not_stuck()?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.errands.send(errand(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())
        };

        timeout(self.stuck_after, asked)
            .await
            .unwrap_or_else(|_| Err(stuck(self.stuck_after)))
    }
}

fn stuck(lasts: Duration) -> Problem {
    Problem::new(Reason::Busy, format!("the keeper of the leases has not answered for {} s", lasts.as_secs()))
        .hint("the disk under leases.state_directory may hang: see hf-mem-probe health and the kernel's log")
}

fn gone() -> Problem {
    Problem::new(Reason::Busy, "the keeper of the leases has stopped")
        .hint("ask again; the daemon may be restarting")
}
