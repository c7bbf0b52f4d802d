//! The order in which ways of placing a model are preferred. This is the one place where it is written down.
//!
//! Of two ways the better one is, by the first line that tells them apart:
//!
//! 1. it fits, before it is tight, before it does not fit;
//! 2. where neither fits, the fewer bytes missing (this is what "came nearest" means);
//! 3. nothing in host memory, before experts, before layers, before components, before leaves; then fewer layers there;
//! 4. fewer devices;
//! 5. fewer devices that run the model only at a cost (a dtype or quantisation that they lack);
//! 6. fewer tensor groups of mixed kinds, whose smallest member bounds the others;
//! 7. the better of the worst links: between any two devices of a tensor group, and between neighbouring stages;
//! 8. the engine's own order of splits, cheapest first;
//! 9. the better of the worst links inside tensor groups (NVLink islands before PCIe);
//! 10. devices that the policy prefers;
//! 11. `pack`: the least memory left over on its devices, `spread`: the most;
//! 12. the larger smallest headroom of a device;
//! 13. the lower UUIDs, in the order of the ranks.
//!
//! Where an engine takes stages of any length, each order of devices stands with the stages that leave the largest
//! smallest headroom.

use std::cmp::Reverse;

use super::ask::Packing;
use crate::api::answer::Verdict;
use crate::bytes::Bytes;
use crate::devices::LinkKind;
use crate::engines::{Interval, Offload};

/// A way's place in the order: the lesser, the better. The fields are the lines of the module's text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    pub(super) grade: Grade,
    pub(super) missing: Bytes,
    pub(super) offload: (u8, u32),
    pub(super) devices: usize,
    pub(super) degraded: usize,
    pub(super) mixed: usize,
    pub(super) link: LinkKind,
    pub(super) engine_order: usize,
    pub(super) tensor_link: LinkKind,
    pub(super) preference: usize,
    pub(super) leftover: i128,
    pub(super) headroom: Reverse<i128>,
    pub(super) places: Vec<usize>,
}

/// How well a need goes into what is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// The high end goes in.
    Fits,
    /// The likely figure goes in, the high end does not.
    Tight,
    /// The likely figure does not go in.
    No,
}

impl Grade {
    /// How `need` goes into `available`. What overflowed never goes in.
    pub(super) fn of(need: Interval, available: Bytes) -> Self {
        if need.high <= available && !need.high.overflowed() {
            Self::Fits
        } else if need.likely <= available && !need.likely.overflowed() {
            Self::Tight
        } else {
            Self::No
        }
    }

    /// As an answer's word.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Fits => Verdict::Fits,
            Self::Tight => Verdict::Tight,
            Self::No => Verdict::DoesNotFit,
        }
    }
}

/// Line 3 of the order.
pub(super) fn harm(offload: Offload) -> (u8, u32) {
    match offload {
        Offload::None => (0, 0),
        Offload::Experts { layers } => (1, layers),
        Offload::Layers { layers } => (2, layers),
        Offload::Components => (3, 0),
        Offload::Leaves => (4, 0),
    }
}

/// Line 11 of the order: `left` bytes left over, signed so that less is better.
pub(super) fn by_packing(packing: Packing, left: i128) -> i128 {
    match packing {
        Packing::Pack => left,
        Packing::Spread => -left,
    }
}

impl Standing {
    /// Why this way comes after `better`, in a few words.
    pub(super) fn why_after(&self, better: &Self) -> String {
        if self.grade != better.grade || self.grade == Grade::No {
            return match self.grade {
                Grade::Fits => "fits too".into(),
                Grade::Tight => "tight: the likely need fits, the most that was seen does not".into(),
                Grade::No => format!("short by {}", self.missing),
            };
        }
        if self.offload != better.offload {
            "fits too, but keeps more in host memory".into()
        } else if self.devices > better.devices {
            format!("fits too, on {} devices instead of {}", self.devices, better.devices)
        } else if self.degraded > better.degraded {
            "fits too, on devices that run it at a cost".into()
        } else if self.mixed > better.mixed {
            "fits too, on devices of different kinds".into()
        } else if self.link > better.link || self.tensor_link > better.tensor_link {
            "fits too, over slower links".into()
        } else {
            "fits too; the engine pays more for this split, or it leaves the devices less well used".into()
        }
    }
}
