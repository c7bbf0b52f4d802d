//! The links between devices.

use hf_mem_core::device::LinkKind;
use simulated_nvml::{Gpu, NvLink, Scenario, profiles};

use super::Machine;

#[test]
fn links_follow_nvlink_and_pcie() {
    let switched = Machine::new(&Scenario::repeated(8, &profiles::h100_80()).nvswitch(18)).read();
    assert_eq!(switched.links.len(), 28);

    assert!(
        switched
            .links
            .iter()
            .all(|link| link.kind == LinkKind::Fabric && link.lanes == Some(18))
    );

    assert!(
        switched
            .links
            .iter()
            .all(|link| link.peer_access == Some(true))
    );

    let mut pairs = Scenario::repeated(3, &profiles::a100_80());
    let bus_ids: Vec<_> = pairs
        .devices
        .iter()
        .map(|gpu| gpu.pci_bus_id.clone())
        .collect();

    let nvlink_to = |bus_id: &str| NvLink {
        remote_type: 0,
        remote_pci_bus_id: bus_id.to_owned(),
    };

    pairs.devices[0].links = vec![nvlink_to(&bus_ids[1]); 4];
    pairs.devices[1].links = vec![nvlink_to(&bus_ids[0]); 4];
    pairs.ancestors = vec![(0, 2, 30), (1, 2, 40)];
    let links = Machine::new(&pairs).read().links;
    let kinds: Vec<_> = links
        .iter()
        .map(|link| (link.kind, link.lanes, link.peer_access))
        .collect();

    let expected = [
        (LinkKind::Fabric, Some(4), Some(false)),
        (LinkKind::HostBridge, None, Some(false)),
        (LinkKind::NumaNode, None, Some(false)),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn sixty_four_future_gpus_are_read() {
    let gpu = Gpu {
        compute_capability: (13, 0),
        ..profiles::h200()
    };

    let snapshot = Machine::new(&Scenario::repeated(64, &gpu)).read();
    assert_eq!(snapshot.devices.len(), 64);
    assert_eq!(snapshot.devices[63].facts.compute_capability, Some((13, 0)));
    assert_eq!(snapshot.devices[63].facts.multiprocessors, None);
    assert_eq!(snapshot.links.len(), 64 * 63 / 2);
}
