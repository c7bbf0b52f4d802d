//! The devices that may be used for one question, with what the search needs of each at hand.

use std::collections::BTreeSet;

use super::ask::{Constraints, PlacementError, Policy};
use super::availability::{Availability, Available};
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind, LinkKind};

/// One usable device.
pub(super) struct Pooled<'a> {
    /// The device.
    pub(super) source: &'a Available,
    /// Bytes that can be given on it.
    pub(super) available: Bytes,
    /// Which of [`Pool::kinds`] it is.
    pub(super) kind: usize,
    /// Its place among the preferred devices; their number if it is none of them.
    pub(super) preference: usize,
}

/// The usable devices, by UUID.
pub(super) struct Pool<'a> {
    /// The devices, ordered by UUID, so that a comparison of places is one of UUIDs.
    pub(super) devices: Vec<Pooled<'a>>,
    /// One device of each kind; what an engine says of it holds for all of its kind.
    pub(super) kinds: Vec<&'a DeviceFacts>,
    /// How each pair is joined, row by row.
    links: Vec<LinkKind>,
    /// Devices that may not be used, and why.
    pub(super) passed_over: Vec<(&'a DeviceFacts, String)>,
}

impl<'a> Pool<'a> {
    /// The usable devices of `here` that `constraints` allow.
    pub(super) fn new(
        here: &'a Availability,
        constraints: &Constraints,
        policy: &Policy,
    ) -> Result<Self, PlacementError> {
        let allowed = allowed(here, constraints)?;
        let mut chosen: Vec<&Available> = here
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
                let kind = pool.kind_of(&source.facts);
                let preference = policy
                    .prefer
                    .iter()
                    .position(|wish| is_meant(wish, &source.facts));
                let preference = preference.map_or(policy.prefer.len(), |place| place);

                pool.devices.push(Pooled {
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

        pool.wire(here);
        Ok(pool)
    }

    /// How the devices at places `a` and `b` are joined.
    pub(super) fn link(&self, a: usize, b: usize) -> LinkKind {
        self.links
            .get(a * self.devices.len() + b)
            .copied()
            .unwrap_or(LinkKind::None)
    }

    /// Whether one process can use the device beside others: not a MIG instance, of which a process
    /// sees only one (NVIDIA MIG user guide, "CUDA device enumeration").
    pub(super) fn joins(&self, place: usize) -> bool {
        self.devices
            .get(place)
            .is_some_and(|it| it.source.facts.kind == DeviceKind::Gpu)
    }

    /// Drops the devices whose kind is in `vetoed`, for the reason given there.
    pub(super) fn veto(&mut self, vetoed: &[Option<String>], here: &'a Availability) {
        let mut kept = Vec::with_capacity(self.devices.len());
        for device in std::mem::take(&mut self.devices) {
            match vetoed.get(device.kind).and_then(Option::as_ref) {
                Some(why) => self.passed_over.push((&device.source.facts, why.clone())),
                None => kept.push(device),
            }
        }

        self.devices = kept;
        self.wire(here);
    }

    fn kind_of(&mut self, facts: &'a DeviceFacts) -> usize {
        let known = self.kinds.iter().position(|kind| same_kind(kind, facts));
        known.unwrap_or_else(|| {
            self.kinds.push(facts);
            self.kinds.len() - 1
        })
    }

    fn wire(&mut self, here: &Availability) {
        let count = self.devices.len();
        self.links = vec![LinkKind::System; count * count];

        let place = |uuid: &str| {
            self.devices
                .binary_search_by(|it| it.source.facts.uuid.as_str().cmp(uuid))
                .ok()
        };

        for link in &here.links {
            if let (Some(a), Some(b)) = (place(&link.a), place(&link.b)) {
                for at in [a * count + b, b * count + a] {
                    if let Some(slot) = self.links.get_mut(at) {
                        *slot = link.kind;
                    }
                }
            }
        }
    }
}

/// Whether an engine would see no difference between two devices.
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

fn is_meant(wish: &str, facts: &DeviceFacts) -> bool {
    !wish.is_empty() && (facts.uuid.starts_with(wish) || facts.name.contains(wish))
}

/// The UUIDs that the constraints leave.
fn allowed<'a>(
    here: &'a Availability,
    constraints: &Constraints,
) -> Result<BTreeSet<&'a str>, PlacementError> {
    let known = || here.devices.iter().map(|it| it.facts.uuid.as_str());
    let Some(asked) = &constraints.devices else {
        return Ok(known().collect());
    };

    let mut allowed = BTreeSet::new();
    for given in asked {
        if let Some(exact) = known().find(|uuid| uuid == given) {
            allowed.insert(exact);
            continue;
        }
        let matches: Vec<&str> = known()
            .filter(|uuid| !given.is_empty() && uuid.starts_with(given.as_str()))
            .collect();
        match *matches.as_slice() {
            [one] => {
                allowed.insert(one);
            }
            [] => {
                let known: Vec<&str> = known().collect();
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
