//! The rate at which device memory is being freed.
//!
//! After a process stops, the driver frees its memory over seconds. An answer of "does not fit" in
//! that time means "not yet".

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, Snapshot};

/// The smallest rise of free memory between two readings that counts.
///
/// An engine's own memory pool varies by up to this much.
const MIN_RISE: Bytes = Bytes::mib(256);
/// The time between two readings from which a rate is computed.
///
/// Closer readings give an unreliable rate. Readings further apart say nothing about the present.
const RATE_WINDOW: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_secs(30);

/// The number of recent readings that are stored for comparison.
const MAX_READINGS: usize = 8;
/// The shortest time between two stored readings.
///
/// Callers can request readings at any rate. Without this limit, a burst would displace every
/// reading that is old enough to compare with.
const MIN_SPACING: Duration = Duration::from_millis(5);

/// The readings before the last one, the oldest first.
#[derive(Debug, Default)]
pub struct RecentReadings(VecDeque<Arc<Snapshot>>);

impl RecentReadings {
    /// Adds a reading that a newer one has replaced.
    pub fn push(&mut self, reading: Arc<Snapshot>) {
        let mut newest = self.0.iter().rev();
        if let (Some(last), Some(before)) = (newest.next(), newest.next())
            && elapsed(before, last).is_none_or(|elapsed| elapsed < MIN_SPACING)
        {
            self.0.pop_back();
        }

        self.0.push_back(reading);
        if self.0.len() > MAX_READINGS {
            self.0.pop_front();
        }
    }

    /// Returns the bytes freed per second, by UUID of each device whose free memory rose.
    ///
    /// `now` is compared with the last reading that is old enough. It is also compared with the
    /// readings just before that one, because they were too close to it to be compared with it.
    pub fn draining(&self, now: &Snapshot) -> BTreeMap<String, Bytes> {
        let mut old_enough = self
            .0
            .iter()
            .rev()
            .skip_while(|before| is_too_close(before, now));
        let Some(last) = old_enough.next() else {
            return BTreeMap::new();
        };

        let mut rates = freed_per_second(last, now);
        for before in old_enough.take_while(|before| is_too_close(before, last)) {
            for (uuid, rate) in freed_per_second(before, now) {
                let known = rates.entry(uuid).or_insert(rate);
                *known = rate.max(*known);
            }
        }

        rates
    }
}

fn elapsed(before: &Snapshot, now: &Snapshot) -> Option<Duration> {
    now.sampled_at.duration_since(before.sampled_at).ok()
}

/// Whether two readings are too close to compute a rate from.
fn is_too_close(before: &Snapshot, after: &Snapshot) -> bool {
    elapsed(before, after).is_some_and(|elapsed| elapsed < *RATE_WINDOW.start())
}

/// Returns the bytes freed per second between `before` and `now`, by UUID.
///
/// It contains the devices whose free memory rose.
fn freed_per_second(before: &Snapshot, now: &Snapshot) -> BTreeMap<String, Bytes> {
    let elapsed = elapsed(before, now).filter(|elapsed| RATE_WINDOW.contains(elapsed));
    let milliseconds = elapsed.and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok());
    let Some(milliseconds) = milliseconds else {
        return BTreeMap::new();
    };

    if before.stale || now.stale {
        return BTreeMap::new();
    }

    now.devices
        .iter()
        .filter_map(|device| {
            let rise = free_memory_rise(before, device)?;
            Some((device.facts.uuid.clone(), rise.scale(1000, milliseconds)))
        })
        .collect()
}

/// Returns how much more memory `device` has free than it had in `before`, from [`MIN_RISE`] on.
fn free_memory_rise(before: &Snapshot, device: &Device) -> Option<Bytes> {
    let free_before = before
        .devices
        .iter()
        .find(|it| it.facts.uuid == device.facts.uuid)?
        .free_bytes?;

    device
        .free_bytes?
        .checked_sub(free_before)
        .filter(|rise| *rise >= MIN_RISE)
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
    fn rise_gives_rate_noise_none() {
        let before = reading("24GiB@20GiB,24GiB@20GiB", 0);
        let rates = freed_per_second(&before, &reading("24GiB@18GiB,24GiB@20GiB", 500));
        assert_eq!(
            rates,
            BTreeMap::from([("declared-0".to_owned(), Bytes::gib(4))])
        );
        assert!(freed_per_second(&before, &reading("24GiB@19.9GiB,24GiB@21GiB", 500)).is_empty());
    }

    #[test]
    fn close_readings_hide_no_rise() {
        let with_used =
            |gib: &str, milliseconds| Arc::new(reading(&format!("24GiB@{gib}GiB"), milliseconds));
        let mut earlier = RecentReadings::default();

        // Another process takes memory and frees a part of it, faster than a rate can be measured.
        for (gib, at) in [("0", 0), ("20", 17), ("16", 34)] {
            earlier.push(with_used(gib, at));
        }

        assert_eq!(
            earlier.draining(&with_used("16", 51)).len(),
            1,
            "the rise since the reading at 17 ms"
        );

        // A burst of readings leaves one that is old enough to compare with.
        for at in 51..70 {
            earlier.push(with_used("16", at));
        }

        assert_eq!(earlier.draining(&with_used("12", 71)).len(), 1);
        assert!(earlier.0.len() <= MAX_READINGS);

        // The reading at 100 ms was too close to the one at 115 ms then, and it is not the last one
        // that is old enough now.
        let mut earlier = RecentReadings::default();
        for (gib, at) in [("0", 0), ("20", 100), ("16", 115)] {
            earlier.push(with_used(gib, at));
        }

        assert_eq!(earlier.draining(&with_used("16", 140)).len(), 1);
        earlier.push(with_used("16", 140));
        assert!(
            earlier.draining(&with_used("16", 165)).is_empty(),
            "no memory is freed any more"
        );
        assert!(
            RecentReadings::default()
                .draining(&with_used("12", 71))
                .is_empty()
        );
    }

    #[test]
    fn incomparable_readings_give_no_rate() {
        let before = reading("24GiB@20GiB", 0);
        for milliseconds in [0, 5, 60_000] {
            assert!(
                freed_per_second(&before, &reading("24GiB@10GiB", milliseconds)).is_empty(),
                "{milliseconds}"
            );
        }

        let stale = Snapshot {
            stale: true,
            ..reading("24GiB@10GiB", 500)
        };

        assert!(freed_per_second(&before, &stale).is_empty());
    }
}
