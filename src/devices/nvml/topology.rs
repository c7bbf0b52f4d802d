//! The links between GPUs: NVLink, or else the nearest common ancestor on PCIe.

use hf_mem_core::device::{Link, LinkKind};
use nvml_wrapper::Device as Handle;
use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus, TopologyLevel};
use nvml_wrapper::error::NvmlError;

use super::device::short_bus_id;
use super::raw;

/// The most NVLinks of a GPU (`NVML_NVLINK_MAX_LINKS`).
const MAX_LINKS: u32 = 18;
const REMOTE_GPU: u32 = 0;
const REMOTE_SWITCH: u32 = 2;

/// A GPU as one end of its links.
pub(super) struct LinkEndpoint<'nvml> {
    pub(super) uuid: String,
    pub(super) pci_bus_id: Option<String>,
    pub(super) device: Handle<'nvml>,
}

/// The remote ends of a GPU's active links.
#[derive(Default)]
struct RemoteEnds {
    /// The number of links to switches.
    switches: u32,
    /// The PCI address of each linked GPU, once per link.
    gpus: Vec<String>,
}

/// Reads the link of every pair. A pair about which nothing is known is left out.
pub(super) fn read(endpoints: &[LinkEndpoint<'_>]) -> Vec<Link> {
    let remotes: Vec<RemoteEnds> = endpoints
        .iter()
        .map(|endpoint| remote_ends(&endpoint.device))
        .collect();
    let mut links = Vec::new();
    for (index, (a, from)) in endpoints.iter().zip(&remotes).enumerate() {
        for (b, to) in endpoints.iter().zip(&remotes).skip(index + 1) {
            links.extend(link_between(a, from, b, to));
        }
    }

    links
}

fn link_between(
    a: &LinkEndpoint<'_>,
    from: &RemoteEnds,
    b: &LinkEndpoint<'_>,
    to: &RemoteEnds,
) -> Option<Link> {
    let direct = b.pci_bus_id.as_ref().map_or(0, |bus_id| {
        from.gpus.iter().filter(|remote| *remote == bus_id).count()
    });

    // GPUs whose links end in switches reach one another through the switches, with the smaller of
    // their link counts.
    let lanes = match u32::try_from(direct) {
        Ok(direct) if direct > 0 => Some(direct),
        _ => Some(from.switches.min(to.switches)).filter(|lanes| *lanes > 0),
    };

    let peer_access = peer_access(a, b);
    let kind = if lanes.is_some() {
        LinkKind::Fabric
    } else {
        common_ancestor(a, b)?
    };

    Some(Link {
        a: a.uuid.clone(),
        b: b.uuid.clone(),
        kind,
        lanes,
        peer_access,
    })
}

fn common_ancestor(a: &LinkEndpoint<'_>, b: &LinkEndpoint<'_>) -> Option<LinkKind> {
    Some(
        match a
            .device
            .topology_common_ancestor(raw::copy_handle(&b.device))
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

/// Whether reads and writes work in both directions.
///
/// An answer that is newer than the wrapper counts as unknown.
fn peer_access(a: &LinkEndpoint<'_>, b: &LinkEndpoint<'_>) -> Option<bool> {
    let mut all = true;
    for (from, to) in [(a, b), (b, a)] {
        for capability in [P2pCapabilitiesIndex::Read, P2pCapabilitiesIndex::Write] {
            all &= from.device.p2p_status(&to.device, capability).ok()? == P2pStatus::Ok;
        }
    }

    Some(all)
}

fn remote_ends(device: &Handle<'_>) -> RemoteEnds {
    let mut found = RemoteEnds::default();
    for number in 0..MAX_LINKS {
        let link = device.link_wrapper_for(number);
        match link.is_active() {
            Ok(true) => {}
            Ok(false) | Err(NvmlError::InvalidArg) => continue,
            Err(_) => break,
        }
        // The wrapper's own `remote_device_type` writes to a temporary and always returns
        // "unknown".
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
