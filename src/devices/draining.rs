//! Memory that is on its way out: after a stop a driver gives memory back over seconds, and a "no"
//! in between is a "not yet".

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;

/// A smaller rise between two readings is noise: an engine's own pool breathes by as much.
const LEAST_RISE: Bytes = Bytes::mib(256);
/// Readings closer than this give no rate worth the name, and readings further apart say nothing of
/// now.
const APART: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_secs(30);

/// Readings of late that are kept to compare with, and the time that lies at least between them:
/// callers may ask for readings as close as they like, and one that is far enough apart must be
/// left.
const KEPT: usize = 8;
const KEPT_APART: Duration = Duration::from_millis(5);

/// Readings before the last one, the oldest first.
#[derive(Debug, Default)]
pub struct Earlier(VecDeque<Arc<Snapshot>>);

impl Earlier {
    /// Adds one that is no longer the last.
    pub fn push(&mut self, reading: Arc<Snapshot>) {
        let mut newest = self.0.iter().rev();
        if let (Some(last), Some(before)) = (newest.next(), newest.next())
            && apart(before, last).is_none_or(|apart| apart < KEPT_APART)
        {
            self.0.pop_back();
        }

        self.0.push_back(reading);
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Bytes that come free in a second, by UUID of the devices on which free memory rose to `now`
    /// from the last reading that is far enough before it, or from one that was too close before
    /// that to be compared with it then.
    pub fn draining(&self, now: &Snapshot) -> BTreeMap<String, Bytes> {
        let too_close = |before: &Snapshot, after| {
            apart(before, after).is_some_and(|apart| apart < *APART.start())
        };

        let mut far_enough = self
            .0
            .iter()
            .rev()
            .skip_while(|before| too_close(before, now));
        let Some(last) = far_enough.next() else {
            return BTreeMap::new();
        };

        let mut rates = draining(last, now);
        for before in far_enough.take_while(|before| too_close(before, last)) {
            for (uuid, rate) in draining(before, now) {
                let known = rates.entry(uuid).or_insert(rate);
                *known = rate.max(*known);
            }
        }

        rates
    }
}

fn apart(before: &Snapshot, now: &Snapshot) -> Option<Duration> {
    now.sampled_at.duration_since(before.sampled_at).ok()
}

/// Bytes that come free in a second, by UUID of the devices on which free memory rose from `before`
/// to `now`.
fn draining(before: &Snapshot, now: &Snapshot) -> BTreeMap<String, Bytes> {
    let apart = apart(before, now).filter(|apart| APART.contains(apart));
    let Some(milliseconds) = apart.and_then(|apart| u64::try_from(apart.as_millis()).ok()) else {
        return BTreeMap::new();
    };

    if before.stale || now.stale {
        return BTreeMap::new();
    }

    let rate = |device: &hf_mem_core::device::Device| {
        let earlier = before
            .devices
            .iter()
            .find(|it| it.facts.uuid == device.facts.uuid)?
            .free_bytes?;
        let rise = device
            .free_bytes?
            .checked_sub(earlier)
            .filter(|rise| *rise >= LEAST_RISE)?;
        Some((device.facts.uuid.clone(), rise.scale(1000, milliseconds)))
    };

    now.devices.iter().filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use hf_mem_core::device::declared;

    fn reading(spec: &str, milliseconds: u64) -> Snapshot {
        declared::parse(
            spec,
            SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds),
        )
        .unwrap()
    }

    #[test]
    fn a_rise_is_a_rate_and_noise_is_none() {
        let before = reading("24GiB@20GiB,24GiB@20GiB", 0);
        let rates = draining(&before, &reading("24GiB@18GiB,24GiB@20GiB", 500));
        assert_eq!(
            rates,
            BTreeMap::from([("declared-0".to_owned(), Bytes::gib(4))])
        );
        assert!(draining(&before, &reading("24GiB@19.9GiB,24GiB@21GiB", 500)).is_empty());
    }

    #[test]
    fn readings_that_were_asked_for_at_once_hide_no_rise() {
        let used =
            |gib: &str, milliseconds| Arc::new(reading(&format!("24GiB@{gib}GiB"), milliseconds));
        let mut earlier = Earlier::default();

        // Taken by another and given back in part, quicker than a rate can be told.
        for (gib, at) in [("0", 0), ("20", 17), ("16", 34)] {
            earlier.push(used(gib, at));
        }

        assert_eq!(
            earlier.draining(&used("16", 51)).len(),
            1,
            "since the one at 17"
        );

        // A flood of readings: one that is far enough apart is left.
        for at in 51..70 {
            earlier.push(used("16", at));
        }

        assert_eq!(earlier.draining(&used("12", 71)).len(), 1);
        assert!(earlier.0.len() <= KEPT);

        // Too close before a reading for a rate then, and not the last that is far enough now.
        let mut earlier = Earlier::default();
        for (gib, at) in [("0", 0), ("20", 100), ("16", 115)] {
            earlier.push(used(gib, at));
        }

        assert_eq!(earlier.draining(&used("16", 140)).len(), 1);
        earlier.push(used("16", 140));
        assert!(earlier.draining(&used("16", 165)).is_empty(), "it is over");
        assert!(Earlier::default().draining(&used("12", 71)).is_empty());
    }

    #[test]
    fn readings_too_close_too_far_or_stale_say_nothing() {
        let before = reading("24GiB@20GiB", 0);
        for milliseconds in [0, 5, 60_000] {
            assert!(
                draining(&before, &reading("24GiB@10GiB", milliseconds)).is_empty(),
                "{milliseconds}"
            );
        }

        let stale = Snapshot {
            stale: true,
            ..reading("24GiB@10GiB", 500)
        };

        assert!(draining(&before, &stale).is_empty());
    }
}
