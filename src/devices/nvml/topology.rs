//! How GPUs are wired: NVLink, else the nearest common ancestor on PCIe.

use hf_mem_core::device::{Link, LinkKind};
use nvml_wrapper::Device as Handle;
use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus, TopologyLevel};
use nvml_wrapper::error::NvmlError;

use super::device::short_bus_id;
use super::raw;

/// `NVML_NVLINK_MAX_LINKS`.
const MAX_LINKS: u32 = 18;
const REMOTE_GPU: u32 = 0;
const REMOTE_SWITCH: u32 = 2;

/// One GPU and where its links go.
pub(super) struct End<'nvml> {
    pub(super) uuid: String,
    pub(super) pci_bus_id: Option<String>,
    pub(super) device: Handle<'nvml>,
}

/// The other ends of a GPU's active links.
#[derive(Default)]
struct Remotes {
    switches: u32,
    gpus: Vec<String>,
}

/// The links of every pair of which anything is known.
pub(super) fn read(ends: &[End<'_>]) -> Vec<Link> {
    let remotes: Vec<Remotes> = ends.iter().map(|end| remotes(&end.device)).collect();
    let mut links = Vec::new();
    for (place, (a, from)) in ends.iter().zip(&remotes).enumerate() {
        for (b, to) in ends.iter().zip(&remotes).skip(place + 1) {
            links.extend(join(a, from, b, to));
        }
    }

    links
}

fn join(a: &End<'_>, from: &Remotes, b: &End<'_>, to: &Remotes) -> Option<Link> {
    let direct = b.pci_bus_id.as_ref().map_or(0, |bus_id| {
        from.gpus.iter().filter(|remote| *remote == bus_id).count()
    });

    // GPUs whose links all end in switches reach one another through them, with as many links as
    // the poorer one has.
    let lanes = match u32::try_from(direct) {
        Ok(direct) if direct > 0 => Some(direct),
        _ => Some(from.switches.min(to.switches)).filter(|lanes| *lanes > 0),
    };

    let peer_access = peers(a, b);
    let kind = if lanes.is_some() {
        LinkKind::Fabric
    } else {
        ancestor(a, b)?
    };

    Some(Link {
        a: a.uuid.clone(),
        b: b.uuid.clone(),
        kind,
        lanes,
        peer_access,
    })
}

fn ancestor(a: &End<'_>, b: &End<'_>) -> Option<LinkKind> {
    Some(
        match a
            .device
            .topology_common_ancestor(raw::again(&b.device))
            .ok()?
        {
            TopologyLevel::Internal | TopologyLevel::Single => LinkKind::PcieSwitch,
            TopologyLevel::Multiple => LinkKind::PcieSwitches,
            TopologyLevel::HostBridge => LinkKind::HostBridge,
            TopologyLevel::Node => LinkKind::NumaNode,
            TopologyLevel::System => LinkKind::System,
        },
    )
}

/// Reads and writes have to work both ways; an answer newer than the wrapper counts as "not said".
fn peers(a: &End<'_>, b: &End<'_>) -> Option<bool> {
    let mut all = true;
    for (from, to) in [(a, b), (b, a)] {
        for what in [P2pCapabilitiesIndex::Read, P2pCapabilitiesIndex::Write] {
            all &= from.device.p2p_status(&to.device, what).ok()? == P2pStatus::Ok;
        }
    }

    Some(all)
}

fn remotes(device: &Handle<'_>) -> Remotes {
    let mut found = Remotes::default();
    for number in 0..MAX_LINKS {
        let link = device.link_wrapper_for(number);
        match link.is_active() {
            Ok(true) => {}
            Ok(false) | Err(NvmlError::InvalidArg) => continue,
            Err(_) => break,
        }
        // The wrapper's own `remote_device_type` writes to a temporary and always says "unknown".
        match raw::remote_type(device, number) {
            Ok(REMOTE_SWITCH) => found.switches += 1,
            Ok(REMOTE_GPU) => found.gpus.extend(
                link.remote_pci_info()
                    .ok()
                    .map(|pci| short_bus_id(&pci.bus_id)),
            ),
            Ok(_) | Err(_) => {}
        }
    }

    found
}
