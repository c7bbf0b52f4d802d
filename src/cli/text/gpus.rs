//! What is free and who holds it, as a person reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::bar::{Parts, bar};
use super::{size, wrapped};
use crate::bytes::Bytes;
use crate::devices::{Device, DeviceKind, LinkKind, Process, Snapshot};

const BAR: usize = 32;

/// The table of devices, with a line for each process and each reason why a device is not used.
pub fn gpus(snapshot: &Snapshot, leased: &BTreeMap<String, Bytes>) -> String {
    let mut out = String::new();
    let driver = snapshot.driver_version.as_deref().map_or_else(String::new, |version| format!(", driver {version}"));
    let stale = if snapshot.stale { ", STALE: the driver does not answer" } else { "" };
    let _ = writeln!(out, "{} devices from {}{driver}{stale}", snapshot.devices.len(), snapshot.source);
    for device in &snapshot.devices {
        one(&mut out, device, leased.get(&device.facts.uuid).copied().unwrap_or(Bytes::ZERO));
    }
    if let Some(host) = snapshot.host {
        let _ = writeln!(out, "host memory: {} available of {}", host.available_bytes, host.total_bytes);
    }
    out
}

fn one(out: &mut String, device: &Device, leased: Bytes) {
    let facts = &device.facts;
    let name: String = facts.name.chars().take(22).collect();
    let total = facts.total_bytes.get();
    let Some(free) = device.free_bytes else {
        let _ = writeln!(out, "  {:>3} {name:<22} [{:?<BAR$}] free memory unknown", facts.index, "");
        unusable(out, device);
        return;
    };
    let parts = Parts {
        used: total.saturating_sub(free.get()),
        leased: leased.get().min(free.get()),
        total,
        ..Parts::default()
    };
    let _ = writeln!(out, "  {:>3} {name:<22} {} {free} free", facts.index, bar(&parts, BAR));
    let mut facts_line = vec![facts.uuid.clone(), format!("{} in all", facts.total_bytes)];
    facts_line.extend(facts.compute_capability.map(|(major, minor)| format!("compute capability {major}.{minor}")));
    facts_line.extend(match facts.kind {
        DeviceKind::Gpu => None,
        DeviceKind::MigInstance => Some("a MIG instance".to_owned()),
        DeviceKind::UnifiedMemory => Some("one pool with the host".to_owned()),
    });
    facts_line.extend((leased > Bytes::ZERO).then(|| format!("{leased} leased")));
    facts_line.extend((device.margin_bytes > Bytes::ZERO).then(|| format!("{} kept back", device.margin_bytes)));
    let _ = writeln!(out, "      {}", wrapped(&facts_line.join(", "), 6, 6));
    unusable(out, device);
    for process in &device.processes {
        let _ = writeln!(out, "      {}", wrapped(&holder(process), 6, 8));
    }
}

fn unusable(out: &mut String, device: &Device) {
    if let Some(unusable) = &device.unusable {
        let _ =
            writeln!(out, "      {}", wrapped(&format!("not used ({}): {}", unusable.reason, unusable.message), 6, 8));
    }
}

fn holder(process: &Process) -> String {
    let bytes = process.used_bytes.map_or_else(|| "unknown bytes".to_owned(), |bytes| size(bytes.get()));
    let mut words = vec![format!("pid {}", process.pid)];
    words.extend(process.name.clone());
    words.extend(process.user.as_ref().map(|user| format!("user {user}")));
    words.extend(process.unit.clone());
    words.extend(process.container.as_ref().map(|container| format!("container {container}")));
    format!("{bytes}  {}", words.join(", "))
}

/// How the devices are joined, as a matrix of short words.
pub fn topology(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let _ = write!(out, "{:>6}", "");
    for device in &snapshot.devices {
        let _ = write!(out, "{:>7}", device.facts.index);
    }
    out.push('\n');
    for a in &snapshot.devices {
        let _ = write!(out, "{:>6}", a.facts.index);
        for b in &snapshot.devices {
            let _ = write!(out, "{:>7}", joint(snapshot, &a.facts.uuid, &b.facts.uuid));
        }
        out.push('\n');
    }
    out.push_str(
        "NV fabric, PIX one PCIe switch, PXB several, PHB host bridge, NODE one NUMA node, SYS across, ? unknown\n",
    );
    out
}

fn joint(snapshot: &Snapshot, a: &str, b: &str) -> String {
    if a == b {
        return "X".to_owned();
    }
    let link = snapshot.links.iter().find(|link| (link.a == a && link.b == b) || (link.a == b && link.b == a));
    match link {
        None => "?".to_owned(),
        Some(link) => match link.kind {
            LinkKind::Fabric => link.lanes.map_or_else(|| "NV".to_owned(), |lanes| format!("NV{lanes}")),
            LinkKind::PcieSwitch => "PIX".to_owned(),
            LinkKind::PcieSwitches => "PXB".to_owned(),
            LinkKind::HostBridge => "PHB".to_owned(),
            LinkKind::NumaNode => "NODE".to_owned(),
            LinkKind::System => "SYS".to_owned(),
            LinkKind::None => "none".to_owned(),
        },
    }
}
