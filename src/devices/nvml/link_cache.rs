//! A cache of the links between GPUs.
//!
//! Links seldom change, and reading them takes longer than a whole pass over the devices.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hf_mem_core::device::Link;
use nvml_wrapper::Nvml;

use super::device::DeviceState;
use super::topology::{self, LinkEndpoint};

/// The age from which the links are read again.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The links of the GPUs that were asked for last.
#[derive(Default)]
pub(super) struct LinkCache {
    known: Option<KnownLinks>,
}

struct KnownLinks {
    uuids: Vec<String>,
    read_at: Instant,
    links: Vec<Link>,
}

impl LinkCache {
    /// Returns the links among `uuids`.
    ///
    /// They are read once for each set of GPUs and again by [`Self::refresh`]. A known set that
    /// contains all of `uuids` is not read again.
    pub(super) fn links(
        &mut self,
        uuids: &[String],
        nvml: &Nvml,
        states: &HashMap<String, DeviceState>,
    ) -> Vec<Link> {
        let known = match self.known.take() {
            Some(known) if uuids.iter().all(|uuid| known.uuids.contains(uuid)) => known,
            _ => read(uuids.to_vec(), nvml, states),
        };

        let is_wanted = |uuid: &String| uuids.len() == known.uuids.len() || uuids.contains(uuid);
        let links = known
            .links
            .iter()
            .filter(|link| is_wanted(&link.a) && is_wanted(&link.b))
            .cloned()
            .collect();

        self.known = Some(known);
        links
    }

    /// Reads the links again if they are older than [`MAX_AGE`].
    pub(super) fn refresh(&mut self, nvml: &Nvml, states: &HashMap<String, DeviceState>) {
        if let Some(known) = self.known.take() {
            self.known = Some(if known.read_at.elapsed() < MAX_AGE {
                known
            } else {
                read(known.uuids, nvml, states)
            });
        }
    }
}

fn read(uuids: Vec<String>, nvml: &Nvml, states: &HashMap<String, DeviceState>) -> KnownLinks {
    let endpoints: Vec<_> = uuids
        .iter()
        .filter_map(|uuid| {
            let device = nvml.device_by_uuid(uuid.as_str()).ok()?;
            let pci_bus_id = states.get(uuid).and_then(|state| state.pci_bus_id.clone());

            Some(LinkEndpoint {
                uuid: uuid.clone(),
                pci_bus_id,
                device,
            })
        })
        .collect();
    let links = if endpoints.len() > 1 {
        topology::read(&endpoints)
    } else {
        Vec::new()
    };

    KnownLinks {
        uuids,
        read_at: Instant::now(),
        links,
    }
}
