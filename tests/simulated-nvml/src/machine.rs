//! The state inside the loaded library: the scenario in force, handles, the init count, and the
//! gates that every call passes.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::abi::{Handle, Return, SymbolInfo, dladdr};
use crate::scenario::{Fault, Gpu, MigInstance, Scenario, codes};

/// What the library counted; written beside the scenario as `statistics.json` on each init and
/// shutdown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Successful inits.
    pub inits: u64,
    /// Shutdowns.
    pub shutdowns: u64,
    /// Event sets created and not freed.
    pub open_event_sets: u64,
    /// Calls by C symbol.
    pub calls: BTreeMap<String, u64>,
}

/// A file's identity: device, inode, size, time of change in seconds and nanoseconds.
type FileIdentity = (u64, u64, u64, i64, i64);

#[derive(Default)]
pub struct Machine {
    identity: Option<FileIdentity>,
    scenario: Arc<Scenario>,
    handles: Vec<String>,
    pub statistics: Statistics,
    /// By set number: the UUIDs registered and how many of each one's events have been delivered.
    pub event_sets: BTreeMap<usize, BTreeMap<String, usize>>,
    pub next_event_set: usize,
}

static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);

/// Where the scenario stands.
fn scenario_path() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();

    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("HF_MEM_PROBE_NVML_SCENARIO") {
            return PathBuf::from(path);
        }

        let mut info = SymbolInfo {
            file_name: std::ptr::null(),
            file_base: std::ptr::null_mut(),
            symbol_name: std::ptr::null(),
            symbol_address: std::ptr::null_mut(),
        };

        let here: *const c_void = (&raw const MACHINE).cast();

        // SAFETY: `here` is an address inside this library and `info` outlives the call.
        if unsafe { dladdr(here, &raw mut info) } == 0 || info.file_name.is_null() {
            return PathBuf::from("scenario.json");
        }
        // SAFETY: dladdr gave a NUL-terminated path that lives as long as the library.
        let name = unsafe { CStr::from_ptr(info.file_name) };

        PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())).with_file_name("scenario.json")
    })
}

/// The machine, for a short look.
pub fn machine<T>(look: impl FnOnce(&mut Machine) -> T) -> T {
    let mut guard: MutexGuard<'_, Option<Machine>> =
        MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    look(guard.get_or_insert_with(Machine::loaded))
}

/// Gives back all that the library holds: after the last shutdown it may be unloaded, and its
/// statics with it.
pub fn forget() {
    MACHINE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}

impl Machine {
    /// The state of a library just loaded. An earlier load may have been unloaded by the last
    /// shutdown, and its counts with it; they go on from where it wrote them.
    fn loaded() -> Self {
        let written = fs::read(scenario_path().with_file_name("statistics.json")).ok();
        let statistics = written
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();

        Self {
            statistics,
            ..Self::default()
        }
    }

    fn scenario(&mut self) -> Arc<Scenario> {
        let path = scenario_path();
        if let Ok(meta) = fs::metadata(path) {
            let identity = (
                meta.dev(),
                meta.ino(),
                meta.size(),
                meta.mtime(),
                meta.mtime_nsec(),
            );

            if self.identity != Some(identity)
                && let Some(scenario) = fs::read(path)
                    .ok()
                    .and_then(|text| serde_json::from_slice(&text).ok())
            {
                self.identity = Some(identity);
                self.scenario = Arc::new(scenario);
            }
        }

        Arc::clone(&self.scenario)
    }

    /// The handle of a UUID.
    pub fn handle(&mut self, uuid: &str) -> Handle {
        let place = self
            .handles
            .iter()
            .position(|known| known == uuid)
            .unwrap_or_else(|| {
                self.handles.push(uuid.to_owned());
                self.handles.len() - 1
            });

        std::ptr::without_provenance_mut(place + 1)
    }

    fn uuid(&self, handle: Handle) -> Option<String> {
        handle
            .addr()
            .checked_sub(1)
            .and_then(|place| self.handles.get(place).cloned())
    }

    /// Writes the counters where a test can read them.
    pub fn write_statistics(&self) {
        let path = scenario_path();
        let fresh = path.with_file_name("statistics.json.new");
        if let Ok(text) = serde_json::to_vec(&self.statistics)
            && fs::write(&fresh, text).is_ok()
        {
            let _ = fs::rename(&fresh, path.with_file_name("statistics.json"));
        }
    }
}

/// The device behind a handle.
pub enum Target {
    /// A whole GPU, by its place in the scenario.
    Gpu(usize),
    /// A MIG device: the GPU's place and the slot.
    Mig(usize, usize),
}

impl Target {
    pub fn gpu<'a>(&self, scenario: &'a Scenario) -> Result<&'a Gpu, Return> {
        let (Self::Gpu(place) | Self::Mig(place, _)) = self;
        scenario.devices.get(*place).ok_or(codes::GPU_IS_LOST)
    }

    pub fn instance<'a>(&self, scenario: &'a Scenario) -> Result<Option<&'a MigInstance>, Return> {
        let Self::Mig(_, slot) = self else {
            return Ok(None);
        };

        let mig = self.gpu(scenario)?.mig.as_ref().ok_or(codes::NOT_FOUND)?;
        mig.slots
            .get(*slot)
            .and_then(Option::as_ref)
            .map(Some)
            .ok_or(codes::NOT_FOUND)
    }
}

fn find(scenario: &Scenario, uuid: &str) -> Option<Target> {
    scenario
        .devices
        .iter()
        .enumerate()
        .find_map(|(place, gpu)| {
            if gpu.uuid == uuid {
                return Some(Target::Gpu(place));
            }

            let mig = gpu.mig.as_ref().filter(|mig| mig.enabled)?;
            let slot = mig
                .slots
                .iter()
                .position(|slot| slot.as_ref().is_some_and(|instance| instance.uuid == uuid))?;

            Some(Target::Mig(place, slot))
        })
}

/// Says beside the scenario that a call of `symbol` hangs now, or has failed: a test that broke the
/// call may have to wait for one.
fn write_sign(what: &str, symbol: &str) {
    let path = scenario_path().with_file_name(format!("{what}-{symbol}"));
    let _ = fs::File::create(path);
}

/// Passes the faults that a scenario sets for a call; returns the scenario that the call is to
/// answer from.
fn gate(symbol: &str, faults: impl Fn(&Scenario) -> Vec<Fault>) -> Result<Arc<Scenario>, Return> {
    let (mut slept, mut hung) = (false, false);
    loop {
        let scenario = machine(Machine::scenario);
        let faults = faults(&scenario);
        if faults.iter().any(|fault| fault.hang) {
            if !hung {
                hung = true;
                write_sign("hung", symbol);
            }
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }

        let slow_ms = faults.iter().map(|fault| fault.slow_ms).max().unwrap_or(0);
        if slow_ms > 0 && !slept {
            std::thread::sleep(Duration::from_millis(slow_ms));
            slept = true;
            continue;
        }

        machine(|machine| {
            *machine
                .statistics
                .calls
                .entry(symbol.to_owned())
                .or_default() += 1
        });

        let code = faults.iter().find_map(|fault| fault.code);
        if code.is_some() {
            write_sign("failed", symbol);
        }

        return code.map_or(Ok(scenario), Err);
    }
}

fn named(faults: &BTreeMap<String, Fault>, symbol: &str) -> Vec<Fault> {
    faults
        .get(symbol)
        .into_iter()
        .chain(faults.get("*"))
        .cloned()
        .collect()
}

fn answer(body: impl FnOnce() -> Result<(), Return>) -> Return {
    // A panic must not cross into C.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body))
        .map_or(codes::UNKNOWN, |done| done.err().unwrap_or(0))
}

fn initialised() -> Result<(), Return> {
    machine(|machine| machine.statistics.inits > machine.statistics.shutdowns)
        .then_some(())
        .ok_or(codes::UNINITIALIZED)
}

/// A call that needs no init.
pub fn bare_call(symbol: &str, body: impl FnOnce(&Scenario) -> Result<(), Return>) -> Return {
    answer(|| body(&*gate(symbol, |scenario| named(&scenario.faults, symbol))?))
}

/// A call without a device.
pub fn call(symbol: &str, body: impl FnOnce(&Scenario) -> Result<(), Return>) -> Return {
    bare_call(symbol, |scenario| {
        initialised().and_then(|()| body(scenario))
    })
}

/// A call that turns `uuid` into something, and passes that device's faults.
pub fn lookup(scenario: &Scenario, symbol: &str, gpu: &Gpu) -> Result<(), Return> {
    let _ = scenario;
    gate(symbol, |now| {
        now.devices
            .iter()
            .find(|other| other.uuid == gpu.uuid)
            .map_or_else(Vec::new, |gpu| named(&gpu.faults, symbol))
    })
    .map(|_| ())
}

/// A call on a device.
pub fn device_call(
    symbol: &str,
    handle: Handle,
    body: impl FnOnce(&Scenario, &Target) -> Result<(), Return>,
) -> Return {
    answer(|| {
        initialised()?;
        let uuid = machine(|machine| machine.uuid(handle)).ok_or(codes::INVALID_ARGUMENT)?;
        let scenario = gate(symbol, |scenario| {
            let mut faults = named(&scenario.faults, symbol);
            let gpu = find(scenario, &uuid)
                .and_then(|target| target.gpu(scenario).ok().map(|gpu| &gpu.faults));
            faults.extend(gpu.into_iter().flat_map(|own| named(own, symbol)));
            faults
        })?;

        let gone = if uuid.starts_with("MIG-") {
            codes::NOT_FOUND
        } else {
            codes::GPU_IS_LOST
        };

        body(&scenario, &find(&scenario, &uuid).ok_or(gone)?)
    })
}
