//! Updates the gauges of the metrics page from the daemon's current state.

use super::HostService;
use super::planning::leasable_view;
use crate::metrics::{DeviceFigures, Metrics};

impl HostService {
    /// Updates all gauges before the page is written.
    pub(super) fn update_gauges(&self, metrics: &Metrics) {
        for (part, trouble) in self.check_health() {
            metrics.set_degraded(part, trouble.is_some());
        }

        self.models.observe(metrics);
        let status = self.devices.status();
        metrics.set_nvml_errors(status.as_ref().map_or(0, |status| status.errors));
        let age = status
            .as_ref()
            .and_then(|status| status.last.as_ref().map(|(age, _)| *age));

        if let Some(status) = &status {
            metrics.set_xids(&status.xids);
        }

        let broker = self.leases.broker.status().borrow().clone();
        metrics.set_leases(broker.leases, broker.waiting);
        metrics.set_lease_events(&broker.counters);

        let Some(snapshot) = self.devices.in_memory() else {
            // No earlier figures: what cannot be read is absent.
            metrics.set_devices(&[], age);
            return;
        };

        // With unreadable leases, free memory can already be granted.
        let leases_known = self.leases.require_known().is_ok();
        let figures: Vec<DeviceFigures> = leasable_view(&self.active(), &snapshot, &broker.leased)
            .availability
            .devices
            .iter()
            .map(|device| DeviceFigures {
                uuid: device.facts.uuid.clone(),
                name: device.facts.name.clone(),
                total: device.facts.total_bytes,
                free: device.free,
                available: device.available.filter(|_| leases_known),
                leased: leases_known.then_some(device.leased),
                unusable: match &device.unusable {
                    Some(why) => Some(why.reason.to_string()),
                    None => device
                        .free
                        .is_none()
                        .then(|| "memory_unreadable".to_owned()),
                },
                part_of_gpu: device.facts.parent_uuid.is_some(),
            })
            .collect();

        metrics.set_devices(&figures, age);
    }
}
