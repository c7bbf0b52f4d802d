//! A promise: decided and recorded in one step, on all its devices or on none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::report::lease::State;

use super::super::attribution::{HolderReading, baselines, holder_below};
use super::super::event::{Event, Subject};
use super::super::lease::{Holder, Lease, QuestionSummary, Share};
use super::{GrantError, Ledger};
use crate::leases::clock::Now;

/// The most devices of one lease.
const MOST_DEVICES: usize = 256;
/// The longest key, unit, cgroup or model name.
const LONGEST_TEXT: usize = 512;
/// The longest name of a holder: every line of the journal about its lease has it.
const LONGEST_NAME: usize = 128;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// Bytes by device UUID.
    pub devices: BTreeMap<String, Bytes>,
    /// How long, unless renewed.
    pub ttl: Duration,
    /// Who holds it.
    pub holder: Holder,
    /// Who asks.
    pub uid: u32,
    /// The asker's own key: asking twice with it gives one lease.
    pub idempotency_key: Option<String>,
    /// What for.
    pub question: QuestionSummary,
}

/// A promise given now, or before to the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Given and recorded now.
    Now(Lease),
    /// Given before: the same key and the same question.
    Before(Lease),
}

impl Granted {
    /// The lease.
    pub fn lease(&self) -> &Lease {
        match self {
            Self::Now(lease) | Self::Before(lease) => lease,
        }
    }
}

impl Ledger {
    /// The lease that an idempotency key has already been given. To be asked before a place is
    /// sought: the devices may be full by now, of this very lease.
    pub fn recall(
        &mut self,
        uid: u32,
        key: &str,
        digest: &str,
        now: Now,
    ) -> Result<Option<Lease>, GrantError> {
        self.expire(now);
        let of_key =
            |lease: &&Lease| lease.uid == uid && lease.idempotency_key.as_deref() == Some(key);

        let Some(lease) = self
            .live
            .values()
            .chain(self.ended.iter().rev())
            .find(of_key)
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

    /// Promises memory on all the devices asked for, or on none.
    ///
    /// The reading should be fresh: memory that the holder took between it and now is seen only in
    /// the next one.
    pub fn grant(
        &mut self,
        request: GrantRequest,
        reading: &HolderReading<'_>,
        now: Now,
    ) -> Result<Granted, GrantError> {
        self.expire(now);
        if let Some(key) = &request.idempotency_key
            && let Some(lease) = self.recall(request.uid, key, &request.question.digest, now)?
        {
            return Ok(Granted::Before(lease));
        }

        self.check(&request)?;
        self.check_reading(reading, now)?;

        for (uuid, asked) in &request.devices {
            self.check_device(uuid, *asked, reading)?;
        }

        let serial = self.next_serial;
        self.next_serial = serial.saturating_add(1);
        let holder = &request.holder;

        let share = |(uuid, granted_bytes): (String, Bytes)| {
            let baselines = reading
                .device(&uuid)
                .map(|device| baselines(holder, device, reading))
                .unwrap_or_default();
            (
                uuid,
                Share {
                    granted_bytes,
                    visible_bytes: Bytes::ZERO,
                    baselines,
                },
            )
        };

        let devices = request.devices.into_iter().map(share).collect();
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
            extendable_until: expires_at.after(self.settings.longest_extension),
            grown_at: None,
            members: BTreeSet::new(),
            ending: None,
        };

        // Of nested holders both leases learn who is whose.
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
        self.tell(Event::Granted(Subject::of(&lease)));

        Ok(Granted::Now(lease))
    }

    fn check(&self, request: &GrantRequest) -> Result<(), GrantError> {
        let invalid = |what: &str| {
            Err(GrantError::Invalid {
                what: what.to_owned(),
            })
        };

        let holder = &request.holder;
        if request.devices.is_empty() || request.devices.len() > MOST_DEVICES {
            return invalid("on no device, or on more than 256");
        }

        let asked: Bytes = request.devices.values().copied().sum();
        if request.devices.values().any(|bytes| *bytes == Bytes::ZERO) || asked.overflowed() {
            return invalid("no bytes on a device, or more than can be counted");
        }

        if holder.process.is_none() && holder.name.is_none() {
            return invalid("to nobody: the holder needs a process or a name");
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
            .any(|text| text.len() > LONGEST_TEXT)
        {
            return invalid("with a key, unit, cgroup or model name longer than 512 bytes");
        }

        if holder
            .name
            .as_ref()
            .is_some_and(|name| name.len() > LONGEST_NAME)
        {
            return invalid("to a holder whose name is longer than 128 bytes");
        }

        let (shortest, longest) = (self.settings.shortest_ttl, self.settings.longest_ttl);
        if request.ttl < shortest || request.ttl > longest {
            return Err(GrantError::TimeToLive {
                asked: request.ttl,
                shortest,
                longest,
            });
        }
        // Ended leases that no reading has cleared yet count too, so that asking and releasing in a
        // loop stays bounded.
        let kept = self
            .settings
            .most_leases
            .saturating_add(self.settings.most_ended);

        if self.live.len() >= self.settings.most_leases
            || self.live.len() + self.ended.len() >= kept.saturating_add(1)
        {
            return Err(GrantError::TooMany {
                live: self.live.len(),
            });
        }

        let own = || self.live.values().filter(|lease| lease.uid == request.uid);
        let held = own().map(Lease::granted_bytes).sum();

        self.settings
            .quotas
            .of(request.uid)
            .check(own().count(), held, asked)?;

        Ok(())
    }

    fn check_reading(&self, reading: &HolderReading<'_>, now: Now) -> Result<(), GrantError> {
        let (age, oldest) = (
            now.boottime.since(reading.taken_at),
            self.settings.oldest_reading,
        );
        if age > oldest || reading.snapshot.stale || reading.taken_at > now.boottime {
            return Err(GrantError::StaleReading { age, oldest });
        }

        Ok(())
    }

    fn check_device(
        &self,
        uuid: &str,
        asked: Bytes,
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

        if asked > available {
            return Err(GrantError::Insufficient {
                uuid: uuid.to_owned(),
                asked,
                available,
            });
        }

        Ok(())
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
    fn names_are_short_enough_to_be_written_down_with_every_event() {
        let (snapshot, ancestry) = (snapshot(&[("GPU-a", 80)]), Ancestry::default());
        let now = Now {
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
