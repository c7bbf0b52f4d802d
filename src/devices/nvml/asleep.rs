//! GPUs that runtime power management has suspended.

use std::time::SystemTime;

use hf_mem_core::device::{Device, Snapshot, UnusableReason, declared, identity};

use super::device::{minimal_facts, unreadable};
use super::health;
use super::options::NvmlOptions;
use crate::devices::host_memory;
use crate::devices::power::{self, PowerState};

/// Returns a sleeping device, with the facts of an earlier pass or of the kernel module.
pub(super) fn asleep(state: &PowerState, index: u32, last: &[Device]) -> Device {
    let known = last
        .iter()
        .find(|device| device.facts.pci_bus_id.as_deref() == Some(state.bus_id.as_str()));
    let facts = known.map_or_else(
        || {
            let uuid = state
                .uuid
                .clone()
                .unwrap_or_else(|| format!("PCI-{}", state.bus_id));
            minimal_facts(uuid, index, Some(state.bus_id.clone()), state.name.clone())
        },
        |device| device.facts.clone(),
    );

    unreadable(
        facts,
        health::unusable(
            UnusableReason::Asleep,
            "the GPU is suspended and was not woken for a reading; \
             wake it with nvidia-smi -L and ask again",
        ),
    )
}

/// Returns a snapshot without opening the driver's library, if every GPU of the host sleeps.
pub fn sleeping_snapshot(options: &NvmlOptions) -> Option<Snapshot> {
    let power_states = power::states(&options.roots);
    if power_states.is_empty() || !power_states.iter().all(PowerState::asleep) {
        return None;
    }

    let mut devices: Vec<Device> = (0..)
        .zip(&power_states)
        .map(|(index, state)| asleep(state, index, &[]))
        .collect();
    identity::normalize(&mut devices);

    Some(Snapshot {
        source: "nvml".to_owned(),
        sampled_at: declared::whole_milliseconds(SystemTime::now()),
        stale: false,
        driver_version: None,
        devices,
        links: Vec::new(),
        host: host_memory::read(&options.roots.proc),
    })
}
