//! Available memory of each device: free, less what leases still claim, less the margin.

use std::collections::BTreeMap;

use crate::bytes::Bytes;
use crate::device::{Device, DeviceFacts, HostMemory, Link, Snapshot, Unusable};

/// The available memory of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// The device.
    pub facts: DeviceFacts,
    /// Unallocated bytes; `None` if the reading failed.
    pub free: Option<Bytes>,
    /// Bytes that leases still claim beyond what is already in use.
    pub leased: Bytes,
    /// Bytes held back for the desktop or the host by the reading's rules.
    pub margin: Bytes,
    /// `free - leased - margin`, at least zero; `None` if it is unknown, so that nothing may be
    /// placed.
    pub available: Option<Bytes>,
    /// Why nothing may be placed on the device, whatever is free.
    pub unusable: Option<Unusable>,
}

impl Available {
    fn new(device: &Device, leased: Bytes) -> Self {
        let mut available = Self {
            facts: device.facts.clone(),
            free: device.free_bytes,
            leased,
            margin: device.margin_bytes,
            available: None,
            unusable: device.unusable.clone(),
        };

        available.update();
        available
    }

    /// Recomputes `available`. A sum that overflows gives `None`, and nothing is placed.
    fn update(&mut self) {
        self.available = self
            .free
            .and_then(|free| free.less(self.leased + self.margin));
    }
}

/// The available memory of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// The devices, unusable ones included.
    pub devices: Vec<Available>,
    /// The links between devices.
    pub links: Vec<Link>,
    /// Host memory, if read.
    pub host: Option<HostMemory>,
}

/// Returns the available memory of each device of `snapshot`. `leased` holds the bytes, by UUID,
/// that are leased and not yet in use.
pub fn availability(snapshot: &Snapshot, leased: &BTreeMap<String, Bytes>) -> Availability {
    Availability {
        devices: snapshot
            .devices
            .iter()
            .map(|device| {
                let claimed = leased.get(&device.facts.uuid);
                Available::new(device, claimed.copied().unwrap_or(Bytes::ZERO))
            })
            .collect(),
        links: snapshot.links.clone(),
        host: snapshot.host,
    }
}

impl Availability {
    /// Returns the same with `margin` more held back on every device.
    #[must_use]
    pub fn keeping(mut self, margin: Bytes) -> Self {
        for device in &mut self.devices {
            device.margin += margin;
            device.update();
        }
        self
    }

    /// Returns the same without leases.
    #[must_use]
    pub fn without_leases(mut self) -> Self {
        for device in &mut self.devices {
            device.leased = Bytes::ZERO;
            device.update();
        }
        self
    }

    /// Whether a lease claims memory on any device.
    pub fn has_leases(&self) -> bool {
        self.devices
            .iter()
            .any(|device| device.leased > Bytes::ZERO)
    }

    /// Returns the same after another lease of `taken` bytes, by UUID.
    #[must_use]
    pub fn after_leasing(mut self, taken: &BTreeMap<String, Bytes>) -> Self {
        for device in &mut self.devices {
            if let Some(&bytes) = taken.get(&device.facts.uuid) {
                device.leased += bytes;
                device.update();
            }
        }

        self
    }

    /// Returns the same with `added` more devices like `like`. Each is linked to the others and to
    /// the peers of `like` as `like` is.
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
        let new_uuid = |number: usize| format!("{} +{number}", like.facts.uuid);
        for number in 1..=added {
            let mut device = like.clone();
            device.facts.uuid = new_uuid(number);
            more.devices.push(device);
            let Some(best) = &best else { continue };
            let others = std::iter::once(like.facts.uuid.clone()).chain((1..number).map(new_uuid));
            more.links.extend(others.map(|other| Link {
                a: other,
                b: new_uuid(number),
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
                    b: new_uuid(number),
                    ..link.clone()
                }
            }));
        }

        more
    }

    /// Returns the same after processes have released `freed` bytes, by UUID; never more than the
    /// device has.
    #[must_use]
    pub fn after_freeing(mut self, freed: &BTreeMap<String, Bytes>) -> Self {
        for device in &mut self.devices {
            if let (Some(&bytes), Some(free)) = (freed.get(&device.facts.uuid), device.free) {
                let most = device
                    .facts
                    .cuda_total()
                    .unwrap_or(device.facts.total_bytes);
                device.free = Some((free + bytes).min(most.max(free)));
                device.update();
            }
        }

        self
    }

    /// Returns the same after leases have released `released` bytes, by UUID.
    #[must_use]
    pub fn after_releasing(mut self, released: &BTreeMap<String, Bytes>) -> Self {
        for device in &mut self.devices {
            if let Some(&bytes) = released.get(&device.facts.uuid) {
                device.leased = device.leased.less(bytes).unwrap_or(device.leased);
                device.update();
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
    fn available_is_never_negative() {
        let roomy = Available::new(&device(Some(Bytes::gib(20)), Bytes::gib(1)), Bytes::gib(4));
        assert_eq!(roomy.available, Some(Bytes::gib(15)));
        let full = Available::new(&device(Some(Bytes::gib(2)), Bytes::gib(1)), Bytes::gib(4));
        assert_eq!(full.available, Some(Bytes::ZERO));
    }

    #[test]
    fn unreadable_memory_is_not_available() {
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
