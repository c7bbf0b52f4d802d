//! Memory that is on its way out: after a stop a driver gives memory back over seconds, and a "no" in between is a "not
//! yet".

use std::collections::BTreeMap;
use std::time::Duration;

use super::Snapshot;
use crate::bytes::Bytes;

/// A smaller rise between two readings is noise: an engine's own pool breathes by as much.
const LEAST_RISE: Bytes = Bytes::mib(256);
/// Readings closer than this give no rate worth the name, and readings further apart say nothing of now.
const APART: std::ops::RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(30);

/// Bytes that come free in a second, by UUID of the devices on which free memory rose from `before` to `now`.
pub fn draining(before: &Snapshot, now: &Snapshot) -> BTreeMap<String, Bytes> {
    let apart = now.sampled_at.duration_since(before.sampled_at).ok().filter(|apart| APART.contains(apart));
    let Some(milliseconds) = apart.and_then(|apart| u64::try_from(apart.as_millis()).ok()) else {
        return BTreeMap::new();
    };
    if before.stale || now.stale {
        return BTreeMap::new();
    }
    let rate = |device: &super::Device| {
        let earlier = before.devices.iter().find(|it| it.facts.uuid == device.facts.uuid)?.free_bytes?;
        let rise = device.free_bytes?.checked_sub(earlier).filter(|rise| *rise >= LEAST_RISE)?;
        Some((device.facts.uuid.clone(), rise.scale(1000, milliseconds)))
    };
    now.devices.iter().filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::devices::declared;

    fn reading(spec: &str, milliseconds: u64) -> Snapshot {
        declared::parse(spec, SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)).unwrap()
    }

    #[test]
    fn a_rise_is_a_rate_and_noise_is_none() {
        let before = reading("24GiB@20GiB,24GiB@20GiB", 0);
        let rates = draining(&before, &reading("24GiB@18GiB,24GiB@20GiB", 500));
        assert_eq!(rates, BTreeMap::from([("declared-0".to_owned(), Bytes::gib(4))]));
        assert!(draining(&before, &reading("24GiB@19.9GiB,24GiB@21GiB", 500)).is_empty());
    }

    #[test]
    fn readings_too_close_too_far_or_stale_say_nothing() {
        let before = reading("24GiB@20GiB", 0);
        for milliseconds in [0, 5, 60_000] {
            assert!(draining(&before, &reading("24GiB@10GiB", milliseconds)).is_empty(), "{milliseconds}");
        }
        let stale = Snapshot { stale: true, ..reading("24GiB@10GiB", 500) };
        assert!(draining(&before, &stale).is_empty());
    }
}
