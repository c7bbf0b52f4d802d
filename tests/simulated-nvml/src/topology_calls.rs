//! The exported calls on the links between GPUs.
//!
//! # Safety
//!
//! As in NVML, the caller of each function must pass pointers that are valid for the reads and
//! writes that `nvml.h` names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::ffi::c_uint;

use crate::abi::{Handle, PciInfo, Return};
use crate::arguments::{pci_info, put};
use crate::machine::{Target, device_call};
use crate::scenario::{NvLink, Scenario, codes};

/// `NVML_NVLINK_MAX_LINKS`.
const MAX_LINKS: u32 = 18;
/// `NVML_TOPOLOGY_SYSTEM`.
const SYSTEM: u32 = 50;
/// `NVML_P2P_STATUS_NOT_SUPPORTED`.
const PEERS_NOT_SUPPORTED: u32 = 5;

fn gpu_index(target: &Target) -> Result<usize, Return> {
    match target {
        Target::Gpu(index) => Ok(*index),
        Target::Mig(..) => Err(codes::NOT_SUPPORTED),
    }
}

/// Makes a call on two devices. `answer` receives their indices.
fn pair_call(
    symbol: &str,
    first: Handle,
    second: Handle,
    answer: impl FnOnce(&Scenario, usize, usize) -> Result<(), Return>,
) -> Return {
    let mut other = None;
    let failed = device_call(symbol, second, |_, target| {
        other = Some(gpu_index(target)?);
        Ok(())
    });

    match other {
        Some(other) => device_call(symbol, first, |scenario, target| {
            answer(scenario, gpu_index(target)?, other)
        }),
        None => failed,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    a: Handle,
    b: Handle,
    level: *mut c_uint,
) -> Return {
    pair_call(
        "nvmlDeviceGetTopologyCommonAncestor",
        a,
        b,
        |scenario, a, b| {
            let known = scenario
                .ancestors
                .iter()
                .find(|(x, y, _)| (*x, *y) == (a, b) || (*x, *y) == (b, a));
            put(level, known.map_or(SYSTEM, |(.., level)| *level))
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    a: Handle,
    b: Handle,
    _caps: c_uint,
    status: *mut c_uint,
) -> Return {
    pair_call("nvmlDeviceGetP2PStatus", a, b, |scenario, _, _| {
        put(
            status,
            if scenario.peer_access {
                0
            } else {
                PEERS_NOT_SUPPORTED
            },
        )
    })
}

fn link<'a>(
    scenario: &'a Scenario,
    target: &Target,
    number: u32,
) -> Result<Option<&'a NvLink>, Return> {
    let gpu = target.gpu(scenario)?;
    if number >= MAX_LINKS {
        return Err(codes::INVALID_ARGUMENT);
    }

    if gpu.links.is_empty() {
        Err(codes::NOT_SUPPORTED)
    } else {
        Ok(gpu.links.get(number as usize))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    device: Handle,
    number: c_uint,
    active: *mut c_uint,
) -> Return {
    device_call("nvmlDeviceGetNvLinkState", device, |scenario, target| {
        put(active, u32::from(link(scenario, target, number)?.is_some()))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: Handle,
    number: c_uint,
    pci: *mut PciInfo,
) -> Return {
    device_call(
        "nvmlDeviceGetNvLinkRemotePciInfo_v2",
        device,
        |scenario, target| {
            let link = link(scenario, target, number)?.ok_or(codes::NOT_SUPPORTED)?;
            put(pci, pci_info(&link.remote_pci_bus_id))
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkRemoteDeviceType(
    device: Handle,
    number: c_uint,
    kind: *mut c_uint,
) -> Return {
    device_call(
        "nvmlDeviceGetNvLinkRemoteDeviceType",
        device,
        |scenario, target| {
            put(
                kind,
                link(scenario, target, number)?
                    .ok_or(codes::NOT_SUPPORTED)?
                    .remote_type,
            )
        },
    )
}
