//! What can be given on each device now: free, less what leases still claim, less the reading's own
//! margin.

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::device::{Device, DeviceFacts, HostMemory, Link, Snapshot, Unusable};

/// What can be given on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// The device.
    pub facts: DeviceFacts,
    /// Bytes that nobody has allocated; `None` where the reading failed.
    pub free: Option<Bytes>,
    /// Bytes that leases still claim beyond what is already seen in use.
    pub leased: Bytes,
    /// Bytes kept back by the reading's own rules.
    pub margin: Bytes,
    /// `free - leased - margin`, at least zero; `None` where nothing may be placed because nothing
    /// is known.
    pub available: Option<Bytes>,
    /// Why nothing may be placed here, whatever is free.
    pub unusable: Option<Unusable>,
}

impl Available {
    fn new(device: &Device, leased: Bytes) -> Self {
        let mut it = Self {
            facts: device.facts.clone(),
            free: device.free_bytes,
            leased,
            margin: device.margin_bytes,
            available: None,
            unusable: device.unusable.clone(),
        };

        it.settle();
        it
    }

    /// Works `available` out anew. A sum that left 64 bits gives `None`, which refuses.
    fn settle(&mut self) {
        self.available = self
            .free
            .and_then(|free| free.less(self.leased + self.margin));
    }
}

/// What can be given on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// The devices, unusable ones included.
    pub devices: Vec<Available>,
    /// How they are wired.
    pub links: Vec<Link>,
    /// Host memory, where read.
    pub host: Option<HostMemory>,
}

/// What can be given on each device of `snapshot`, when `leased` bytes (by UUID) are promised to
/// others and not yet seen.
pub fn availability(snapshot: &Snapshot, leased: &BTreeMap<String, Bytes>) -> Availability {
    let claimed = |device: &Device| {
        leased
            .get(&device.facts.uuid)
            .copied()
            .unwrap_or(Bytes::ZERO)
    };

    Availability {
        devices: snapshot
            .devices
            .iter()
            .map(|device| Available::new(device, claimed(device)))
            .collect(),
        links: snapshot.links.clone(),
        host: snapshot.host,
    }
}

impl Availability {
    /// The same with `margin` more kept back on every device.
    #[must_use]
    pub fn keeping(mut self, margin: Bytes) -> Self {
        for device in &mut self.devices {
            device.margin += margin;
            device.settle();
        }
        self
    }

    /// The same if no lease stood in the way.
    #[must_use]
    pub fn without_leases(mut self) -> Self {
        for device in &mut self.devices {
            device.leased = Bytes::ZERO;
            device.settle();
        }
        self
    }

    /// Whether any lease stands in the way.
    pub fn has_leases(&self) -> bool {
        self.devices
            .iter()
            .any(|device| device.leased > Bytes::ZERO)
    }

    /// The same after `taken` bytes (by UUID) have been promised to another.
    #[must_use]
    pub fn after_leasing(mut self, taken: &BTreeMap<String, Bytes>) -> Self {
        for device in &mut self.devices {
            if let Some(&bytes) = taken.get(&device.facts.uuid) {
                device.leased += bytes;
                device.settle();
            }
        }

        self
    }

    /// The same with `added` more devices like `like`, wired with each other and with its peers as
    /// it is with them.
    #[must_use]
    pub fn with_more(&self, like: &Available, added: usize) -> Self {
        let mut more = self.clone();
        let peers: Vec<Link> = self
            .links
            .iter()
            .filter(|it| [&it.a, &it.b].contains(&&like.facts.uuid))
            .cloned()
            .collect();

        let best = peers.iter().min_by_key(|it| it.kind).cloned();
        let named = |number: usize| format!("{} +{number}", like.facts.uuid);
        for number in 1..=added {
            let mut device = like.clone();
            device.facts.uuid = named(number);
            more.devices.push(device);
            let Some(best) = &best else { continue };
            let others = std::iter::once(like.facts.uuid.clone()).chain((1..number).map(named));
            more.links.extend(others.map(|other| Link {
                a: other,
                b: named(number),
                ..best.clone()
            }));

            more.links.extend(peers.iter().map(|link| {
                let other = if link.a == like.facts.uuid {
                    &link.b
                } else {
                    &link.a
                };

                Link {
                    a: other.clone(),
                    b: named(number),
                    ..link.clone()
                }
            }));
        }

        more
    }

    /// The same after `freed` bytes (by UUID) have been given back by processes; never more than
    /// the device has.
    #[must_use]
    pub fn after_freeing(mut self, freed: &BTreeMap<String, Bytes>) -> Self {
        for device in &mut self.devices {
            if let (Some(&bytes), Some(free)) = (freed.get(&device.facts.uuid), device.free) {
                let most = device
                    .facts
                    .cuda_total()
                    .unwrap_or(device.facts.total_bytes);
                device.free = Some((free + bytes).min(most.max(free)));
                device.settle();
            }
        }

        self
    }

    /// The same after leases have given back `released` bytes (by UUID).
    #[must_use]
    pub fn after_releasing(mut self, released: &BTreeMap<String, Bytes>) -> Self {
        for device in &mut self.devices {
            if let Some(&bytes) = released.get(&device.facts.uuid) {
                device.leased = device.leased.less(bytes).unwrap_or(device.leased);
                device.settle();
            }
        }

        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;

    fn device(free: Option<Bytes>, margin: Bytes) -> Device {
        let facts = DeviceFacts {
            uuid: "GPU-a".into(),
            index: 0,
            name: "card".into(),
            kind: DeviceKind::Gpu,
            total_bytes: Bytes::gib(24),
            reserved_bytes: None,
            compute_capability: None,
            multiprocessors: None,
            parent_uuid: None,
            pci_bus_id: None,
            numa_node: None,
        };

        Device {
            free_bytes: free,
            margin_bytes: margin,
            ..Device::idle(facts)
        }
    }

    #[test]
    fn subtracts_leases_and_margin_and_never_goes_below_zero() {
        let roomy = Available::new(&device(Some(Bytes::gib(20)), Bytes::gib(1)), Bytes::gib(4));
        assert_eq!(roomy.available, Some(Bytes::gib(15)));
        let full = Available::new(&device(Some(Bytes::gib(2)), Bytes::gib(1)), Bytes::gib(4));
        assert_eq!(full.available, Some(Bytes::ZERO));
    }

    #[test]
    fn what_could_not_be_read_is_not_available() {
        assert_eq!(
            Available::new(&device(None, Bytes::ZERO), Bytes::ZERO).available,
            None
        );
        assert_eq!(
            Available::new(&device(Some(Bytes::gib(2)), Bytes::ZERO), Bytes::OVERFLOW).available,
            None
        );
    }
}
