//! The owner at work: one errand, one death, one reading at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use self::pending_grant::PendingGrant;
use self::pending_replies::PendingReplies;
use self::readings::UnderWay;
use super::attributed_event::AttributedEvent;
use super::commands::{BrokerCommand, BrokerNotice, Change};
use super::event_log::Log;
use super::handle::BrokerStatus;
use super::process_watcher::ProcessWatcher;
use super::stuck_detector::StuckDetector;
use super::{AnyStorage, BrokerConfig, Devices};
use crate::admission::fair_queue::FairQueue;
use crate::devices::error::DevicesError;
use crate::devices::sampler;
use crate::leases::clock::{Boottime, Now};
use crate::leases::durable_ledger::DurableLedger;
use crate::leases::event::Dated;
use crate::leases::queue::{Queue, Ticket};
use crate::leases::unreadable_ledger::UnreadableLedger;

mod changes;
mod command_loop;
mod granting;
mod pending_grant;
mod pending_replies;
mod publish;
mod readings;
mod watching_holders;

/// The longest sleep: the clock since boot goes on while the host sleeps, the runtime's does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How often a write that failed is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// The owner.
pub(super) struct BrokerActor {
    settings: BrokerConfig,
    keeper: DurableLedger<AnyStorage>,
    devices: Arc<dyn Devices>,
    queue: Queue,
    deaths: ProcessWatcher,
    log: Log,
    /// What is to be told next.
    happened: Vec<AttributedEvent>,
    standing: watch::Sender<BrokerStatus>,
    step: StuckDetector,
    /// Askers that no reading has been begun for yet, in order.
    new: Vec<PendingGrant>,
    /// Askers for whom the reading under way was begun, or one before on which they were not come
    /// to.
    at_reading: FairQueue<PendingGrant>,
    /// Leases to be renewed or given back.
    changes: FairQueue<Change>,
    /// Askers in line.
    in_line: HashMap<Ticket, PendingGrant>,
    deliveries: PendingReplies,
    /// Answers of leases with a key, as JSON, to be given again.
    given: HashMap<String, Box<[u8]>>,
    leased: BTreeMap<String, Bytes>,
    waits_ended: u64,
    /// The last moment that the next reading must be later than.
    before_next: Boottime,
    read_at: Instant,
    /// When to try a write again that failed; `None` while all is written.
    write_at: Option<Instant>,
}

impl BrokerActor {
    pub(super) fn new(
        settings: BrokerConfig,
        keeper: DurableLedger<AnyStorage>,
        devices: Arc<dyn Devices>,
        (notes, events, standing): (
            mpsc::UnboundedSender<BrokerNotice>,
            broadcast::Sender<Dated>,
            watch::Sender<BrokerStatus>,
        ),
        step: StuckDetector,
    ) -> Self {
        let queue = Queue::new(settings.most_waiting, settings.most_waiting_for_one_user);
        let log = Log::new(settings.journal.as_ref(), events);

        Self {
            settings,
            keeper,
            devices,
            queue,
            deaths: ProcessWatcher::new(),
            log,
            happened: Vec::new(),
            standing,
            step,
            new: Vec::new(),
            at_reading: FairQueue::new(),
            changes: FairQueue::new(),
            in_line: HashMap::new(),
            deliveries: PendingReplies::new(notes),
            given: HashMap::new(),
            leased: BTreeMap::new(),
            waits_ended: 0,
            before_next: Boottime::BOOT,
            read_at: Instant::now(),
            write_at: None,
        }
    }

    /// Works until told to stop, or until nobody can ask any more.
    pub(super) async fn run(
        mut self,
        mut errands: mpsc::Receiver<BrokerCommand>,
        mut notes: mpsc::UnboundedReceiver<BrokerNotice>,
    ) {
        self.step.begin();
        self.tell_of_restored();
        self.watch_holders();
        self.pass_on();
        self.plan_write();
        let mut reading: Option<UnderWay> = None;
        let mut seen = self.devices.readings();
        if let Some(seen) = &mut seen {
            // The last one before this counts too.
            seen.mark_changed();
        }

        let stopped = loop {
            if reading.is_none() && self.wants_reading() {
                // Who came while the last one was planned on shares this one.
                if let Some(stop) = self.take_all(&mut errands) {
                    break Some(stop);
                }
                self.pass_on();
                reading = Some(self.begin_reading());
            }

            let wake = self.wake(reading.is_some());
            self.step.end();

            tokio::select! {
                biased;
                Some(note) = notes.recv() => {
                    self.step.begin();
                    self.note(note);
                }

                Some(died) = self.deaths.next() => {
                    self.step.begin();
                    self.died(died);
                }

                (taken_at, outcome) = under_way(&mut reading) => {
                    self.step.begin();
                    reading = None;
                    self.end_reading(taken_at, outcome);
                }

                snapshot = next_seen(&mut seen) => {
                    self.step.begin();
                    self.log.observe(&snapshot, Now::read());
                }

                () = tokio::time::sleep_until(wake) => {
                    self.step.begin();
                    self.on_time();
                }

                errand = errands.recv() => match errand {
                    None => break None,
                    Some(BrokerCommand::Stop(reply)) => break Some(reply),
                    Some(errand) => {
                        self.step.begin();
                        self.errand(errand);
                        // All that has arrived shares one reading.
                        if let Some(stop) = self.take_all(&mut errands) { break Some(stop); }
                    }
                },
                // What is left of the changes.
                () = std::future::ready(()), if !self.changes.is_empty() => self.step.begin(),
            }

            self.make_changes();
            self.pass_on();
            self.plan_write();
        };

        self.step.begin();
        while let Ok(note) = notes.try_recv() {
            self.note(note);
        }

        self.stop();
        self.step.end();

        if let Some(reply) = stopped {
            let _nobody_waits = reply.send(());
        }
    }

    /// All errands that have arrived by now; whether to stop is among them. What arrives meanwhile
    /// is not waited for: it might be without end.
    fn take_all(
        &mut self,
        errands: &mut mpsc::Receiver<BrokerCommand>,
    ) -> Option<oneshot::Sender<()>> {
        for _ in 0..errands.len() {
            match errands.try_recv() {
                Ok(BrokerCommand::Stop(reply)) => return Some(reply),
                Ok(next) => self.errand(next),
                Err(_) => break,
            }
        }

        None
    }

    fn stop(&mut self) {
        let cases = self
            .new
            .drain(..)
            .chain(self.at_reading.drain())
            .chain(self.in_line.drain().map(|(_, case)| case));
        for case in cases {
            case.tell(Err(Problem::new(
                Reason::DaemonStopping,
                "the daemon is stopping",
            )
            .hint("ask again after its restart")));
        }

        self.make_all_changes();
        self.keeper.flush(Now::read());
        self.pass_on();
        self.log.end();
        self.log.write_again(Now::read());
    }

    /// When to wake if nothing happens.
    fn wake(&self, reading: bool) -> Instant {
        let (now, instant) = (Now::read().boottime, Instant::now());
        let ledger = self.keeper.ledger();
        let sees = self.keeper.blind(Now::read()).map(UnreadableLedger::until);

        let due = ledger
            .next_expiry()
            .into_iter()
            .chain(self.queue.next_deadline())
            .chain(sees)
            .min();
        let mut wake = instant + due.map_or(LONGEST_SLEEP, |due| due.since(now).min(LONGEST_SLEEP));
        if !reading && self.watches() {
            wake = wake.min(self.read_at);
        }

        self.write_at.map_or(wake, |write_at| wake.min(write_at))
    }

    /// Sets the time of the next try while something could not be written. A time that is set
    /// stays, so that other events cannot put it off.
    fn plan_write(&mut self) {
        self.write_at = match self.write_at {
            _ if !self.keeper.is_behind() && !self.log.is_behind() => None,
            Some(write_at) if write_at > Instant::now() => Some(write_at),
            _ => Some(Instant::now() + WRITE_AGAIN),
        };
    }
}

/// The next reading of anybody's that succeeded; never, where there is none.
async fn next_seen(
    seen: &mut Option<watch::Receiver<Option<Arc<sampler::Reading>>>>,
) -> Arc<Snapshot> {
    while let Some(readings) = seen {
        if readings.changed().await.is_err() {
            *seen = None;
            break;
        }
        let last = readings.borrow_and_update().clone();
        if let Some(snapshot) = last.and_then(|reading| reading.outcome.clone().ok()) {
            return snapshot;
        }
    }

    std::future::pending().await
}

/// The end of the reading under way; never, where there is none.
async fn under_way(
    reading: &mut Option<UnderWay>,
) -> (Boottime, Result<Arc<Snapshot>, DevicesError>) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}
