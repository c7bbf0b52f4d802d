//! Where the office's readings come from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::device::Snapshot;
use tokio::sync::watch;

use crate::devices::error::DevicesError;
use crate::devices::sampler::{self, DeviceSource};

/// A reading under way.
pub type Sampling<'a> =
    Pin<Box<dyn Future<Output = Result<Arc<Snapshot>, DevicesError>> + Send + 'a>>;

/// A source of readings that begin when they are asked for.
pub trait Devices: Send + Sync + 'static {
    /// A reading that began no earlier than this call, within `deadline`.
    fn sample(&self, deadline: Duration) -> Sampling<'_>;

    /// Every reading that is made, whoever asked for it; listening asks for none. `None` where
    /// nothing is ever read.
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
