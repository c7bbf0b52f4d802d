//! Where devices come from: said, or seen.

use std::sync::Arc;
use std::time::Duration;

use super::Sampler;
use crate::devices::Snapshot;
use crate::devices::error::DevicesError;

/// A source of snapshots.
#[derive(Debug)]
pub enum DeviceSource {
    /// Declared with `--gpus`, or replayed from a file: always the same.
    Declared(Arc<Snapshot>),
    /// The host's own, through the driver.
    Live(Sampler),
}

impl DeviceSource {
    /// A snapshot no older than `max_age`, within `deadline`; see [`Sampler::sample`].
    pub async fn sample(
        &self,
        max_age: Duration,
        deadline: Duration,
    ) -> Result<Arc<Snapshot>, DevicesError> {
        match self {
            Self::Declared(snapshot) => Ok(Arc::clone(snapshot)),
            Self::Live(sampler) => sampler.sample(max_age, deadline).await,
        }
    }
}

impl Snapshot {
    /// Whether anything can be placed at all; the reason of the first device where nothing can.
    pub fn usable(&self) -> Result<(), DevicesError> {
        if self
            .devices
            .iter()
            .any(|device| device.unusable.is_none() && device.free_bytes.is_some())
        {
            return Ok(());
        }
        // A MIG parent only says that its instances are what counts.
        let reasons = self
            .devices
            .iter()
            .filter_map(|device| device.unusable.as_ref());
        let telling = reasons
            .clone()
            .find(|why| why.reason != "mig_parent")
            .or_else(|| reasons.clone().next());
        Err(
            telling.map_or(DevicesError::NoDevices, |why| DevicesError::NoneUsable {
                reason: why.reason.clone(),
                message: why.message.clone(),
            }),
        )
    }
}
