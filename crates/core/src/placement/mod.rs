//! How a model fits: which devices, which split, how many bytes on each, and how far it goes.
//!
//! [`availability`] says what can be given on each device now; [`plan`] walks every legal way to
//! place the model there and recommends one; [`frontier`] says how far that one goes;
//! [`suggestions`] computes what to change when there is none; [`fit_together`] places several
//! models at once. The order in which ways are preferred is written down in one place, `order.rs`.
//! All of it is values in, values out: no clock, no driver, no file.

mod alternatives;
mod ask;
mod availability;
mod candidate;
mod claim;
mod groups;
mod layers;
mod needs;
mod offload;
mod order;
mod placed;
mod plan;
mod pool;
mod quick_hash;
mod reach;
mod search;
mod strategy;
mod suggestions;
mod together;
mod ways;

pub use alternatives::AlternativeWay;
pub use ask::{Ask, Constraints, Packing, PlacementError, Policy};
pub use availability::{Availability, Available, availability};
pub use placed::{HostShare, Placement, RankShare};
pub use plan::{PassedOver, Plan, ResolvedWorkload, plan};
pub use reach::frontier;
pub use strategy::Strategy;
pub use suggestions::{Advice, MemoryHolder, suggestions, wait};
pub use together::{BatchFit, fit_together};
