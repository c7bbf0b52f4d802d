//! How the daemon is, part by part, and why a part is not well.

use super::{Probe, promises};
use crate::api::status::{HealthAnswer, HealthPart, HealthStatus};
use crate::devices::Unusable;

/// Devices that are named one by one; of more only the number is told.
const NAMED: usize = 4;

impl Probe {
    /// Reads what is known already: asks neither the driver, nor a Hub, nor the disk.
    pub(super) fn health_now(&self) -> HealthAnswer {
        let parts = vec![
            part("devices", self.devices_trouble()),
            part("hub", self.hub_trouble()),
            part("cache", self.cache_trouble()),
            part("leases", self.leases_trouble()),
        ];
        HealthAnswer::of(parts, self.started.elapsed().as_secs())
    }

    fn devices_trouble(&self) -> Option<String> {
        let status = self.readings.status()?;
        if let Some(left) = status.released {
            return Some(format!("the driver is let go of for {} s more, as somebody asked", left.as_secs()));
        }
        if let Some((doing, since)) = status.busy.filter(|(_, since)| *since > self.readings.deadline()) {
            return Some(format!("the driver has not answered for {} s ({doing})", since.as_secs()));
        }
        if let Some((_, Some(error))) = status.last {
            return Some(error.to_string());
        }
        let snapshot = self.readings.at_hand()?;
        let faults = snapshot.devices.iter().filter_map(|device| {
            let why = device.unusable.as_ref().filter(|why| Unusable::is_fault(why))?;
            Some(format!("{} ({}): {}", device.facts.uuid, why.reason, why.message))
        });
        listed(faults.collect(), snapshot.devices.len(), "devices cannot be used")
    }

    fn hub_trouble(&self) -> Option<String> {
        let troubles = self.models.troubles();
        let told = troubles.iter().map(|(endpoint, why, ago)| {
            format!("{endpoint} did not answer {} s ago ({why}); known models are answered for", ago.as_secs())
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    fn cache_trouble(&self) -> Option<String> {
        self.models.cache_trouble()
    }

    fn leases_trouble(&self) -> Option<String> {
        if let Some(lasts) = self.promises.office.stuck_for() {
            let folder = self.settled().config.leases.state_directory.display().to_string();
            return Some(format!(
                "the ledger has been stuck in one step for {} s: the disk under {folder} may hang; leases wait for it",
                lasts.as_secs()
            ));
        }
        self.promises.trouble.clone().or_else(|| {
            let standing = self.promises.office.standing();
            let standing = standing.borrow();
            if let Some(blind) = promises::unread(&standing) {
                return Some(format!("{blind}; {}", blind.cure()));
            }
            standing.behind.then(|| {
                let folder = self.settled().config.leases.state_directory.display().to_string();
                format!(
                    "changes could not be written to {folder}; no lease is granted that would not survive a restart"
                )
            })
        })
    }
}

fn part(name: &str, trouble: Option<String>) -> HealthPart {
    HealthPart {
        name: name.to_owned(),
        status: if trouble.is_none() { HealthStatus::Ok } else { HealthStatus::Degraded },
        reason: trouble,
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
    Some(format!("{count} of {of} {what}: {}{more}", named.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_and_the_first_of_them_named() {
        let faults = |count: usize| (0..count).map(|number| format!("GPU-{number}")).collect();
        assert_eq!(listed(faults(0), 8, "are ill"), None);
        assert_eq!(listed(faults(2), 8, "are ill").as_deref(), Some("2 of 8 are ill: GPU-0; GPU-1"));
        assert!(listed(faults(5), 8, "are ill").is_some_and(|text| text.ends_with("GPU-3; ...")));
    }
}
