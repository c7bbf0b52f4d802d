//! The GPUs that measured rows name.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};

/// (part of the name, CUDA's total in MiB, capability, multiprocessors).
const KNOWN: &[(&str, u64, (u32, u32), u32)] = &[
    ("h100", 81_090, (9, 0), 132),
    ("h200", 143_155, (9, 0), 132),
    ("gh200", 96_768, (9, 0), 132),
    ("h20", 97_290, (9, 0), 78),
    ("a100 40gb", 40_325, (8, 0), 108),
    ("a100-pcie-40gb", 40_325, (8, 0), 108),
    ("a100 80gb", 81_050, (8, 0), 108),
    ("a100-80gb", 81_050, (8, 0), 108),
    ("a800", 81_050, (8, 0), 108),
    ("a10g", 22_502, (8, 6), 80),
    ("a10", 22_502, (8, 6), 72),
    ("l40s", 45_458, (8, 9), 142),
    ("l4", 22_480, (8, 9), 58),
    ("t4", 14_910, (7, 5), 40),
    ("rtx pro 6000", 97_247, (12, 0), 188),
    ("rtx 5090", 32_150, (12, 0), 170),
    ("rtx 4090", 24_110, (8, 9), 128),
    ("rtx 3090", 24_125, (8, 6), 82),
    ("rtx 3070", 7_900, (8, 6), 40),
    ("gb10", 124_600, (12, 1), 48),
];

/// The device for a row's GPU name, if it is a known NVIDIA GPU; the most specific name wins.
pub(crate) fn named(name: &str) -> Option<DeviceFacts> {
    let lower = name.to_lowercase();
    let found = KNOWN
        .iter()
        .filter(|known| lower.contains(known.0))
        .max_by_key(|known| known.0.len())?;
    let (_, mib, capability, multiprocessors) = *found;

    Some(DeviceFacts {
        uuid: "declared-0".to_owned(),
        index: 0,
        name: name.to_owned(),
        kind: if lower.contains("gb10") {
            DeviceKind::UnifiedMemory
        } else {
            DeviceKind::Gpu
        },
        total_bytes: Bytes::mib(mib),
        reserved_bytes: Some(Bytes::ZERO),
        compute_capability: Some(capability),
        multiprocessors: Some(multiprocessors),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    })
}
