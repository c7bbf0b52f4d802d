//! The lines of a memory requirement: purpose, bytes, and the basis of the figure.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;

/// The purpose of a component's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ComponentName {
    /// Weights as resident, engine-made copies and tables included.
    Weights,
    /// Keys and values (or latents) of the cached tokens.
    KvCache,
    /// Recurrent states of the sequences.
    State,
    /// Transient peak of a step: activations, sampler, workspaces, compute buffers.
    Activations,
    /// CUDA graphs.
    Graphs,
    /// NCCL, custom all-reduce, symmetric memory.
    Communication,
    /// The engine's own persistent buffers and libraries' workspaces.
    Runtime,
    /// The CUDA context.
    Context,
    /// Host memory.
    Host,
}

/// The basis of a figure; ordered from firm to soft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Read from headers or the driver.
    Exact,
    /// The engine's own arithmetic.
    Formula,
    /// Fitted to measured logs, with the interval seen.
    Calibrated,
    /// Assumed.
    Assumed,
}

/// `low <= likely <= high`, equal when the figure is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The lowest figure seen or possible.
    pub low: Bytes,
    /// The best single figure.
    pub likely: Bytes,
    /// The highest figure seen or possible; "fits" is judged by it.
    pub high: Bytes,
}

impl Interval {
    /// An exact figure.
    pub const fn exact(bytes: Bytes) -> Self {
        Self {
            low: bytes,
            likely: bytes,
            high: bytes,
        }
    }

    /// An interval; the ends widen to include the likely figure.
    pub fn new(low: Bytes, likely: Bytes, high: Bytes) -> Self {
        Self {
            low: low.min(likely),
            likely,
            high: high.max(likely),
        }
    }

    /// The sum, end by end.
    pub fn plus(self, other: Self) -> Self {
        Self {
            low: self.low + other.low,
            likely: self.likely + other.likely,
            high: self.high + other.high,
        }
    }

    /// The larger of both, end by end.
    pub fn max(self, other: Self) -> Self {
        Self {
            low: self.low.max(other.low),
            likely: self.likely.max(other.likely),
            high: self.high.max(other.high),
        }
    }
}

impl std::iter::Sum for Interval {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Self::plus)
    }
}

/// A line of a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The purpose of the bytes.
    pub name: ComponentName,
    /// The bytes.
    pub bytes: Interval,
    /// The basis of the figure.
    pub basis: Basis,
    /// The origin of the figure, in a few words: `399 tensors in 5 files`.
    pub detail: String,
}

impl Component {
    /// A component with one exact figure.
    pub fn exact(
        name: ComponentName,
        bytes: Bytes,
        basis: Basis,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            name,
            bytes: Interval::exact(bytes),
            basis,
            detail: detail.into(),
        }
    }

    /// A component with an interval.
    pub fn between(
        name: ComponentName,
        bytes: Interval,
        basis: Basis,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            name,
            bytes,
            basis,
            detail: detail.into(),
        }
    }
}

/// The sum of the components on a device, without host memory.
pub fn device_sum(components: &[Component]) -> Interval {
    components
        .iter()
        .filter(|part| part.name != ComponentName::Host)
        .map(|part| part.bytes)
        .sum()
}
