//! How the daemon is, part by part, and why a part is not well.

use std::time::Instant;

use hf_mem_core::device::Unusable;

use super::{HostService, leases};
use crate::api::status::{DaemonPart, HealthAnswer, HealthPart, HealthStatus};

/// Devices that are named one by one; of more only the number is told.
const NAMED: usize = 4;

/// What is wrong with a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartTrouble {
    /// A word that stays the same as long as this is what is wrong; the sentence counts seconds.
    pub(super) cause: String,
    /// A sentence for a person, with the cure where there is one.
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
    /// Reads what is known already: asks neither the driver, nor a Hub, nor the disk.
    pub(super) fn health_now(&self) -> HealthAnswer {
        let parts = self.look().into_iter().map(|(part, trouble)| HealthPart {
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

    /// How each part is. What has turned since the last look is told to the log. Called where
    /// something happens anyway: a failure, a sign of life, a question about health.
    pub(super) fn look(&self) -> [(DaemonPart, Option<PartTrouble>); DaemonPart::ALL.len()] {
        let parts = DaemonPart::ALL.map(|part| {
            let trouble = match part {
                DaemonPart::Devices => self.devices_trouble(),
                DaemonPart::Hub => self.hub_trouble(),
                DaemonPart::Cache => self.models.cache_trouble(),
                DaemonPart::Leases => self.leases_trouble(),
            };
            (part, trouble)
        });
        self.turns.tell(&parts, Instant::now());

        parts
    }

    fn devices_trouble(&self) -> Option<PartTrouble> {
        let status = self.readings.status()?;
        if let Some(left) = status.released {
            let why = format!(
                "the driver is let go of for {} s more, as somebody asked",
                left.as_secs()
            );
            return Some(PartTrouble::new("nvml_released", why));
        }

        if let Some((doing, since)) = status
            .busy
            .filter(|(_, since)| *since > self.readings.deadline())
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

        let snapshot = self.readings.at_hand()?;
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

        let why = listed(
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

        let told = troubles.iter().map(|(endpoint, why, ago)| {
            format!(
                "{endpoint} did not answer {} s ago ({why}); known models are answered for",
                ago.as_secs()
            )
        });
        let told: Vec<String> = told.collect();

        (!told.is_empty()).then(|| PartTrouble::new(endpoints.join(" "), told.join("; ")))
    }

    fn leases_trouble(&self) -> Option<PartTrouble> {
        let folder = || {
            self.settled()
                .config
                .leases
                .state_directory
                .display()
                .to_string()
        };

        if let Some(lasts) = self.promises.office.stuck_for() {
            let why = format!(
                "the ledger has been stuck in one step for {} s: the disk under {} may hang; leases wait for it",
                lasts.as_secs(),
                folder()
            );
            return Some(PartTrouble::new("stuck", why));
        }

        if let Some(why) = &self.promises.trouble {
            return Some(PartTrouble::new("no_ledger", why.as_str()));
        }

        let standing = self.promises.office.status();
        let standing = standing.borrow();
        if let Some(blind) = leases::unread(&standing) {
            return Some(PartTrouble::new(
                "unread_leases",
                format!("{blind}; {}", blind.remedy()),
            ));
        }

        standing.behind.then(|| {
            let folder = folder();
            let why = format!(
                "changes could not be written to {folder}; no lease is granted, renewed or released until they are"
            );
            PartTrouble::new("unwritable", why)
        })
    }
}

/// "2 of 8 WHAT: first; second"; `None` where there is nothing to list.
fn listed(faults: Vec<String>, of: usize, what: &str) -> Option<String> {
    let count = faults.len();
    if count == 0 {
        return None;
    }

    let more = if count > NAMED { "; ..." } else { "" };
    let named: Vec<String> = faults.into_iter().take(NAMED).collect();

    Some(format!(
        "{count} of {of} {what}: {}{more}",
        named.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_and_the_first_of_them_named() {
        let faults = |count: usize| (0..count).map(|number| format!("GPU-{number}")).collect();
        assert_eq!(listed(faults(0), 8, "are ill"), None);

        assert_eq!(
            listed(faults(2), 8, "are ill").as_deref(),
            Some("2 of 8 are ill: GPU-0; GPU-1")
        );
        assert!(listed(faults(5), 8, "are ill").is_some_and(|text| text.ends_with("GPU-3; ...")));
    }
}
