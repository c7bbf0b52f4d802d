//! The devices that answers are about: declared ones, or those that the sampler's thread reads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
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
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// The devices, and how recent a reading must be.
#[derive(Debug)]
pub struct DeviceMonitor {
    source: Arc<DeviceSource>,
    max_age: Duration,
    deadline: Duration,
    changes: watch::Sender<u64>,
    /// The last reading that a request used.
    last: Mutex<Option<Arc<Snapshot>>>,
    /// The readings before it.
    earlier: Mutex<RecentReadings>,
}

impl DeviceMonitor {
    /// Starts the sampler, or uses the declared devices. `nvml` overrides the configured library.
    pub(super) fn new(config: &DevicesConfig, nvml: Option<PathBuf>) -> Result<Self, Problem> {
        let source = match &config.declared {
            // A snapshot file can list leases; they are not this daemon's, and are dropped.
            Some(spec) => DeviceSource::Declared(Arc::new(
                crate::devices::snapshot_file::resolve(spec, SystemTime::now())?.snapshot,
            )),
            None => DeviceSource::Live(Sampler::start(options(config, nvml)).map_err(|error| {
                Problem::new(
                    Reason::Internal,
                    format!("cannot start the sampler's thread: {error}"),
                )
            })?),
        };

        Ok(Self {
            source: Arc::new(source),
            max_age: config.sample_interval,
            deadline: config.read_deadline,
            changes: watch::Sender::new(0),
            last: Mutex::default(),
            earlier: Mutex::default(),
        })
    }

    /// The source of the readings, for parts that need more recent ones.
    pub(super) fn source(&self) -> &Arc<DeviceSource> {
        &self.source
    }

    /// The longest time for one reading before the driver counts as hung.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Returns a reading that is at most one sampling interval old. While the driver hangs, it
    /// returns a reading marked stale.
    pub(super) async fn latest(&self) -> Result<Arc<Snapshot>, Problem> {
        self.at_most(self.max_age).await
    }

    /// Returns a reading that began no earlier than this call. While the driver hangs, it returns
    /// a reading marked stale.
    pub(super) async fn fresh(&self) -> Result<Arc<Snapshot>, Problem> {
        self.at_most(Duration::ZERO).await
    }

    async fn at_most(&self, max_age: Duration) -> Result<Arc<Snapshot>, Problem> {
        let snapshot = self.source.sample(max_age, self.deadline).await?;
        let mut last = lock_ignoring_poison(&self.last);
        if last
            .as_ref()
            .is_none_or(|known| known.sampled_at < snapshot.sampled_at)
            && let Some(earlier) = last.replace(Arc::clone(&snapshot))
        {
            lock_ignoring_poison(&self.earlier).push(earlier);
        }

        Ok(snapshot)
    }

    /// Returns how many bytes a second were being freed, by UUID, between a reading shortly before
    /// `snapshot` and `snapshot`.
    pub(super) fn draining(&self, snapshot: &Snapshot) -> BTreeMap<String, Bytes> {
        lock_ignoring_poison(&self.earlier).draining(snapshot)
    }

    /// Returns the last reading, of any age, without waking the driver.
    pub(super) fn in_memory(&self) -> Option<Arc<Snapshot>> {
        match &*self.source {
            DeviceSource::Declared(snapshot) => Some(Arc::clone(snapshot)),
            DeviceSource::Live(sampler) => sampler.last(),
        }
    }

    /// Returns a counter that grows at every reading and at every change of leases.
    ///
    /// The sampler keeps reading while the counter has subscribers.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        let receiver = self.changes.subscribe();
        if let (DeviceSource::Live(sampler), 1) = (&*self.source, self.changes.receiver_count()) {
            // The first subscriber: forward readings until the last subscriber has left.
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

    /// Reports a change that is not a reading.
    pub(super) fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns the sampler's status; `None` for declared devices.
    pub(super) fn status(&self) -> Option<SamplerStatus> {
        match &*self.source {
            DeviceSource::Declared(_) => None,
            DeviceSource::Live(sampler) => Some(sampler.status()),
        }
    }

    /// Releases the driver for `length`.
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
    let idle = config.idle_release;

    SamplerOptions {
        nvml: NvmlOptions {
            library: nvml.or(configured),
            roots: HostRoots::from_environment(),
            margins: Margins {
                display_bytes: config.display_margin.get(),
                ..Margins::default()
            },
        },
        interval: Some(config.sample_interval),
        idle_after: (!idle.is_zero()).then_some(idle),
        stale_for: config.max_age,
    }
}
