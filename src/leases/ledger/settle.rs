//! Applying a reading: claims shrink by the memory that holders have taken, leases are extended
//! while it grows, and an event reports that other processes have taken leased memory.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Device;
use hf_mem_core::report::lease::State;

use super::super::attribution::{HolderReading, Occupied, descendants, is_lessee, visible_in};
use super::super::event::{Event, Subject, UnleasedProcess};
use super::super::lease::Lease;
use super::{Ledger, LedgerConfig};
use crate::leases::clock::{Boottime, Timestamp};

/// How many processes without a lease an event names.
const MAX_UNLEASED: usize = 8;
/// How many processes of one lease's tree are remembered.
const MAX_MEMBERS: usize = 1024;

impl Ledger {
    /// Applies a reading. A reading that is not newer than the last one changes nothing.
    pub fn settle(&mut self, reading: &HolderReading<'_>, now: Timestamp) {
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

        self.mark_endings_seen(reading.taken_at);
        self.forget_oldest();
        self.update_states(reading.taken_at);

        // Expire after growth was applied, so that a lease whose memory still grows does not end
        // because a reading came late.
        self.expire(now);
        for device in &reading.snapshot.devices {
            self.check_overdrawn(&device.facts.uuid, reading);
        }
    }

    fn settle_device(&mut self, device: &Device, reading: &HolderReading<'_>) {
        let uuid = &device.facts.uuid;
        let leases = self.on_device(uuid);
        if leases.is_empty() {
            return;
        }

        let occupied = Occupied::new(device, reading);
        let mut seen = visible_in(&leases, &occupied);
        let mut found = BTreeMap::new();
        for lease in &leases {
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

            let is_live = lease.is_live();
            let first_since_end = lease
                .ending
                .is_some_and(|end| end.seen_at.is_none() && reading.taken_at > end.at);

            for member in members {
                if lease.members.len() < MAX_MEMBERS {
                    lease.members.insert(member);
                }
            }

            let Some(share) = lease.devices.get_mut(uuid) else {
                continue;
            };

            if is_live && readable {
                if bytes > share.visible_bytes {
                    lease.grown_at = Some(reading.taken_at);
                    grown = true;
                }
                share.visible_bytes = bytes;
            } else if first_since_end {
                // If nothing can be read, all of its memory may still be there.
                share.visible_bytes = if readable { bytes } else { share.granted_bytes };
            } else if !is_live && readable && all_known {
                // The memory that is left of an ended lease only shrinks. After a restart more of
                // it is assumed, until the next reading.
                share.visible_bytes = share.visible_bytes.min(bytes);
            }
        }

        if grown {
            self.changed();
        }
    }

    /// Marks the leases whose end this reading shows. From then on such a lease counts only for the
    /// memory that is still seen.
    fn mark_endings_seen(&mut self, taken_at: Boottime) {
        let mut any_unseen = false;
        for ending in self
            .ended
            .iter_mut()
            .filter_map(|lease| lease.ending.as_mut())
        {
            if ending.seen_at.is_none() && taken_at > ending.at {
                ending.seen_at = Some(taken_at);
                any_unseen = true;
            }
        }

        if any_unseen {
            self.changed();
        }
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

            let claims_more = lease
                .devices
                .values()
                .any(|share| share.visible_bytes < share.granted_bytes);

            if claims_more && lease.grown_at == Some(taken_at) {
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
        let availability = self.availability(uuid, reading);
        if availability.free_bytes.is_none() {
            return; // The state is unknown, so there is no event.
        }

        if availability.leased_bytes == Bytes::ZERO || availability.short_by_bytes == Bytes::ZERO {
            if self.overdrawn.remove(uuid).is_some() {
                self.record(Event::Recovered {
                    device: uuid.to_owned(),
                });
            }
            return;
        }

        if self
            .overdrawn
            .insert(uuid.to_owned(), availability.short_by_bytes)
            .is_none()
        {
            let mut live = self.on_device(uuid);
            live.retain(|lease| lease.is_live());
            let leases = live
                .iter()
                .filter(|lease| {
                    lease
                        .devices
                        .get(uuid)
                        .is_some_and(|share| share.visible_bytes < share.granted_bytes)
                })
                .map(|lease| lease.id.clone())
                .collect();

            let event = Event::Overdrawn {
                device: uuid.to_owned(),
                short_by_bytes: availability.short_by_bytes,
                leases,
                strangers: unleased_processes(&live, uuid, reading),
            };

            self.record(event);
        }
    }
}

/// Derives the state of a live lease from the memory that is seen of it.
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

    let stopped_growing = lease
        .grown_at
        .is_some_and(|grown_at| taken_at.since(grown_at) >= settings.still_after);
    let everywhere = lease
        .devices
        .values()
        .all(|share| share.visible_bytes > Bytes::ZERO);

    if stopped_growing && everywhere {
        State::Settled
    } else {
        State::Settling
    }
}

/// The processes on a device that belong to none of the leases, the largest first.
fn unleased_processes(
    leases: &[&Lease],
    uuid: &str,
    reading: &HolderReading<'_>,
) -> Vec<UnleasedProcess> {
    let processes = reading
        .device(uuid)
        .map(|device| device.processes.as_slice())
        .unwrap_or_default();
    let mut unleased: Vec<UnleasedProcess> = processes
        .iter()
        .filter(|process| !is_lessee(leases, process, reading))
        .map(|process| UnleasedProcess {
            pid: process.pid,
            name: process.name.clone(),
            uid: process.uid,
            used_bytes: process.used_bytes,
        })
        .collect();

    unleased.sort_by_key(|process| std::cmp::Reverse(process.used_bytes));
    unleased.truncate(MAX_UNLEASED);

    unleased
}
