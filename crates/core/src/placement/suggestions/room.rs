//! Making room: the smallest set of processes or leases whose end would let the model fit.

use std::collections::BTreeMap;

use super::trials::Trials;
use crate::bytes::Bytes;
use crate::device::{Process, ProcessKind, Snapshot};
use crate::placement::availability::Availability;
use crate::placement::order::Grade;
use crate::placement::search_summary::grade;

/// Maximum number of holders considered, the largest first: the number of sets grows with it.
const MAX_HOLDERS: usize = 12;
/// The least memory in use without a named process that counts as a holder. Less is the driver's
/// rounding.
const MIN_UNNAMED: Bytes = Bytes::mib(512);
/// The largest set that is tried.
const MAX_SET: usize = 3;

/// A process or lease that holds memory and could release it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryHolder {
    /// `stop pid 4121`, `release lease 7f3a`.
    pub change: String,
    /// The holder for a person: `vllm (pid 4121) of alice, unit vllm.service`.
    pub who: String,
    /// Bytes in use that would become free, by UUID.
    pub frees: BTreeMap<String, Bytes>,
    /// Bytes leased and not yet in use that would become free, by UUID.
    pub releases: BTreeMap<String, Bytes>,
}

impl MemoryHolder {
    /// Returns the processes that hold memory according to the driver, without the desktop. Memory
    /// in use without a named process adds one holder for each device.
    pub fn processes(snapshot: &Snapshot) -> Vec<Self> {
        let mut by_pid: BTreeMap<u32, Self> = BTreeMap::new();
        let mut unnamed = Vec::new();

        for device in &snapshot.devices {
            let mut seen = Vec::new();
            let mut rest = device.used_bytes.unwrap_or(Bytes::ZERO);

            for process in &device.processes {
                let Some(used) = process.used_bytes else {
                    continue;
                };

                // A process may be listed twice, for compute and for graphics.
                if seen.contains(&process.pid) {
                    continue;
                }

                seen.push(process.pid);
                rest = rest.less(used).unwrap_or(Bytes::ZERO);

                if process.kind == ProcessKind::Graphics {
                    continue;
                }

                let holder = by_pid.entry(process.pid).or_insert_with(|| Self {
                    change: format!("stop pid {}", process.pid),
                    who: describe(process),
                    frees: BTreeMap::new(),
                    releases: BTreeMap::new(),
                });
                *holder
                    .frees
                    .entry(device.facts.uuid.clone())
                    .or_insert(Bytes::ZERO) += used;
            }

            if rest >= MIN_UNNAMED {
                unnamed.push(Self {
                    change: format!("free {rest} on {}", device.facts.uuid),
                    who: format!("the other memory in use on {}", device.facts.name),
                    frees: BTreeMap::from([(device.facts.uuid.clone(), rest)]),
                    releases: BTreeMap::new(),
                });
            }
        }

        by_pid.into_values().chain(unnamed).collect()
    }

    /// Returns the holder for a lease of which `releases` bytes, by UUID, are not yet in use.
    pub fn lease(id: &str, holder: &str, releases: BTreeMap<String, Bytes>) -> Self {
        Self {
            change: format!("release lease {id}"),
            who: format!("the lease of {holder}"),
            frees: BTreeMap::new(),
            releases,
        }
    }

    /// Returns all bytes that would become free.
    fn bytes(&self) -> Bytes {
        self.frees
            .values()
            .chain(self.releases.values())
            .copied()
            .sum()
    }
}

/// Describes a process: `vllm (pid 4121) of alice, unit vllm.service`.
fn describe(process: &Process) -> String {
    let name = process.name.as_deref().unwrap_or("a process");
    let mut who = format!("{name} (pid {})", process.pid);
    match (&process.user, process.uid) {
        (Some(user), _) => who = format!("{who} of {user}"),
        (None, Some(uid)) => who = format!("{who} of uid {uid}"),
        (None, None) => {}
    }

    if let Some(unit) = &process.unit {
        who = format!("{who}, unit {unit}");
    }

    if let Some(container) = &process.container {
        who = format!("{who}, container {container}");
    }

    who
}

/// Suggests the smallest set of `holders` whose end would let the model fit. Among equally small
/// sets, it suggests the one that releases least.
pub(super) fn make_room(trials: &mut Trials<'_>, holders: &[MemoryHolder]) {
    let mut holders: Vec<&MemoryHolder> = holders
        .iter()
        .filter(|holder| holder.bytes() > Bytes::ZERO)
        .collect();
    holders.sort_by(|a, b| {
        b.bytes()
            .cmp(&a.bytes())
            .then_with(|| a.change.cmp(&b.change))
    });

    holders.truncate(MAX_HOLDERS);
    if holders.is_empty() || grade_without(trials, &holders).is_none() {
        return;
    }

    for size in 1..=MAX_SET.min(holders.len()) {
        let mut sets = sets(&holders, size);
        sets.sort_by_key(|set| set.iter().map(|holder| holder.bytes()).sum::<Bytes>());

        for set in sets {
            let Some(grade) = grade_without(trials, &set) else {
                continue;
            };

            let change: Vec<&str> = set.iter().map(|holder| holder.change.as_str()).collect();
            let who: Vec<&str> = set.iter().map(|holder| holder.who.as_str()).collect();
            let frees: Bytes = set.iter().map(|holder| holder.bytes()).sum();
            let message = format!(
                "without {} there is room: {frees} become free",
                who.join(" and ")
            );
            trials.keep(&change.join(", "), &message, grade, frees);
            return;
        }
    }
}

/// Returns the grade of the question without the holders `gone`, if that helps.
fn grade_without(trials: &Trials<'_>, gone: &[&MemoryHolder]) -> Option<Grade> {
    let best = grade(&trials.ask, &without(trials.host, gone))
        .ok()
        .flatten()?;
    trials.helps(best.grade).then_some(best.grade)
}

/// Returns what is available after `gone` have released what they hold.
fn without(host: &Availability, gone: &[&MemoryHolder]) -> Availability {
    gone.iter().fold(host.clone(), |host, holder| {
        host.after_freeing(&holder.frees)
            .after_releasing(&holder.releases)
    })
}

/// Returns every set of `size` of `holders`.
fn sets<'h>(holders: &[&'h MemoryHolder], size: usize) -> Vec<Vec<&'h MemoryHolder>> {
    let mut found: Vec<(usize, Vec<&'h MemoryHolder>)> = vec![(0, Vec::new())];
    for _ in 0..size {
        found = found
            .into_iter()
            .flat_map(|(from, set)| {
                holders
                    .iter()
                    .enumerate()
                    .skip(from)
                    .map(move |(index, holder)| {
                        let mut larger = set.clone();
                        larger.push(*holder);
                        (index + 1, larger)
                    })
            })
            .collect();
    }

    found.into_iter().map(|(_, set)| set).collect()
}
