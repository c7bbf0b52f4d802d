//! The order in which ways of placing a model are preferred. This is the one place where it is
//! written down.
//!
//! Of two ways the better one is, by the first line that tells them apart:
//!
//! 1. it fits, before it is tight, before it does not fit;
//! 2. where neither fits, the fewer bytes missing (this is what "came nearest" means);
//! 3. nothing in host memory, before experts, before layers, before components, before leaves; then
//!    fewer layers there;
//! 4. where every rank is a process (vLLM, SGLang): one device, or one tensor group of like devices
//!    within one NVLink island and of a power of two; then such a group of another degree; then
//!    everything else ([`Form`]);
//! 5. fewer devices;
//! 6. fewer devices that run the model only at a cost (a dtype or quantisation that they lack);
//! 7. fewer tensor groups that are not of a piece: of mixed kinds, whose smallest member bounds the
//!    others, or partly inside an NVLink island;
//! 8. the better of the worst links: between any two devices of a tensor group, and between
//!    neighbouring stages;
//! 9. the engine's own order of splits, cheapest first;
//! 10. the better of the worst links inside tensor groups (NVLink islands before PCIe);
//! 11. devices that the policy prefers;
//! 12. `pack`: the least memory left over on its devices, `spread`: the most;
//! 13. the larger smallest headroom of a device;
//! 14. the lower UUIDs, in the order of the ranks.
//!
//! Line 4 stands before the number of devices because a pipeline of fewer devices answers one
//! sequence no faster than one of them does: over NVLink eight cards as one tensor group are what
//! practitioners take where six would hold the model in stages. Without NVLink that is not so
//! clear, and fewer devices come first.
//!
//! Where an engine takes stages of any length, each order of devices stands with the stages that
//! leave the largest smallest headroom.

use std::cmp::Reverse;

use super::ask::Packing;
use super::candidate::Wires;
use crate::bytes::Bytes;
use crate::device::LinkKind;
use crate::engines::{Interval, Offload, Split};
use crate::report::answer::Verdict;

/// A way's place in the order: the lesser, the better. The fields are the lines of the module's
/// text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeviceRank {
    pub(super) grade: Grade,
    pub(super) missing: Bytes,
    pub(super) offload: (u8, u32),
    pub(super) form: Form,
    pub(super) devices: usize,
    pub(super) degraded: usize,
    pub(super) broken: usize,
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

/// Line 4 of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// One device, or one tensor group of a power of two within an NVLink island; whatever an
    /// engine does that walks all its devices in one process.
    Whole,
    /// One tensor group of another degree within an NVLink island.
    Odd,
    /// Stages, or a tensor group over slower links or of unlike devices.
    Parts,
}

impl Form {
    /// The best form that `split` can have on any devices, where its ranks are processes or are
    /// not.
    pub(super) fn at_best(split: &Split, processes: bool) -> Self {
        match (split.tensor, split.stages.len()) {
            (1, 1) => Self::Whole,
            _ if !processes => Self::Whole,
            (_, 2..) => Self::Parts,
            (tensor, _) if tensor.is_power_of_two() => Self::Whole,
            _ => Self::Odd,
        }
    }

    /// The form of `split` over `wires`.
    pub(super) fn of(split: &Split, wires: Wires, processes: bool) -> Self {
        let whole = wires.broken == 0 && wires.tensor == LinkKind::Fabric;
        if whole || !processes {
            Self::at_best(split, processes)
        } else {
            Self::Parts
        }
    }
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

/// Line 12 of the order: `left` bytes left over, signed so that less is better.
pub(super) fn by_packing(packing: Packing, left: i128) -> i128 {
    match packing {
        Packing::Pack => left,
        Packing::Spread => -left,
    }
}

impl DeviceRank {
    /// Why this way comes after `better`, in a few words.
    pub(super) fn why_after(&self, better: &Self) -> String {
        if self.grade != better.grade || self.grade == Grade::No {
            return match self.grade {
                Grade::Fits => "fits too".into(),
                Grade::Tight => {
                    "tight: the likely need fits, the most that was seen does not".into()
                }
                Grade::No => format!("short by {}", self.missing),
            };
        }

        let too = if self.grade == Grade::Tight {
            "as tight"
        } else {
            "fits too"
        };

        if self.offload != better.offload {
            format!("{too}, but keeps more in host memory")
        } else if self.form != better.form {
            match self.form {
                Form::Whole | Form::Odd => format!("{too}, as a tensor group of no power of two"),
                Form::Parts => format!("{too}, but not as one tensor group over NVLink"),
            }
        } else if self.devices > better.devices {
            format!(
                "{too}, on {} devices instead of {}",
                self.devices, better.devices
            )
        } else if self.degraded > better.degraded {
            format!("{too}, on devices that run it at a cost")
        } else if self.broken > better.broken {
            format!("{too}, with tensor groups of different kinds of devices or partly over NVLink")
        } else if self.link > better.link || self.tensor_link > better.tensor_link {
            format!("{too}, over slower links")
        } else {
            format!(
                "{too}; the engine pays more for this split, or it leaves the devices less well used"
            )
        }
    }
}
