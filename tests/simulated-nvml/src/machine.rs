//! The state of the loaded library: the current scenario, the handles and the init count.
//!
//! Every call also checks its faults here.

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

/// The counts of the library.
///
/// Each init and shutdown writes them to `statistics.json` in the folder of the scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// The number of successful inits.
    pub inits: u64,
    /// The number of shutdowns.
    pub shutdowns: u64,
    /// The number of event sets that are created and not freed.
    pub open_event_sets: u64,
    /// The number of calls, by C symbol.
    pub calls: BTreeMap<String, u64>,
}

/// A file's identity: device, inode, size, and modification time in seconds and nanoseconds.
type FileIdentity = (u64, u64, u64, i64, i64);

#[derive(Default)]
pub struct Machine {
    identity: Option<FileIdentity>,
    scenario: Arc<Scenario>,
    handles: Vec<String>,
    pub statistics: Statistics,
    /// The registered UUIDs of each event set, each with the number of delivered events.
    pub event_sets: BTreeMap<usize, BTreeMap<String, usize>>,
    pub next_event_set: usize,
}

static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);

/// The path of the scenario.
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

        let address: *const c_void = (&raw const MACHINE).cast();

        // SAFETY: `address` is inside this library, and `info` outlives the call.
        if unsafe { dladdr(address, &raw mut info) } == 0 || info.file_name.is_null() {
            return PathBuf::from("scenario.json");
        }
        // SAFETY: dladdr returned a NUL-terminated path that lives as long as the library.
        let name = unsafe { CStr::from_ptr(info.file_name) };

        PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())).with_file_name("scenario.json")
    })
}

/// Calls `action` with the locked machine. Keep `action` short.
pub fn machine<T>(action: impl FnOnce(&mut Machine) -> T) -> T {
    let mut guard: MutexGuard<'_, Option<Machine>> =
        MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    action(guard.get_or_insert_with(Machine::loaded))
}

/// Drops the state of the library.
///
/// After the last shutdown the library can be unloaded, together with its statics.
pub fn forget() {
    MACHINE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}

impl Machine {
    /// Returns the state of a library that was just loaded.
    ///
    /// The last shutdown may have unloaded the library and its counts. The counts then continue
    /// from those in the file.
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

    /// Returns the handle of a UUID.
    pub fn handle(&mut self, uuid: &str) -> Handle {
        let index = self
            .handles
            .iter()
            .position(|known| known == uuid)
            .unwrap_or_else(|| {
                self.handles.push(uuid.to_owned());
                self.handles.len() - 1
            });

        std::ptr::without_provenance_mut(index + 1)
    }

    fn uuid(&self, handle: Handle) -> Option<String> {
        handle
            .addr()
            .checked_sub(1)
            .and_then(|index| self.handles.get(index).cloned())
    }

    /// Writes the counts to the file that a test can read.
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
    /// A whole GPU, by its index in the scenario.
    Gpu(usize),
    /// A MIG device, by the GPU's index and the slot.
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

/// Creates a marker file that a call of `symbol` hangs or has failed.
///
/// A test that sets a fault can wait for the file, which is in the folder of the scenario.
fn write_marker(event: &str, symbol: &str) {
    let path = scenario_path().with_file_name(format!("{event}-{symbol}"));
    let _ = fs::File::create(path);
}

/// Applies the faults that a scenario sets for a call. Returns the scenario for the call's answer.
fn apply_faults(
    symbol: &str,
    faults: impl Fn(&Scenario) -> Vec<Fault>,
) -> Result<Arc<Scenario>, Return> {
    let (mut slept, mut hung) = (false, false);
    loop {
        let scenario = machine(Machine::scenario);
        let faults = faults(&scenario);
        if faults.iter().any(|fault| fault.hang) {
            if !hung {
                hung = true;
                write_marker("hung", symbol);
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
            write_marker("failed", symbol);
        }

        return code.map_or(Ok(scenario), Err);
    }
}

/// The faults of a call by its own symbol and by `*`.
fn faults_of(faults: &BTreeMap<String, Fault>, symbol: &str) -> Vec<Fault> {
    faults
        .get(symbol)
        .into_iter()
        .chain(faults.get("*"))
        .cloned()
        .collect()
}

/// Runs the body of a call.
fn run_call(body: impl FnOnce() -> Result<(), Return>) -> Return {
    // A panic must not unwind into C.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body))
        .map_or(codes::UNKNOWN, |done| done.err().unwrap_or(0))
}

fn check_initialized() -> Result<(), Return> {
    machine(|machine| machine.statistics.inits > machine.statistics.shutdowns)
        .then_some(())
        .ok_or(codes::UNINITIALIZED)
}

/// A call that needs no init.
pub fn bare_call(symbol: &str, body: impl FnOnce(&Scenario) -> Result<(), Return>) -> Return {
    run_call(|| {
        let scenario = apply_faults(symbol, |scenario| faults_of(&scenario.faults, symbol))?;
        body(&scenario)
    })
}

/// A call without a device.
pub fn call(symbol: &str, body: impl FnOnce(&Scenario) -> Result<(), Return>) -> Return {
    bare_call(symbol, |scenario| {
        check_initialized().and_then(|()| body(scenario))
    })
}

/// Applies the faults of `gpu` to a lookup that found it.
pub fn check_gpu_faults(symbol: &str, gpu: &Gpu) -> Result<(), Return> {
    apply_faults(symbol, |scenario| {
        scenario
            .devices
            .iter()
            .find(|other| other.uuid == gpu.uuid)
            .map_or_else(Vec::new, |gpu| faults_of(&gpu.faults, symbol))
    })
    .map(|_| ())
}

/// A call on a device.
pub fn device_call(
    symbol: &str,
    handle: Handle,
    body: impl FnOnce(&Scenario, &Target) -> Result<(), Return>,
) -> Return {
    run_call(|| {
        check_initialized()?;
        let uuid = machine(|machine| machine.uuid(handle)).ok_or(codes::INVALID_ARGUMENT)?;
        let scenario = apply_faults(symbol, |scenario| {
            let mut faults = faults_of(&scenario.faults, symbol);
            let gpu = find(scenario, &uuid)
                .and_then(|target| target.gpu(scenario).ok().map(|gpu| &gpu.faults));
            faults.extend(gpu.into_iter().flat_map(|own| faults_of(own, symbol)));
            faults
        })?;

        let missing_code = if uuid.starts_with("MIG-") {
            codes::NOT_FOUND
        } else {
            codes::GPU_IS_LOST
        };

        body(&scenario, &find(&scenario, &uuid).ok_or(missing_code)?)
    })
}
