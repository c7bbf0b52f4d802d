//! The connections between devices as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hf_mem_core::device::{Device, Link, LinkKind, Snapshot};

use super::wrapped;

/// The most devices whose matrix fits the line width.
const MAX_COLUMNS: usize = 12;
const LEGEND: &str = "NVn: n NVLinks, PIX: one PCIe switch, PXB: several, PHB: a host bridge, \
                      NODE: one NUMA node, SYS: across NUMA nodes, ?: unknown; \
                      *: no peer access, copies go through the host";

/// Returns the connection of each pair: a matrix, or one line per device if there are many.
pub fn topology(snapshot: &Snapshot) -> String {
    // MIG instances have no peers.
    let devices: Vec<&Device> = snapshot
        .devices
        .iter()
        .filter(|device| device.facts.parent_uuid.is_none())
        .collect();

    let links = Links::of(snapshot);
    let mut out = if devices.len() <= MAX_COLUMNS {
        matrix(&devices, &links)
    } else {
        lines(&devices, &links)
    };

    out.push_str(&wrapped(LEGEND, 0, 0));
    out.push('\n');

    out
}

/// Links by the UUIDs of their two devices, in both directions.
struct Links<'a>(BTreeMap<(&'a str, &'a str), &'a Link>);

impl<'a> Links<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let pairs = snapshot
            .links
            .iter()
            .flat_map(|link| [((&*link.a, &*link.b), link), ((&*link.b, &*link.a), link)]);
        Self(pairs.collect())
    }

    fn word(&self, a: &Device, b: &Device) -> String {
        let Some(link) = self.0.get(&(a.facts.uuid.as_str(), b.facts.uuid.as_str())) else {
            return "?".to_owned();
        };

        let word = match (link.kind, link.lanes) {
            (LinkKind::Fabric, Some(lanes)) => format!("NV{lanes}"),
            (LinkKind::Fabric, None) => "NV".to_owned(),
            (LinkKind::PcieSwitch, _) => "PIX".to_owned(),
            (LinkKind::PcieSwitches, _) => "PXB".to_owned(),
            (LinkKind::HostBridge, _) => "PHB".to_owned(),
            (LinkKind::NumaNode, _) => "NODE".to_owned(),
            (LinkKind::System, _) => "SYS".to_owned(),
            (LinkKind::None, _) => "none".to_owned(),
        };

        if link.peer_access == Some(false) {
            word + "*"
        } else {
            word
        }
    }
}

fn matrix(devices: &[&Device], links: &Links<'_>) -> String {
    let mut out = format!("{:>4}", "");
    for device in devices {
        let _ = write!(out, "{:>6}", device.facts.index);
    }

    for a in devices {
        let _ = write!(out, "\n{:>4}", a.facts.index);
        for b in devices {
            let same = a.facts.uuid == b.facts.uuid;
            let _ = write!(
                out,
                "{:>6}",
                if same {
                    "-".to_owned()
                } else {
                    links.word(a, b)
                }
            );
        }
    }

    out.push('\n');
    out
}

/// Returns one line per device: `0  NV18 1-7; SYS 8-63`.
fn lines(devices: &[&Device], links: &Links<'_>) -> String {
    let mut out = String::new();
    for a in devices {
        let mut by_word: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for b in devices.iter().filter(|b| b.facts.uuid != a.facts.uuid) {
            by_word
                .entry(links.word(a, b))
                .or_default()
                .push(b.facts.index);
        }

        let groups: Vec<String> = by_word
            .iter()
            .map(|(word, indices)| format!("{word} {}", ranges(indices)))
            .collect();
        let _ = writeln!(
            out,
            "{:>4}  {}",
            a.facts.index,
            wrapped(&groups.join("; "), 6, 6)
        );
    }

    out
}

/// Returns ascending numbers as runs: `0-3,7`.
fn ranges(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers.iter().copied() {
        match runs.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(number) => *end = number,
            _ => runs.push((number, number)),
        }
    }

    let texts: Vec<String> = runs
        .iter()
        .map(|(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            }
        })
        .collect();

    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_numbers_are_joined() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[]), "");
    }
}
