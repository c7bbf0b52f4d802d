//! A simulated host: a clock, processes, and devices that the test reads.

#![allow(clippy::unwrap_used, reason = "a test's own host")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceFacts, DeviceKind, Process, ProcessKind, Snapshot};
use hf_mem_probe::leases::attribution::HolderReading;
use hf_mem_probe::leases::clock::{Boottime, Timestamp};
use hf_mem_probe::leases::holder::{Ancestry, ProcessIdentity, Stat};
use hf_mem_probe::leases::lease::{Holder, Lease, QuestionSummary};
use hf_mem_probe::leases::ledger::{GrantError, GrantRequest, Granted, Ledger};

/// Converts GiB.
pub(crate) fn gib(count: u64) -> Bytes {
    Bytes::gib(count)
}

/// A request of uid 1000 for two minutes, held by a process.
pub(crate) fn request(holder: ProcessIdentity, devices: &[(&str, u64)]) -> GrantRequest {
    GrantRequest {
        devices: devices
            .iter()
            .map(|(uuid, count)| ((*uuid).to_owned(), gib(*count)))
            .collect(),
        ttl: Duration::from_secs(120),
        holder: Holder::process(holder),
        uid: 1000,
        idempotency_key: None,
        question: QuestionSummary {
            model: "owner/name".to_owned(),
            engine: None,
            digest: "digest".to_owned(),
        },
    }
}

#[derive(Clone, Debug)]
struct Running {
    parent: u32,
    start_ticks: u64,
    unit: Option<String>,
    cgroup: Option<String>,
    holds: BTreeMap<String, u64>,
}

/// The host. Only the next [`Host::sample`] shows what processes did.
pub(crate) struct Host {
    totals: BTreeMap<String, u64>,
    order: Vec<String>,
    processes: BTreeMap<u32, Running>,
    next_pid: u32,
    next_ticks: u64,
    now: Timestamp,
    /// The last reading.
    pub(crate) snapshot: Snapshot,
    taken_at: Boottime,
    ancestry: Ancestry,
}

impl Host {
    /// Idle devices, each with its size in GiB.
    pub(crate) fn new(devices: &[(&str, u64)]) -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let snapshot = Snapshot {
            source: "declared".to_owned(),
            sampled_at: wall,
            stale: false,
            driver_version: None,
            devices: Vec::new(),
            links: Vec::new(),
            host: None,
        };

        let mut host = Self {
            totals: devices
                .iter()
                .map(|(uuid, count)| ((*uuid).to_owned(), gib(*count).get()))
                .collect(),
            order: devices.iter().map(|(uuid, _)| (*uuid).to_owned()).collect(),
            processes: BTreeMap::new(),
            next_pid: 100,
            next_ticks: 1_000,
            now: Timestamp {
                boottime: Boottime::from_millis(1_000_000),
                wall,
            },
            snapshot,
            taken_at: Boottime::BOOT,
            ancestry: Ancestry::default(),
        };

        host.sample();
        host
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Advances both clocks.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = Timestamp {
            boottime: self.now.boottime.after(time),
            wall: self.now.wall + time,
        };
    }

    /// Steps the wall clock.
    pub(crate) fn step_wall(&mut self, by: Duration, forward: bool) {
        self.now.wall = if forward {
            self.now.wall + by
        } else {
            self.now.wall - by
        };
    }

    /// Ends all processes and restarts the boot clock. The wall clock advances by `down`.
    pub(crate) fn reboot(&mut self, down: Duration) {
        self.processes.clear();
        self.now = Timestamp {
            boottime: Boottime::from_millis(20_000),
            wall: self.now.wall + down,
        };
    }

    pub(crate) fn start(&mut self) -> ProcessIdentity {
        self.spawn(1, None)
    }

    pub(crate) fn fork(&mut self, parent: ProcessIdentity) -> ProcessIdentity {
        self.spawn(parent.pid, None)
    }

    /// Ends a process and starts another with its pid.
    pub(crate) fn replace(&mut self, process: ProcessIdentity) -> ProcessIdentity {
        self.exit(process);
        self.spawn(1, Some(process.pid))
    }

    fn spawn(&mut self, parent: u32, pid: Option<u32>) -> ProcessIdentity {
        self.next_pid += u32::from(pid.is_none());
        self.next_ticks += 1;

        let identity = ProcessIdentity {
            pid: pid.unwrap_or(self.next_pid),
            start_ticks: self.next_ticks,
        };

        let running = Running {
            parent,
            start_ticks: self.next_ticks,
            unit: None,
            cgroup: None,
            holds: BTreeMap::new(),
        };

        self.processes.insert(identity.pid, running);
        identity
    }

    /// Makes init the parent.
    pub(crate) fn orphan(&mut self, process: ProcessIdentity) {
        self.processes.get_mut(&process.pid).unwrap().parent = 1;
    }

    pub(crate) fn set_unit(&mut self, process: ProcessIdentity, unit: &str, cgroup: &str) {
        let running = self.processes.get_mut(&process.pid).unwrap();
        (running.unit, running.cgroup) = (Some(unit.to_owned()), Some(cgroup.to_owned()));
    }

    pub(crate) fn exit(&mut self, process: ProcessIdentity) {
        if self.is_alive(&process) {
            self.processes.remove(&process.pid);
        }
    }

    pub(crate) fn is_alive(&self, process: &ProcessIdentity) -> bool {
        self.processes
            .get(&process.pid)
            .is_some_and(|running| running.start_ticks == process.start_ticks)
    }

    /// Allocates memory. Returns whether the device had enough.
    pub(crate) fn try_allocate(
        &mut self,
        process: ProcessIdentity,
        uuid: &str,
        bytes: Bytes,
    ) -> bool {
        let fits = self.used(uuid) + bytes.get() <= self.totals[uuid];
        if fits {
            let running = self.processes.get_mut(&process.pid).unwrap();
            *running.holds.entry(uuid.to_owned()).or_default() += bytes.get();
        }
        fits
    }

    pub(crate) fn allocate(&mut self, process: ProcessIdentity, uuid: &str, bytes: Bytes) {
        assert!(self.try_allocate(process, uuid, bytes), "out of memory");
    }

    pub(crate) fn free(&mut self, process: ProcessIdentity, uuid: &str, bytes: Bytes) {
        *self
            .processes
            .get_mut(&process.pid)
            .unwrap()
            .holds
            .get_mut(uuid)
            .unwrap() -= bytes.get();
    }

    pub(crate) fn holds(&self, process: ProcessIdentity, uuid: &str) -> u64 {
        self.processes
            .get(&process.pid)
            .and_then(|running| running.holds.get(uuid))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn used(&self, uuid: &str) -> u64 {
        self.processes
            .values()
            .filter_map(|running| running.holds.get(uuid))
            .sum()
    }

    pub(crate) fn total(&self, uuid: &str) -> u64 {
        self.totals[uuid]
    }

    /// Reads the devices. It takes two milliseconds.
    pub(crate) fn sample(&mut self) {
        self.pass(Duration::from_millis(1));
        self.taken_at = self.now.boottime;
        self.snapshot.sampled_at = self.now.wall;
        self.snapshot.stale = false;
        self.snapshot.devices = self.order.iter().map(|uuid| self.device(uuid)).collect();

        self.ancestry = Ancestry::new(self.processes.iter().map(|(pid, running)| {
            let stat = Stat {
                parent_pid: running.parent,
                start_ticks: running.start_ticks,
                has_exited: false,
            };
            (*pid, stat)
        }));

        self.pass(Duration::from_millis(1));
    }

    fn device(&self, uuid: &str) -> Device {
        let mut device = Device::idle(DeviceFacts {
            uuid: uuid.to_owned(),
            index: 0,
            name: "simulated".to_owned(),
            kind: DeviceKind::Gpu,
            total_bytes: Bytes::new(self.totals[uuid]),
            reserved_bytes: Some(Bytes::ZERO),
            compute_capability: None,
            multiprocessors: None,
            parent_uuid: None,
            pci_bus_id: None,
            numa_node: None,
        });
        device.used_bytes = Some(Bytes::new(self.used(uuid)));
        device.free_bytes = Some(Bytes::new(self.totals[uuid] - self.used(uuid)));

        device.processes = self
            .processes
            .iter()
            .filter(|(_, running)| running.holds.contains_key(uuid))
            .map(|(pid, running)| Process {
                pid: *pid,
                used_bytes: Some(Bytes::new(running.holds[uuid])),
                kind: ProcessKind::Compute,
                name: None,
                uid: Some(1000),
                user: None,
                unit: running.unit.clone(),
                container: None,
                cgroup: running.cgroup.clone(),
                start_ticks: Some(running.start_ticks),
            })
            .collect();
        device
    }

    /// The last reading.
    pub(crate) fn reading(&self) -> HolderReading<'_> {
        HolderReading {
            snapshot: &self.snapshot,
            taken_at: self.taken_at,
            ancestry: &self.ancestry,
        }
    }

    pub(crate) fn settle(&self, ledger: &mut Ledger) {
        ledger.settle(&self.reading(), self.now);
    }

    pub(crate) fn available(&self, ledger: &Ledger, uuid: &str) -> Option<Bytes> {
        ledger.availability(uuid, &self.reading()).available_bytes
    }

    pub(crate) fn grant(
        &self,
        ledger: &mut Ledger,
        request: GrantRequest,
    ) -> Result<Lease, GrantError> {
        match ledger.grant(request, &self.reading(), self.now)? {
            Granted::New(lease) | Granted::Existing(lease) => Ok(lease),
        }
    }
}
