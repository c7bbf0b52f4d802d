//! Device readings: when the broker takes one, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::report::lease::State;
use hf_mem_core::report::problem::Reason;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::decide;
use super::BrokerActor;
use crate::devices::error::DevicesError;
use crate::devices::sampler;
use crate::leases::attribution::HolderReading;
use crate::leases::broker::Devices;
use crate::leases::clock::{Boottime, Timestamp};
use crate::leases::holder::{Ancestry, ProcessIdentity};

/// A reading in progress: when it began, and its outcome.
pub(super) type OngoingReading =
    Pin<Box<dyn Future<Output = (Boottime, Result<Arc<Snapshot>, DevicesError>)>>>;

/// The source and the schedule of readings, and the claims as of the last one.
///
/// A reading begins later than every grant, release and reading before it.
pub(super) struct Readings {
    devices: Arc<dyn Devices>,
    /// The next reading must begin later than this.
    begin_after: Boottime,
    /// When the next reading is due.
    next_at: Instant,
    /// Bytes that leases claim by device UUID, as of the last reading.
    claims: BTreeMap<String, Bytes>,
}

impl Readings {
    pub(super) fn new(devices: Arc<dyn Devices>) -> Self {
        Self {
            devices,
            begin_after: Boottime::BOOT,
            next_at: Instant::now(),
            claims: BTreeMap::new(),
        }
    }

    /// Subscribes to all readings of the devices.
    pub(super) fn subscribe(&self) -> Option<watch::Receiver<Option<Arc<sampler::Reading>>>> {
        self.devices.readings()
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    pub(super) fn claims(&self) -> &BTreeMap<String, Bytes> {
        &self.claims
    }

    /// Makes the next reading begin later than `moment`.
    pub(super) fn begin_after(&mut self, moment: Boottime) {
        self.begin_after = self.begin_after.max(moment);
    }

    fn begin(&self, deadline: Duration) -> OngoingReading {
        let devices = Arc::clone(&self.devices);
        let begin_after = self.begin_after;

        Box::pin(async move {
            // The clock counts whole milliseconds; only a later one proves that the reading shows
            // what came before.
            while Timestamp::now().boottime <= begin_after {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let taken_at = Timestamp::now().boottime;
            (taken_at, devices.sample(deadline).await)
        })
    }

    fn claims_bytes(&self) -> bool {
        self.claims.values().any(|bytes| *bytes > Bytes::ZERO)
    }
}

impl BrokerActor {
    pub(super) fn wants_reading(&self) -> bool {
        self.grants.need_reading()
            || (self.needs_readings() && Instant::now() >= self.readings.next_at)
    }

    /// Whether a lease or a waiting grant depends on what devices hold. The claims of the last
    /// lease are shown until a reading proves that it is gone.
    pub(super) fn needs_readings(&self) -> bool {
        self.grants.any_waiting()
            || self.ledger.ledger().live().next().is_some()
            || self.readings.claims_bytes()
    }

    pub(super) fn begin_reading(&mut self) -> OngoingReading {
        self.grants.begin_reading();
        self.readings.begin(self.config.reading_deadline)
    }

    pub(super) fn end_reading(
        &mut self,
        taken_at: Boottime,
        outcome: Result<Arc<Snapshot>, DevicesError>,
    ) {
        match outcome.map_err(Problem::from).and_then(require_fresh) {
            Ok(snapshot) => self.on_reading(&snapshot, taken_at),
            Err(problem) => self.grants.fail_on_reading(&problem),
        }

        let all_settled = self
            .ledger
            .ledger()
            .live()
            .all(|lease| lease.state == State::Settled);
        let interval = if all_settled && !self.grants.any_waiting() {
            self.config.settled_read_interval
        } else {
            self.config.read_interval
        };

        self.readings.next_at = Instant::now() + interval;
    }

    fn on_reading(&mut self, snapshot: &Arc<Snapshot>, taken_at: Boottime) {
        self.watch_holders();
        let now = Timestamp::now();
        let ancestry = self.ancestry(snapshot, self.grants.holders_to_decide());

        let reading = HolderReading {
            snapshot,
            taken_at,
            ancestry: &ancestry,
        };

        self.ledger.settle(&reading, now);
        self.readings.begin_after(taken_at);
        self.events.observe(snapshot, now);
        let began = Instant::now();
        self.serve_queue(&reading);

        // Each plan computes and each grant waits for the disk. After a while the broker handles
        // other commands, and the grants among them take turns with the rest. The rest is decided
        // on the next reading, and not refused because this one is old.
        while let Some(grant) = self.grants.pop_on_reading() {
            self.serve_new(grant, &reading);
            if began.elapsed() >= self.config.max_round || self.is_aging(taken_at) {
                break;
            }
        }

        self.readings.claims = decide::claims(self.ledger.ledger(), &reading);
    }

    /// Whether a reading will soon be too old to grant a lease on.
    pub(super) fn is_aging(&self, taken_at: Boottime) -> bool {
        let max_age = self.ledger.ledger().settings().max_reading_age;
        Timestamp::now().boottime.since(taken_at) > max_age / 2
    }

    /// Reads the process trees of the processes in a snapshot, of all holders, and of
    /// `prospective_holders`.
    pub(super) fn ancestry(
        &self,
        snapshot: &Snapshot,
        prospective_holders: impl Iterator<Item = ProcessIdentity>,
    ) -> Ancestry {
        let on_devices = snapshot
            .devices
            .iter()
            .flat_map(|device| &device.processes)
            .map(|process| process.pid);

        let holders = self
            .ledger
            .ledger()
            .live()
            .filter_map(|lease| lease.holder.process)
            .chain(prospective_holders)
            .map(|process| process.pid);
        let pids: BTreeSet<u32> = on_devices.chain(holders).collect();

        Ancestry::read(&self.config.proc_root, pids)
    }

    /// Memory became free: those in the queue need not wait until the next reading is due.
    pub(super) fn on_capacity_freed(&mut self, now: Timestamp) {
        self.readings.begin_after(now.boottime);
        self.sample_soon();
    }

    /// Makes the next reading due now.
    pub(super) fn sample_soon(&mut self) {
        if self.needs_readings() {
            self.readings.next_at = Instant::now();
        }
    }
}

/// Rejects a stale snapshot: it is an older reading, whatever the time is now.
fn require_fresh(snapshot: Arc<Snapshot>) -> Result<Arc<Snapshot>, Problem> {
    if snapshot.stale {
        let late = Problem::new(Reason::NvmlOverdue, "the driver does not answer in time");
        Err(late.hint("see hf-mem-probe health"))
    } else {
        Ok(snapshot)
    }
}
