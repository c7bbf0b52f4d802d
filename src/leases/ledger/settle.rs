//! What a new reading shows: leases shrink by the memory that their holders have taken, live on
//! while it grows, and are told when others have taken what was promised to them.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Device;
use hf_mem_core::report::lease::State;

use super::super::attribution::{HolderReading, Occupied, descendants, is_lessee, visible_in};
use super::super::event::{Event, Subject, UnleasedProcess};
use super::super::lease::Lease;
use super::{Ledger, LedgerConfig};
use crate::leases::clock::{Boottime, Now};

/// How many processes without a lease an event names.
const MOST_STRANGERS: usize = 8;
/// How many processes of one lease's tree are remembered.
const MOST_MEMBERS: usize = 1024;

impl Ledger {
    /// Takes a reading in. One that is not newer than the last says nothing new.
    pub fn settle(&mut self, reading: &HolderReading<'_>, now: Now) {
        if self
            .last_reading
            .is_some_and(|last| reading.taken_at <= last)
        {
            self.expire(now);
            return;
        }

        self.last_reading = Some(reading.taken_at);
        for device in &reading.snapshot.devices {
            self.settle_device(device, reading);
        }

        self.see_endings(reading.taken_at);
        self.forget();
        self.update_states(reading.taken_at);

        // After the growth was seen: a lease whose memory still grows does not end for a reading
        // that came late.
        self.expire(now);
        for device in &reading.snapshot.devices {
            self.check_overdrawn(&device.facts.uuid, reading);
        }
    }

    fn settle_device(&mut self, device: &Device, reading: &HolderReading<'_>) {
        let uuid = &device.facts.uuid;
        let here = self.on_device(uuid);
        if here.is_empty() {
            return;
        }

        let occupied = Occupied::new(device, reading);
        let mut seen = visible_in(&here, &occupied);
        let mut found = BTreeMap::new();
        for lease in &here {
            let bytes = seen.remove(&lease.serial).unwrap_or(Bytes::ZERO);
            found.insert(lease.serial, (bytes, descendants(lease, &occupied)));
        }

        let readable = device.free_bytes.is_some();
        let all_known = device
            .processes
            .iter()
            .all(|process| process.used_bytes.is_some());
        let mut grown = false;

        for lease in self.live.values_mut().chain(&mut self.ended) {
            let Some((bytes, members)) = found.remove(&lease.serial) else {
                continue;
            };

            let alive = lease.is_live();
            let first_since_end = lease
                .ending
                .is_some_and(|end| end.seen_at.is_none() && reading.taken_at > end.at);

            for member in members {
                if lease.members.len() < MOST_MEMBERS {
                    lease.members.insert(member);
                }
            }

            let Some(share) = lease.devices.get_mut(uuid) else {
                continue;
            };

            if alive && readable {
                if bytes > share.visible_bytes {
                    lease.grown_at = Some(reading.taken_at);
                    grown = true;
                }
                share.visible_bytes = bytes;
            } else if first_since_end {
                // Where nothing can be read, all of it may be there still.
                share.visible_bytes = if readable { bytes } else { share.granted_bytes };
            } else if !alive && readable && all_known {
                // What is left of it only ever shrinks. After a restart more of it is assumed,
                // until the next reading.
                share.visible_bytes = share.visible_bytes.min(bytes);
            }
        }

        if grown {
            self.changed();
        }
    }

    /// A reading from after a lease's end was taken: it counts no more, beyond what is seen to be
    /// left of it.
    fn see_endings(&mut self, taken_at: Boottime) {
        let unseen = |lease: &Lease| {
            lease
                .ending
                .is_some_and(|end| end.seen_at.is_none() && taken_at > end.at)
        };

        if !self.ended.iter().any(unseen) {
            return;
        }

        for lease in self.ended.iter_mut().filter(|lease| unseen(lease)) {
            if let Some(ending) = &mut lease.ending {
                ending.seen_at = Some(taken_at);
            }
        }

        self.changed();
    }

    fn update_states(&mut self, taken_at: Boottime) {
        let mut events = Vec::new();
        for lease in self.live.values_mut() {
            let state = state_of(lease, taken_at, &self.settings);
            if state != lease.state {
                lease.state = state;
                match state {
                    State::Settling => events.push(Event::Settling(Subject::of(lease))),
                    State::Settled => events.push(Event::Settled(Subject::of(lease))),
                    _ => {}
                }
            }

            let owed = lease
                .devices
                .values()
                .any(|share| share.visible_bytes < share.granted_bytes);

            if owed && lease.grown_at == Some(taken_at) {
                let until = taken_at
                    .after(self.settings.growth_grace)
                    .min(lease.extendable_until);
                if until > lease.expires_at {
                    lease.expires_at = until;
                    events.push(Event::Extended(Subject::of(lease)));
                }
            }
        }

        self.events.extend(events);
    }

    fn check_overdrawn(&mut self, uuid: &str, reading: &HolderReading<'_>) {
        let account = self.availability(uuid, reading);
        if account.free_bytes.is_none() {
            return; // Nothing is known, so nothing is told.
        }

        if account.leased_bytes == Bytes::ZERO || account.short_by_bytes == Bytes::ZERO {
            if self.overdrawn.remove(uuid).is_some() {
                self.tell(Event::Recovered {
                    device: uuid.to_owned(),
                });
            }
            return;
        }

        if self
            .overdrawn
            .insert(uuid.to_owned(), account.short_by_bytes)
            .is_none()
        {
            let here = self.on_device(uuid);
            let live = || here.iter().filter(|lease| lease.is_live());

            let owed = |lease: &&&Lease| {
                lease
                    .devices
                    .get(uuid)
                    .is_some_and(|share| share.visible_bytes < share.granted_bytes)
            };

            let leases = live().filter(owed).map(|lease| lease.id.clone()).collect();
            let lessees: Vec<&Lease> = live().copied().collect();

            let event = Event::Overdrawn {
                device: uuid.to_owned(),
                short_by_bytes: account.short_by_bytes,
                leases,
                strangers: strangers(&lessees, uuid, reading),
            };

            self.tell(event);
        }
    }
}

/// Where in its life a lease is, by what is seen of it.
fn state_of(lease: &Lease, taken_at: Boottime, settings: &LedgerConfig) -> State {
    let mut shares = lease.devices.values();
    if shares.all(|share| share.visible_bytes >= share.granted_bytes) {
        return State::Settled;
    }

    if lease
        .devices
        .values()
        .all(|share| share.visible_bytes == Bytes::ZERO)
    {
        return State::Granted;
    }

    let still = lease
        .grown_at
        .is_some_and(|grown_at| taken_at.since(grown_at) >= settings.still_after);
    let everywhere = lease
        .devices
        .values()
        .all(|share| share.visible_bytes > Bytes::ZERO);

    if still && everywhere {
        State::Settled
    } else {
        State::Settling
    }
}

fn strangers(leases: &[&Lease], uuid: &str, reading: &HolderReading<'_>) -> Vec<UnleasedProcess> {
    let processes = reading
        .device(uuid)
        .map(|device| device.processes.as_slice())
        .unwrap_or_default();
    let mut strangers: Vec<UnleasedProcess> = processes
        .iter()
        .filter(|process| !is_lessee(leases, process, reading))
        .map(|process| UnleasedProcess {
            pid: process.pid,
            name: process.name.clone(),
            uid: process.uid,
            used_bytes: process.used_bytes,
        })
        .collect();

    strangers.sort_by_key(|stranger| std::cmp::Reverse(stranger.used_bytes));
    strangers.truncate(MOST_STRANGERS);

    strangers
}
