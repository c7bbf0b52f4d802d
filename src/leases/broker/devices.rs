//! The source of the broker's device readings.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::device::Snapshot;
use tokio::sync::watch;

use crate::devices::error::DevicesError;
use crate::devices::sampler::{self, DeviceSource};

/// A reading in progress.
pub type Sampling<'a> =
    Pin<Box<dyn Future<Output = Result<Arc<Snapshot>, DevicesError>> + Send + 'a>>;

/// A source of readings that begin on demand.
pub trait Devices: Send + Sync + 'static {
    /// Reads the devices within `deadline`. The reading begins no earlier than this call.
    fn sample(&self, deadline: Duration) -> Sampling<'_>;

    /// Subscribes to the readings of all requesters; a subscription causes none. `None` if the
    /// devices are never read.
    fn readings(&self) -> Option<watch::Receiver<Option<Arc<sampler::Reading>>>>;
}

impl Devices for DeviceSource {
    fn sample(&self, deadline: Duration) -> Sampling<'_> {
        Box::pin(DeviceSource::sample(self, Duration::ZERO, deadline))
    }

    fn readings(&self) -> Option<watch::Receiver<Option<Arc<sampler::Reading>>>> {
        match self {
            Self::Declared(_) => None,
            Self::Live(sampler) => Some(sampler.listen()),
        }
    }
}
