//! Devices, free memory and processes as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceKind, Process, ProcessKind, Snapshot};

use super::bar::{BarParts, bar};
use super::wrapped;
use crate::devices::holders::pod;

/// The columns of a bar.
const BAR: usize = 26;
/// The columns of a device's name.
const NAME: usize = 26;
/// The indent of the lines below a device.
const INDENT: usize = 6;
/// The most processes listed for one device. One line sums up the rest.
const MAX_PROCESSES: usize = 8;
/// The most memory in use by no listed process that needs no line of its own.
///
/// CUDA contexts and the driver itself use that much.
const MAX_UNEXPLAINED: Bytes = Bytes::mib(256);

/// Returns the table of devices, with a line per process and per reason why a device is unusable.
pub fn gpus(snapshot: &Snapshot, leased: &BTreeMap<String, Bytes>) -> String {
    let mut out = heading(snapshot, leased.values().copied().sum());
    for device in &snapshot.devices {
        device_lines(
            &mut out,
            device,
            leased
                .get(&device.facts.uuid)
                .copied()
                .unwrap_or(Bytes::ZERO),
        );
    }

    if let Some(host) = snapshot.host {
        let _ = writeln!(
            out,
            "host memory: {} available of {}",
            host.available_bytes, host.total_bytes
        );
    }

    let has_bars = snapshot
        .devices
        .iter()
        .any(|device| device.unusable.is_none());
    if has_bars {
        let leases = if leased.is_empty() { "" } else { "   % leased" };
        let _ = writeln!(out, "# in use{leases}   . free");
    }

    out
}

fn heading(snapshot: &Snapshot, leased: Bytes) -> String {
    let usable = snapshot
        .devices
        .iter()
        .filter(|device| device.unusable.is_none());
    let (free, total) = usable.fold((Bytes::ZERO, Bytes::ZERO), |(free, total), device| {
        (
            free + device.free_bytes.unwrap_or(Bytes::ZERO),
            total + device.facts.total_bytes,
        )
    });

    let count = snapshot.devices.len();
    let mut words = vec![format!(
        "{count} device{}",
        if count == 1 { "" } else { "s" }
    )];
    words.extend((total > Bytes::ZERO).then(|| format!("{free} free of {total}")));
    words.extend((leased > Bytes::ZERO).then(|| format!("{leased} leased")));

    words.push(match &snapshot.driver_version {
        Some(version) => format!("{}, driver {version}", snapshot.source),
        None => snapshot.source.clone(),
    });
    words.extend(
        snapshot
            .stale
            .then(|| "STALE: the driver does not answer".to_owned()),
    );

    wrapped(&words.join(", "), 0, 2) + "\n"
}

fn device_lines(out: &mut String, device: &Device, leased: Bytes) {
    let facts = &device.facts;
    let is_instance = facts.kind == DeviceKind::MigInstance;

    // An instance has the index of its GPU, which is already in the table above it.
    let index = if is_instance && facts.parent_uuid.is_some() {
        "-".to_owned()
    } else {
        facts.index.to_string()
    };

    let (bar, state) = match (&device.unusable, device.free_bytes) {
        (None, Some(free)) => (device_bar(device, free, leased), format!("{free} free")),
        (Some(_), Some(_)) => (format!("[{:-<BAR$}]", ""), "not usable".to_owned()),
        (_, None) => (format!("[{:?<BAR$}]", ""), "unknown".to_owned()),
    };

    let _ = writeln!(
        out,
        "{index:>4}  {:<NAME$} {bar} {state:>15}",
        short_name(&facts.name)
    );

    indented_line(out, &facts_text(device, leased));
    if let Some(unusable) = &device.unusable {
        indented_line(
            out,
            &format!("not usable ({}): {}", unusable.reason, unusable.message),
        );
    }

    for warning in &device.warnings {
        indented_line(
            out,
            &format!("note ({}): {}", warning.reason, warning.message),
        );
    }

    process_lines(out, device);
}

fn device_bar(device: &Device, free: Bytes, leased: Bytes) -> String {
    let total = device.facts.total_bytes.get();
    let parts = BarParts {
        used: total.saturating_sub(free.get()),
        leased: leased.get().min(free.get()),
        total,
        ..BarParts::default()
    };

    bar(&parts, BAR)
}

/// Returns a name without the vendor, and of a MIG instance only the profile.
fn short_name(name: &str) -> String {
    let name = name.strip_prefix("NVIDIA ").unwrap_or(name);
    let name = name
        .rsplit_once(" MIG ")
        .map_or_else(|| name.to_owned(), |(_, profile)| format!("MIG {profile}"));
    if name.chars().count() <= NAME {
        return name;
    }

    name.chars().take(NAME - 3).chain("...".chars()).collect()
}

fn facts_text(device: &Device, leased: Bytes) -> String {
    let facts = &device.facts;
    let mut words = vec![facts.uuid.clone()];
    words.extend((facts.total_bytes > Bytes::ZERO).then(|| format!("{} total", facts.total_bytes)));

    words.extend(
        facts
            .compute_capability
            .map(|(major, minor)| format!("compute {major}.{minor}")),
    );

    words.extend(facts.numa_node.map(|node| format!("NUMA node {node}")));
    words.extend(
        (facts.kind == DeviceKind::UnifiedMemory).then(|| "shared with the host".to_owned()),
    );
    words.extend((leased > Bytes::ZERO).then(|| format!("{leased} leased")));
    words.extend(
        (device.margin_bytes > Bytes::ZERO).then(|| format!("{} reserved", device.margin_bytes)),
    );

    words.join(", ")
}

/// Appends the processes, the largest first, and the memory in use by no listed process.
fn process_lines(out: &mut String, device: &Device) {
    let mut processes: Vec<&Process> = device.processes.iter().collect();
    processes.sort_by_key(|process| (std::cmp::Reverse(process.used_bytes), process.pid));

    for process in processes.iter().take(MAX_PROCESSES) {
        let _ = writeln!(
            out,
            "{:INDENT$}{:>10}  {}",
            "",
            size_or_unknown(process.used_bytes),
            wrapped(&process_text(process), INDENT + 12, INDENT + 12)
        );
    }

    if let Some(rest) = processes
        .get(MAX_PROCESSES..)
        .filter(|rest| !rest.is_empty())
    {
        let sum = rest.iter().filter_map(|process| process.used_bytes).sum();
        let _ = writeln!(
            out,
            "{:INDENT$}{:>10}  {} more processes",
            "",
            size_or_unknown(Some(sum)),
            rest.len()
        );
    }

    let listed: Bytes = processes
        .iter()
        .filter_map(|process| process.used_bytes)
        .sum();
    let all_known = processes.iter().all(|process| process.used_bytes.is_some());
    let is_unified = device.facts.kind == DeviceKind::UnifiedMemory;

    let rest = device
        .used_bytes
        .and_then(|used| used.checked_sub(listed))
        .filter(|rest| *rest >= MAX_UNEXPLAINED);

    if let (Some(rest), true) = (rest, all_known) {
        let owner = if is_unified {
            "the host"
        } else {
            "not in a listed process"
        };
        let _ = writeln!(
            out,
            "{:INDENT$}{:>10}  {owner}",
            "",
            size_or_unknown(Some(rest))
        );
    }
}

fn size_or_unknown(bytes: Option<Bytes>) -> String {
    bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string())
}

fn process_text(process: &Process) -> String {
    let mut words: Vec<String> = process.name.iter().cloned().collect();
    words.push(format!("pid {}", process.pid));
    words.extend(process.user.as_ref().map(|user| format!("user {user}")));

    // A container's scope unit is named after the container, which is listed below.
    let unit = process.unit.as_ref().filter(|unit| {
        process
            .container
            .as_ref()
            .is_none_or(|id| !unit.contains(&**id))
    });
    words.extend(unit.cloned());

    words.extend(
        process
            .container
            .as_ref()
            .map(|container| format!("container {container}")),
    );

    words.extend(
        process
            .cgroup
            .as_deref()
            .and_then(pod)
            .map(|pod| format!("pod {pod}")),
    );

    words.extend(match process.kind {
        ProcessKind::Compute => None,
        ProcessKind::Graphics => Some("graphics".to_owned()),
        ProcessKind::Mps => Some("MPS client".to_owned()),
    });

    words.join(", ")
}

fn indented_line(out: &mut String, text: &str) {
    let _ = writeln!(out, "{:INDENT$}{}", "", wrapped(text, INDENT, INDENT + 2));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_shortened() {
        assert_eq!(
            short_name("NVIDIA H100 80GB HBM3 MIG 3g.40gb"),
            "MIG 3g.40gb"
        );
        assert_eq!(
            short_name("NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
            "RTX PRO 6000 Blackwell ..."
        );
    }
}
