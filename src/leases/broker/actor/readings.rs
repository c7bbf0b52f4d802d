//! Readings: when one is wanted, and what follows from it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::report::lease::State;
use hf_mem_core::report::problem::Reason;
use tokio::time::Instant;

use super::super::decide;
use super::BrokerActor;
use crate::devices::error::DevicesError;
use crate::leases::attribution::HolderReading;
use crate::leases::clock::{Boottime, Now};
use crate::leases::holder::{Ancestry, ProcessIdentity};

/// A reading under way: when it began, and what came of it.
pub(super) type UnderWay =
    Pin<Box<dyn Future<Output = (Boottime, Result<Arc<Snapshot>, DevicesError>)>>>;

impl BrokerActor {
    pub(super) fn wants_reading(&self) -> bool {
        // What the last lease claimed is shown until a reading shows that it is gone.
        let somebody = self.watches();
        !self.new.is_empty()
            || !self.at_reading.is_empty()
            || (somebody && Instant::now() >= self.read_at)
    }

    /// Whether anything hangs on what devices hold.
    pub(super) fn watches(&self) -> bool {
        !self.in_line.is_empty()
            || self.keeper.ledger().live().next().is_some()
            || self.leased.values().any(|bytes| *bytes > Bytes::ZERO)
    }

    pub(super) fn begin_reading(&mut self) -> UnderWay {
        for case in self.new.drain(..) {
            self.at_reading.push(case.ask.peer.uid, case);
        }

        let (devices, deadline) = (Arc::clone(&self.devices), self.settings.reading_deadline);
        let before = self.before_next;

        Box::pin(async move {
            // The clock counts milliseconds, and only a later one shows what came before.
            while Now::read().boottime <= before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let taken_at = Now::read().boottime;
            (taken_at, devices.sample(deadline).await)
        })
    }

    pub(super) fn end_reading(
        &mut self,
        taken_at: Boottime,
        outcome: Result<Arc<Snapshot>, DevicesError>,
    ) {
        let outcome = outcome.map_err(Problem::from).and_then(|snapshot| {
            // A stale one is an older reading, whatever time it is now.
            let late = || Problem::new(Reason::NvmlOverdue, "the driver does not answer in time");
            if snapshot.stale {
                Err(late().hint("see hf-mem-probe health"))
            } else {
                Ok(snapshot)
            }
        });
        match outcome {
            Ok(snapshot) => self.on_reading(&snapshot, taken_at),
            Err(problem) => {
                for case in self.at_reading.drain() {
                    case.tell(Err(problem.clone()));
                }
            }
        }

        let all_settled = self
            .keeper
            .ledger()
            .live()
            .all(|lease| lease.state == State::Settled);
        let every = if all_settled && self.in_line.is_empty() {
            self.settings.read_settled_every
        } else {
            self.settings.read_every
        };

        self.read_at = Instant::now() + every;
    }

    fn on_reading(&mut self, snapshot: &Arc<Snapshot>, taken_at: Boottime) {
        self.watch_holders();
        let now = Now::read();

        let asking = self
            .at_reading
            .iter()
            .chain(self.in_line.values())
            .filter_map(|case| case.holder.process);
        let ancestry = self.ancestry(snapshot, asking);

        let reading = HolderReading {
            snapshot,
            taken_at,
            ancestry: &ancestry,
        };

        self.take_in(&reading, now);
        self.log.observe(snapshot, now);
        let began = Instant::now();
        self.serve_line(&reading);

        // Each plan computes and each promise waits for the disk: after a while others are heard,
        // and those who came with them have their turn too. The rest is decided on the next
        // reading, not refused for the age of this one.
        while let Some(case) = self.at_reading.pop() {
            self.serve_new(case, &reading);
            if began.elapsed() >= self.settings.longest_round || self.is_old(taken_at) {
                break;
            }
        }

        self.leased = decide::claims(self.keeper.ledger(), &reading);
    }

    /// Whether a reading is soon too old to promise anything on.
    pub(super) fn is_old(&self, taken_at: Boottime) -> bool {
        Now::read().boottime.since(taken_at) > self.keeper.ledger().settings().oldest_reading / 2
    }

    fn take_in(&mut self, reading: &HolderReading<'_>, now: Now) {
        self.keeper.settle(reading, now);
        self.before_next = self.before_next.max(reading.taken_at);
    }

    pub(super) fn ancestry(
        &self,
        snapshot: &Snapshot,
        asking: impl Iterator<Item = ProcessIdentity>,
    ) -> Ancestry {
        let seen = snapshot
            .devices
            .iter()
            .flat_map(|device| &device.processes)
            .map(|process| process.pid);

        let holders = self
            .keeper
            .ledger()
            .live()
            .filter_map(|lease| lease.holder.process);
        let pids: BTreeSet<u32> = seen
            .chain(holders.chain(asking).map(|process| process.pid))
            .collect();

        Ancestry::read(&self.settings.proc_root, pids)
    }
}
