//! The open library and the passes over its devices.

use std::collections::HashMap;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use hf_mem_core::device::{Device, DeviceKind, Snapshot, UnusableReason, declared, identity};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, Nvml};

use super::asleep::asleep;
use super::device::{DeviceState, WholeGpu, minimal_facts, unreadable};
use super::host_reading::HostReading;
use super::library::{Fingerprint, driver_error, is_library_wide, open};
use super::link_cache::LinkCache;
use super::options::NvmlOptions;
use super::xid::XidLog;
use super::{health, mig, raw};
use crate::devices::error::DevicesError;
use crate::devices::host_memory;
use crate::devices::power::{self, PowerState};

/// The most GPUs that are read: more than a host has.
///
/// It bounds the work that a wrong device count of the driver can cause.
const MAX_GPUS: u32 = 256;

/// The one open library of this process.
///
/// Dropping it shuts NVML down. NVML counts its inits, so you must drop the old reader before you
/// open the next one; otherwise NVML does not initialize again. Drop an
/// [`EventWatch`](super::EventWatch) on a reader before the reader.
pub struct NvmlReader {
    nvml: Arc<Nvml>,
    options: NvmlOptions,
    library: Option<PathBuf>,
    fingerprint: Fingerprint,
    driver_version: Option<String>,
    /// The constant facts of each device, by UUID.
    states: HashMap<String, DeviceState>,
    /// The whole GPUs of the last pass in the driver's order.
    ///
    /// They identify a GPU that no longer answers.
    last: Vec<Device>,
    /// The UUIDs of the GPUs that answered in the last pass.
    seen: Vec<String>,
    /// The UUIDs of the GPUs whose driver reports by itself when they need a reset.
    self_diagnosing: Vec<String>,
    links: LinkCache,
    needs_reopen: bool,
}

impl NvmlReader {
    /// Loads and initializes the library.
    ///
    /// This takes seconds if the driver must wake its GPUs first.
    pub fn open(options: &NvmlOptions) -> Result<Self, DevicesError> {
        let without_attach = power::states(&options.roots).iter().any(PowerState::asleep);
        let nvml = open(options.library.as_deref(), without_attach)?;
        let library = super::library::loaded_path(options.library.as_deref());

        Ok(Self {
            driver_version: nvml.sys_driver_version().ok(),
            nvml: Arc::new(nvml),
            fingerprint: Fingerprint::take(&options.roots, library.as_slice()),
            library,
            options: options.clone(),
            states: HashMap::new(),
            last: Vec::new(),
            seen: Vec::new(),
            self_diagnosing: Vec::new(),
            links: LinkCache::default(),
            needs_reopen: false,
        })
    }

    /// Returns the whole GPUs of the last pass.
    pub fn last(&self) -> &[Device] {
        &self.last
    }

    /// Returns the UUIDs of the whole GPUs that answered in the last pass.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Sets the GPUs that an earlier reader saw last, so that a missing device is recognized.
    pub fn inherit(&mut self, last: Vec<Device>) {
        self.last = last;
    }

    /// Whether the driver on this host is no longer the one that was opened.
    pub fn outdated(&self) -> bool {
        self.fingerprint != Fingerprint::take(&self.options.roots, self.library.as_slice())
    }

    /// Whether the last pass met a GPU whose recovery only a reopened library can see.
    pub fn needs_reopen(&self) -> bool {
        self.needs_reopen
    }

    /// Adds the active XIDs to each device of a snapshot that this reader took.
    pub fn mark(&self, snapshot: &mut Snapshot, xids: &XidLog) {
        for device in &mut snapshot.devices {
            let gpu = device
                .facts
                .parent_uuid
                .as_ref()
                .unwrap_or(&device.facts.uuid);
            let self_diagnosing = self.self_diagnosing.contains(gpu);
            xids.mark(device, self_diagnosing);
        }
    }

    /// Returns the open library, for the event watch.
    pub(super) fn library(&self) -> Arc<Nvml> {
        Arc::clone(&self.nvml)
    }

    /// Reads all devices in one pass.
    ///
    /// # Errors
    /// An error affects all devices. Drop the reader and open the library again after one.
    pub fn read(&mut self) -> Result<Snapshot, DevicesError> {
        let sampled_at = declared::whole_milliseconds(SystemTime::now());
        let power_states = power::states(&self.options.roots);
        let mut pass = Pass::default();

        // The pass borrows the library from `self` and changes the states, so it takes them out.
        let mut states = mem::take(&mut self.states);
        let result = self.read_gpus(&power_states, &mut states, &mut pass);
        self.states = states;
        result?;
        self.states.retain(|uuid, _| pass.seen.contains(uuid));
        self.needs_reopen = pass.needs_reopen;
        self.seen = pass.seen;
        self.self_diagnosing = pass.self_diagnosing;

        if pass.devices.is_empty() {
            return Err(match self.last.len() {
                0 => DevicesError::NoDevices,
                before => DevicesError::DevicesVanished { before },
            });
        }

        identity::normalize(&mut pass.devices);
        use_shared_pool_once(&mut pass.devices);

        let whole_gpus = pass
            .devices
            .iter()
            .filter(|device| device.facts.parent_uuid.is_none());
        self.last = whole_gpus.cloned().collect();
        let links = self.links.links(&pass.linkable, &self.nvml, &self.states);

        Ok(Snapshot {
            source: "nvml".to_owned(),
            sampled_at,
            stale: false,
            driver_version: self.driver_version.clone(),
            devices: pass.devices,
            links,
            host: host_memory::read(&self.options.roots.proc),
        })
    }

    fn read_gpus(
        &self,
        power_states: &[PowerState],
        states: &mut HashMap<String, DeviceState>,
        pass: &mut Pass,
    ) -> Result<(), DevicesError> {
        let host = HostReading::new(&self.options);

        if power_states.iter().any(PowerState::asleep) {
            // A lookup by index can wake another GPU. A lookup by address touches only its GPU.
            for (index, state) in (0..).zip(power_states) {
                if state.asleep() {
                    pass.devices.push(asleep(state, index, &self.last));
                } else {
                    let found = self.nvml.device_by_pci_bus_id(state.bus_id.as_str());
                    self.read_gpu(index, found, &host, states, pass)?;
                }
            }

            return Ok(());
        }

        let count = self
            .nvml
            .device_count()
            .map_err(|error| driver_error(&error, "nvmlDeviceGetCount"))?
            .min(MAX_GPUS);
        for index in 0..count {
            let found = self.nvml.device_by_index(index);
            self.read_gpu(index, found, &host, states, pass)?;
        }

        Ok(())
    }

    fn read_gpu(
        &self,
        index: u32,
        found: Result<Handle<'_>, NvmlError>,
        host: &HostReading<'_>,
        states: &mut HashMap<String, DeviceState>,
        pass: &mut Pass,
    ) -> Result<(), DevicesError> {
        let reading = found.and_then(|device| {
            let uuid = raw::uuid(&device)?;
            let state = match states.get(&uuid) {
                // A name that was not readable may be readable in this pass.
                Some(known) if known.name_warning.is_none() => known.clone(),
                _ => DeviceState::read(&device, index, host)?,
            };

            states.insert(uuid.clone(), state.clone());
            let mut whole_gpu = super::device::read(&device, &uuid, index, &state, host)?;
            let instances = mig::instances(&mut whole_gpu, &device, &state, host);

            Ok((uuid, whole_gpu, instances))
        });

        match reading {
            Ok((uuid, whole_gpu, instances)) => {
                pass.add(uuid, whole_gpu, instances);
                Ok(())
            }
            Err(error) if is_library_wide(&error) => Err(driver_error(&error, "reading a GPU")),
            Err(error) => {
                // The mode of a device node does not depend on the library.
                pass.needs_reopen |=
                    !matches!(error, NvmlError::NoPermission | NvmlError::OperatingSystem);
                pass.devices.push(self.missing(index, &error, pass));
                Ok(())
            }
        }
    }

    /// Returns a GPU that does not answer to its index.
    ///
    /// It has the facts of the last pass if that pass identifies it.
    fn missing(&self, index: u32, error: &NvmlError, pass: &Pass) -> Device {
        let why = match error {
            // "Unable to determine the device handle": the usual error of a lost GPU.
            NvmlError::Unknown => health::from_error(&NvmlError::GpuLost, "finding it"),
            other => health::from_error(other, "finding it"),
        };

        let known = self
            .last
            .iter()
            .find(|device| device.facts.index == index && !pass.seen.contains(&device.facts.uuid));
        let facts = known.map_or_else(
            || minimal_facts(format!("index-{index}"), index, None, None),
            |device| device.facts.clone(),
        );

        unreadable(facts, why)
    }

    /// Reads the links again if they are old. Call it when no client waits for a reading.
    pub fn refresh_links(&mut self) {
        self.links.refresh(&self.nvml, &self.states);
    }
}

/// Marks all but the first of the GPUs that share the host's memory as unusable.
///
/// The shared pool must count only once.
fn use_shared_pool_once(devices: &mut [Device]) {
    for device in devices
        .iter_mut()
        .filter(|device| device.facts.kind == DeviceKind::UnifiedMemory)
        .skip(1)
    {
        let message = "it shares the host's memory with a device that is listed before it";
        device
            .unusable
            .get_or_insert_with(|| health::unusable(UnusableReason::SharedPool, message));
    }
}

/// The results of a pass so far.
#[derive(Default)]
struct Pass {
    devices: Vec<Device>,
    /// The UUIDs of the whole GPUs that answered.
    seen: Vec<String>,
    /// The UUIDs among them whose links matter.
    linkable: Vec<String>,
    self_diagnosing: Vec<String>,
    needs_reopen: bool,
}

impl Pass {
    /// Adds a GPU that answered, and its MIG instances.
    fn add(&mut self, uuid: String, whole_gpu: WholeGpu, instances: Vec<Device>) {
        let gpu = whole_gpu.device;
        let reason = gpu.unusable.as_ref().map(|why| &why.reason);
        self.needs_reopen |= reason.is_some_and(|reason| {
            *reason == UnusableReason::GpuLost || *reason == UnusableReason::ResetRequired
        });

        // The driver looks devices up by UUID, so a second device with the same UUID is the first
        // one to it.
        if !self.seen.contains(&uuid) {
            let has_links = reason.is_none_or(|reason| {
                *reason != UnusableReason::MigParent && gpu.free_bytes.is_some()
            });
            if has_links {
                self.linkable.push(uuid.clone());
            }

            if whole_gpu.health.self_diagnosing {
                self.self_diagnosing.push(uuid.clone());
            }

            self.seen.push(uuid);
        }

        self.devices.push(gpu);
        self.devices.extend(instances);
    }
}
