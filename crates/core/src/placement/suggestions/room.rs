//! Making room: the smallest set of processes or leases that, if gone, would let it fit.

use std::collections::BTreeMap;

use super::Tried;
use crate::bytes::Bytes;
use crate::device::{Process, ProcessKind, Snapshot};
use crate::placement::availability::Availability;
use crate::placement::order::Grade;
use crate::placement::ways::grade;

/// Holders looked at, the largest first: more make for too many sets.
const HOLDERS: usize = 12;
/// Memory in use that no process is named for is a holder of its own from here on; below, it is the
/// driver's rounding.
const UNNAMED: Bytes = Bytes::mib(512);
/// The largest set that is looked for.
const SET: usize = 3;

/// Whoever holds memory and could give it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryHolder {
    /// `stop pid 4121`, `release lease 7f3a`.
    pub change: String,
    /// Who that is, for a person: `vllm (pid 4121) of alice, unit vllm.service`.
    pub who: String,
    /// Bytes in use that would come free, by UUID.
    pub frees: BTreeMap<String, Bytes>,
    /// Bytes promised and not yet in use that would come free, by UUID.
    pub releases: BTreeMap<String, Bytes>,
}

impl MemoryHolder {
    /// The processes that hold memory by the driver's account, not the desktop; and, device by
    /// device, what is in use without a process that the driver names for it.
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
                    who: who(process),
                    frees: BTreeMap::new(),
                    releases: BTreeMap::new(),
                });
                *holder
                    .frees
                    .entry(device.facts.uuid.clone())
                    .or_insert(Bytes::ZERO) += used;
            }

            if rest >= UNNAMED {
                unnamed.push(Self {
                    change: format!("free {rest} on {}", device.facts.uuid),
                    who: format!("whatever else is in use on {}", device.facts.name),
                    frees: BTreeMap::from([(device.facts.uuid.clone(), rest)]),
                    releases: BTreeMap::new(),
                });
            }
        }

        by_pid.into_values().chain(unnamed).collect()
    }

    /// A lease of which `releases` bytes (by UUID) are not yet in use.
    pub fn lease(id: &str, holder: &str, releases: BTreeMap<String, Bytes>) -> Self {
        Self {
            change: format!("release lease {id}"),
            who: format!("the lease of {holder}"),
            frees: BTreeMap::new(),
            releases,
        }
    }

    fn bytes(&self) -> Bytes {
        self.frees
            .values()
            .chain(self.releases.values())
            .copied()
            .sum()
    }
}

fn who(process: &Process) -> String {
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

/// Suggests the smallest set of `holders` that would let it fit; of equally small ones that which
/// gives up least.
pub(super) fn make(tried: &mut Tried<'_>, holders: &[MemoryHolder]) {
    let mut holders: Vec<&MemoryHolder> = holders
        .iter()
        .filter(|holder| holder.bytes() > Bytes::ZERO)
        .collect();
    holders.sort_by(|a, b| {
        b.bytes()
            .cmp(&a.bytes())
            .then_with(|| a.change.cmp(&b.change))
    });

    holders.truncate(HOLDERS);
    if holders.is_empty() || helpful(tried, &holders).is_none() {
        return;
    }

    for size in 1..=SET.min(holders.len()) {
        let mut sets = sets(&holders, size);
        sets.sort_by_key(|set| set.iter().map(|holder| holder.bytes()).sum::<Bytes>());

        for set in sets {
            let Some(grade) = helpful(tried, &set) else {
                continue;
            };

            let change: Vec<&str> = set.iter().map(|holder| holder.change.as_str()).collect();
            let who: Vec<&str> = set.iter().map(|holder| holder.who.as_str()).collect();
            let frees: Bytes = set.iter().map(|holder| holder.bytes()).sum();
            let message = format!(
                "without {} there is room: {frees} come free",
                who.join(" and ")
            );
            tried.keep(&change.join(", "), &message, grade, frees);
            return;
        }
    }
}

/// The grade of the question without `gone`, where that helps.
fn helpful(tried: &Tried<'_>, gone: &[&MemoryHolder]) -> Option<Grade> {
    let (grade, ..) = grade(&tried.ask, &without(tried.here, gone))
        .ok()
        .flatten()?;
    tried.helps(grade).then_some(grade)
}

/// `here` if `gone` gave back what they hold.
fn without(here: &Availability, gone: &[&MemoryHolder]) -> Availability {
    gone.iter().fold(here.clone(), |here, holder| {
        here.after_freeing(&holder.frees)
            .after_releasing(&holder.releases)
    })
}

/// Every set of `size` of `holders`.
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
                    .map(move |(at, holder)| {
                        let mut larger = set.clone();
                        larger.push(*holder);
                        (at + 1, larger)
                    })
            })
            .collect();
    }

    found.into_iter().map(|(_, set)| set).collect()
}
