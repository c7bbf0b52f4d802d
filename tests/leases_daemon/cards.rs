//! Cards whose memory the test's holders take and give back; the simulated driver shows it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use simulated_nvml::{HolderKind, Scenario, SimulatedDriver, profiles};

const GIB: u64 = 1 << 30;

/// Who holds what.
#[derive(Default)]
struct Held {
    /// By process and card: what was promised to it.
    promised: BTreeMap<(u32, usize), u64>,
    /// By process and card: what was not.
    wild: BTreeMap<(u32, usize), u64>,
    /// The last files that the driver read, kept open so that no new file can be taken for one of
    /// them.
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
    /// Four unequal cards, on each of which a stranger holds two GiB.
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

    /// Takes promised memory; whether the card had it. What others took without a promise counts as
    /// if it were not there: the ledger answers for what it promised.
    pub(crate) fn take(&self, pid: u32, uuid: &str, bytes: u64) -> bool {
        let card = self.card(uuid);
        let mut held = self.held.lock().unwrap();
        let used: u64 = held
            .promised
            .iter()
            .filter(|((_, on), _)| *on == card)
            .map(|(_, bytes)| *bytes)
            .sum();

        let memory = &self.bare.devices[card].memory;
        let had = used + bytes + memory.used_bytes + memory.reserved_bytes <= memory.total_bytes;
        if had && bytes > 0 {
            *held.promised.entry((pid, card)).or_default() += bytes;
            self.show(&mut held);
        }

        had
    }

    /// Takes memory that nobody promised.
    pub(crate) fn take_more(&self, pid: u32, uuid: &str, bytes: u64) {
        let mut held = self.held.lock().unwrap();
        *held.wild.entry((pid, self.card(uuid))).or_default() += bytes;
        self.show(&mut held);
    }

    /// Gives all of a process's memory back.
    pub(crate) fn drop_all(&self, pid: u32) {
        let mut held = self.held.lock().unwrap();
        let before = held.promised.len() + held.wild.len();
        held.promised.retain(|(holder, _), _| *holder != pid);
        held.wild.retain(|(holder, _), _| *holder != pid);

        if held.promised.len() + held.wild.len() < before {
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

    /// In one step, so that the driver sees all of it or nothing.
    fn show(&self, held: &mut Held) {
        let mut scenario = self.bare.clone();
        let mut sums: BTreeMap<(u32, usize), u64> = BTreeMap::new();
        for (key, bytes) in held.promised.iter().chain(&held.wild) {
            *sums.entry(*key).or_default() += bytes;
        }

        for ((pid, card), bytes) in sums {
            let gpu = scenario.devices[card]
                .clone()
                .process(pid, bytes, HolderKind::Compute);
            scenario.devices[card] = gpu;
        }

        for gpu in &mut scenario.devices {
            // More than the card has cannot be shown in use.
            let most = gpu.memory.total_bytes - gpu.memory.reserved_bytes;
            gpu.memory.used_bytes = gpu.memory.used_bytes.min(most);
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
