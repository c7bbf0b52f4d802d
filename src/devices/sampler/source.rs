//! Where devices come from: said, or seen.

use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::device::{Snapshot, UnusableReason};

use super::Sampler;
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

/// Returns an error with the reason of the first device if no device of `snapshot` can be used.
pub fn usable(snapshot: &Snapshot) -> Result<(), DevicesError> {
    if snapshot
        .devices
        .iter()
        .any(|device| device.unusable.is_none() && device.free_bytes.is_some())
    {
        return Ok(());
    }
    // A MIG parent only says that its instances are what counts.
    let reasons = snapshot
        .devices
        .iter()
        .filter_map(|device| device.unusable.as_ref());

    let telling = reasons
        .clone()
        .find(|why| why.reason != UnusableReason::MigParent)
        .or_else(|| reasons.clone().next());

    Err(
        telling.map_or(DevicesError::NoDevices, |why| DevicesError::NoneUsable {
            reason: why.reason.clone(),
            message: why.message.clone(),
        }),
    )
}
