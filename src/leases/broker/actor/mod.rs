//! The broker's actor: handles one command, one process exit or one device reading at a time.

mod apply_changes;
mod granting;
mod handle_commands;
mod pending_grants;
mod pending_replies;
mod publish;
mod readings;
mod watch_holders;

use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use self::pending_grants::PendingGrants;
use self::pending_replies::PendingReplies;
use self::readings::{OngoingReading, Readings};
use super::commands::{BrokerCommand, BrokerNotice, Change};
use super::event_log::EventLog;
use super::handle::BrokerStatus;
use super::process_watcher::ProcessWatcher;
use super::stuck_detector::StuckDetector;
use super::{AnyStorage, BrokerConfig, Devices};
use crate::admission::fair_queue::FairQueue;
use crate::devices::error::DevicesError;
use crate::devices::sampler;
use crate::leases::clock::{Boottime, Timestamp};
use crate::leases::durable_ledger::DurableLedger;
use crate::leases::event::Dated;
use crate::leases::unreadable_ledger::UnreadableLedger;

/// The longest sleep. While the host sleeps the boot clock goes on, but the runtime's clock stops.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The sending ends of the broker's channels.
pub(super) struct BrokerChannels {
    pub(super) notices: mpsc::UnboundedSender<BrokerNotice>,
    pub(super) events: broadcast::Sender<Dated>,
    pub(super) status: watch::Sender<BrokerStatus>,
}

/// The one owner of the ledger.
pub(super) struct BrokerActor {
    config: BrokerConfig,
    ledger: DurableLedger<AnyStorage>,
    /// Grants that wait for a reading or in the queue.
    grants: PendingGrants,
    /// Leases to renew or release.
    changes: FairQueue<Change>,
    /// Answers that are not delivered yet, and the published status.
    replies: PendingReplies,
    /// When devices are read, and the claims as of the last reading.
    readings: Readings,
    events: EventLog,
    holders: ProcessWatcher,
}

impl BrokerActor {
    pub(super) fn new(
        config: BrokerConfig,
        ledger: DurableLedger<AnyStorage>,
        devices: Arc<dyn Devices>,
        channels: BrokerChannels,
    ) -> Self {
        let BrokerChannels {
            notices,
            events,
            status,
        } = channels;

        Self {
            ledger,
            grants: PendingGrants::new(&config),
            changes: FairQueue::new(),
            replies: PendingReplies::new(notices, status),
            readings: Readings::new(devices),
            events: EventLog::new(config.journal.as_ref(), events),
            holders: ProcessWatcher::new(),
            config,
        }
    }

    /// Runs until a stop command arrives, or until the last handle is dropped.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<BrokerCommand>,
        mut notices: mpsc::UnboundedReceiver<BrokerNotice>,
        stuck_detector: StuckDetector,
    ) {
        stuck_detector.begin();
        self.collect_events(None);
        self.events.restore(self.ledger.ledger());
        self.watch_holders();
        self.publish();

        let mut reading: Option<OngoingReading> = None;
        let mut all_readings = self.readings.subscribe();
        if let Some(all_readings) = &mut all_readings {
            // The last reading before this counts too.
            all_readings.mark_changed();
        }

        let stop_reply = loop {
            if reading.is_none() && self.wants_reading() {
                // Commands that arrived while the last reading was served share this one.
                if let Some(stop) = self.handle_queued_commands(&mut commands) {
                    break Some(stop);
                }
                self.publish();
                reading = Some(self.begin_reading());
            }

            let wake_at = self.wake_at(reading.is_some());
            stuck_detector.end();

            tokio::select! {
                biased;
                Some(notice) = notices.recv() => {
                    stuck_detector.begin();
                    self.handle_notice(notice);
                }

                Some(process) = self.holders.next_exit() => {
                    stuck_detector.begin();
                    self.on_holder_exit(process);
                }

                (taken_at, outcome) = finish(&mut reading) => {
                    stuck_detector.begin();
                    reading = None;
                    self.end_reading(taken_at, outcome);
                }

                snapshot = next_successful(&mut all_readings) => {
                    stuck_detector.begin();
                    self.events.observe(&snapshot, Timestamp::now());
                }

                () = tokio::time::sleep_until(wake_at) => {
                    stuck_detector.begin();
                    self.on_timer();
                }

                command = commands.recv() => match command {
                    None => break None,
                    Some(BrokerCommand::Stop(reply)) => break Some(reply),
                    Some(command) => {
                        stuck_detector.begin();
                        self.handle_command(command);
                        // All commands that have arrived share one reading.
                        if let Some(stop) = self.handle_queued_commands(&mut commands) {
                            break Some(stop);
                        }
                    }
                },
                // Changes that the last round left over.
                () = std::future::ready(()), if !self.changes.is_empty() => stuck_detector.begin(),
            }

            self.apply_changes();
            self.publish();
        };

        stuck_detector.begin();
        while let Ok(notice) = notices.try_recv() {
            self.handle_notice(notice);
        }

        self.shut_down();
        stuck_detector.end();

        if let Some(reply) = stop_reply {
            let _caller_gone = reply.send(());
        }
    }

    /// Handles the commands that have arrived by now. Returns the stop command's reply if one of
    /// them is a stop. Commands that arrive meanwhile are left for the next round, because they
    /// might never end.
    fn handle_queued_commands(
        &mut self,
        commands: &mut mpsc::Receiver<BrokerCommand>,
    ) -> Option<oneshot::Sender<()>> {
        for _ in 0..commands.len() {
            match commands.try_recv() {
                Ok(BrokerCommand::Stop(reply)) => return Some(reply),
                Ok(next) => self.handle_command(next),
                Err(_) => break,
            }
        }

        None
    }

    fn shut_down(&mut self) {
        for grant in self.grants.drain() {
            let stopping = Problem::new(Reason::DaemonStopping, "the daemon is stopping");
            grant.reply(Err(stopping.hint("ask again after its restart")));
        }

        self.apply_all_changes();
        self.ledger.flush(Timestamp::now());
        self.publish();
        self.events.close_span();
        self.events.retry(Timestamp::now());
    }

    /// When to wake if nothing happens.
    fn wake_at(&self, is_reading: bool) -> Instant {
        let (now, instant) = (Timestamp::now(), Instant::now());
        let unreadable_until = self.ledger.unreadable(now).map(UnreadableLedger::until);

        let due = self
            .ledger
            .ledger()
            .next_expiry()
            .into_iter()
            .chain(self.grants.queue().next_deadline())
            .chain(unreadable_until)
            .min();
        let mut wake_at =
            instant + due.map_or(MAX_SLEEP, |due| due.since(now.boottime).min(MAX_SLEEP));
        if !is_reading && self.needs_readings() {
            wake_at = wake_at.min(self.readings.next_at());
        }

        self.events
            .retry_at()
            .map_or(wake_at, |retry_at| wake_at.min(retry_at))
    }
}

/// Waits for the next successful reading of any requester. Without devices it never returns.
async fn next_successful(
    all_readings: &mut Option<watch::Receiver<Option<Arc<sampler::Reading>>>>,
) -> Arc<Snapshot> {
    while let Some(readings) = all_readings {
        if readings.changed().await.is_err() {
            *all_readings = None;
            break;
        }
        let last = readings.borrow_and_update().clone();
        if let Some(snapshot) = last.and_then(|reading| reading.outcome.clone().ok()) {
            return snapshot;
        }
    }

    std::future::pending().await
}

/// Waits for the outcome of the ongoing reading. Without one it never returns.
async fn finish(
    reading: &mut Option<OngoingReading>,
) -> (Boottime, Result<Arc<Snapshot>, DevicesError>) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}
