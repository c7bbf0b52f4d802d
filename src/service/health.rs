//! The health of each part of the daemon, and the cause of a degraded part.

use std::time::Instant;

use hf_mem_core::device::Unusable;

use super::{HostService, leases};
use crate::api::status::{DaemonPart, HealthAnswer, HealthPart, HealthStatus};

/// The most devices that a health text names.
const MAX_NAMED_DEVICES: usize = 4;

/// What is wrong with a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartTrouble {
    /// A word that stays the same for as long as the cause does. The text counts seconds.
    pub(super) cause: String,
    /// A text for a person, with the fix if there is one.
    pub(super) why: String,
}

impl PartTrouble {
    pub(super) fn new(cause: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            why: why.into(),
        }
    }
}

impl HostService {
    /// Returns the daemon's health from known state: it asks neither the driver, nor a Hub, nor
    /// the disk.
    pub(super) fn health_now(&self) -> HealthAnswer {
        let parts = self
            .check_health()
            .into_iter()
            .map(|(part, trouble)| HealthPart {
                name: part.word().to_owned(),
                status: if trouble.is_none() {
                    HealthStatus::Ok
                } else {
                    HealthStatus::Degraded
                },
                reason: trouble.map(|trouble| trouble.why),
            });

        HealthAnswer::of(parts.collect(), self.started.elapsed().as_secs())
    }

    /// Returns the state of each part and logs the parts that have changed.
    ///
    /// It is called where something happens anyway: at a failure, a liveness check, or a health
    /// request.
    pub(super) fn check_health(
        &self,
    ) -> [(DaemonPart, Option<PartTrouble>); DaemonPart::ALL.len()] {
        let parts = DaemonPart::ALL.map(|part| {
            let trouble = match part {
                DaemonPart::Devices => self.devices_trouble(),
                DaemonPart::Hub => self.hub_trouble(),
                DaemonPart::Cache => self.models.cache_trouble(),
                DaemonPart::Leases => self.leases_trouble(),
            };
            (part, trouble)
        });
        self.health_log.record(&parts, Instant::now());

        parts
    }

    fn devices_trouble(&self) -> Option<PartTrouble> {
        let status = self.devices.status()?;
        if let Some(left) = status.released {
            let why = format!(
                "the driver is released for another {} s (by request)",
                left.as_secs()
            );
            return Some(PartTrouble::new("nvml_released", why));
        }

        if let Some((doing, since)) = status
            .busy
            .filter(|(_, since)| *since > self.devices.deadline())
        {
            let why = format!(
                "the driver has not answered for {} s ({doing})",
                since.as_secs()
            );
            return Some(PartTrouble::new("nvml_overdue", why));
        }

        if let Some((_, Some(error))) = status.last {
            return Some(PartTrouble::new(error.reason(), error.to_string()));
        }

        let snapshot = self.devices.in_memory()?;
        let faults = snapshot.devices.iter().filter_map(|device| {
            let why = device
                .unusable
                .as_ref()
                .filter(|why| Unusable::is_fault(why))?;
            Some(format!(
                "{} ({}): {}",
                device.facts.uuid, why.reason, why.message
            ))
        });

        let why = summarize_faults(
            faults.collect(),
            snapshot.devices.len(),
            "devices cannot be used",
        )?;

        Some(PartTrouble::new("unusable_devices", why))
    }

    fn hub_trouble(&self) -> Option<PartTrouble> {
        let troubles = self.models.troubles();
        let endpoints: Vec<&str> = troubles
            .iter()
            .map(|(endpoint, ..)| endpoint.as_str())
            .collect();

        let reports: Vec<String> = troubles
            .iter()
            .map(|(endpoint, why, ago)| {
                format!(
                    "{endpoint} did not answer {} s ago ({why}); \
                     the daemon answers for known models",
                    ago.as_secs()
                )
            })
            .collect();

        (!reports.is_empty()).then(|| PartTrouble::new(endpoints.join(" "), reports.join("; ")))
    }

    fn leases_trouble(&self) -> Option<PartTrouble> {
        let broker = &self.leases.broker;
        if let Some(duration) = broker.stuck_for() {
            let why = format!(
                "the ledger has been stuck in one step for {} s: the disk under {} may hang; \
                 lease requests wait for it",
                duration.as_secs(),
                self.state_folder()
            );
            return Some(PartTrouble::new("stuck", why));
        }

        if let Some(why) = &self.leases.trouble {
            return Some(PartTrouble::new("no_ledger", why.as_str()));
        }

        let status = broker.status();
        let status = status.borrow();
        if let Some(unreadable) = leases::unreadable(&status) {
            return Some(PartTrouble::new(
                "unread_leases",
                format!("{unreadable}; {}", unreadable.remedy()),
            ));
        }

        status.behind.then(|| {
            let folder = self.state_folder();
            let why = format!(
                "cannot write changes to {folder}; \
                 the daemon grants, renews and releases no lease until it can"
            );
            PartTrouble::new("unwritable", why)
        })
    }

    fn state_folder(&self) -> String {
        let active = self.active();
        active.config.leases.state_directory.display().to_string()
    }
}

/// "2 of 8 WHAT: first; second"; `None` without faults.
fn summarize_faults(faults: Vec<String>, total: usize, what: &str) -> Option<String> {
    let count = faults.len();
    if count == 0 {
        return None;
    }

    let more = if count > MAX_NAMED_DEVICES {
        "; ..."
    } else {
        ""
    };
    let named: Vec<String> = faults.into_iter().take(MAX_NAMED_DEVICES).collect();

    Some(format!(
        "{count} of {total} {what}: {}{more}",
        named.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("GPU-{number}")).collect()
    }

    #[test]
    fn faults_are_counted_and_named() {
        assert_eq!(summarize_faults(faults(0), 8, "are ill"), None);

        assert_eq!(
            summarize_faults(faults(2), 8, "are ill").as_deref(),
            Some("2 of 8 are ill: GPU-0; GPU-1")
        );
        assert!(
            summarize_faults(faults(5), 8, "are ill")
                .is_some_and(|text| text.ends_with("GPU-3; ..."))
        );
    }
}
