//! Renewing, releasing and ending leases.

use std::time::Duration;

use hf_mem_core::report::lease::EndReason;

use super::super::event::{Event, Subject};
use super::super::holder::ProcessIdentity;
use super::super::lease::Lease;
use super::{ChangeError, Ledger};
use crate::leases::clock::Timestamp;

/// The outcome of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// The lease was live and is released.
    Done(Lease),
    /// The lease ended before; this is harmless.
    Already(Lease),
}

impl Ledger {
    /// Renews a lease: it ends `ttl` (or its own time to live) from now. A lease that has expired
    /// stays ended, even if the expiry was not recorded yet.
    pub fn renew(
        &mut self,
        id: &str,
        actor: u32,
        ttl: Option<Duration>,
        now: Timestamp,
    ) -> Result<Lease, ChangeError> {
        self.expire(now);
        let serial = self.changeable(id, actor)?;
        let (min, max) = (self.settings.min_ttl, self.settings.max_ttl);
        let max_extension = self.settings.max_extension;
        let Some(lease) = self.live.get_mut(&serial) else {
            return Err(self.ended_error(id));
        };

        let ttl = ttl.unwrap_or(lease.ttl());
        if ttl < min || ttl > max {
            return Err(ChangeError::TimeToLive {
                requested: ttl,
                min,
                max,
            });
        }

        lease.ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        lease.expires_at = lease.expires_at.max(now.boottime.after(ttl));
        lease.extendable_until = lease
            .extendable_until
            .max(lease.expires_at.after(max_extension));
        let renewed = lease.clone();
        self.changed();
        self.record(Event::Renewed(Subject::of(&renewed)));

        Ok(renewed)
    }

    /// Releases a lease. Releasing it twice is harmless.
    pub fn release(
        &mut self,
        id: &str,
        actor: u32,
        now: Timestamp,
    ) -> Result<Release, ChangeError> {
        self.expire(now);
        let serial = self.changeable(id, actor)?;
        let Some(lease) = self.live.get_mut(&serial) else {
            return self
                .get(id)
                .cloned()
                .map(Release::Already)
                .ok_or(ChangeError::NotFound { id: id.to_owned() });
        };

        lease.end(EndReason::ByOwner, now);
        let released = lease.clone();

        // Forget no other lease yet, because this release may be undone. The next reading forgets.
        self.move_to_ended(serial);
        Ok(Release::Done(released))
    }

    /// Releases a lease that its client never received. Its key is free again: a client that
    /// repeats it asks for the first time.
    pub fn undelivered(&mut self, id: &str, now: Timestamp) -> Result<Release, ChangeError> {
        if let Some(lease) = self.live.values_mut().find(|lease| lease.id == id) {
            lease.idempotency_key = None;
        }
        self.release(id, 0, now)
    }

    /// Ends the leases that have expired. Every decision calls it, and the owner does when the next
    /// expiry is due.
    pub fn expire(&mut self, now: Timestamp) {
        self.end_where(EndReason::TtlPassed, now, |lease| {
            now.boottime >= lease.expires_at
        });
    }

    /// When the next lease expires.
    pub fn next_expiry(&self) -> Option<crate::leases::clock::Boottime> {
        self.live.values().map(|lease| lease.expires_at).min()
    }

    /// Ends the leases of a process that has exited. It spares another process with the same pid.
    pub fn holder_died(&mut self, process: &ProcessIdentity, now: Timestamp) {
        self.end_where(EndReason::HolderDied, now, |lease| {
            lease.holder.process == Some(*process)
        });
    }

    /// Undoes a grant that could not be persisted. It causes no event.
    pub(in crate::leases) fn withdraw(&mut self, serial: u64) {
        if let Some(lease) = self.live.remove(&serial) {
            self.remove_event(&lease.id);
        }
    }

    /// Undoes a renewal that could not be persisted: `lease` is as it was before.
    pub(in crate::leases) fn undo_renewal(&mut self, lease: Lease) {
        if let Some(changed) = self.live.get_mut(&lease.serial) {
            let id = lease.id.clone();
            *changed = lease;
            self.remove_event(&id);
        }
    }

    /// Undoes a release that could not be persisted: `lease` is as it was before.
    pub(in crate::leases) fn undo_release(&mut self, lease: Lease) {
        let Some(index) = self
            .ended
            .iter()
            .rposition(|ended| ended.serial == lease.serial)
        else {
            return;
        };

        self.ended.remove(index);

        let id = lease.id.clone();
        self.live.insert(lease.serial, lease);
        self.remove_event(&id);
    }

    /// Removes the event of a change that was undone.
    fn remove_event(&mut self, id: &str) {
        self.changed();
        let undone = self.events.iter().rposition(|event| match event {
            Event::Granted(lease) | Event::Renewed(lease) | Event::Ended { lease, .. } => {
                lease.lease == id
            }
            _ => false,
        });

        if let Some(index) = undone {
            self.events.remove(index);
        }
    }

    /// Ends the live leases that match.
    pub(super) fn end_where(
        &mut self,
        reason: EndReason,
        now: Timestamp,
        matches: impl Fn(&Lease) -> bool,
    ) {
        let mut serials = Vec::new();
        for (serial, lease) in &mut self.live {
            if matches(lease) {
                lease.end(reason, now);
                serials.push(*serial);
            }
        }

        for serial in serials {
            self.retire(serial);
        }
    }

    /// Returns the serial of a lease, if `actor` may change it.
    fn changeable(&self, id: &str, actor: u32) -> Result<u64, ChangeError> {
        let lease = self
            .get(id)
            .ok_or_else(|| ChangeError::NotFound { id: id.to_owned() })?;
        if actor != 0 && actor != lease.uid {
            return Err(ChangeError::NotYours {
                id: id.to_owned(),
                owner: lease.uid,
            });
        }

        Ok(lease.serial)
    }

    fn ended_error(&self, id: &str) -> ChangeError {
        let id = id.to_owned();
        match self.get(&id) {
            Some(lease) => ChangeError::Ended {
                id,
                state: lease.state,
            },
            None => ChangeError::NotFound { id },
        }
    }
}
