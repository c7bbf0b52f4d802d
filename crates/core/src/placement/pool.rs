//! The devices that one question may use, with the facts that the search needs of each.

use std::collections::BTreeSet;

use super::ask::{Constraints, PlacementError, Policy};
use super::availability::{Availability, Available};
use super::device_names::is_named;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind, LinkKind};

/// A usable device.
pub(super) struct UsableDevice<'a> {
    /// The device.
    pub(super) source: &'a Available,
    /// Bytes available on it.
    pub(super) available: Bytes,
    /// Its index in [`Pool::kinds`].
    pub(super) kind: usize,
    /// Its position among the preferred devices, or their number if it is not preferred.
    pub(super) preference: usize,
}

/// The usable devices of a question.
pub(super) struct Pool<'a> {
    /// The devices, ordered by UUID: comparing places compares UUIDs.
    pub(super) devices: Vec<UsableDevice<'a>>,
    /// A device of each kind. An engine's figures for it hold for every device of the kind.
    pub(super) kinds: Vec<&'a DeviceFacts>,
    /// The link of each pair of devices, row by row.
    links: Vec<LinkKind>,
    /// Devices that may not be used, with the reason.
    pub(super) passed_over: Vec<(&'a DeviceFacts, String)>,
}

impl<'a> Pool<'a> {
    /// Returns the usable devices of the host that `constraints` allow.
    pub(super) fn new(
        host: &'a Availability,
        constraints: &Constraints,
        policy: &Policy,
    ) -> Result<Self, PlacementError> {
        let allowed = allowed(host, constraints)?;
        let mut chosen: Vec<&Available> = host
            .devices
            .iter()
            .filter(|it| allowed.contains(&*it.facts.uuid))
            .collect();

        chosen.sort_by(|a, b| a.facts.uuid.cmp(&b.facts.uuid));
        let mut pool = Self {
            devices: Vec::new(),
            kinds: Vec::new(),
            links: Vec::new(),
            passed_over: Vec::new(),
        };

        for source in chosen {
            if let Some(unusable) = &source.unusable {
                pool.passed_over
                    .push((&source.facts, unusable.message.clone()));
            } else if let Some(available) = source.available {
                let kind = pool.add_kind(&source.facts);
                let preference = policy
                    .prefer
                    .iter()
                    .position(|wish| matches_wish(wish, &source.facts));
                let preference = preference.map_or(policy.prefer.len(), |place| place);

                pool.devices.push(UsableDevice {
                    source,
                    available,
                    kind,
                    preference,
                });
            } else {
                pool.passed_over
                    .push((&source.facts, "its free memory could not be read".into()));
            }
        }

        pool.set_links(host);
        Ok(pool)
    }

    /// Returns the link between the devices at places `a` and `b`.
    pub(super) fn link(&self, a: usize, b: usize) -> LinkKind {
        self.links
            .get(a * self.devices.len() + b)
            .copied()
            .unwrap_or(LinkKind::None)
    }

    /// Returns the kind of the device at `place`.
    pub(super) fn kind_of(&self, place: usize) -> Option<usize> {
        self.devices.get(place).map(|it| it.kind)
    }

    /// Returns the kind of the first of `places`; `usize::MAX` if there is none.
    pub(super) fn first_kind(&self, places: &[usize]) -> usize {
        places
            .first()
            .and_then(|place| self.kind_of(*place))
            .unwrap_or(usize::MAX)
    }

    /// Whether one process can use the device together with others. A process sees only one MIG
    /// instance (NVIDIA MIG user guide, "CUDA device enumeration").
    pub(super) fn joins(&self, place: usize) -> bool {
        self.devices
            .get(place)
            .is_some_and(|it| it.source.facts.kind == DeviceKind::Gpu)
    }

    /// Drops the devices whose kind is in `vetoed`, and records the reason.
    pub(super) fn veto(&mut self, vetoed: &[Option<String>], host: &'a Availability) {
        let mut kept = Vec::with_capacity(self.devices.len());
        for device in std::mem::take(&mut self.devices) {
            match vetoed.get(device.kind).and_then(Option::as_ref) {
                Some(why) => self.passed_over.push((&device.source.facts, why.clone())),
                None => kept.push(device),
            }
        }

        self.devices = kept;
        self.set_links(host);
    }

    /// Returns the index of the device's kind, and adds the kind if it is new.
    fn add_kind(&mut self, facts: &'a DeviceFacts) -> usize {
        let known = self.kinds.iter().position(|kind| same_kind(kind, facts));
        known.unwrap_or_else(|| {
            self.kinds.push(facts);
            self.kinds.len() - 1
        })
    }

    /// Returns the place of the device with `uuid`.
    fn place(&self, uuid: &str) -> Option<usize> {
        self.devices
            .binary_search_by(|it| it.source.facts.uuid.as_str().cmp(uuid))
            .ok()
    }

    /// Rebuilds the table of links for the current devices.
    fn set_links(&mut self, host: &Availability) {
        let count = self.devices.len();
        self.links = vec![LinkKind::System; count * count];

        for link in &host.links {
            if let (Some(a), Some(b)) = (self.place(&link.a), self.place(&link.b)) {
                for index in [a * count + b, b * count + a] {
                    if let Some(slot) = self.links.get_mut(index) {
                        *slot = link.kind;
                    }
                }
            }
        }
    }
}

/// Whether two devices are the same to an engine.
fn same_kind(a: &DeviceFacts, b: &DeviceFacts) -> bool {
    (
        a.kind,
        a.total_bytes,
        a.reserved_bytes,
        a.compute_capability,
        a.multiprocessors,
    ) == (
        b.kind,
        b.total_bytes,
        b.reserved_bytes,
        b.compute_capability,
        b.multiprocessors,
    ) && a.name == b.name
}

/// Whether `wish` is a prefix of the UUID or a part of the product name.
fn matches_wish(wish: &str, facts: &DeviceFacts) -> bool {
    !wish.is_empty() && (facts.uuid.starts_with(wish) || facts.name.contains(wish))
}

/// Returns the UUIDs that the constraints allow.
fn allowed<'a>(
    host: &'a Availability,
    constraints: &Constraints,
) -> Result<BTreeSet<&'a str>, PlacementError> {
    let Some(asked) = &constraints.devices else {
        return Ok(uuids(host).collect());
    };

    let mut allowed = BTreeSet::new();
    for given in asked {
        if let Some(exact) = uuids(host).find(|uuid| uuid == given) {
            allowed.insert(exact);
            continue;
        }
        let named = host
            .devices
            .iter()
            .filter(|device| is_named(&device.facts, given));
        let matches: Vec<&str> = named.map(|device| device.facts.uuid.as_str()).collect();
        match *matches.as_slice() {
            [uuid] => {
                allowed.insert(uuid);
            }
            [] => {
                let known: Vec<&str> = uuids(host).collect();
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };

                return Err(PlacementError::UnknownDevice {
                    given: given.clone(),
                    known,
                });
            }
            _ => {
                return Err(PlacementError::AmbiguousDevice {
                    given: given.clone(),
                    matches: matches.join(", "),
                });
            }
        }
    }

    Ok(allowed)
}

/// Returns the UUIDs of all devices of the host.
fn uuids(host: &Availability) -> impl Iterator<Item = &str> {
    host.devices.iter().map(|it| it.facts.uuid.as_str())
}
