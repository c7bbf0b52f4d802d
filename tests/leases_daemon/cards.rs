//! Simulated GPUs. The test's holders take and release their memory, and the simulated driver shows
//! it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use simulated_nvml::{HolderKind, Scenario, SimulatedDriver, profiles};

const GIB: u64 = 1 << 30;

/// The memory that processes hold.
#[derive(Default)]
struct Held {
    /// Memory within a lease, by process and card.
    leased: BTreeMap<(u32, usize), u64>,
    /// Memory without a lease, by process and card.
    unleased: BTreeMap<(u32, usize), u64>,
    /// The last files that the driver read. They stay open, so that no new file gets one of their
    /// inodes.
    files: VecDeque<File>,
    written: u64,
}

/// The cards of one host.
pub(crate) struct Cards {
    directory: PathBuf,
    library: PathBuf,
    bare: Scenario,
    held: Mutex<Held>,
}

impl Cards {
    /// Four unequal cards; on each another process holds 2 GiB.
    pub(crate) fn install(directory: &Path) -> Self {
        let gpus = [
            profiles::rtx_4090(),
            profiles::rtx_4090(),
            profiles::a100_80(),
            profiles::t4(),
        ];
        let bare = Scenario::of(gpus.map(|gpu| gpu.process(1, 2 * GIB, HolderKind::Compute)));
        let driver = SimulatedDriver::install(directory, &bare).unwrap();
        let library = driver.library().to_owned();

        Self {
            directory: directory.to_owned(),
            library,
            bare,
            held: Mutex::default(),
        }
    }

    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// Takes leased memory. Returns whether the card had enough. Memory that was taken without a
    /// lease does not count, because the ledger is not responsible for it.
    pub(crate) fn take(&self, pid: u32, uuid: &str, bytes: u64) -> bool {
        let card = self.card(uuid);
        let mut held = self.held.lock().unwrap();
        let used: u64 = held
            .leased
            .iter()
            .filter(|((_, on), _)| *on == card)
            .map(|(_, bytes)| *bytes)
            .sum();

        let memory = &self.bare.devices[card].memory;
        let had = used + bytes + memory.used_bytes + memory.reserved_bytes <= memory.total_bytes;
        if had && bytes > 0 {
            *held.leased.entry((pid, card)).or_default() += bytes;
            self.show(&mut held);
        }

        had
    }

    /// Takes memory without a lease.
    pub(crate) fn take_more(&self, pid: u32, uuid: &str, bytes: u64) {
        let mut held = self.held.lock().unwrap();
        *held.unleased.entry((pid, self.card(uuid))).or_default() += bytes;
        self.show(&mut held);
    }

    /// Releases all memory of a process.
    pub(crate) fn drop_all(&self, pid: u32) {
        let mut held = self.held.lock().unwrap();
        let before = held.leased.len() + held.unleased.len();
        held.leased.retain(|(holder, _), _| *holder != pid);
        held.unleased.retain(|(holder, _), _| *holder != pid);

        if held.leased.len() + held.unleased.len() < before {
            self.show(&mut held);
        }
    }

    fn card(&self, uuid: &str) -> usize {
        self.bare
            .devices
            .iter()
            .position(|gpu| gpu.uuid == uuid)
            .unwrap()
    }

    /// Shows the state to the driver in one step.
    fn show(&self, held: &mut Held) {
        let mut scenario = self.bare.clone();
        let mut sums: BTreeMap<(u32, usize), u64> = BTreeMap::new();
        for (key, bytes) in held.leased.iter().chain(&held.unleased) {
            *sums.entry(*key).or_default() += bytes;
        }

        for ((pid, card), bytes) in sums {
            let gpu = scenario.devices[card]
                .clone()
                .process(pid, bytes, HolderKind::Compute);
            scenario.devices[card] = gpu;
        }

        for gpu in &mut scenario.devices {
            // The driver cannot show more in use than the card has.
            let max_used = gpu.memory.total_bytes - gpu.memory.reserved_bytes;
            gpu.memory.used_bytes = gpu.memory.used_bytes.min(max_used);
        }

        held.written += 1;
        let fresh = self.directory.join("scenario.json.new");
        fs::write(&fresh, serde_json::to_vec(&scenario).unwrap()).unwrap();
        held.files.push_back(File::open(&fresh).unwrap());
        fs::rename(&fresh, self.directory.join("scenario.json")).unwrap();

        if held.files.len() > 8 {
            held.files.pop_front();
        }
    }
}
