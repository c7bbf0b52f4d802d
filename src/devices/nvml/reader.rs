//! The open library and the passes over its devices.

use std::collections::HashMap;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{
    Device, DeviceKind, Link, Process, Snapshot, UnusableReason, declared, identity,
};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as Handle, Nvml};

use super::device::{DeviceState, WholeGpu, nameless, unreadable};
use super::library::{Fingerprint, concerns_all, open, whole};
use super::xid::XidLog;
use super::{health, mig, raw, topology};
use crate::accounts::UserNames;
use crate::devices::error::DevicesError;
use crate::devices::holders::{HostRoots, describe, namesakes};
use crate::devices::host_memory;
use crate::devices::power::{self, PowerState};

/// More GPUs than a host has; a bound on what a driver's count may make us do.
const MAX_GPUS: u32 = 256;
/// How long the wiring is believed; links seldom change, and asking takes longer than a whole pass.
const WIRING_LASTS: Duration = Duration::from_secs(60);

/// What the reading of NVIDIA devices depends on.
#[derive(Clone, Debug, Default)]
pub struct NvmlOptions {
    /// The library's path or soname; `None` searches.
    pub library: Option<PathBuf>,
    /// Where facts about the host stand.
    pub roots: HostRoots,
    /// What is kept back.
    pub margins: Margins,
}

/// Bytes kept back on devices that others than compute processes use.
#[derive(Clone, Copy, Debug)]
pub struct Margins {
    /// On a GPU that drives a display: desktops were seen to hold 211 to 596 MiB idle and grow at
    /// any time.
    pub display_bytes: Bytes,
    /// Of unified memory, for the host itself.
    pub host_bytes: Bytes,
}

impl Default for Margins {
    /// 512 MiB for a desktop, 2 GiB for a host: assumed.
    fn default() -> Self {
        Self {
            display_bytes: Bytes::mib(512),
            host_bytes: Bytes::gib(2),
        }
    }
}

/// What one pass sees of the host.
pub(super) struct HostReading<'a> {
    pub(super) roots: &'a HostRoots,
    pub(super) margins: &'a Margins,
    /// Whether a number that the driver gives means the process of that number in `/proc`.
    namesakes: bool,
    users: UserNames,
}

impl HostReading<'_> {
    /// Fills in who the processes are, unless their numbers may be those of another PID namespace
    /// than the files'.
    pub(super) fn describe(&self, processes: &mut [Process]) {
        if !self.namesakes {
            return;
        }

        for process in processes {
            describe(process, &self.roots.proc, &self.users);
        }
    }
}

/// The one open library of this process.
///
/// Dropping it shuts NVML down. NVML counts its inits, so the old one must be dropped before the
/// next is opened, or nothing is initialised anew; and an [`EventWatch`](super::EventWatch) on it
/// before that.
pub struct NvmlReader {
    nvml: Arc<Nvml>,
    options: NvmlOptions,
    library: Option<PathBuf>,
    fingerprint: Fingerprint,
    driver_version: Option<String>,
    /// By UUID.
    standing: HashMap<String, DeviceState>,
    /// The last pass's whole GPUs in their order, to tell which one no longer answers.
    last: Vec<Device>,
    /// The UUIDs of those that answered.
    seen: Vec<String>,
    /// Those whose driver tells by itself when they need a reset.
    self_diagnosing: Vec<String>,
    wiring: Option<Wiring>,
    sick: bool,
}

/// How GPUs are joined, as last asked.
struct Wiring {
    uuids: Vec<String>,
    at: Instant,
    links: Vec<Link>,
}

impl NvmlReader {
    /// Loads and initialises the library. Takes seconds where the driver first has to wake its
    /// GPUs.
    pub fn open(options: &NvmlOptions) -> Result<Self, DevicesError> {
        let lazily = power::states(&options.roots).iter().any(PowerState::asleep);
        let nvml = open(options.library.as_deref(), lazily)?;
        let library = super::library::mapped(options.library.as_deref());

        Ok(Self {
            driver_version: nvml.sys_driver_version().ok(),
            nvml: Arc::new(nvml),
            fingerprint: Fingerprint::take(&options.roots, library.as_slice()),
            library,
            options: options.clone(),
            standing: HashMap::new(),
            last: Vec::new(),
            seen: Vec::new(),
            self_diagnosing: Vec::new(),
            wiring: None,
            sick: false,
        })
    }

    /// The whole GPUs of the last pass.
    pub fn last(&self) -> &[Device] {
        &self.last
    }

    /// The UUIDs of the whole GPUs that answered in the last pass.
    pub fn seen(&self) -> &[String] {
        &self.seen
    }

    /// Takes over what a reader before this one saw last, so that a device that is missing now is
    /// known as missing.
    pub fn inherit(&mut self, last: Vec<Device>) {
        self.last = last;
    }

    /// Whether the driver on this host is no longer the one that was opened.
    pub fn outdated(&self) -> bool {
        self.fingerprint != Fingerprint::take(&self.options.roots, self.library.as_slice())
    }

    /// Whether the last pass met a GPU that only a fresh library may see healthy again.
    pub fn sick(&self) -> bool {
        self.sick
    }

    /// Says on each device of a snapshot of this reader's what XIDs stand against it.
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

    /// The open library, for the event watch.
    pub(super) fn library(&self) -> Arc<Nvml> {
        Arc::clone(&self.nvml)
    }

    /// One pass over all devices. An error means that nothing can be told of any; the library is
    /// then to be dropped and opened anew.
    pub fn read(&mut self) -> Result<Snapshot, DevicesError> {
        let sampled_at = declared::whole_milliseconds(SystemTime::now());
        let states = power::states(&self.options.roots);
        let mut pass = Pass::default();

        // The reader's own fields are needed beside the borrowed library, so they step aside for
        // the pass.
        let mut standing = mem::take(&mut self.standing);
        let done = self.visit(&states, &mut standing, &mut pass);
        self.standing = standing;
        done?;
        self.standing.retain(|uuid, _| pass.seen.contains(uuid));
        self.sick = pass.sick;
        self.seen = pass.seen;
        self.self_diagnosing = pass.self_diagnosing;

        if pass.devices.is_empty() {
            return Err(match self.last.len() {
                0 => DevicesError::NoDevices,
                before => DevicesError::DevicesVanished { before },
            });
        }

        identity::normalize(&mut pass.devices);
        one_pool(&mut pass.devices);

        let whole_gpus = pass
            .devices
            .iter()
            .filter(|device| device.facts.parent_uuid.is_none());
        self.last = whole_gpus.cloned().collect();
        let links = self.links(&pass.wired);

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

    fn visit(
        &self,
        states: &[PowerState],
        standing: &mut HashMap<String, DeviceState>,
        pass: &mut Pass,
    ) -> Result<(), DevicesError> {
        let scene = HostReading {
            roots: &self.options.roots,
            margins: &self.options.margins,
            namesakes: namesakes(&self.options.roots),
            users: UserNames::of_host(&self.options.roots.etc),
        };

        if states.iter().any(PowerState::asleep) {
            // Looking one up by index could wake another; by address, only the one meant is
            // touched.
            for (index, state) in (0..).zip(states) {
                if state.asleep() {
                    pass.devices.push(asleep(state, index, &self.last));
                } else {
                    let found = self.nvml.device_by_pci_bus_id(state.bus_id.as_str());
                    self.one(index, found, &scene, standing, pass)?;
                }
            }

            return Ok(());
        }

        let count = self
            .nvml
            .device_count()
            .map_err(|error| whole(&error, "nvmlDeviceGetCount"))?
            .min(MAX_GPUS);
        for index in 0..count {
            self.one(
                index,
                self.nvml.device_by_index(index),
                &scene,
                standing,
                pass,
            )?;
        }

        Ok(())
    }

    fn one(
        &self,
        index: u32,
        found: Result<Handle<'_>, NvmlError>,
        scene: &HostReading<'_>,
        standing: &mut HashMap<String, DeviceState>,
        pass: &mut Pass,
    ) -> Result<(), DevicesError> {
        let read = found.and_then(|device| {
            let uuid = raw::uuid(&device)?;
            let own = match standing.get(&uuid) {
                // A name that could not be read may be read another time.
                Some(known) if known.unread_name.is_none() => known.clone(),
                _ => DeviceState::read(&device, index, scene)?,
            };

            standing.insert(uuid.clone(), own.clone());
            let mut whole_gpu = super::device::read(&device, &uuid, index, &own, scene)?;
            let instances = mig::instances(&mut whole_gpu, &device, &own, scene);

            Ok((uuid, whole_gpu, instances))
        });

        match read {
            Ok((
                uuid,
                WholeGpu {
                    device: gpu,
                    health,
                    ..
                },
                instances,
            )) => {
                pass.sick |= gpu.unusable.as_ref().is_some_and(|why| {
                    why.reason == UnusableReason::GpuLost
                        || why.reason == UnusableReason::ResetRequired
                });

                // A second device of one UUID is no other one to the driver, which looks it up by
                // that.
                if !pass.seen.contains(&uuid) {
                    if gpu.unusable.as_ref().is_none_or(|why| {
                        why.reason != UnusableReason::MigParent && gpu.free_bytes.is_some()
                    }) {
                        pass.wired.push(uuid.clone());
                    }

                    if health.self_diagnosing {
                        pass.self_diagnosing.push(uuid.clone());
                    }

                    pass.seen.push(uuid);
                }

                pass.devices.push(gpu);
                pass.devices.extend(instances);

                Ok(())
            }
            Err(error) if concerns_all(&error) => Err(whole(&error, "reading a GPU")),
            Err(error) => {
                // Who may open a device node is no matter of the library's.
                pass.sick |= !matches!(error, NvmlError::NoPermission | NvmlError::OperatingSystem);
                pass.devices.push(self.missing(index, &error, pass));
                Ok(())
            }
        }
    }

    /// A GPU that does not answer to its index: what was known of it, where the last pass makes
    /// that plain.
    fn missing(&self, index: u32, error: &NvmlError, pass: &Pass) -> Device {
        let why = match error {
            // "Unable to determine the device handle": how a lost GPU is often met.
            NvmlError::Unknown => health::from_error(&NvmlError::GpuLost, "finding it"),
            other => health::from_error(other, "finding it"),
        };

        let known = self
            .last
            .iter()
            .find(|device| device.facts.index == index && !pass.seen.contains(&device.facts.uuid));
        let facts = known.map_or_else(
            || nameless(format!("index-{index}"), index, None, None),
            |device| device.facts.clone(),
        );

        unreadable(facts, why)
    }

    /// The links among `uuids`. They are asked for once for each set of GPUs; see
    /// [`Self::refresh_wiring`].
    fn links(&mut self, uuids: &[String]) -> Vec<Link> {
        let wiring = match self.wiring.take() {
            Some(known) if uuids.iter().all(|uuid| known.uuids.contains(uuid)) => known,
            _ => self.wire(uuids.to_vec()),
        };

        let among = |uuid: &String| uuids.len() == wiring.uuids.len() || uuids.contains(uuid);
        let links = wiring
            .links
            .iter()
            .filter(|link| among(&link.a) && among(&link.b))
            .cloned()
            .collect();

        self.wiring = Some(wiring);
        links
    }

    /// Asks for the wiring again where it was asked for long ago; for a moment when nobody waits.
    pub fn refresh_wiring(&mut self) {
        if let Some(old) = self.wiring.take() {
            self.wiring = Some(if old.at.elapsed() < WIRING_LASTS {
                old
            } else {
                self.wire(old.uuids)
            });
        }
    }

    fn wire(&self, uuids: Vec<String>) -> Wiring {
        let ends: Vec<_> = uuids
            .iter()
            .filter_map(|uuid| {
                let device = self.nvml.device_by_uuid(uuid.as_str()).ok()?;
                let pci_bus_id = self
                    .standing
                    .get(uuid)
                    .and_then(|standing| standing.pci_bus_id.clone());

                Some(topology::End {
                    uuid: uuid.clone(),
                    pci_bus_id,
                    device,
                })
            })
            .collect();
        let links = if ends.len() > 1 {
            topology::read(&ends)
        } else {
            Vec::new()
        };

        Wiring {
            uuids,
            at: Instant::now(),
            links,
        }
    }
}

/// Of several GPUs that share the host's memory, only the first is placed on: the pool must not be
/// counted twice.
fn one_pool(devices: &mut [Device]) {
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

/// What a pass gathers.
#[derive(Default)]
struct Pass {
    devices: Vec<Device>,
    /// UUIDs of whole GPUs that answered.
    seen: Vec<String>,
    /// Those among them whose wiring matters.
    wired: Vec<String>,
    self_diagnosing: Vec<String>,
    sick: bool,
}

/// A device that sleeps, with what an earlier pass or the kernel module knows of it.
pub(super) fn asleep(state: &PowerState, index: u32, last: &[Device]) -> Device {
    let known = last
        .iter()
        .find(|device| device.facts.pci_bus_id.as_deref() == Some(state.bus_id.as_str()));
    let facts = known.map_or_else(
        || {
            let uuid = state
                .uuid
                .clone()
                .unwrap_or_else(|| format!("PCI-{}", state.bus_id));
            nameless(uuid, index, Some(state.bus_id.clone()), state.name.clone())
        },
        |device| device.facts.clone(),
    );

    unreadable(
        facts,
        health::unusable(
            UnusableReason::Asleep,
            "the GPU is suspended and was not woken for a reading; wake it with nvidia-smi -L and ask again",
        ),
    )
}

/// The snapshot of a host whose every GPU sleeps: taken without the driver's library.
pub fn all_asleep(options: &NvmlOptions) -> Option<Snapshot> {
    let states = power::states(&options.roots);
    if states.is_empty() || !states.iter().all(PowerState::asleep) {
        return None;
    }

    let mut devices: Vec<Device> = (0..)
        .zip(&states)
        .map(|(index, state)| asleep(state, index, &[]))
        .collect();
    identity::normalize(&mut devices);

    Some(Snapshot {
        source: "nvml".to_owned(),
        sampled_at: declared::whole_milliseconds(SystemTime::now()),
        stale: false,
        driver_version: None,
        devices,
        links: Vec::new(),
        host: host_memory::read(&options.roots.proc),
    })
}
