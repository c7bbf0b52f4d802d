//! Devices for askers: declared once, or sampled by the one thread that owns the driver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::watch;

use crate::config::DevicesConfig;
use crate::devices::RecentReadings;
use crate::devices::holders::HostRoots;
use crate::devices::nvml::{Margins, NvmlOptions};
use crate::devices::sampler::{DeviceSource, Sampler, SamplerOptions, SamplerStatus};

/// The devices, and how fresh a reading must be.
#[derive(Debug)]
pub struct DeviceMonitor {
    source: Arc<DeviceSource>,
    max_age: Duration,
    deadline: Duration,
    changes: watch::Sender<u64>,
    /// The last reading that was asked for.
    last: Mutex<Option<Arc<Snapshot>>>,
    /// Those before it.
    before: Mutex<RecentReadings>,
}

impl DeviceMonitor {
    /// As the configuration says; `nvml` stands before its library.
    pub(super) fn new(config: &DevicesConfig, nvml: Option<PathBuf>) -> Result<Self, Problem> {
        let source = match &config.declared {
            // Leases of a file's are not this daemon's.
            Some(spec) => DeviceSource::Declared(Arc::new(
                crate::devices::snapshot_file::resolve(spec, SystemTime::now())?.snapshot,
            )),
            None => DeviceSource::Live(Sampler::start(options(config, nvml)).map_err(|error| {
                Problem::new(
                    Reason::Internal,
                    format!("the sampler's thread cannot be started: {error}"),
                )
            })?),
        };

        Ok(Self {
            source: Arc::new(source),
            max_age: config.sample_interval.get(),
            deadline: config.read_deadline.get(),
            changes: watch::Sender::new(0),
            last: Mutex::default(),
            before: Mutex::default(),
        })
    }

    /// Where the readings come from, for others that need fresher ones.
    pub(super) fn source(&self) -> &Arc<DeviceSource> {
        &self.source
    }

    /// How long one reading may take before the driver counts as hanging.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A reading that is at most one sampling interval old, or one marked stale while the driver
    /// hangs.
    pub(super) async fn latest(&self) -> Result<Arc<Snapshot>, Problem> {
        self.at_most(self.max_age).await
    }

    /// A reading that began no earlier than this call, or one marked stale while the driver hangs.
    pub(super) async fn fresh(&self) -> Result<Arc<Snapshot>, Problem> {
        self.at_most(Duration::ZERO).await
    }

    async fn at_most(&self, max_age: Duration) -> Result<Arc<Snapshot>, Problem> {
        let snapshot = self.source.sample(max_age, self.deadline).await?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last
            .as_ref()
            .is_none_or(|known| known.sampled_at < snapshot.sampled_at)
            && let Some(earlier) = last.replace(Arc::clone(&snapshot))
        {
            self.before
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(earlier);
        }

        Ok(snapshot)
    }

    /// Bytes a second that were coming free, by UUID, between a reading shortly before `snapshot`
    /// and it.
    pub(super) fn draining(&self, snapshot: &Snapshot) -> BTreeMap<String, Bytes> {
        self.before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .draining(snapshot)
    }

    /// The last reading, however old, without waking the driver for another.
    pub(super) fn at_hand(&self) -> Option<Arc<Snapshot>> {
        match &*self.source {
            DeviceSource::Declared(snapshot) => Some(Arc::clone(snapshot)),
            DeviceSource::Live(sampler) => sampler.last(),
        }
    }

    /// Counts up at every reading and at every change of leases. While somebody listens, readings
    /// go on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        let receiver = self.changes.subscribe();
        if let (DeviceSource::Live(sampler), 1) = (&*self.source, self.changes.receiver_count()) {
            // The first listener: pass readings on until the last one has gone.
            let mut readings = sampler.subscribe();
            let changes = self.changes.clone();

            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        () = changes.closed() => return,
                        changed = readings.changed() => match changed {
                            Ok(()) => changes.send_modify(|count| *count = count.wrapping_add(1)),
                            Err(_) => return,
                        },
                    }
                }
            });
        }

        receiver
    }

    /// Says that something beside the devices changed.
    pub(super) fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What the sampler is at; `None` for declared devices.
    pub(super) fn status(&self) -> Option<SamplerStatus> {
        match &*self.source {
            DeviceSource::Declared(_) => None,
            DeviceSource::Live(sampler) => Some(sampler.status()),
        }
    }

    /// Lets go of the driver for `length`.
    pub(super) async fn release(&self, length: Duration) -> Result<(), Problem> {
        match &*self.source {
            DeviceSource::Declared(_) => Ok(()),
            DeviceSource::Live(sampler) => Ok(sampler.release(length, self.deadline).await?),
        }
    }
}

fn options(config: &DevicesConfig, nvml: Option<PathBuf>) -> SamplerOptions {
    let default = DevicesConfig::default().nvml_library;
    let configured = Some(config.nvml_library.clone()).filter(|library| *library != default);
    let idle = config.idle_release.get();

    SamplerOptions {
        nvml: NvmlOptions {
            library: nvml.or(configured),
            roots: HostRoots::from_environment(),
            margins: Margins {
                display_bytes: config.display_margin.get(),
                ..Margins::default()
            },
        },
        interval: Some(config.sample_interval.get()),
        idle_after: (!idle.is_zero()).then_some(idle),
        stale_for: config.max_age.get(),
    }
}
