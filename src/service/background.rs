//! Readings for the journal alone, so that it also covers times in which no request reads the
//! devices.

use std::sync::Weak;
use std::time::Duration;

use crate::devices::sampler::DeviceSource;

/// Reads the devices whenever `interval` passes without a reading, until the source is dropped.
pub(super) async fn read(source: Weak<DeviceSource>, interval: Duration) {
    loop {
        let due = {
            let Some(source) = source.upgrade() else {
                return;
            };

            let DeviceSource::Live(sampler) = &*source else {
                return;
            };

            let due = sampler
                .last_attempt()
                .map_or(interval, |ago| interval.saturating_sub(ago));
            if due.is_zero() {
                sampler.look();
            }

            due
        };

        // A requested reading begins soon, or is not made at all.
        tokio::time::sleep(if due.is_zero() { interval } else { due }).await;
    }
}
