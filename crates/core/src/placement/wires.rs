//! The links that a split on certain devices communicates over.

use super::pool::Pool;
use crate::device::LinkKind;
use crate::engines::Split;

/// The worst links of a split on certain devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wires {
    /// The worst link between any two ranks that communicate.
    pub(super) all: LinkKind,
    /// The worst link inside a tensor group.
    pub(super) tensor: LinkKind,
    /// The number of uneven tensor groups: of more than one kind of device, or partly inside an
    /// NVLink island.
    pub(super) uneven: usize,
}

impl Wires {
    /// Returns the worst links of `split` on `places`.
    pub(super) fn new(pool: &Pool<'_>, split: &Split, places: &[usize]) -> Self {
        let groups: Vec<&[usize]> = places.chunks(split.tensor.max(1) as usize).collect();

        let mut wires = Self {
            all: LinkKind::Fabric,
            tensor: LinkKind::Fabric,
            uneven: 0,
        };

        for group in &groups {
            let (mut best, mut worst) = (LinkKind::None, LinkKind::Fabric);
            for (index, &a) in group.iter().enumerate() {
                for &b in group.iter().skip(index + 1) {
                    let link = pool.link(a, b);
                    (best, worst) = (best.min(link), worst.max(link));
                }
            }

            let first = group.first().and_then(|place| pool.kind_of(*place));
            let mixed = group.iter().any(|place| pool.kind_of(*place) != first);
            wires.uneven += usize::from(mixed || (best == LinkKind::Fabric && worst > best));
            wires.tensor = wires.tensor.max(worst);
        }

        wires.all = wires.tensor;
        for (group, next) in groups.iter().zip(groups.iter().skip(1)) {
            for (&a, &b) in group.iter().zip(next.iter()) {
                wires.all = wires.all.max(pool.link(a, b));
            }
        }

        wires
    }
}
