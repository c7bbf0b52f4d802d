//! Grants: decided and recorded in one step, on all devices or on none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::State;

use super::super::attribution::{HolderReading, baselines, holder_below};
use super::super::event::{Event, Subject};
use super::super::lease::{Holder, Lease, QuestionSummary, Share};
use super::{GrantError, Ledger};
use crate::leases::clock::Timestamp;

/// The most devices of one lease.
const MAX_DEVICES: usize = 256;
/// The longest key, unit, cgroup or model name, in bytes.
const MAX_TEXT: usize = 512;
/// The longest name of a holder, in bytes: every line of the journal about its lease contains it.
const MAX_NAME: usize = 128;

/// The request for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// Bytes by device UUID.
    pub devices: BTreeMap<String, Bytes>,
    /// The time to live, unless the lease is renewed.
    pub ttl: Duration,
    /// The holder.
    pub holder: Holder,
    /// The user.
    pub uid: u32,
    /// The client's key: repeating it returns the same lease.
    pub idempotency_key: Option<String>,
    /// The question that the lease answers.
    pub question: QuestionSummary,
}

/// A granted lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Granted and recorded now.
    New(Lease),
    /// Granted before to the same key and the same question.
    Existing(Lease),
}

impl Granted {
    /// The lease.
    pub fn lease(&self) -> &Lease {
        match self {
            Self::New(lease) | Self::Existing(lease) => lease,
        }
    }
}

impl Ledger {
    /// Returns the lease that an idempotency key got before. Call it before you place the model:
    /// the devices may be full because of this very lease.
    pub fn recall(
        &mut self,
        uid: u32,
        key: &str,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<Lease>, GrantError> {
        self.expire(now);
        let Some(lease) = self
            .live
            .values()
            .chain(self.ended.iter().rev())
            .find(|lease| lease.uid == uid && lease.idempotency_key.as_deref() == Some(key))
        else {
            return Ok(None);
        };

        if lease.question.digest != digest {
            return Err(GrantError::KeyReused {
                id: lease.id.clone(),
            });
        }

        if !lease.is_live() {
            return Err(GrantError::KeyEnded {
                id: lease.id.clone(),
                state: lease.state,
            });
        }

        Ok(Some(lease.clone()))
    }

    /// Grants a lease on all requested devices, or on none.
    ///
    /// The reading should be fresh: only the next one shows memory that the holder takes after it.
    pub fn grant(
        &mut self,
        request: GrantRequest,
        reading: &HolderReading<'_>,
        now: Timestamp,
    ) -> Result<Granted, GrantError> {
        self.expire(now);
        if let Some(key) = &request.idempotency_key
            && let Some(lease) = self.recall(request.uid, key, &request.question.digest, now)?
        {
            return Ok(Granted::Existing(lease));
        }

        self.check(&request)?;
        self.check_reading(reading, now)?;

        for (uuid, bytes) in &request.devices {
            self.check_device(uuid, *bytes, reading)?;
        }

        let serial = self.next_serial;
        self.next_serial = serial.saturating_add(1);
        let holder = &request.holder;

        let devices = request
            .devices
            .into_iter()
            .map(|(uuid, bytes)| {
                let share = new_share(holder, &uuid, bytes, reading);
                (uuid, share)
            })
            .collect();
        let expires_at = now.boottime.after(request.ttl);

        let mut lease = Lease {
            id: format!("{:08x}-{serial}", self.run),
            serial,
            uid: request.uid,
            holder: request.holder,
            question: request.question,
            idempotency_key: request.idempotency_key,
            devices,
            state: State::Granted,
            ttl_millis: u64::try_from(request.ttl.as_millis()).unwrap_or(u64::MAX),
            granted_at: now.boottime,
            granted_wall: now.wall,
            baseline_at: reading.taken_at,
            expires_at,
            extendable_until: expires_at.after(self.settings.max_extension),
            grown_at: None,
            members: BTreeSet::new(),
            ending: None,
        };

        // For nested holders, both leases record which process belongs to which holder.
        for other in self.live.values_mut() {
            other
                .members
                .extend(holder_below(&lease, other, reading.ancestry));
            lease
                .members
                .extend(holder_below(other, &lease, reading.ancestry));
        }

        self.live.insert(serial, lease.clone());
        self.changed();
        self.record(Event::Granted(Subject::of(&lease)));

        Ok(Granted::New(lease))
    }

    fn check(&self, request: &GrantRequest) -> Result<(), GrantError> {
        let holder = &request.holder;
        if request.devices.is_empty() || request.devices.len() > MAX_DEVICES {
            return Err(GrantError::invalid("on no device, or on more than 256"));
        }

        let requested: Bytes = request.devices.values().copied().sum();
        if request.devices.values().any(|bytes| *bytes == Bytes::ZERO) || requested.overflowed() {
            return Err(GrantError::invalid(
                "no bytes on a device, or more than can be counted",
            ));
        }

        if holder.process.is_none() && holder.name.is_none() {
            return Err(GrantError::invalid(
                "without a holder: name a process or a name",
            ));
        }

        let texts = [
            &holder.unit,
            &holder.cgroup,
            &request.idempotency_key,
            &request.question.engine,
        ];

        let question = [&request.question.model, &request.question.digest];
        if texts
            .into_iter()
            .flatten()
            .chain(question)
            .any(|text| text.len() > MAX_TEXT)
        {
            return Err(GrantError::invalid(
                "with a key, unit, cgroup or model name longer than 512 bytes",
            ));
        }

        if holder
            .name
            .as_ref()
            .is_some_and(|name| name.len() > MAX_NAME)
        {
            return Err(GrantError::invalid(
                "for a holder whose name is longer than 128 bytes",
            ));
        }

        let (min, max) = (self.settings.min_ttl, self.settings.max_ttl);
        if request.ttl < min || request.ttl > max {
            return Err(GrantError::TimeToLive {
                requested: request.ttl,
                min,
                max,
            });
        }

        // Ended leases that no reading has cleared yet count too, so that granting and releasing in
        // a loop stays bounded.
        let max_remembered = self
            .settings
            .max_leases
            .saturating_add(self.settings.max_ended);

        if self.live.len() >= self.settings.max_leases
            || self.live.len() + self.ended.len() >= max_remembered.saturating_add(1)
        {
            return Err(GrantError::TooMany {
                live: self.live.len(),
            });
        }

        let users_leases: Vec<&Lease> = self
            .live
            .values()
            .filter(|lease| lease.uid == request.uid)
            .collect();
        let held = users_leases.iter().map(|lease| lease.granted_bytes()).sum();

        self.settings
            .quotas
            .of(request.uid)
            .check(users_leases.len(), held, requested)?;

        Ok(())
    }

    fn check_reading(&self, reading: &HolderReading<'_>, now: Timestamp) -> Result<(), GrantError> {
        let age = now.boottime.since(reading.taken_at);
        let max_age = self.settings.max_reading_age;
        if age > max_age || reading.snapshot.stale || reading.taken_at > now.boottime {
            return Err(GrantError::StaleReading { age, max_age });
        }

        Ok(())
    }

    fn check_device(
        &self,
        uuid: &str,
        requested: Bytes,
        reading: &HolderReading<'_>,
    ) -> Result<(), GrantError> {
        let device = reading
            .device(uuid)
            .ok_or_else(|| GrantError::UnknownDevice {
                uuid: uuid.to_owned(),
            })?;
        let Some(available) = self.availability(uuid, reading).available_bytes else {
            let why = device
                .unusable
                .as_ref()
                .map_or("its memory could not be read", |unusable| {
                    unusable.reason.as_str()
                });
            return Err(GrantError::Unreadable {
                uuid: uuid.to_owned(),
                why: why.to_owned(),
            });
        };

        if requested > available {
            return Err(GrantError::Insufficient {
                uuid: uuid.to_owned(),
                requested,
                available,
            });
        }

        Ok(())
    }
}

fn new_share(
    holder: &Holder,
    uuid: &str,
    granted_bytes: Bytes,
    reading: &HolderReading<'_>,
) -> Share {
    let baselines = reading
        .device(uuid)
        .map(|device| baselines(holder, device, reading))
        .unwrap_or_default();

    Share {
        granted_bytes,
        visible_bytes: Bytes::ZERO,
        baselines,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::holder::Ancestry;
    use super::super::super::testing::snapshot;
    use super::super::LedgerConfig;
    use super::*;
    use crate::leases::clock::Boottime;

    #[test]
    fn long_names_are_cut_or_refused() {
        let (snapshot, ancestry) = (snapshot(&[("GPU-a", 80)]), Ancestry::default());
        let now = Timestamp {
            boottime: Boottime::from_millis(10),
            wall: std::time::SystemTime::UNIX_EPOCH,
        };

        let reading = HolderReading {
            snapshot: &snapshot,
            taken_at: now.boottime,
            ancestry: &ancestry,
        };

        let grant = |name: usize, model: usize| {
            let request = GrantRequest {
                devices: [("GPU-a".to_owned(), Bytes::gib(1))].into(),
                ttl: Duration::from_secs(60),
                holder: Holder::named("n".repeat(name)),
                uid: 1000,
                idempotency_key: None,
                question: QuestionSummary {
                    model: "é".repeat(model / 2),
                    ..QuestionSummary::default()
                },
            };

            Ledger::new(LedgerConfig::default(), "boot", 1).grant(request, &reading, now)
        };

        let granted = grant(128, 500).unwrap();
        assert!(Subject::of(granted.lease()).model.len() <= 203);
        assert_eq!(Subject::of(grant(1, 100).unwrap().lease()).model.len(), 100);
        let refused = grant(129, 2).unwrap_err();
        assert!(refused.to_string().contains("128 bytes"), "{refused}");
    }
}
