//! The source of snapshots: declared devices or the host's own.

use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::device::{Snapshot, UnusableReason};

use super::Sampler;
use crate::devices::error::DevicesError;

/// A source of snapshots.
#[derive(Debug)]
pub enum DeviceSource {
    /// Devices that are declared with `--gpus` or read from a file. They never change.
    Declared(Arc<Snapshot>),
    /// The devices of this host, through the driver.
    Live(Sampler),
}

impl DeviceSource {
    /// Returns a snapshot no older than `max_age`, within `deadline`. See [`Sampler::sample`].
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

    // The reason of a MIG parent only points to its instances.
    let reasons = snapshot
        .devices
        .iter()
        .filter_map(|device| device.unusable.as_ref());

    let first_reason = reasons
        .clone()
        .find(|why| why.reason != UnusableReason::MigParent)
        .or_else(|| reasons.clone().next());

    Err(
        first_reason.map_or(DevicesError::NoDevices, |why| DevicesError::NoneUsable {
            reason: why.reason.clone(),
            message: why.message.clone(),
        }),
    )
}
