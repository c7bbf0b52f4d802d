//! When the devices were read. The journal shows who held memory only between readings that are
//! near each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use hf_mem_core::device::{Snapshot, UnusableReason};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A span is written again once its end has moved by this much.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// A span of readings without a gap. It ends at the date of its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Observed {
    /// When the span begins.
    #[serde(with = "hf_mem_core::rfc3339")]
    #[schema(value_type = String)]
    pub since: SystemTime,
    /// The longest time between two readings in it.
    pub gap_seconds: u64,
    /// The devices that could be read, by UUID.
    pub devices: BTreeSet<String>,
}

/// An open span of readings.
#[derive(Clone, Debug)]
struct ObservedSpan {
    since: SystemTime,
    last: SystemTime,
    devices: BTreeSet<String>,
    /// The end as last written.
    written: Option<SystemTime>,
}

/// Combines readings into spans, and decides when to write them.
#[derive(Clone, Debug)]
pub struct Observation {
    gap: Duration,
    span: Option<ObservedSpan>,
}

/// The result of adding a reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether it comes after a gap. What it shows may have happened at any time in the gap.
    pub after_gap: bool,
    /// The spans to write, each with its end.
    pub spans: Vec<(SystemTime, Observed)>,
}

impl Observation {
    /// Readings further apart than `gap` leave a gap.
    pub fn new(gap: Duration) -> Self {
        Self { gap, span: None }
    }

    /// Adds a reading.
    pub fn reading(&mut self, snapshot: &Snapshot) -> Seen {
        let (at, devices) = (snapshot.sampled_at, readable(snapshot));
        let continues = self.span.as_ref().is_some_and(|span| {
            let apart = at.duration_since(span.last);
            span.devices == devices && apart.is_ok_and(|apart| apart <= self.gap)
        });

        let mut seen = Seen::default();
        if !continues {
            // A device that appears or disappears also ends the span. For other devices that is no
            // gap.
            let apart = self
                .span
                .as_ref()
                .and_then(|span| at.duration_since(span.last).ok());
            seen.after_gap = apart.is_none_or(|apart| apart > self.gap);
            seen.spans.extend(self.end());

            self.span = Some(ObservedSpan {
                since: at,
                last: at,
                devices,
                written: None,
            });
        }

        if let Some(span) = &mut self.span {
            span.last = at;
            let written = span
                .written
                .and_then(|written| at.duration_since(written).ok());
            if written.is_none_or(|ago| ago >= WRITE_INTERVAL) {
                span.written = Some(at);
                seen.spans.push(line(span, self.gap));
            }
        }

        seen
    }

    /// Closes the open span. Returns its line if its end is not written yet.
    pub fn end(&mut self) -> Option<(SystemTime, Observed)> {
        let span = self.span.take()?;
        (span.written != Some(span.last)).then(|| line(&span, self.gap))
    }
}

fn line(span: &ObservedSpan, gap: Duration) -> (SystemTime, Observed) {
    let gap_seconds = gap.as_secs();
    (
        span.last,
        Observed {
            since: span.since,
            gap_seconds,
            devices: span.devices.clone(),
        },
    )
}

/// Returns the devices whose processes are known: the readable ones, and the sleeping ones, on
/// which nothing runs.
pub fn readable(snapshot: &Snapshot) -> BTreeSet<String> {
    snapshot
        .devices
        .iter()
        .filter(|device| {
            let unusable = device.unusable.as_ref();
            device.free_bytes.is_some()
                || unusable.is_some_and(|it| it.reason == UnusableReason::Asleep)
        })
        .map(|device| device.facts.uuid.clone())
        .collect()
}

/// A time for which the holders of memory are unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The device; `null`: all of them.
    pub device: Option<String>,
    /// The last reading before it (RFC 3339); `null`: there was none.
    pub from: Option<String>,
    /// The first reading after it (RFC 3339); `null`: there is none yet.
    pub until: Option<String>,
}

/// The spans of each device in the journal.
#[derive(Clone, Debug, Default)]
pub struct ObservedCoverage {
    devices: BTreeMap<String, Vec<Covered>>,
}

/// One span of one device.
#[derive(Clone, Copy, Debug)]
struct Covered {
    since: SystemTime,
    until: SystemTime,
    gap: Duration,
}

impl ObservedCoverage {
    /// Adds a line.
    pub fn add(&mut self, until: SystemTime, observed: &Observed) {
        let covered = Covered {
            since: observed.since,
            until,
            gap: Duration::from_secs(observed.gap_seconds),
        };

        for device in &observed.devices {
            let spans = self.devices.entry(device.clone()).or_default();
            match spans.last_mut() {
                // The same span with a later end, or a span that continues with other devices.
                Some(last)
                    if covered.since <= last.until.checked_add(last.gap).unwrap_or(last.until) =>
                {
                    last.until = last.until.max(until);
                }
                _ => spans.push(covered),
            }
        }
    }

    /// Whether the journal records readings at all; those of older daemons do not.
    pub fn is_known(&self) -> bool {
        !self.devices.is_empty()
    }

    /// The gaps at `at`. If all devices have the same gap, it is one gap of all devices.
    pub fn gaps_at(&self, at: SystemTime) -> Vec<Gap> {
        let gaps: Vec<(String, Option<GapBounds>)> = self
            .devices
            .iter()
            .map(|(device, spans)| (device.clone(), gap_at(spans, at)))
            .collect();

        let mut different: Vec<&Option<GapBounds>> = Vec::new();
        for (_, gap) in &gaps {
            if !different.contains(&gap) {
                different.push(gap);
            }
        }

        match different.as_slice() {
            [Some(gap)] => vec![gap.describe(None)],
            _ => gaps
                .into_iter()
                .filter_map(|(device, gap)| Some(gap?.describe(Some(device))))
                .collect(),
        }
    }
}

/// The readings before and after a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GapBounds {
    before: Option<SystemTime>,
    after: Option<SystemTime>,
}

impl GapBounds {
    fn describe(self, device: Option<String>) -> Gap {
        Gap {
            device,
            from: self.before.map(format_seconds),
            until: self.after.map(format_seconds),
        }
    }
}

fn format_seconds(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Returns the gap around `at`; `None` if a reading was near enough.
fn gap_at(spans: &[Covered], at: SystemTime) -> Option<GapBounds> {
    let last = spans.last().map(|span| (span.until, span.gap));

    // The next reading of the last span may not be due yet.
    let may_continue =
        last.is_some_and(|(until, gap)| until.checked_add(gap).is_some_and(|due| at <= due));
    let has_begun = spans.last().is_some_and(|span| span.since <= at);
    if spans
        .iter()
        .any(|span| (span.since..=span.until).contains(&at))
        || (may_continue && has_begun)
    {
        return None;
    }

    let before = spans
        .iter()
        .filter(|span| span.until < at)
        .map(|span| span.until)
        .max();

    let after = spans
        .iter()
        .filter(|span| span.since > at)
        .map(|span| span.since)
        .min();

    Some(GapBounds { before, after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::testing::snapshot;
    use hf_mem_core::bytes::Bytes;

    fn second(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn reading(observation: &mut Observation, at: u64, unreadable: bool) -> Seen {
        let mut snapshot = snapshot(&[("GPU-a", 80), ("GPU-b", 80)]);
        snapshot.sampled_at = second(at);
        snapshot.devices[1].free_bytes = (!unreadable).then(|| Bytes::gib(80));
        observation.reading(&snapshot)
    }

    fn gaps(
        coverage: &ObservedCoverage,
        at: u64,
    ) -> Vec<(Option<String>, Option<String>, Option<String>)> {
        let short = |text: Option<String>| text.map(|text| text[14..19].to_owned());
        coverage
            .gaps_at(second(at))
            .into_iter()
            .map(|gap| (gap.device, short(gap.from), short(gap.until)))
            .collect()
    }

    #[test]
    fn gaps_are_found_between_spans() {
        let mut observation = Observation::new(Duration::from_secs(60));
        let mut coverage = ObservedCoverage::default();
        let mut lines = 0;
        let times = (600..660).chain([700, 740, 900, 901]);
        for at in times {
            let seen = reading(&mut observation, at, at == 901);
            assert_eq!(seen.after_gap, at == 600 || at == 900, "{at}");
            for (until, observed) in seen.spans {
                lines += 1;
                coverage.add(until, &observed);
            }
        }

        assert!(lines < 15, "{lines} lines of 64 readings");

        let all = |from: Option<&str>, until: Option<&str>| {
            vec![(None, from.map(str::to_owned), until.map(str::to_owned))]
        };

        assert_eq!(gaps(&coverage, 10), all(None, Some("10:00")));
        assert_eq!(gaps(&coverage, 650), []);
        assert_eq!(gaps(&coverage, 720), [], "readings 40 s apart leave no gap");
        assert_eq!(gaps(&coverage, 800), all(Some("12:20"), Some("15:00")));
        assert_eq!(gaps(&coverage, 950), [], "the next reading is not due yet");

        // GPU-b was not in the last reading, so each device has its own last one.
        let ended: Vec<_> = gaps(&coverage, 1_000)
            .into_iter()
            .map(|(device, from, _)| (device.unwrap(), from))
            .collect();
        let wanted = [("GPU-a", "15:01"), ("GPU-b", "15:00")];
        assert_eq!(
            ended,
            wanted.map(|(device, from)| (device.to_owned(), Some(from.to_owned())))
        );
    }

    #[test]
    fn span_is_written_to_its_end() {
        let mut observation = Observation::new(Duration::from_secs(60));
        assert_eq!(reading(&mut observation, 600, false).spans.len(), 1);
        assert!(reading(&mut observation, 605, false).spans.is_empty());
        let (until, observed) = observation.end().unwrap();
        assert_eq!((until, observed.since), (second(605), second(600)));
        assert!(observation.end().is_none());
    }
}
