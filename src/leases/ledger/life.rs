//! How a lease goes on and ends.

use std::time::Duration;

use hf_mem_core::report::lease::EndReason;

use super::super::event::{Event, Subject};
use super::super::holder::ProcessIdentity;
use super::super::lease::Lease;
use super::{ChangeError, Ledger};
use crate::leases::clock::Now;

/// What releasing a lease came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// It was alive and is released.
    Done(Lease),
    /// It had ended before: said, and harmless.
    Already(Lease),
}

impl Ledger {
    /// Pushes the end out to `ttl` (or the lease's own time to live) from now. One that has ended
    /// stays ended, even if nobody had noticed yet that its time was up.
    pub fn renew(
        &mut self,
        id: &str,
        actor: u32,
        ttl: Option<Duration>,
        now: Now,
    ) -> Result<Lease, ChangeError> {
        self.expire(now);
        let serial = self.changeable(id, actor)?;
        let (shortest, longest) = (self.settings.shortest_ttl, self.settings.longest_ttl);
        let longest_extension = self.settings.longest_extension;
        let Some(lease) = self.live.get_mut(&serial) else {
            return Err(self.ended_error(id));
        };

        let ttl = ttl.unwrap_or(lease.ttl());
        if ttl < shortest || ttl > longest {
            return Err(ChangeError::TimeToLive {
                asked: ttl,
                shortest,
                longest,
            });
        }

        lease.ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        lease.expires_at = lease.expires_at.max(now.boottime.after(ttl));
        lease.extendable_until = lease
            .extendable_until
            .max(lease.expires_at.after(longest_extension));
        let renewed = lease.clone();
        self.changed();
        self.tell(Event::Renewed(Subject::of(&renewed)));

        Ok(renewed)
    }

    /// Gives a lease back. Doing it twice does no harm, and is said.
    pub fn release(&mut self, id: &str, actor: u32, now: Now) -> Result<Release, ChangeError> {
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

        // Nothing is forgotten for its sake yet: it may be taken up again. The next reading
        // forgets.
        self.retire(serial);
        Ok(Release::Done(released))
    }

    /// Gives back a lease that its asker was never told of. Its key is free again: one that asks
    /// anew with it asks for the first time.
    pub fn undelivered(&mut self, id: &str, now: Now) -> Result<Release, ChangeError> {
        if let Some(lease) = self.live.values_mut().find(|lease| lease.id == id) {
            lease.idempotency_key = None;
        }
        self.release(id, 0, now)
    }

    /// Ends the leases whose time is up. Called with every decision, and by the owner when the
    /// first is due.
    pub fn expire(&mut self, now: Now) {
        self.end_where(EndReason::TtlPassed, now, |lease| {
            now.boottime >= lease.expires_at
        });
    }

    /// When the next lease expires, for the owner's timer.
    pub fn next_expiry(&self) -> Option<crate::leases::clock::Boottime> {
        self.live.values().map(|lease| lease.expires_at).min()
    }

    /// Ends the leases of a process that died. Another process with its pid is not meant.
    pub fn holder_died(&mut self, process: &ProcessIdentity, now: Now) {
        self.end_where(EndReason::HolderDied, now, |lease| {
            lease.holder.process == Some(*process)
        });
    }

    /// Takes a grant back that could not be kept: it was never given, and nobody is told.
    pub(in crate::leases) fn withdraw(&mut self, serial: u64) {
        if let Some(lease) = self.live.remove(&serial) {
            self.untell(&lease.id);
        }
    }

    /// Takes a change back that could not be kept.
    pub(in crate::leases) fn put_back(&mut self, lease: Lease) {
        if let Some(changed) = self.live.get_mut(&lease.serial) {
            let id = lease.id.clone();
            *changed = lease;
            self.untell(&id);
        }
    }

    /// Takes a release back that could not be kept: `lease` is as it was before.
    pub(in crate::leases) fn take_up_again(&mut self, lease: Lease) {
        let Some(place) = self
            .ended
            .iter()
            .rposition(|ended| ended.serial == lease.serial)
        else {
            return;
        };

        self.ended.remove(place);

        let id = lease.id.clone();
        self.live.insert(lease.serial, lease);
        self.untell(&id);
    }

    /// Removes the last event of a change that was taken back.
    fn untell(&mut self, id: &str) {
        self.changed();
        let of_lease = |event: &Event| match event {
            Event::Granted(lease) | Event::Renewed(lease) | Event::Ended { lease, .. } => {
                lease.lease == id
            }
            _ => false,
        };

        if let Some(place) = self.events.iter().rposition(of_lease) {
            self.events.remove(place);
        }
    }

    pub(super) fn end_where(
        &mut self,
        reason: EndReason,
        now: Now,
        which: impl Fn(&Lease) -> bool,
    ) {
        let mut serials = Vec::new();
        for (serial, lease) in &mut self.live {
            if which(lease) {
                lease.end(reason, now);
                serials.push(*serial);
            }
        }

        for serial in serials {
            self.bury(serial);
        }
    }

    /// The serial of a lease that `actor` may change.
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
