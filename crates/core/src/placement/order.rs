//! The order of preference among placements. No other file defines it.
//!
//! The first line that differs decides which of two placements is better:
//!
//! 1. fits, then tight, then does not fit;
//! 2. if neither fits: fewer bytes missing (the nearest placement);
//! 3. nothing in host memory, then experts, layers, components, leaves; then fewer layers there;
//! 4. if every rank is a process (vLLM, SGLang): one device, or one tensor group of like devices
//!    within one NVLink island whose degree is a power of two; then such a group of another degree;
//!    then everything else ([`Form`]);
//! 5. fewer devices;
//! 6. fewer devices that run the model only at a cost (a dtype or quantization that they lack);
//! 7. fewer uneven tensor groups: groups of mixed kinds, whose smallest member bounds the others,
//!    or groups partly inside an NVLink island;
//! 8. the better of the worst links: between any two devices of a tensor group, and between
//!    neighboring stages;
//! 9. the engine's own order of splits, cheapest first;
//! 10. the better of the worst links inside tensor groups (NVLink islands before PCIe);
//! 11. devices that the policy prefers;
//! 12. `pack`: the least memory left over on its devices; `spread`: the most;
//! 13. the larger smallest headroom of a device;
//! 14. the lower UUIDs, in the order of the ranks.
//!
//! Line 4 comes before the number of devices because a pipeline answers one sequence no faster
//! than one of its devices does. Over NVLink, practitioners use eight cards as one tensor group
//! even if six could hold the model in stages. Without NVLink the choice is less clear, and fewer
//! devices come first.
//!
//! If an engine accepts stages of any length, each order of devices is judged with the stages that
//! leave the largest smallest headroom.

use std::cmp::Reverse;

use super::ask::Packing;
use super::wires::Wires;
use crate::bytes::Bytes;
use crate::device::LinkKind;
use crate::engines::{Interval, Offload, Split};
use crate::report::answer::Verdict;

/// The rank of a placement; lower is better. The fields are the lines of the module's text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeviceRank {
    pub(super) grade: Grade,
    pub(super) missing: Bytes,
    pub(super) offload: (u8, u32),
    pub(super) form: Form,
    pub(super) devices: usize,
    pub(super) degraded: usize,
    pub(super) uneven: usize,
    pub(super) link: LinkKind,
    pub(super) engine_order: usize,
    pub(super) tensor_link: LinkKind,
    pub(super) preference: usize,
    pub(super) leftover: i128,
    pub(super) headroom: Reverse<i128>,
    pub(super) places: Vec<usize>,
}

/// Whether a need fits in what is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// The high end fits.
    Fits,
    /// The likely figure fits; the high end does not.
    Tight,
    /// The likely figure does not fit.
    No,
}

/// Line 4 of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// A single device, or one tensor group of a power of two within an NVLink island. Every split
    /// of an engine that drives all its devices from one process has this form.
    Whole,
    /// One tensor group of another degree within an NVLink island.
    Odd,
    /// Stages, or a tensor group over slower links or of unlike devices.
    Parts,
}

impl Form {
    /// Returns the best form that `split` can have on any devices. `processes` says whether its
    /// ranks are processes.
    pub(super) fn at_best(split: &Split, processes: bool) -> Self {
        match (split.tensor, split.stages.len()) {
            (1, 1) => Self::Whole,
            _ if !processes => Self::Whole,
            (_, 2..) => Self::Parts,
            (tensor, _) if tensor.is_power_of_two() => Self::Whole,
            _ => Self::Odd,
        }
    }

    /// Returns the form of `split` over `wires`.
    pub(super) fn of(split: &Split, wires: Wires, processes: bool) -> Self {
        let whole = wires.uneven == 0 && wires.tensor == LinkKind::Fabric;
        if whole || !processes {
            Self::at_best(split, processes)
        } else {
            Self::Parts
        }
    }
}

impl Grade {
    /// Returns whether `need` fits in `available`. A need that overflowed never fits.
    pub(super) fn of(need: Interval, available: Bytes) -> Self {
        if need.high <= available && !need.high.overflowed() {
            Self::Fits
        } else if need.likely <= available && !need.likely.overflowed() {
            Self::Tight
        } else {
            Self::No
        }
    }

    /// Returns the verdict of an answer.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Fits => Verdict::Fits,
            Self::Tight => Verdict::Tight,
            Self::No => Verdict::DoesNotFit,
        }
    }
}

/// Returns line 3 of the order.
pub(super) fn harm(offload: Offload) -> (u8, u32) {
    match offload {
        Offload::None => (0, 0),
        Offload::Experts { layers } => (1, layers),
        Offload::Layers { layers } => (2, layers),
        Offload::Components => (3, 0),
        Offload::Leaves => (4, 0),
    }
}

/// Returns line 12 of the order: `left` bytes left over, signed so that less is better.
pub(super) fn by_packing(packing: Packing, left: i128) -> i128 {
    match packing {
        Packing::Pack => left,
        Packing::Spread => -left,
    }
}

impl DeviceRank {
    /// Returns why this placement ranks after `better`, in a few words.
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
        } else if self.uneven > better.uneven {
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
